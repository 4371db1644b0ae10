//! What the reduced configuration does on a real nginx: it caches, it protects, and it fails over.

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use edge::backend::nginx::{Options, configuration};
use edge::{Backend, complaints};
use support::{Answer, Regions, Script, ask, form, id, script, until};

struct Nginx {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers when it is asked to.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn start() -> Option<(Nginx, Regions)> {
    if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("CI").is_none(), "nginx is missing: `make tools` installs it");
        eprintln!("nginx is missing, so this test is left out: `make tools` installs it");
        return None;
    }
    let mut form = form();
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

#[test]
fn nginx_caches_what_it_may_and_protects_what_it_must() {
    let Some((nginx, regions)) = start() else { return };
    let get =
        |target: &str, headers: &[(String, String)]| ask(nginx.address, "GET", target, "www.example.org", headers);
    let came = |answer: &Answer| answer.header("cache-status").to_owned();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());

    get("/pages/a", &[]);
    assert_eq!(came(&get("/pages/a", &[])), "repomind; detail=HIT");
    assert_eq!(regions.count(), 1);
    // What is for one user is neither given from the cache nor kept.
    for header in [pair("authorization", "Bearer x"), pair("cookie", "session=1"), pair("range", "bytes=0-1")] {
        assert_eq!(came(&get("/pages/a", &[header])), "repomind; detail=BYPASS");
    }
    // One language is one entry, however it is asked for.
    get("/docs/a", &[pair("accept-language", "de-AT,de;q=0.9")]);
    assert_eq!(came(&get("/docs/a", &[pair("accept-language", "de")])), "repomind; detail=HIT");
    assert_eq!(came(&get("/docs/a", &[pair("accept-language", "fr")])), "repomind; detail=MISS");
    // Data that is bound to regions, and answers that set a cookie, are not kept.
    for (name, value) in [("repomind-class", "personal"), ("set-cookie", "a=b"), ("cache-control", "no-store")] {
        let told = script(&Script { headers: vec![pair(name, value)], ..Script::default() });
        let target = format!("/profiles/{name}");
        get(&target, std::slice::from_ref(&told));
        assert_eq!(came(&get(&target, &[told])), "repomind; detail=MISS", "{name}: {value}");
    }
    let limited: Vec<u16> = (0..7).map(|_| get("/limited/x", &[pair("x-client", "a")]).status).collect();
    assert_eq!(limited, [200, 200, 200, 200, 200, 429, 429]);
    let down = script(&Script { unwell: vec!["us-east".into()], ..Script::default() });
    let elsewhere = get("/pages/down", &[down]);
    assert_eq!((elsewhere.status, elsewhere.header("x-region") == "us-east"), (200, false), "{elsewhere:?}");
}
