//! A stand-in for Cloudflare's API, over a real socket: it keeps state, refuses what the documentation says is refused,
//! and fails where it is told to. Below the same address it plays the deployed worker, by the versions that serve.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::rules;

pub const TOKEN: &str = "cf-token-of-the-tests-0123456789";
pub const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
pub const ZONE: &str = "fedcba9876543210fedcba9876543210";

/// A call that changes something, as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    /// The JSON body, or the parts of a form with their media types.
    pub body: Value,
    pub status: u16,
}

/// What happens instead of, or after, what was asked for.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answered with this status, and nothing is done; `Retry-After` where there is one.
    Status(u16, Option<u32>),
    /// Nothing is done, and the connection is closed.
    LostBefore,
    /// It is done, and the answer is lost.
    LostAfter,
    /// Status 200 and `success: false`, and nothing is done.
    Unsuccessful,
    /// Nothing is done, and the command is killed.
    KillBefore,
    /// It is done, and the command is killed.
    KillAfter,
}

/// When a fault strikes.
#[derive(Clone, Debug)]
pub enum When {
    /// At the call that changes something, counted from 1.
    Write(usize),
    /// At the next calls with this method and part of the path, so many times.
    Call(&'static str, &'static str, usize),
}

#[derive(Debug, Default)]
pub struct Script {
    pub tags: Vec<String>,
    pub migration: Option<String>,
    pub versions: Vec<Version>,
    /// Latest first.
    pub deployments: VecDeque<Value>,
}

#[derive(Clone, Debug)]
pub struct Version {
    pub id: String,
    pub metadata: Value,
    pub modules: BTreeMap<String, String>,
}

impl Version {
    /// The policy that it was uploaded with.
    pub fn policy(&self) -> Value {
        let text = &self.modules["policy.js"];
        let json = text.strip_prefix("export default ").and_then(|text| text.strip_suffix(";\n"));
        serde_json::from_str(json.expect("a module with one export")).expect("JSON")
    }

    fn secret(&self, name: &str) -> Option<&str> {
        let bindings = self.metadata["bindings"].as_array()?;
        bindings.iter().find(|binding| binding["name"] == name)?["text"].as_str()
    }

    fn number(&self, script: &Script) -> usize {
        script.versions.iter().position(|version| version.id == self.id).unwrap_or_default() + 1
    }
}

#[derive(Debug, Default)]
pub struct State {
    pub plan: &'static str,
    pub scripts: BTreeMap<String, Script>,
    /// `routes`, `kv`, `monitors`, `pools`, `balancers`: each a list of objects with an `id`.
    pub things: BTreeMap<&'static str, Vec<Value>>,
    pub ruleset: Option<Value>,
    /// Every call that changed, or would have changed, something.
    pub writes: Vec<Seen>,
    pub reads: usize,
    /// Tags of purges: of the zone, and of the worker.
    pub purged: (Vec<Value>, Vec<Value>),
    pub faults: Vec<(When, Fault)>,
    /// Versions from this number on answer 500.
    pub sick_from: Option<usize>,
    /// So many requests to the worker are still answered by the version that has the larger share.
    pub lag: usize,
    pub victim: Option<u32>,
    /// Somebody else deploys the first version as soon as another one is uploaded.
    pub stranger_after_upload: bool,
    /// Uploads are refused with an error that repeats them.
    pub echo: bool,
    ids: u64,
}

impl State {
    pub fn id(&mut self) -> String {
        self.ids += 1;
        format!("{:032x}", self.ids)
    }

    pub fn list(&mut self, kind: &'static str) -> &mut Vec<Value> {
        self.things.entry(kind).or_default()
    }

    /// What serves, as (number of the version, percent), in the order of the deployment.
    pub fn serves(&self, script: &str) -> Vec<(usize, f64)> {
        let Some(script) = self.scripts.get(script) else { return Vec::new() };
        let Some(latest) = script.deployments.front() else { return Vec::new() };
        let number = |id: &Value| script.versions.iter().position(|version| *id == version.id).expect("a version") + 1;
        let shares = latest["versions"].as_array().expect("versions");
        shares.iter().map(|one| (number(&one["version_id"]), one["percentage"].as_f64().expect("a share"))).collect()
    }

    fn fault(&mut self, method: &str, path: &str, write: usize) -> Option<Fault> {
        let at = self.faults.iter().position(|(when, _)| match when {
            When::Write(number) => method != "GET" && *number == write,
            When::Call(wanted, part, _) => *wanted == method && path.contains(part),
        })?;
        if let (When::Call(_, _, times), _) = &mut self.faults[at]
            && *times > 1
        {
            *times -= 1;
            return Some(self.faults[at].1.clone());
        }
        Some(self.faults.remove(at).1)
    }
}

/// The server. It ends with the value.
pub struct Fake {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

impl Fake {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State { plan: "enterprise", ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the fake's state")
    }

    pub fn base(&self) -> String {
        format!("http://{}/client/v4", self.address)
    }

    /// The calls that changed something, as `POST …/routes`, with identifiers made short.
    pub fn written(&self) -> Vec<String> {
        let short = |path: &str| path.replace(ACCOUNT, "A").replace(ZONE, "Z");
        self.state().writes.iter().map(|seen| format!("{} {}", seen.method, short(&seen.path))).collect()
    }

    pub fn forget_writes(&self) {
        self.state().writes.clear();
    }
}

pub fn read_request(stream: &mut impl Read) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Some(Request { method, path: path.to_owned(), query: query.to_owned(), headers, body })
}

fn serve(mut stream: TcpStream, shared: &Mutex<State>) {
    let Some(request) = read_request(&mut stream) else { return };
    let Some(path) = request.path.strip_prefix("/client/v4").map(str::to_owned) else {
        let answer = worker(&request, &mut shared.lock().expect("state"));
        return write(&mut stream, &answer);
    };
    let changes = request.method != "GET";
    let mut state = shared.lock().expect("state");
    let number = state.writes.len() + 1;
    let fault = state.fault(&request.method, &path, number);
    let denied = request.headers.get("authorization").map(String::as_str) != Some(&format!("Bearer {TOKEN}"));
    let answer = match &fault {
        Some(Fault::Status(status, after)) => {
            let headers = after.iter().map(|after| ("retry-after".to_owned(), after.to_string())).collect();
            Some(Answer { headers, ..failed(*status, 10013, "told to fail") })
        }
        Some(Fault::Unsuccessful) => Some(Answer { status: 200, ..failed(400, 10001, "told to be without success") }),
        Some(Fault::LostBefore | Fault::KillBefore) => None,
        _ if denied => Some(failed(403, 10000, "Authentication error")),
        _ => Some(rules::answer(&request, &path, &mut state).unwrap_or_else(|refusal| refusal)),
    };
    if changes {
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        let body = rules::readable(&request);
        state.writes.push(Seen { method: request.method.clone(), path, body, status });
    } else {
        state.reads += 1;
    }
    drop(state);
    match fault {
        Some(Fault::KillBefore | Fault::KillAfter) => kill(shared),
        Some(Fault::LostBefore | Fault::LostAfter) => {}
        _ => write(&mut stream, &answer.expect("an answer")),
    }
}

/// Kills the command that asks, as soon as the test has said which it is.
fn kill(shared: &Mutex<State>) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        if let Some(pid) = shared.lock().expect("state").victim.take() {
            let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it can be killed");
            return;
        }
        std::thread::yield_now();
    }
}

pub fn failed(status: u16, code: i64, message: &str) -> Answer {
    let body =
        json!({"success": false, "errors": [{"code": code, "message": message}], "messages": [], "result": null});
    Answer { status, headers: Vec::new(), body }
}

fn write(stream: &mut impl Write, answer: &Answer) {
    let body = answer.body.to_string();
    let more: String = answer.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "HTTP/1.1 {} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n{more}\r\n",
        answer.status,
        body.len()
    );
    let _ = stream.write_all((head + &body).as_bytes());
}

/// The worker, as far as a probe can tell: which version answers, and whether it is well.
fn worker(request: &Request, state: &mut State) -> Answer {
    let plain = |status: u16, body: Value| Answer { status, headers: Vec::new(), body };
    let Some(name) = state.scripts.keys().next().cloned() else { return plain(522, json!("nothing is deployed")) };
    if !state.list("routes").iter().any(|route| route["script"] == name.as_str()) {
        return plain(522, json!("no route leads here"));
    }
    let late = state.lag > 0;
    state.lag = state.lag.saturating_sub(1);
    let script = &state.scripts[&name];
    let Some(latest) = script.deployments.front() else { return plain(522, json!("nothing serves")) };
    let shares = latest["versions"].as_array().expect("versions");
    let wanted = request.headers.get("cloudflare-workers-version-overrides");
    let wanted = wanted.and_then(|all| all.strip_prefix(&format!("{name}=\"")));
    let wanted = wanted.and_then(|rest| rest.strip_suffix('"')).filter(|_| !late);
    let largest =
        shares.iter().max_by(|a, b| a["percentage"].as_f64().unwrap().total_cmp(&b["percentage"].as_f64().unwrap()));
    let overridden = wanted.filter(|id| shares.iter().any(|share| share["version_id"] == *id));
    let id = overridden.unwrap_or_else(|| largest.expect("a version")["version_id"].as_str().expect("an id"));
    let version = script.versions.iter().find(|version| version.id == id).expect("a version").clone();
    if state.sick_from.is_some_and(|from| version.number(script) >= from) {
        return plain(500, json!("the worker threw an exception"));
    }
    let operator = request.headers.get("authorization").and_then(|all| all.strip_prefix("Bearer "));
    let lets_in = operator.is_some() && operator == version.secret("OPERATOR_TOKEN");
    match request.path.as_str() {
        path if path.starts_with("/.repomind/") && !lets_in => plain(401, json!("Unauthorized")),
        "/.repomind/revision" => plain(200, json!({"revision": version.policy()["revision"], "version": version.id})),
        "/.repomind/purge" => {
            let command: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            state.purged.1.push(command.clone());
            plain(200, json!({"purged": command["tags"]}))
        }
        _ => plain(200, json!("hello")),
    }
}
