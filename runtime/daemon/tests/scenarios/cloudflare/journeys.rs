//! Deployments that go well, that are interrupted, that fail, and that go back.

use serde_json::json;

use super::fake::{Fault, When};
use super::{SETTINGS, Site, WORKER, nothing_secret, said};

#[test]
fn a_second_run_does_nothing() {
    let site = Site::new();
    let planned = site.run(&["plan"]);
    assert_eq!(planned.status.code(), Some(1), "{}", said(&planned));
    assert!(said(&planned).contains("+ worker/edge-of-the-tests"), "{}", said(&planned));
    assert!(site.fake.written().is_empty(), "a plan wrote: {:?}", site.fake.written());
    assert!(!site.state.path().join("cloudflare").exists(), "a plan wrote to the state directory");

    let first = site.run(&["deploy"]);
    assert!(first.status.success(), "{}", said(&first));
    assert_eq!(site.fake.state().serves(WORKER), [(2, 100.0)]);
    {
        // By the routing plan: a client in Germany is sent to eu-west first, then to the others.
        let mut state = site.fake.state();
        let balancer = state.list("balancers")[0].clone();
        let pools = state.list("pools").clone();
        let name = |id: &serde_json::Value| {
            pools.iter().find(|pool| pool["id"] == *id).expect("a pool")["origins"][0]["name"].clone()
        };
        let german: Vec<_> = balancer["country_pools"]["DE"].as_array().expect("pools").iter().map(name).collect();
        assert_eq!((&german[0], german.len()), (&json!("eu-west"), 3));
    }
    site.fake.forget_writes();
    let again = site.run(&["deploy"]);
    assert!(again.status.success() && said(&again).contains("nothing to do"), "{}", said(&again));
    assert!(site.fake.written().is_empty(), "{:?}", site.fake.written());
    let plan = site.run(&["plan"]);
    assert_eq!(plan.status.code(), Some(0), "{}", said(&plan));
    nothing_secret(&site, &[&planned, &first, &again, &plan]);
}

#[test]
fn a_change_is_tried_by_a_tenth_before_everybody_gets_it() {
    let site = Site::deployed();
    // Shorter for assets, and nothing else: what was stored under that rule goes, and under no other.
    site.edit("(rule \"/assets/\" (days 30)", "(rule \"/assets/\" (days 20)");
    site.fake.state().lag = 4;
    let changed = site.run(&["deploy"]);
    assert!(changed.status.success(), "{}", said(&changed));
    let state = site.fake.state();
    let shares = |at: usize| state.writes[at].body["versions"].as_array().expect("versions").clone();
    assert_eq!(state.writes.iter().filter(|seen| seen.path.ends_with("/versions")).count(), 1);
    assert_eq!(shares(1).iter().map(|share| share["percentage"].as_u64()).collect::<Vec<_>>(), [Some(90), Some(10)]);
    assert_eq!(shares(2).iter().map(|share| share["percentage"].as_u64()).collect::<Vec<_>>(), [Some(100)]);
    assert_eq!(state.serves(WORKER), [(3, 100.0)]);
    assert_eq!(state.purged.0, [json!({"tags": ["rule:assets-long"]})]);
    assert_eq!(state.purged.1, [json!({"tags": ["rule:assets-long"], "soft": false})]);
    drop(state);

    // The old policy again is the old version again: nothing is uploaded.
    site.fake.forget_writes();
    site.edit("(rule \"/assets/\" (days 20)", "(rule \"/assets/\" (days 30)");
    let back = site.run(&["deploy"]);
    assert!(back.status.success(), "{}", said(&back));
    assert_eq!(site.fake.state().serves(WORKER), [(2, 100.0)]);
    assert!(site.fake.written().iter().all(|call| call.ends_with("/deployments")), "{:?}", site.fake.written());
}

#[test]
fn a_version_that_is_not_well_serves_nobody_for_long() {
    let site = Site::deployed();
    site.edit("(rate . 600)", "(rate . 300)");
    site.fake.state().sick_from = Some(3);
    let outcome = site.json(&["deploy", "--json"], 1);
    assert_eq!(site.fake.state().serves(WORKER), [(2, 100.0)], "the old version does not serve everybody again");
    assert_eq!(outcome["outcome"]["failed"]["step"], "probe the version", "{outcome}");
    assert_eq!(outcome["outcome"]["failed"]["rolled_back"], true, "{outcome}");
    assert_eq!(outcome["outcome"]["not_done"], json!(["deploy the version to 100 %"]), "{outcome}");
    let words = outcome["outcome"]["failed"]["error"].as_str().expect("words").to_owned();
    assert!(words.contains("500") && words.contains("serves everybody again"), "{words}");
    // What was left whole is not called unfinished, and is no change by others.
    let plan = site.json(&["plan", "--json"], 1);
    assert_eq!((&plan["unfinished"], &plan["drift"]), (&json!(null), &json!([])), "{plan}");

    site.fake.state().sick_from = None;
    let again = site.run(&["deploy"]);
    assert!(again.status.success(), "{}", said(&again));
    assert_eq!(site.fake.state().serves(WORKER), [(3, 100.0)], "the version was uploaded twice");
}

#[test]
fn a_first_deployment_that_is_not_well_leads_nobody_to_it() {
    let site = Site::new();
    site.fake.state().sick_from = Some(1);
    let failed = site.run(&["deploy"]);
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    assert!(said(&failed).contains("the route www.example.org/* is taken away again"), "{}", said(&failed));
    assert!(site.fake.state().list("routes").is_empty());
    site.fake.state().sick_from = None;
    let again = site.run(&["deploy"]);
    assert!(again.status.success(), "{}", said(&again));
    assert_eq!(site.fake.state().serves(WORKER), [(2, 100.0)]);
    assert_eq!(site.fake.state().list("routes").len(), 1);
}

#[test]
fn a_run_that_was_killed_at_any_step_goes_on_to_the_same_end() {
    let whole = Site::deployed();
    let mut wanted = whole.world();
    whole.fake.forget_writes();
    whole.edit("(rule \"/assets/\" (days 30)", "(rule \"/assets/\" (days 20)");
    assert!(whole.run(&["deploy"]).status.success());
    let steps_of_a_change = whole.fake.written().len();
    let wanted_after = whole.world();
    let first = |fault: Fault, at: usize| {
        let site = Site::new();
        kill_and_resume(&site, fault, at);
        assert_eq!(site.world(), wanted, "killed at call {at} of a first deployment");
        assert_eq!(site.fake.state().scripts[WORKER].versions.len(), 2, "uploaded twice");
        site.fake.written().len()
    };
    let calls = {
        let site = Site::new();
        assert!(site.run(&["deploy"]).status.success());
        site.fake.written().len()
    };
    assert!(calls > 8, "{calls}");
    first(Fault::KillBefore, 1);
    for at in 1..=calls {
        first(Fault::KillAfter, at);
    }
    wanted = wanted_after;
    for at in 1..=steps_of_a_change {
        for fault in [Fault::KillBefore, Fault::KillAfter] {
            let site = Site::deployed();
            site.edit("(rule \"/assets/\" (days 30)", "(rule \"/assets/\" (days 20)");
            kill_and_resume(&site, fault, at);
            assert_eq!(site.world(), wanted, "killed at call {at} of a change");
            assert!(!site.fake.state().purged.0.is_empty(), "killed at call {at}: nothing was purged");
            assert_eq!(site.fake.state().scripts[WORKER].versions.len(), 3, "uploaded twice");
        }
    }
}

fn kill_and_resume(site: &Site, fault: Fault, at: usize) {
    site.fake.state().faults = vec![(When::Write(at), fault)];
    let child = site.start(&["deploy"]);
    site.fake.state().victim = Some(child.id());
    let killed = child.wait_with_output().expect("it ends");
    assert_eq!(killed.status.code(), None, "it was not killed at call {at}: {}", said(&killed));
    let resumed = site.run(&["deploy"]);
    assert!(resumed.status.success(), "after a kill at call {at}: {}", said(&resumed));
    assert!(said(&resumed).contains("did not come to its end"), "{}", said(&resumed));
    nothing_secret(site, &[&killed, &resumed]);
    // One more finds nothing to do, and nothing unfinished.
    let plan = site.run(&["plan"]);
    assert_eq!(plan.status.code(), Some(0), "after a kill at call {at}: {}", said(&plan));
}

#[test]
fn answers_that_get_lost_do_nothing_twice() {
    for fault in [Fault::LostBefore, Fault::LostAfter, Fault::Status(503, None), Fault::Status(429, Some(1))] {
        let plain = Site::deployed();
        let site = Site::new();
        {
            let mut state = site.fake.state();
            for (method, part) in [
                ("POST", "/monitors"),
                ("POST", "/pools"),
                ("POST", "/rulesets"),
                ("PUT", "/scripts/"),
                ("POST", "/versions"),
                ("POST", "/deployments"),
                ("POST", "/load_balancers"),
                ("POST", "/routes"),
                ("GET", "/zones/"),
            ] {
                state.faults.push((When::Call(method, part, 1), fault.clone()));
            }
        }
        let deployed = site.run(&["deploy"]);
        assert!(deployed.status.success(), "{fault:?}: {}", said(&deployed));
        assert_eq!(site.world(), plain.world(), "{fault:?}");
        assert_eq!(site.fake.state().scripts[WORKER].versions.len(), 2, "{fault:?}");
        nothing_secret(&site, &[&deployed]);
    }
}

#[test]
fn a_failure_says_what_was_done_and_what_was_not() {
    for (fault, words) in [
        (Fault::Unsuccessful, "told to be without success"),
        (Fault::Status(403, None), "permissions"),
        (Fault::Status(500, None), "told to fail"),
    ] {
        let site = Site::new();
        site.fake.state().faults = vec![(When::Call("POST", "/load_balancers", 100), fault)];
        // Of two endpoints with that word, the pools and monitors of the account come first.
        let outcome = site.json(&["deploy", "--json"], 2);
        let failed = &outcome["outcome"]["failed"];
        assert_eq!(failed["step"], "create monitor/gateways", "{outcome}");
        assert!(failed["error"].as_str().expect("words").contains(words), "{outcome}");
        assert_eq!(outcome["outcome"]["done"], json!([]), "{outcome}");
        assert!(outcome["outcome"]["not_done"].as_array().expect("steps").len() > 5, "{outcome}");
        let plan = site.run(&["plan"]);
        assert!(said(&plan).contains("did not come to its end") && said(&plan).contains(words), "{}", said(&plan));
        site.fake.state().faults.clear();
        let again = site.run(&["deploy"]);
        assert!(again.status.success(), "{}", said(&again));
    }
}

#[test]
fn two_runs_at_once_are_refused_and_so_is_a_deployment_over_somebody_else_s() {
    let site = Site::new();
    let folder = site.state.path().join("cloudflare");
    site.fake.state().faults = vec![(When::Call("POST", "/monitors", 1), Fault::Status(429, Some(120)))];
    let mut first = site.start(&["deploy"]);
    super::super::cluster::until("the first run to hold the lock", super::super::SOON, || {
        let lock = std::fs::read_dir(&folder).ok()?.flatten().next()?.path().join("lock");
        std::fs::read_to_string(lock).ok().filter(|text| !text.is_empty())
    });
    let second = site.run(&["deploy"]);
    assert_eq!(second.status.code(), Some(2), "{}", said(&second));
    assert!(said(&second).contains("deploy --target cloudflare"), "{}", said(&second));
    first.kill().expect("it ends");
    first.wait().expect("it ends");

    // Another machine has no lock in common; the deployments tell.
    let site = Site::deployed();
    site.edit("(rate . 600)", "(rate . 300)");
    site.fake.state().stranger_after_upload = true;
    let refused = site.run(&["deploy"]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("somebody else deployed meanwhile"), "{}", said(&refused));
    assert_eq!(site.fake.state().serves(WORKER), [(1, 100.0)], "somebody else's deployment was written over");
}

#[test]
fn others_changes_are_reported_and_put_right() {
    let site = Site::deployed();
    {
        let mut state = site.fake.state();
        state.list("pools").iter_mut().find(|pool| pool["origins"][0]["name"] == "eu-west").expect("a pool")["origins"]
            [0]["address"] = json!("evil.example.org");
        state.list("pools")[0]["notification_email"] = json!("ops@example.org");
        state.list("balancers").clear();
        let first = state.scripts[WORKER].versions[0].id.clone();
        let script = state.scripts.get_mut(WORKER).expect("a worker");
        script.deployments.push_front(json!({"id": "d-1", "author_email": "eve@example.org", "versions": [{"version_id": first, "percentage": 100}]}));
    }
    let plan = site.json(&["plan", "--json"], 1);
    let drift = plan["drift"].as_array().expect("drift");
    let of = |address: &str| {
        drift.iter().find(|one| one["address"] == address).unwrap_or_else(|| panic!("{address}: {plan}"))
    };
    assert_eq!(of("pool/eu-west")["fields"][0]["field"], "origins[0].address");
    assert_eq!(of("pool/eu-west")["fields"][0]["to"], "evil.example.org");
    assert_eq!(of("load-balancer/www.example.org")["how"], "gone");
    assert!(of("worker")["fields"][0]["to"].as_str().expect("words").contains("eve@example.org"), "{plan}");
    assert_eq!(drift.len(), 3, "{plan}");
    let shown = said(&site.run(&["plan"]));
    assert!(shown.contains("changed by others since the last run") && shown.contains("evil.example.org"), "{shown}");

    let mended = site.run(&["deploy"]);
    assert!(mended.status.success(), "{}", said(&mended));
    assert_eq!(site.run(&["plan"]).status.code(), Some(0));
    assert_eq!(site.fake.state().serves(WORKER), [(2, 100.0)]);
    // What others added to ours, and we do not speak of, stays.
    assert_eq!(site.fake.state().list("pools")[0]["notification_email"], "ops@example.org");
}

#[test]
fn a_machine_without_the_journal_knows_its_own_things_again() {
    let site = Site::deployed();
    std::fs::remove_file(site.journal()).expect("the journal");
    let plan = site.json(&["plan", "--json"], 0);
    assert_eq!(plan["drift"], json!([]), "{plan}");
    site.settings(&SETTINGS.replace("steering: country", "steering: failover"));
    let changed = site.run(&["deploy"]);
    assert!(changed.status.success(), "{}", said(&changed));
    let id = site.fake.state().list("balancers")[0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(site.fake.written(), [format!("PATCH /zones/Z/load_balancers/{id}")]);
    assert_eq!(site.fake.state().list("balancers")[0]["steering_policy"], "off");
}

#[test]
fn what_is_no_longer_wanted_goes_and_data_stays() {
    let site = Site::new();
    site.settings(&SETTINGS.replace("  secrets:", "  kv: [FLAGS]\n  secrets:"));
    assert!(site.run(&["deploy"]).status.success());
    let namespace = site.fake.state().list("kv")[0]["id"].clone();
    let bound = site.fake.state().scripts[WORKER].versions.last().expect("a version").metadata["bindings"].clone();
    assert!(
        bound
            .as_array()
            .expect("bindings")
            .iter()
            .any(|one| one["name"] == "FLAGS" && one["namespace_id"] == namespace)
    );
    let without: String =
        SETTINGS.lines().filter(|line| !line.contains("load_balancer")).map(|line| format!("{line}\n")).collect();
    site.settings(&without);
    let changed = site.run(&["deploy"]);
    assert!(
        changed.status.success() && said(&changed).contains("kv/FLAGS is no longer wanted and stays"),
        "{}",
        said(&changed)
    );
    let mut state = site.fake.state();
    let left = ["balancers", "pools", "monitors", "kv", "routes"].map(|kind| state.list(kind).len());
    assert_eq!(left, [0, 0, 0, 1, 1]);
}
