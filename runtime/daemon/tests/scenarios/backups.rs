//! Backups: consistent, only where their region is, and no way back for what was deleted or erased since.

use serde_json::Value;

use crate::cluster::{Cluster, text, until};
use crate::objects::{get, noise, put};
use crate::{REGIONS, SOON, files_below};

fn backup(cluster: &Cluster, words: &[&str]) -> (Option<i32>, Value) {
    let output = cluster.run(&[&["backup"], words, &["--json"]].concat());
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {}", text(&output)));
    (output.status.code(), value)
}

const PUBLIC: [(&str, &str); 1] = [("repomind-class", "public")];

#[test]
fn a_region_that_is_put_back_serves_what_it_had_and_nothing_that_was_deleted_or_erased_since() {
    let cluster = Cluster::deployed();
    let person = |subject| {
        [
            ("repomind-class", "personal"),
            ("repomind-jurisdiction", "SG"),
            ("repomind-basis", "contract"),
            ("repomind-subject", subject),
        ]
    };
    let german = [("repomind-class", "personal"), ("repomind-jurisdiction", "DE"), ("repomind-basis", "contract")];
    let film = noise(6, 5_000_000);
    assert_eq!(put(&cluster, "eu-west", "/v1/data/films/one", &PUBLIC, &film).0, 204);
    assert_eq!(put(&cluster, "eu-west", "/v1/data/profiles/scan", &person("s-1"), &noise(7, 3_000_000)).0, 204);
    for (path, labels, value) in [
        ("/v1/data/notes/stays", &PUBLIC[..], "stays"),
        ("/v1/data/notes/goes", &PUBLIC[..], "goes"),
        ("/v1/data/profiles/home", &german[..], "only at home"),
        ("/v1/data/profiles/p1", &person("s-1")[..], "about s-1"),
        ("/v1/data/profiles/p2", &person("s-2")[..], "about s-2"),
    ] {
        let written = cluster.ask("eu-west", "PUT", path, labels, value).unwrap();
        assert_eq!(written.status / 100, 2, "{path}: {}", written.body);
    }
    for region in REGIONS {
        until(&format!("all of it in {region}"), SOON, || {
            (cluster.ask(region, "GET", "/v1/data/profiles/p2", &[], "").ok()?.status == 200).then_some(())
        });
    }
    let (code, first) = backup(&cluster, &["create"]);
    assert_eq!(code, Some(0), "{first}");
    let (code, again) = backup(&cluster, &["create", "--region", "eu-west"]);
    assert_eq!(code, Some(0), "{again}");
    assert!(
        again["eu-west"]["new_bytes"].as_u64().unwrap() < first["eu-west"]["new_bytes"].as_u64().unwrap() / 4,
        "the second backup is no increment: {first} {again}"
    );
    let (code, verified) = backup(&cluster, &["verify"]);
    assert_eq!(code, Some(0), "{verified}");
    let (_, listed) = backup(&cluster, &["list"]);
    assert_eq!(listed["eu-west"].as_array().map(Vec::len), Some(2), "{listed}");
    assert_eq!(listed["us-east"].as_array().map(Vec::len), Some(1), "{listed}");
    // What may not be in us-east is in none of its backups, and keys are in nobody's.
    let secrets: Vec<Vec<u8>> = ["only at home", "about s-1"].map(|text| text.as_bytes().to_vec()).into();
    for region in REGIONS {
        for file in files_below(&cluster.state(region).join("objects/backups")) {
            assert!(!file.ends_with("region.keys") && !file.ends_with("data.keys"));
        }
        for file in files_below(&cluster.state(region)) {
            let bytes = std::fs::read(&file).unwrap_or_default();
            for secret in &secrets {
                assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", file.display());
            }
        }
    }

    let deleted = cluster.ask("us-east", "DELETE", "/v1/data/notes/goes", &[], "").unwrap();
    assert_eq!(deleted.status / 100, 2, "{}", deleted.body);
    let erased = cluster.run(&["subject", "erase", "s-1"]);
    assert!(erased.status.success(), "{}", text(&erased));
    let later =
        cluster.ask("us-east", "PUT", "/v1/data/notes/later", &[("repomind-ack", "regions:3")], "later").unwrap();
    assert_eq!(later.status / 100, 2, "{}", later.body);

    // A region that runs is not touched.
    let refused = cluster.run(&["backup", "restore", "--region", "eu-west"]);
    assert!(!refused.status.success() && text(&refused).contains("runs as process"), "{}", text(&refused));
    cluster.kill("eu-west");
    // Its disk is lost, and its object store is not.
    std::fs::remove_dir_all(cluster.state("eu-west").join("data")).unwrap();
    for file in files_below(&cluster.state("eu-west").join("objects/chunks")) {
        std::fs::remove_file(file).unwrap();
    }
    let at = listed["eu-west"][0]["made_at"].as_u64().unwrap().to_string();
    let (code, restored) = backup(&cluster, &["restore", "--region", "eu-west", "--at", &at]);
    assert_eq!(code, Some(0), "{restored}");
    assert_eq!(restored["id"], listed["eu-west"][0]["id"]);
    let again = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(again.status.success(), "{}", text(&again));
    let read = |region: &str, path: &str| {
        let answer = cluster.ask(region, "GET", path, &[], "").ok()?;
        Some((answer.status, answer.body))
    };
    let mut shown_again = Vec::new();
    until("eu-west as far as the others", SOON, || {
        for path in ["/v1/data/profiles/p1", "/v1/data/profiles/scan"] {
            shown_again.extend(read("eu-west", path).filter(|(status, _)| *status == 200));
        }
        (read("eu-west", "/v1/data/notes/later")? == (200, "later".into())).then_some(())
    });
    assert!(shown_again.is_empty(), "what was erased was shown after the restore: {shown_again:?}");
    until("the deleted note gone again", SOON, || {
        (read("eu-west", "/v1/data/notes/goes")?.0 == 404 && read("us-east", "/v1/data/notes/goes")?.0 == 404)
            .then_some(())
    });
    for (path, value) in [
        ("/v1/data/notes/stays", "stays"),
        ("/v1/data/profiles/p2", "about s-2"),
        // No other region may hold it: only the backup had it.
        ("/v1/data/profiles/home", "only at home"),
    ] {
        until(path, SOON, || (read("eu-west", path)? == (200, value.into())).then_some(()));
    }
    until("the film", SOON, || {
        (get(&cluster, "eu-west", "/v1/data/films/one", &[])? == (200, film.clone())).then_some(())
    });
    for path in ["/v1/data/profiles/p1", "/v1/data/profiles/scan"] {
        until(&format!("{path} erased again"), SOON, || {
            let (status, body) = read("eu-west", path)?;
            assert_ne!(status, 200, "{path} came back with the backup: {body}");
            [404, 410].contains(&status).then_some(())
        });
    }
    // And what it writes from now on arrives everywhere.
    let written = cluster.ask("eu-west", "PUT", "/v1/data/notes/new", &[("repomind-ack", "regions:3")], "new").unwrap();
    assert_eq!(written.status / 100, 2, "{}", written.body);

    // One that was carried into the store of another region is found there.
    let strayed = files_below(&cluster.state("eu-west").join("objects/backups/lists")).remove(0);
    let to = cluster.state("us-east").join("objects/backups/lists").join(strayed.file_name().unwrap());
    std::fs::copy(&strayed, &to).unwrap();
    let name = strayed.file_name().unwrap().to_str().unwrap();
    let (code, verified) = backup(&cluster, &["verify", "--region", "us-east", "--backup", name]);
    assert_eq!(code, Some(1), "{verified}");
    assert!(verified["us-east"]["error"].as_str().is_some_and(|error| error.contains("eu-west")), "{verified}");
    std::fs::remove_file(&to).unwrap();

    // A backup with a byte that rotted is found out, and by its name.
    let parts = files_below(&cluster.state("us-east").join("objects/backups/parts"));
    let mut bytes = std::fs::read(&parts[0]).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&parts[0], bytes).unwrap();
    let (code, verified) = backup(&cluster, &["verify", "--region", "us-east"]);
    assert_eq!(code, Some(1), "{verified}");
    assert!(verified["us-east"]["error"].as_str().is_some_and(|error| error.contains("backups/parts/")), "{verified}");
}
