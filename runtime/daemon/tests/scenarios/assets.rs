//! Static files: published in every region at once, and served from each by its gateway.

use std::net::SocketAddr;

use serde_json::Value;

use crate::REGIONS;
use crate::cluster::{Answer, Cluster, exchange, text};

fn get(cluster: &Cluster, region: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    let at: SocketAddr = (cluster.address(region), 8080).into();
    exchange(at, "GET", target, headers, "").expect("the gateway answers")
}

#[test]
fn what_is_published_is_served_by_every_region_and_nothing_else_is() {
    let cluster = Cluster::deployed();
    assert_eq!(
        get(&cluster, "us-east", "/assets/app.css", &[]).status,
        200,
        "nothing is published: the service answers"
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("css")).unwrap();
    let css = "body { color: rebeccapurple; }\n".repeat(100);
    std::fs::write(dir.path().join("css/app.css"), &css).unwrap();
    std::fs::write(dir.path().join("logo.bin"), [7_u8; 200_000]).unwrap();
    let folder = dir.path().to_str().unwrap();
    let published = cluster.run(&["assets", "publish", folder, "--json"]);
    assert!(published.status.success(), "{}", text(&published));
    let manifest: Value = serde_json::from_slice(&published.stdout).unwrap();
    let path = manifest["files"]["css/app.css"]["path"].as_str().unwrap().to_owned();
    let hash = path.split('.').nth(1).unwrap().to_owned();
    for region in REGIONS {
        let answer = get(&cluster, region, &path, &[]);
        assert_eq!((answer.status, answer.body.as_str()), (200, css.as_str()), "{region}");
        assert_eq!(answer.headers["content-type"], "text/css; charset=utf-8");
        assert_eq!(answer.headers["etag"], format!("\"{hash}\""));
        assert!(answer.headers["cache-control"].ends_with(", immutable"), "{:?}", answer.headers);
        assert_eq!(answer.headers["vary"], "accept-encoding");
        let listed = get(&cluster, region, "/assets/manifest.json", &[]);
        assert_eq!((listed.status, listed.headers["cache-control"].as_str()), (200, "no-cache"), "{region}");
    }
    let coded = get(&cluster, "eu-west", &path, &[("accept-encoding", "gzip, br")]);
    assert_eq!(
        (coded.headers["content-encoding"].as_str(), coded.headers["etag"].clone()),
        ("br", format!("\"{hash}-br\""))
    );
    assert!(coded.headers["content-length"].parse::<usize>().unwrap() < css.len() / 2);
    let same = get(&cluster, "eu-west", &path, &[("if-none-match", &format!("\"{hash}\""))]);
    assert_eq!((same.status, same.body.as_str()), (304, ""));
    let part = get(&cluster, "eu-west", &path, &[("range", "bytes=0-3")]);
    assert_eq!((part.status, part.body.as_str()), (206, "body"));
    assert_eq!(part.headers["content-range"], format!("bytes 0-3/{}", css.len()));
    let beyond = get(&cluster, "eu-west", &path, &[("range", "bytes=99999999-")]);
    assert_eq!(beyond.status, 416);
    let logo = manifest["files"]["logo.bin"]["path"].as_str().unwrap();
    let logo = get(&cluster, "ap-southeast", logo, &[("accept-encoding", "gzip, br")]);
    assert_eq!((logo.status, logo.body.len()), (200, 200_000));
    assert!(!logo.headers.contains_key("vary"), "{:?}", logo.headers);
    // Nothing that was not published, and no path out of the store.
    std::fs::write(cluster.state("us-east/objects/outside.txt"), "outside").unwrap();
    for bad in [
        "/assets/app.css",
        "/assets/../outside.txt",
        "/assets/%2e%2e/outside.txt",
        "/assets//etc/passwd",
        "/assets/css",
    ] {
        let answer = get(&cluster, "us-east", bad, &[]);
        assert!(matches!(answer.status, 400 | 404), "{bad}: {}", answer.status);
    }
    let again = cluster.run(&["assets", "publish", folder, "--json"]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), String::from_utf8_lossy(&published.stdout), "{}", text(&again));
}
