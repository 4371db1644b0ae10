//! Three real daemons on loopback addresses of their own, from a copy of the tree.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_repomind-run");
/// Folders of a tree.
const TREE: &[&str] = &[
    "region-config",
    "region-config/available",
    "data-replication",
    "traffic-routing",
    "edge-deployment",
    "compliance",
];
/// Where the search for a free block begins; each cluster of this process looks further on.
static NEXT: AtomicU8 = AtomicU8::new(40);

/// What a server answered.
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// A deployment that is destroyed with the value.
pub struct Cluster {
    folder: tempfile::TempDir,
    block: u8,
    /// What commands find in their environment besides.
    environment: Vec<(String, String)>,
    /// Holds the block against other runs of these tests on this machine.
    _claim: UdpSocket,
}

impl Cluster {
    /// A copy of the repository's tree, not yet deployed.
    pub fn tree() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (block, claim) = claim_block();
        copy_tree(&folder.path().join("tree"), |text| text.replace("127.0.", &format!("127.{block}.")));
        Self { folder, block, environment: Vec::new(), _claim: claim }
    }

    /// Puts this into the environment of every command from now on.
    pub fn environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Three regions that serve and see each other.
    pub fn deployed() -> Self {
        Self::deployed_with(&[])
    }

    /// The same, with this in the environment of every command, the daemons included.
    pub fn deployed_with(environment: &[(&str, &str)]) -> Self {
        let mut cluster = Self::tree();
        cluster.environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let output = cluster.run(&["deploy", "--wan", "lan"]);
        assert!(output.status.success(), "deploy failed:\n{}\n{}", text(&output), cluster.logs());
        cluster
    }

    /// A file of the tree.
    pub fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join("tree").join(path)
    }

    /// A file of the state directory.
    pub fn state(&self, path: &str) -> PathBuf {
        self.folder.path().join("state").join(path)
    }

    /// Runs a subcommand on this deployment.
    pub fn run(&self, words: &[&str]) -> Output {
        Command::new(BINARY)
            .args(words)
            .env("REPOMIND_TREE", self.file(""))
            .env("REPOMIND_STATE", self.state(""))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .expect("the binary runs")
    }

    /// The last lines of every region's log.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for region in ["us-east", "eu-west", "ap-southeast"] {
            let log = std::fs::read_to_string(self.state(region).join("daemon.log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().rev().take(25).collect();
            all += &format!("--- {region}\n{}\n", lines.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        all
    }

    fn host(&self, region: &str) -> String {
        let index = match region {
            "us-east" => 1,
            "eu-west" => 2,
            "ap-southeast" => 3,
            other => panic!("no region {other}"),
        };
        format!("127.{}.{index}.1", self.block)
    }

    /// The address under which DNS answers with a region.
    pub fn address(&self, region: &str) -> Ipv4Addr {
        self.host(region).parse().expect("an address")
    }

    /// Where a region answers DNS queries.
    pub fn dns(&self, region: &str) -> SocketAddr {
        SocketAddr::new(self.address(region).into(), 5300)
    }

    /// Asks a region's gateway, with the development token.
    pub fn ask(
        &self,
        region: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Answer> {
        let token = std::fs::read_to_string(self.state("pki/token")).unwrap_or_default();
        let authorization = format!("Bearer {}", token.trim());
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend_from_slice(headers);
        let address: SocketAddr = format!("{}:8080", self.host(region)).parse().expect("an address");
        exchange(address, method, path, &all, body)
    }

    /// Asks a region's admin address, with the development token.
    pub fn admin(&self, region: &str, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        let token = std::fs::read_to_string(self.state("pki/token")).unwrap_or_default();
        let authorization = format!("Bearer {}", token.trim());
        let address: SocketAddr = format!("{}:9090", self.host(region)).parse().expect("an address");
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        exchange(address, method, path, &headers, body)
    }

    /// A region's own status.
    pub fn status(&self, region: &str) -> Option<Value> {
        let answer = self.admin(region, "GET", "/status", "").ok()?;
        serde_json::from_str(&answer.body).ok()
    }

    /// Process ids recorded for a region: its daemon and its sample service.
    pub fn processes(&self, region: &str) -> Vec<i32> {
        let record = std::fs::read_to_string(self.state("deploy.json")).expect("a deployment record");
        let record: Value = serde_json::from_str(&record).expect("JSON");
        let all = record["started"].as_array().expect("processes");
        all.iter()
            .filter(|process| process["region"] == region)
            .map(|process| i32::try_from(process["pid"].as_i64().expect("a pid")).expect("a pid"))
            .collect()
    }

    /// SIGKILLs a region's processes and waits until nothing of them is left.
    pub fn kill(&self, region: &str) {
        let processes = self.processes(region);
        for pid in &processes {
            let pid = rustix::process::Pid::from_raw(*pid).expect("a process id");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("the process was there");
        }
        for pid in processes {
            until("a killed process ends", Duration::from_secs(10), || {
                let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
                let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                (threads <= 1 && words.is_empty()).then_some(())
            });
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let output = self.run(&["destroy"]);
        if std::thread::panicking() {
            eprintln!("{}\n{}", self.logs(), text(&output));
        }
    }
}

/// Copies regions and policies of the repository, each text changed by `change`.
pub fn copy_tree(to: &Path, change: impl Fn(&str) -> String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for name in TREE {
        std::fs::create_dir_all(to.join(name)).expect("a folder");
        for entry in std::fs::read_dir(root.join(name)).expect("the tree's folder").flatten() {
            if entry.path().is_file() {
                let text = std::fs::read_to_string(entry.path()).expect("a text file");
                std::fs::write(to.join(name).join(entry.file_name()), change(&text)).expect("a copied file");
            }
        }
    }
}

/// A block 127.N.0.0/16 that no other cluster on this machine uses, and the socket that says so.
fn claim_block() -> (u8, UdpSocket) {
    for _ in 0..200 {
        let block =
            NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| Some(if at >= 240 { 40 } else { at + 1 }));
        let block = block.expect("the next is always known");
        if let Ok(claim) = UdpSocket::bind((Ipv4Addr::new(127, block, 255, 1), 7077)) {
            return (block, claim);
        }
    }
    panic!("no block of loopback addresses is free");
}

/// Everything a command printed.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The generation in force in a region that answers.
pub fn generation(cluster: &Cluster, region: &str) -> Option<u64> {
    cluster.status(region)?["generation"].as_u64()
}

/// Waits until this generation is in force in every region.
pub fn everywhere(cluster: &Cluster, number: u64) {
    for region in crate::REGIONS {
        until(&format!("generation {number} in {region}"), Duration::from_secs(30), || {
            (generation(cluster, region)? == number).then_some(())
        });
    }
}

/// Polls until `seen` gives something, or panics with `what` after `patience`.
pub fn until<T>(what: &str, patience: Duration, mut seen: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = seen() {
            return value;
        }
        assert!(started.elapsed() < patience, "not seen within {patience:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

pub fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "\r\n";
    request += body;
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let answer = String::from_utf8_lossy(&bytes);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let body = if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        unchunk(body)
    } else {
        body.to_owned()
    };
    Ok(Answer { status: status.ok_or(std::io::ErrorKind::InvalidData)?, headers, body })
}

fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || after.len() < size {
            break;
        }
        body += after.get(..size).unwrap_or("");
        rest = after.get(size + 2..).unwrap_or("");
    }
    body
}
