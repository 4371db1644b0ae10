//! A real nginx on a port of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use edge::backend::nginx::{Options, configuration};
use edge::{Backend, Form, complaints};

use super::{Regions, id, until};

/// A running nginx; it ends when this is dropped.
pub struct Nginx {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers when it is asked to.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// Starts one in `eu-west` by a form, before regions of its own, or nothing where the tool is missing.
pub fn start(mut form: Form) -> Option<(Nginx, Regions)> {
    if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("CI").is_none(), "nginx is missing: `make tools` installs it");
        eprintln!("nginx is missing, so this test is left out: `make tools` installs it");
        return None;
    }
    let regions = Regions::start(&form);
    form.origins.clone_from(&regions.origins);
    assert!(complaints(Backend::Nginx, &form).iter().all(|complaint| complaint.reducible));
    let dir = tempfile::tempdir().expect("a directory");
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let options = Options { region: id("eu-west"), listen: address.to_string(), cache: at("cache") };
    let main = format!(
        "daemon off;\nuser root;\npid {};\nerror_log {};\nevents {{}}\nhttp {{\naccess_log off;\n{}\n}}\n",
        at("pid"),
        at("log"),
        configuration(&form, &options)
    );
    // As anybody but root, nginx warns of `user` and goes on.
    std::fs::write(dir.path().join("nginx.conf"), main).expect("a file");
    let child = Command::new("nginx").args(["-p", &at(""), "-c", &at("nginx.conf")]).stderr(Stdio::null()).spawn();
    let mut nginx = Nginx { child: child.expect("nginx starts"), address, _dir: dir };
    let log = nginx._dir.path().join("log");
    let why = || format!("nginx does not come up: {}", std::fs::read_to_string(&log).unwrap_or_default());
    let listens = || {
        assert!(nginx.child.try_wait().ok().flatten().is_none(), "{}", why());
        TcpStream::connect(address).ok()
    };
    until(listens, why);
    Some((nginx, regions))
}
