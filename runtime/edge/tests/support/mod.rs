//! What the tests of real edges share: regions that answer as they are told, a client, and a varnishd.
//!
//! Everything listens on 127.0.0.1 at ports that the system chooses, and ends with the test that started it.
// Each binary uses a part.
#![allow(dead_code)]

pub mod nginxd;
pub mod varnishd;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use edge::Form;
use model::RegionId;
use serde::{Deserialize, Serialize};

/// How long a test waits for anything before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Looks until `seen` gives something, and gives up after [`PATIENCE`] with what `otherwise` says.
pub fn until<T>(mut seen: impl FnMut() -> Option<T>, otherwise: impl Fn() -> String) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = seen() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "{}", otherwise());
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// The form of the corpus, as `edge build` wrote it.
pub fn form() -> Form {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/cloudflare-workers/policy.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the form of the corpus")).expect("a form")
}

/// A region's name.
pub fn id(name: &str) -> RegionId {
    RegionId::new(name).expect("a name")
}

/// What the regions are to answer to a request: it travels in the header `x-origin`, so that nothing else need know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Script {
    /// The status; 200 where it is 0.
    pub status: u16,
    /// Headers of the answer.
    pub headers: Vec<(String, String)>,
    /// Regions that close the connection.
    pub down: Vec<String>,
    /// Regions that answer 503.
    pub unwell: Vec<String>,
}

/// A request that a region saw.
#[derive(Clone, Debug)]
pub struct Seen {
    pub region: String,
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
}

/// Regions of one test.
pub struct Regions {
    pub origins: BTreeMap<RegionId, String>,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    /// What is answered where a request carries no script.
    pub script: Arc<Mutex<Script>>,
    /// How long every answer takes.
    pub delay: Arc<Mutex<Duration>>,
}

impl Regions {
    /// Starts a server for each region of the form.
    pub fn start(form: &Form) -> Self {
        let regions =
            Self { origins: BTreeMap::new(), seen: Arc::default(), script: Arc::default(), delay: Arc::default() };
        let mut origins = BTreeMap::new();
        for region in form.origins.keys() {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            origins.insert(region.clone(), format!("http://{}", listener.local_addr().expect("an address")));
            let (name, seen, script) = (region.to_string(), regions.seen.clone(), regions.script.clone());
            let delay = regions.delay.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (name, seen, script, delay) = (name.clone(), seen.clone(), script.clone(), delay.clone());
                    std::thread::spawn(move || serve(stream, &name, &seen, &script, &delay));
                }
            });
        }
        Self { origins, ..regions }
    }

    /// How many requests arrived at all regions.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Sets what is answered from now on.
    pub fn answer(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }
}

fn serve(stream: TcpStream, region: &str, seen: &Mutex<Vec<Seen>>, script: &Mutex<Script>, delay: &Mutex<Duration>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let mut stream = stream;
    while let Some((first, headers)) = head(&mut reader) {
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let _ = std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink());
        let mut words = first.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let asked = Seen { region: region.to_owned(), method: method.clone(), target, headers: headers.clone() };
        seen.lock().unwrap().push(asked);
        let told = headers.get("x-origin").map(|text| serde_json::from_str(text).expect("a script"));
        let script: Script = told.unwrap_or_else(|| script.lock().unwrap().clone());
        std::thread::sleep(*delay.lock().unwrap());
        if script.down.iter().any(|down| down == region) {
            return;
        }
        if stream.write_all(&answer(&script, region, &method, &headers)).is_err() {
            return;
        }
    }
}

fn answer(script: &Script, region: &str, method: &str, asked: &BTreeMap<String, String>) -> Vec<u8> {
    let unwell = script.unwell.iter().any(|unwell| unwell == region);
    let mut status = if unwell { 503 } else { script.status.max(200) };
    let tag = script.headers.iter().find(|(name, _)| name == "etag").map(|(_, value)| value);
    if tag.is_some() && tag == asked.get("if-none-match") {
        status = 304;
    }
    let body = if status == 304 { String::new() } else { format!("from {region}\n") };
    let mut out = format!("HTTP/1.1 {status} X\r\nx-region: {region}\r\n");
    if !unwell {
        script.headers.iter().for_each(|(name, value)| out.push_str(&format!("{name}: {value}\r\n")));
    }
    if status != 304 {
        out.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    out.push_str("\r\n");
    if method != "HEAD" {
        out.push_str(&body);
    }
    out.into_bytes()
}

fn head(reader: &mut impl BufRead) -> Option<(String, BTreeMap<String, String>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&read| read > 0)?;
    let first = line.trim_end().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&read| read > 0)?;
        let line = line.trim_end();
        if line.is_empty() {
            return Some((first, headers));
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
}

/// An answer as a client sees it.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// How an observing edge says it came about.
    pub fn came(&self) -> &str {
        self.header("repomind-test-came")
    }
}

/// Sends one request on a connection of its own.
pub fn ask(to: SocketAddr, method: &str, target: &str, host: &str, headers: &[(String, String)]) -> Answer {
    let mut stream = TcpStream::connect(to).expect("the edge listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    text.push_str("\r\n");
    stream.write_all(text.as_bytes()).expect("a request is taken");
    let mut reader = BufReader::new(stream);
    let (first, headers) = head(&mut reader).expect("an answer");
    let mut body = String::new();
    let _ = reader.read_to_string(&mut body);
    let status = first.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    Answer { status, headers, body }
}

/// The header that tells the regions what to answer.
pub fn script(script: &Script) -> (String, String) {
    ("x-origin".to_owned(), serde_json::to_string(script).expect("plain data"))
}
