//! Three regions on machines of their own: a network namespace each, joined by
//! a bridge, with nothing shared but what `pki bundle` hands out. This is how
//! the README says to do it on real ones.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cluster::{Answer, BINARY, copy_tree, exchange, text, until};

const REGIONS: [&str; 3] = ["us-east", "eu-west", "ap-southeast"];
const SOON: Duration = Duration::from_secs(30);

/// Namespaces, processes and files; all gone with the value.
struct Machines {
    prefix: String,
    folder: tempfile::TempDir,
    token: String,
    running: Vec<(String, Child)>,
}

/// Why the scenario cannot be run here.
fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("making network namespaces needs root");
    }
    let ip = Command::new("ip").arg("-V").output().is_ok_and(|output| output.status.success());
    (!ip).then_some("the program `ip` is missing (Debian: iproute2)")
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments}: {}", text(&output));
}

impl Machines {
    fn new() -> Self {
        let prefix = format!("rm{}", std::process::id());
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mut machines = Self { prefix, folder, token: String::new(), running: Vec::new() };
        machines.wire();
        machines.hand_out_keys();
        for at in 0..REGIONS.len() {
            machines.start(at);
        }
        machines
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// A namespace a region, and one in the middle that is the network and the client.
    fn wire(&self) {
        let hub = self.namespace("hub");
        ip(&format!("netns add {hub}"));
        ip(&format!("-n {hub} link add br0 type bridge"));
        ip(&format!("-n {hub} link set br0 up"));
        ip(&format!("-n {hub} addr add 10.77.0.254/24 dev br0"));
        for (at, region) in (1..).zip(REGIONS) {
            let machine = self.namespace(region);
            ip(&format!("netns add {machine}"));
            ip(&format!("-n {machine} link set lo up"));
            ip(&format!("-n {machine} link add eth0 type veth peer name port{at} netns {hub}"));
            ip(&format!("-n {hub} link set port{at} master br0 up"));
            ip(&format!("-n {machine} addr add {}/24 dev eth0", host(at - 1)));
            ip(&format!("-n {machine} link set eth0 up"));
        }
    }

    fn path(&self, parts: &str) -> PathBuf {
        self.folder.path().join(parts)
    }

    /// Each machine gets a tree and its own keys, as an operator would carry them there.
    fn hand_out_keys(&mut self) {
        for region in REGIONS {
            copy_tree(&self.path(&format!("{region}/tree")), |text| {
                (1..=3).fold(text.to_owned(), |text, at| text.replace(&format!("127.0.{at}.1"), &host(at - 1)))
            });
        }
        let (keys, tree) = (self.path("keys"), self.path("us-east/tree"));
        self.pki(&["init", "--dir", path(&keys), "--tree", path(&tree)]);
        for region in REGIONS {
            let to = self.path(&format!("{region}/state/pki"));
            self.pki(&["bundle", region, "--to", path(&to), "--dir", path(&keys), "--tree", path(&tree)]);
            assert!(
                !to.join("ca.key").exists() && !to.join("token.key").exists(),
                "a machine got a key of the authority"
            );
            let key = to.join(format!("{region}-policy.key"));
            assert!(key.exists(), "any region may become the primary, and signs policies then");
        }
        let words = ["token", "--subject", "scenario", "--scopes", "data:read data:write admin", "--dir", path(&keys)];
        self.token = self.pki(&words).trim().to_owned();
    }

    fn pki(&self, words: &[&str]) -> String {
        let output = Command::new(BINARY).arg("pki").args(words).output().expect("the binary runs");
        assert!(output.status.success(), "pki {words:?}: {}", text(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    fn run(&mut self, at: usize, words: &[&str]) {
        let region = REGIONS[at];
        let log = File::options().create(true).append(true).open(self.path(&format!("{region}/log"))).expect("a log");
        let child = Command::new("ip")
            .args(["netns", "exec", &self.namespace(region), BINARY])
            .args(words)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("ip runs");
        self.running.push((region.to_owned(), child));
    }

    fn start(&mut self, at: usize) {
        let region = REGIONS[at];
        let service = format!("{}:8081", host(at));
        self.run(at, &["sample-service", "--region", region, "--listen", &service]);
        let (tree, state) = (self.path(&format!("{region}/tree")), self.path(&format!("{region}/state")));
        let apis: Vec<String> =
            (0..).zip(REGIONS).map(|(at, region)| format!("{region}=http://{}:8081", host(at))).collect();
        let mut words = vec!["start", "--region", region, "--tree", path(&tree), "--state", path(&state)];
        for api in &apis {
            words.extend(["--api", api]);
        }
        self.run(at, &words);
    }

    /// Asks from the hub.
    fn ask(
        &self,
        at: usize,
        port: u16,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Answer> {
        let address: SocketAddr = format!("{}:{port}", host(at)).parse().expect("an address");
        let hub = File::open(format!("/run/netns/{}", self.namespace("hub")))?;
        let authorization = format!("Bearer {}", self.token);
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend_from_slice(headers);
        // A thread of its own, because the namespace is a property of the thread.
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                move_into_link_name_space(hub.as_fd(), Some(LinkNameSpaceType::Network))?;
                exchange(address, method, path, &all, body)
            });
            asking.join().expect("the asking thread does not panic")
        })
    }

    fn status(&self, at: usize) -> Option<serde_json::Value> {
        serde_json::from_str(&self.ask(at, 9090, "GET", "/status", &[], "").ok()?.body).ok()
    }

    fn logs(&self) -> String {
        let log = |region: &str| std::fs::read_to_string(self.path(&format!("{region}/log"))).unwrap_or_default();
        REGIONS.iter().map(|region| format!("--- {region}\n{}\n", log(region))).collect()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in REGIONS.iter().copied().chain(["hub"]) {
            // One that was never made cannot be deleted.
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(name)]).output();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

fn host(at: usize) -> String {
    format!("10.77.0.{}", at + 1)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn three_machines_with_nothing_but_their_key_bundles_serve_as_one() {
    if let Some(why) = missing() {
        assert!(std::env::var_os("CI").is_none(), "left out: {why}");
        eprintln!("left out: three_machines_with_nothing_but_their_key_bundles_serve_as_one: {why}");
        return;
    }
    let mut machines = Machines::new();
    for (at, region) in REGIONS.iter().enumerate() {
        until(&format!("{region} sees the others ready"), SOON, || {
            let status = machines.status(at)?;
            let sees = status["sees"].as_object()?;
            (sees.len() == 2 && sees.values().all(|state| state == "ready")).then_some(())
        });
    }
    let put = machines.ask(0, 8080, "PUT", "/v1/data/notes/k", &[("repomind-ack", "regions:3")], "far").unwrap();
    assert_eq!(put.status, 204, "{}", put.body);
    assert_eq!(machines.ask(2, 8080, "GET", "/v1/data/notes/k", &[], "").unwrap().body, "far");

    // A pulled cable: packets vanish, nobody is told.
    let hub = machines.namespace("hub");
    ip(&format!("-n {hub} link set port2 down"));
    until("eu-west is down for us-east", SOON, || (machines.status(0)?["sees"]["eu-west"] == "down").then_some(()));
    let german = [("x-forwarded-for", "217.0.0.1")];
    let served = machines.ask(0, 8080, "GET", "/hello", &german, "").unwrap();
    assert_eq!(served.status, 200, "{}", served.body);
    ip(&format!("-n {hub} link set port2 up"));
    until("eu-west is ready again", SOON, || (machines.status(0)?["sees"]["eu-west"] == "ready").then_some(()));

    // Told to stop, every process ends by itself, and well.
    for (region, child) in &mut machines.running {
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the process is there");
        let ended = child.wait().expect("a status");
        assert!(ended.success(), "{region} ended with {ended}");
    }
    machines.running.clear();
}
