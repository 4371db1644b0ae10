//! Edges before a deployment: a real Varnish and the worker on miniflare, which follow what is saved and what fails.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Answer, Cluster, exchange, generation, text, until};

/// Workers and compilers start on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(120);
const KINDS: [&str; 2] = ["cloudflare", "varnish"];
/// A client in Germany, as an operator's machine may say.
const GERMAN: [(&str, &str); 1] = [("repomind-country", "DE")];

fn worker_dir() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../edge-deployment/cloudflare-workers")
}

/// Whether Varnish, Node and the worker's packages are there. Without them, tests are left out on a person's machine,
/// and fail under CI.
fn tools() -> bool {
    let runs = |program: &str, flag: &str| {
        let mut command = Command::new(program);
        command.arg(flag).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let packages = worker_dir().join("node_modules/miniflare").is_dir();
    let there = runs("varnishd", "-V") && runs("node", "--version") && packages;
    if !there && std::env::var_os("CI").is_some() {
        panic!("varnishd, node or the worker's packages are missing: `make tools test-worker` gets them");
    }
    if !there {
        eprintln!("left out: varnishd, node or the worker's packages are missing (`make tools test-worker`)");
    }
    there
}

/// A deployment with both edges, and where they listen.
struct Edged {
    cluster: Cluster,
    at: BTreeMap<String, SocketAddr>,
}

impl Edged {
    fn deployed() -> Self {
        let mut cluster = Cluster::tree();
        let dir = worker_dir();
        cluster.environment("REPOMIND_WORKER_DIR", dir.to_str().expect("a path"));
        let output = cluster.run(&["deploy", "--wan", "lan", "--with-edge=worker,varnish", "--timeout", "300"]);
        assert!(output.status.success(), "{}\n{}\n{}", text(&output), cluster.logs(), log(&cluster));
        let mut edged = Self { at: BTreeMap::new(), cluster };
        let at = edged
            .edges()
            .into_iter()
            .map(|(kind, edge)| (kind, edge["address"].as_str().and_then(|at| at.parse().ok()).expect("an address")));
        edged.at = at.collect();
        edged
    }

    /// What `status` says of each edge.
    fn edges(&self) -> BTreeMap<String, Value> {
        let output = self.cluster.run(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
        let edges = status["edges"]["edges"].as_array().cloned().unwrap_or_default();
        edges.into_iter().map(|edge| (edge["backend"].as_str().unwrap_or_default().to_owned(), edge)).collect()
    }

    fn get(&self, kind: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        exchange(self.at[kind], "GET", target, headers, "").unwrap_or_else(|error| {
            panic!("{kind} does not answer: {error}\n{}", log(&self.cluster));
        })
    }

    /// Asks until `Cache-Status` has this word.
    fn until_cache_status(&self, kind: &str, target: &str, word: &str) -> Answer {
        until(&format!("{kind} answers {target} with {word}"), PATIENCE, || {
            let answer = self.get(kind, target, &[]);
            cache_status(&answer).contains(word).then_some(answer)
        })
    }

    fn save(&self, from: &str, to: &str) {
        let file = self.cluster.file("edge-deployment/edge-cache.scm");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from} is not in the policy");
        std::fs::write(file, text.replace(from, to)).unwrap();
    }
}

impl Drop for Edged {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- edges\n{}", log(&self.cluster));
        }
    }
}

fn cache_status(answer: &Answer) -> String {
    answer.headers.get("cache-status").cloned().unwrap_or_default()
}

fn log(cluster: &Cluster) -> String {
    std::fs::read_to_string(cluster.state("edge/edge.log")).unwrap_or_default()
}

/// The process that `deploy` recorded for the edges.
fn edge_process(cluster: &Cluster) -> i32 {
    let record: Value = serde_json::from_slice(&std::fs::read(cluster.state("deploy.json")).unwrap()).unwrap();
    let started = record["started"].as_array().unwrap();
    let edge = started.iter().find(|process| process["role"] == "edge").expect("edges were started");
    i32::try_from(edge["pid"].as_i64().unwrap()).unwrap()
}

/// A process, told from a later one with the same number by when it was started.
#[derive(Debug)]
struct Process {
    pid: i32,
    started: String,
    command: String,
}

impl Process {
    /// The one with this number, if it runs.
    fn find(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
        let (state, started) = (fields.first()?, (*fields.get(19)?).to_owned());
        let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&bytes).replace('\0', " ");
        (*state != "Z").then_some(Self { pid, started, command })
    }

    fn runs(&self) -> bool {
        Self::find(self.pid).is_some_and(|now| now.started == self.started)
    }
}

/// The processes below one.
fn descendants(of: i32) -> Vec<Process> {
    let mut found = Vec::new();
    let mut parents = vec![of];
    while let Some(parent) = parents.pop() {
        let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let children: Vec<i32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
            found.extend(children.iter().filter_map(|pid| Process::find(*pid)));
            parents.extend(children);
        }
    }
    found
}

/// The same, once all three programs of the edges are among them: a worker is started anew when another policy comes.
fn programs(edge: i32) -> Vec<Process> {
    until("varnishd, node and workerd run", PATIENCE, || {
        let below = descendants(edge);
        let runs = |program| below.iter().any(|process| process.command.contains(program));
        ["varnishd", "node ", "workerd serve"].into_iter().all(runs).then_some(below)
    })
}

fn all_gone(processes: &[Process]) {
    for process in processes {
        until(&format!("{process:?} has ended"), PATIENCE, || (!process.runs()).then_some(()));
    }
}

#[test]
fn a_saved_rule_reaches_both_edges_and_what_it_forbids_is_not_given_any_more() {
    if !tools() {
        return;
    }
    let edged = Edged::deployed();
    for kind in KINDS {
        edged.get(kind, "/pages/a", &[]);
        edged.until_cache_status(kind, "/pages/a", "hit");
        let answer = edged.get(kind, "/pages/a", &[("cookie", "session=1")]);
        let (status, body) = (answer.status, &answer.body);
        assert!(cache_status(&answer).contains("bypass"), "{kind}: {status} {:?} {body}", answer.headers);
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        let token = std::fs::read_to_string(edged.cluster.state("pki/token")).unwrap();
        let bearer = format!("Bearer {}", token.trim());
        let labels = [("authorization", bearer.as_str()), ("repomind-class", "public")];
        let target = format!("/v1/data/notes/through-{kind}");
        let written = exchange(edged.at[kind], "PUT", &target, &labels, "written").unwrap();
        assert_eq!(written.status / 100, 2, "{kind}: {}", written.body);
        let read = edged.get(kind, &target, &labels[..1]);
        assert_eq!((read.status, read.body.as_str()), (200, "written"), "{kind}");
    }
    let began = Instant::now();
    edged.save(
        "(define-cache-rule 'default-short other)",
        "(define-cache-rule 'pages-never '((path . \"/pages/\") (bypass . #t)))\n(define-cache-rule 'default-short other)",
    );
    for kind in KINDS {
        edged.until_cache_status(kind, "/pages/a", "bypass");
        println!("{kind}: a save takes {} ms", began.elapsed().as_millis());
        // What is written down follows what is served.
        let edge = until(&format!("{kind} says that it follows the second generation"), PATIENCE, || {
            edged.edges().remove(kind).filter(|edge| edge["generation"] == 2)
        });
        assert_eq!((&edge["up"], &edge["error"]), (&Value::Bool(true), &Value::Null), "{edge}");
    }

    // What a kind of edge cannot do is not in use here any more, and so the save is taken; that edge stays as it was.
    edged.save("(define-edge-backends 'cloudflare 'varnish 'nginx-reduced)", "(define-edge-backends 'cloudflare)");
    until("the third generation", PATIENCE, || (generation(&edged.cluster, "us-east")? == 3).then_some(()));
    until("both by the third generation", PATIENCE, || {
        edged.edges().values().all(|edge| edge["generation"] == 3).then_some(())
    });
    edged.save("(rate . 600) (per . 60)))", "(rate . 600) (per . 60) (scope . exact)))");
    let edges = until("varnish says what it cannot do", PATIENCE, || {
        let edges = edged.edges();
        (edges["varnish"]["error"].is_string() && edges["cloudflare"]["generation"] == 4).then_some(edges)
    });
    assert!(edges["varnish"]["error"].as_str().unwrap().contains("each instance counts by itself"), "{edges:?}");
    assert_eq!(edges["varnish"]["generation"], 3, "it took what it cannot do");
    assert_eq!(edged.get("varnish", "/other", &[]).status, 200, "it does not serve any more");
    let shown = text(&edged.cluster.run(&["status"]));
    assert!(shown.contains("stays as it is") && shown.contains("edge varnish"), "{shown}");
}

#[test]
fn a_region_that_dies_is_passed_over_at_once_and_taken_out_of_the_order() {
    if !tools() {
        return;
    }
    let edged = Edged::deployed();
    let region = |kind: &str, target: &str| {
        let answer = edged.get(kind, target, &GERMAN);
        assert_eq!(answer.status, 200, "{kind} {target}: {}", answer.body);
        answer.headers.get("repomind-edge-region").cloned().unwrap_or_default()
    };
    for kind in KINDS {
        until(&format!("{kind} sends Germany to eu-west"), PATIENCE, || {
            (region(kind, "/before") == "eu-west").then_some(())
        });
    }
    edged.cluster.kill("eu-west");
    // Whatever may be repeated is sent to the next region: not one request fails, from the first on.
    for number in 0..20 {
        for kind in KINDS {
            assert_ne!(region(kind, &format!("/during-{number}")), "eu-west", "{kind}");
        }
    }
    for kind in KINDS {
        until(&format!("{kind} passes eu-west over"), PATIENCE, || {
            (edged.edges()[kind]["down"] == serde_json::json!(["eu-west"])).then_some(())
        });
    }
    // The region that is followed dies as well: another one is followed, and says so.
    let edge = edge_process(&edged.cluster);
    let us_east: Vec<i32> = edged.cluster.processes("us-east").into_iter().filter(|pid| *pid != edge).collect();
    for pid in us_east {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    until("ap-southeast is followed", PATIENCE, || {
        let status: Value = serde_json::from_slice(&edged.cluster.run(&["status", "--json"]).stdout).ok()?;
        (status["edges"]["follows"] == "ap-southeast").then_some(())
    });
    for kind in KINDS {
        until(&format!("{kind} is answered by ap-southeast"), PATIENCE, || {
            let answer = edged.get(kind, "/after", &GERMAN);
            (answer.headers.get("repomind-edge-region")? == "ap-southeast").then_some(())
        });
    }
}

#[test]
fn no_process_of_an_edge_outlives_the_one_that_keeps_it() {
    if !tools() {
        return;
    }
    let edged = Edged::deployed();
    let edge = edge_process(&edged.cluster);
    let below = programs(edge);
    let killed = rustix::process::Pid::from_raw(edge).unwrap();
    rustix::process::kill_process(killed, rustix::process::Signal::KILL).unwrap();
    all_gone(&below);
    let status = edged.cluster.run(&["status"]);
    assert_eq!(status.status.code(), Some(1), "{}", text(&status));
    assert!(text(&status).contains("`edge run` has ended"), "{}", text(&status));

    let planned = edged.cluster.run(&["deploy", "--dry-run", "--with-edge=worker"]);
    assert!(text(&planned).contains("edge run") && text(&planned).contains("--worker"), "{}", text(&planned));
    let again = edged.cluster.run(&["deploy", "--wan", "lan", "--with-edge=worker,varnish", "--timeout", "300"]);
    assert!(again.status.success(), "{}\n{}", text(&again), log(&edged.cluster));
    let edge = edge_process(&edged.cluster);
    let mut below = programs(edge);
    below.extend(Process::find(edge));
    for kind in KINDS {
        assert_eq!(edged.get(kind, "/again", &[]).status, 200);
    }
    // Other edges than those that run are not left out in silence.
    let fewer = edged.cluster.run(&["deploy", "--wan", "lan", "--with-edge=worker"]);
    assert!(
        !fewer.status.success() && text(&fewer).contains("--with-edge=worker,varnish, not worker"),
        "{}",
        text(&fewer)
    );
    let destroyed = edged.cluster.run(&["destroy"]);
    assert!(destroyed.status.success(), "{}", text(&destroyed));
    all_gone(&below);
}

#[test]
fn edges_reach_gateways_that_have_a_certificate_by_https() {
    let files = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| files.path().join(name));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    for (environment, scheme) in [
        (Vec::new(), "http://"),
        (vec![("REPOMIND_TLS_CERT", chain.to_str().unwrap()), ("REPOMIND_TLS_KEY", key.to_str().unwrap())], "https://"),
    ] {
        let cluster = Cluster::deployed_with(&environment);
        let order = cluster.admin("us-east", "GET", "/edge", "").unwrap();
        let order: Value = serde_json::from_str(&order.body).unwrap_or_else(|_| panic!("{}", order.body));
        let form: Value = serde_json::from_str(order["form"].as_str().unwrap_or_default()).expect("a form");
        let origins = form["origins"].as_object().unwrap_or_else(|| panic!("{order}"));
        assert_eq!(origins.len(), 3, "{order}");
        assert!(origins.values().all(|url| url.as_str().is_some_and(|url| url.starts_with(scheme))), "{origins:?}");
    }
}
