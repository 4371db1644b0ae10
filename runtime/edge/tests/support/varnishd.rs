//! A real varnishd on a port of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use edge::Form;
use edge::backend::varnish::{Options, program};

use super::{id, until};

/// Whether varnishd with varnish-modules is there. Without it, tests are left out on a person's machine, and fail
/// under CI.
pub fn is_there() -> bool {
    let there = Command::new("varnishd").arg("-V").stderr(Stdio::null()).stdout(Stdio::null()).status().is_ok();
    if !there && std::env::var_os("CI").is_some() {
        panic!("varnishd is missing: `make tools` installs it");
    }
    if !there {
        eprintln!("varnishd is missing, so this test is left out: `make tools` installs it");
    }
    there
}

/// A running varnishd; it ends when this is dropped.
pub struct Varnish {
    child: Child,
    dir: tempfile::TempDir,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens for proxies that say in the PROXY protocol for whom they ask.
    pub proxied: SocketAddr,
}

impl Varnish {
    /// Starts one in `eu-west` with the program of a form.
    pub fn start(form: &Form) -> Self {
        Self::start_with(&text_of(form))
    }

    /// Starts one with this program.
    pub fn start_with(vcl: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // The worker process of varnishd runs as another user and must get in.
        open_up(dir.path());
        let file = dir.path().join("first.vcl");
        std::fs::write(&file, vcl).expect("a file");
        let address = free_port();
        let (admin, proxied) = (free_port(), free_port());
        let child = Command::new("varnishd")
            .args(["-F", "-a", &address.to_string(), "-a", &format!("{proxied},PROXY"), "-T", &admin.to_string(), "-n"])
            .arg(dir.path().join("work"))
            .args(["-f".as_ref(), file.as_os_str()])
            .args([
                "-s",
                "malloc,32m",
                "-p",
                "max_retries=8",
                "-p",
                "http_gzip_support=off",
                "-p",
                "http_range_support=off",
            ])
            .args(["-i", "edge-under-test"])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log")).expect("a log"))
            .spawn()
            .expect("varnishd starts");
        let mut varnish = Self { child, dir, address, proxied };
        let log = varnish.dir.path().join("log");
        let why = || format!("varnishd does not come up:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
        let listens = || {
            assert!(varnish.child.try_wait().ok().flatten().is_none(), "{}", why());
            TcpStream::connect(address).ok()
        };
        until(listens, why);
        varnish
    }

    /// Runs varnishadm.
    ///
    /// # Errors
    /// What it said, where it failed.
    pub fn admin(&self, words: &[&str]) -> Result<String, String> {
        let output = Command::new("varnishadm")
            .arg("-n")
            .arg(self.dir.path().join("work"))
            .args(words)
            .output()
            .expect("varnishadm runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    /// Milliseconds of processor time that the worker process has used (ticks are hundredths of a second on Linux).
    pub fn processor_ms(&self) -> f64 {
        let manager = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{manager}/task/{manager}/children")).expect("Linux");
        let worker = children.split_whitespace().next().expect("a worker process");
        let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks");
        (ticks(11) + ticks(12)) * 10.0
    }

    /// Writes a program where varnishd can read it.
    pub fn file(&self, name: &str, vcl: &str) -> PathBuf {
        let file = self.dir.path().join(name);
        std::fs::write(&file, vcl).expect("a file");
        file
    }

    /// Loads a program and takes it into use; what is wrong leaves the one before.
    ///
    /// # Errors
    /// What the compiler said.
    pub fn take(&self, name: &str, vcl: &str) -> Result<(), String> {
        let file = self.file(&format!("{name}.vcl"), vcl);
        self.admin(&["vcl.load", name, file.to_str().expect("a path")])?;
        self.admin(&["vcl.use", name]).map(|_| ())
    }
}

impl Drop for Varnish {
    fn drop(&mut self) {
        // The manager ends its worker when it is asked to; a kill would leave the worker behind.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// The program for tests: in `eu-west`, telling how answers come about.
pub fn text_of(form: &Form) -> String {
    let complaints = edge::complaints(edge::Backend::Varnish, form);
    assert!(complaints.is_empty(), "{complaints:?}");
    let operators = vec!["\"127.0.0.0\"/8".to_owned()];
    program(form, &Options { region: id("eu-west"), operators, observe: true })
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

fn open_up(dir: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("permissions");
}
