//! Records that a change of policies bars from a region: what it would be, that they go, and that none is lost.

use serde_json::Value;

use crate::cluster::{Answer, Cluster, everywhere, text, until};
use crate::{REGIONS, SOON};

/// Personal data that the bundled policies let any of the three regions hold.
const FREE: [(&str, &str); 3] =
    [("repomind-class", "personal"), ("repomind-jurisdiction", "SG"), ("repomind-basis", "contract")];
const FILE: &str = "compliance/region-policies.scm";
const OPEN: &str = "(list 'us-east \"US\" everything '())";
const CLOSED: &str = "(list 'us-east \"US\" about-nobody '())";

fn read(cluster: &Cluster, region: &str, number: usize) -> Option<Answer> {
    cluster.ask(region, "GET", &format!("/v1/data/profiles/p{number}"), &[], "").ok()
}

fn write(cluster: &Cluster, region: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let path = format!("/v1/data/profiles/p{number}");
        let written = cluster.ask(region, "PUT", &path, &FREE, &format!("canary-{number}")).unwrap();
        assert_eq!(written.status / 100, 2, "{}", written.body);
    }
}

fn is_read(cluster: &Cluster, region: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        until(&format!("p{number} in {region}"), SOON * 2, || {
            let read = read(cluster, region, number)?;
            (read.status == 200 && read.body == format!("canary-{number}")).then_some(())
        });
    }
}

fn save(cluster: &Cluster, from: &str, to: &str) {
    let path = cluster.file(FILE);
    let source = std::fs::read_to_string(&path).unwrap();
    assert!(source.contains(from), "{FILE} has no {from}");
    std::fs::write(path, source.replace(from, to)).unwrap();
}

fn eviction(cluster: &Cluster, region: &str) -> Option<Value> {
    Some(cluster.status(region)?["eviction"].clone())
}

/// Waits until a region has held all its records against a generation, and gives what came of it.
fn finished(cluster: &Cluster, region: &str, generation: u64) -> Value {
    until(&format!("{region} done with generation {generation}"), SOON * 3, || {
        let eviction = eviction(cluster, region)?;
        (eviction["done"] == true && eviction["generation"] == generation).then_some(eviction)
    })
}

fn is_barred(cluster: &Cluster, region: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let read = read(cluster, region, number).expect("an answer");
        assert_eq!(read.status, 451, "p{number} in {region}: {}", read.body);
    }
}

fn passes(cluster: &Cluster) -> Value {
    let mut last = Value::Null;
    until("an audit that finds nothing", SOON * 3, || {
        let output = cluster.run(&["audit", "--json"]);
        last = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
        (output.status.code() == Some(0)).then(|| last.clone())
    })
}

fn deploy(cluster: &Cluster) {
    let again = cluster.run(&["deploy", "--wan", "lan"]);
    assert!(again.status.success(), "{}\n{}", text(&again), cluster.logs());
}

#[test]
fn a_stricter_policy_takes_records_out_of_the_regions_that_it_bars_and_a_looser_one_brings_them_back() {
    let cluster = Cluster::deployed();
    write(&cluster, "us-east", 0..20);
    let nobody = cluster.ask("us-east", "PUT", "/v1/data/notes/n", &[], "of nobody").unwrap();
    assert_eq!(nobody.status / 100, 2, "{}", nobody.body);
    REGIONS.iter().for_each(|region| is_read(&cluster, region, 0..20));

    // Asked beforehand, of a tree that nobody watches.
    let other = cluster.file("../stricter");
    crate::cluster::copy_tree(&other, |text| text.replace(OPEN, CLOSED));
    let diff = cluster.run(&["policy", "diff", "1", "--tree", other.to_str().unwrap()]);
    let said = text(&diff);
    assert!(said.contains("us-east would have to give up 20 of its records"), "{said}");
    assert!(
        said.contains("20 personal, law SG, by region-does-not-accept-class; they stay in ap-southeast eu-west"),
        "{said}"
    );
    assert!(said.contains("eu-west would keep what it stores") && !said.contains("p1 "), "{said}");

    save(&cluster, OPEN, CLOSED);
    everywhere(&cluster, 2);
    is_barred(&cluster, "us-east", 0..20);
    let eviction = finished(&cluster, "us-east", 2);
    assert_eq!((&eviction["evicted"], &eviction["stuck"]), (&20.into(), &0.into()), "{eviction}");
    is_barred(&cluster, "us-east", 0..20);
    for region in ["eu-west", "ap-southeast"] {
        is_read(&cluster, region, 0..20);
        assert_eq!(finished(&cluster, region, 2)["evicted"], 0);
    }
    assert_eq!(cluster.ask("us-east", "GET", "/v1/data/notes/n", &[], "").unwrap().body, "of nobody");
    let metrics = cluster.admin("us-east", "GET", "/metrics", "").unwrap();
    assert!(metrics.body.contains("repomind_evicted_total 20"), "{}", metrics.body);
    // By the bytes that lie there: no record and no key that may not be there.
    let report = passes(&cluster);
    let judged = report["checks"].as_array().unwrap().iter().find(|run| run["check"] == "RES-01").unwrap();
    assert!(judged["examined"].as_u64() >= Some(43), "{judged}");

    save(&cluster, CLOSED, OPEN);
    let waits = until("the looser rule waiting", SOON, || {
        let waiting = cluster.status("us-east")?["policy_waiting"].clone();
        waiting["hash"].as_str().map(str::to_owned)
    });
    let confirmed = cluster.run(&["policy", "confirm", &waits]);
    assert!(confirmed.status.success(), "{}", text(&confirmed));
    everywhere(&cluster, 3);
    is_read(&cluster, "us-east", 0..20);
    let returned = finished(&cluster, "us-east", 3);
    assert!(returned["came_back"].as_u64() >= Some(20), "{returned}");
    passes(&cluster);
}

#[test]
fn a_region_that_is_cut_off_and_killed_meanwhile_gives_up_what_it_must_when_it_hears_of_it() {
    let cluster = Cluster::deployed();
    write(&cluster, "eu-west", 0..60);
    REGIONS.iter().for_each(|region| is_read(&cluster, region, 0..60));
    let cut = |cut: bool| {
        for other in ["eu-west", "ap-southeast"] {
            for (here, there) in [("us-east", other), (other, "us-east")] {
                let body = format!("{{\"peer\":\"{there}\",\"cut\":{cut}}}");
                assert_eq!(cluster.admin(here, "PUT", "/wan", &body).unwrap().status / 100, 2);
            }
        }
    };
    cut(true);
    until("another primary", SOON * 2, || {
        let primary = cluster.status("eu-west")?["primary"].clone();
        (primary == "eu-west" || primary == "ap-southeast").then_some(())
    });
    let closed = cluster.file("../closed");
    crate::cluster::copy_tree(&closed, |text| text.replace(OPEN, CLOSED));
    until("the stricter policies agreed on without us-east", SOON * 2, || {
        let published = cluster.run(&["policy", "publish", closed.to_str().unwrap(), "--reason", "a ruling"]);
        published.status.success().then_some(())
    });
    until("generation 2 in eu-west", SOON, || (cluster.status("eu-west")?["generation"] == 2).then_some(()));
    // It has not heard of it, and what it has written by the old one reaches nobody yet.
    write(&cluster, "us-east", 60..70);

    cut(false);
    until("generation 2 in us-east", SOON * 2, || (cluster.status("us-east")?["generation"] == 2).then_some(()));
    cluster.kill("us-east");
    deploy(&cluster);
    let eviction = finished(&cluster, "us-east", 2);
    assert_eq!(eviction["stuck"], 0, "{eviction}");
    is_barred(&cluster, "us-east", 0..70);
    for region in ["eu-west", "ap-southeast"] {
        is_read(&cluster, region, 0..70);
    }
    passes(&cluster);
}
