//! What is refused before anything is sent, and what of others is left alone.

use serde_json::{Value, json};

use super::{OPERATOR, SETTINGS, Site, TOKEN, WORKER, nothing_secret, said};

#[test]
fn what_cloudflare_would_refuse_is_refused_before_anything_is_sent() {
    for (from, to, words) in [
        ("edge-of-the-tests", "Edge_1", "is no name of a worker"),
        ("www.example.org/*]", "www.example.org/*.jpg]", "a star stands within the path"),
        ("www.example.org/*]", "www.example.org/?x=*]", "it has a query"),
        ("www.example.org/*]", "www.example.com/*]", "is not in the zone example.org"),
        ("https://gateway-eu-west.example.org", "https://192.0.2.1", "by name, never by address"),
        ("https://gateway-eu-west.example.org", "https://www.example.org", "have the same host"),
        ("    eu-west: https://gateway-eu-west.example.org\n", "", "cannot ask eu-west at http://127.0.2.1:8080"),
        ("OPERATOR_TOKEN: {env: TEST_OPERATOR}", "OTHER: {env: TEST_OPERATOR}", "needs the secret OPERATOR_TOKEN"),
        ("{env: TEST_OPERATOR}", "{env: NOWHERE}", "the secret OPERATOR_TOKEN cannot be read"),
        ("steering: country", "steering: country, health: {interval: 5}", "`interval` cannot be 5"),
        ("hostname: www.example.org", "hostname: www.example.com", "load balancer's host"),
        ("percent: 10", "percent: 100", "`percent` cannot be 100"),
        ("account: 0123456789abcdef", "account: 0123456789ABCDEF", "is no identifier of an account"),
    ] {
        let site = Site::new();
        assert!(SETTINGS.contains(from), "{from}");
        site.settings(&SETTINGS.replace(from, to));
        let refused = site.run(&["deploy"]);
        assert_eq!(refused.status.code(), Some(64), "{to}: {}", said(&refused));
        assert!(said(&refused).contains(words), "{to}: {}", said(&refused));
        assert!(said(&refused).contains("cloudflare.yml"), "{to}: {}", said(&refused));
        assert!(site.fake.written().is_empty(), "{to}: {:?}", site.fake.written());
        nothing_secret(&site, &[&refused]);
    }
}

#[test]
fn what_a_zone_s_plan_does_not_have_is_refused_before_anything_is_sent() {
    let site = Site::new();
    site.fake.state().plan = "free";
    let refused = site.run(&["deploy"]);
    assert_eq!(refused.status.code(), Some(64), "{}", said(&refused));
    assert!(said(&refused).contains("steering by country needs the plan enterprise"), "{}", said(&refused));
    site.settings(&SETTINGS.replace("steering: country", "steering: failover"));
    let rule = |at: usize| json!({"id": format!("r{at}"), "ref": format!("r{at}"), "expression": "true", "action": "set_cache_settings"});
    site.fake.state().ruleset = Some(json!({"id": "rs", "rules": (0..10).map(rule).collect::<Vec<_>>()}));
    let refused = site.run(&["deploy"]);
    assert!(said(&refused).contains("would have 11 cache rules, and the plan free has 10"), "{}", said(&refused));
    assert!(site.fake.written().is_empty(), "{:?}", site.fake.written());
    site.fake.state().ruleset = None;
    let deployed = site.run(&["deploy"]);
    assert!(deployed.status.success(), "{}", said(&deployed));
}

#[test]
fn what_is_in_the_way_and_not_ours_is_never_changed() {
    let site = Site::new();
    {
        let mut state = site.fake.state();
        state.list("routes").push(json!({"id": "theirs", "pattern": "www.example.org/*", "script": "another"}));
        state.list("balancers").push(json!({"id": "theirs", "name": "www.example.org", "description": "by hand"}));
        let script = super::fake::Script { tags: vec!["theirs".to_owned()], ..Default::default() };
        state.scripts.insert(WORKER.to_owned(), script);
    }
    let refused = site.run(&["deploy"]);
    assert_eq!(refused.status.code(), Some(64), "{}", said(&refused));
    for words in [
        "route/www.example.org/* is taken: a route that leads to the worker another",
        "load-balancer/www.example.org is taken",
        "worker/edge-of-the-tests is taken",
    ] {
        assert!(said(&refused).contains(words), "{words}: {}", said(&refused));
    }
    let destroyed = site.run(&["destroy"]);
    assert!(destroyed.status.success() && said(&destroyed).contains("nothing to do"), "{}", said(&destroyed));
    assert!(site.fake.written().is_empty(), "{:?}", site.fake.written());
}

/// Things of others, of every kind.
fn furnish(site: &Site) -> Value {
    let mut state = site.fake.state();
    let rule = |name: &str| json!({"id": name, "ref": name, "description": name, "expression": "true", "action": "set_cache_settings", "action_parameters": {"cache": true}, "enabled": true});
    state.ruleset = Some(
        json!({"id": "rs", "kind": "zone", "phase": "http_request_cache_settings", "rules": [rule("first"), rule("second")]}),
    );
    for at in 0..12 {
        state.list("pools").push(json!({"id": format!("p{at}"), "name": format!("pool-{at}"), "origins": []}));
        state
            .list("monitors")
            .push(json!({"id": format!("m{at}"), "description": "repomind 00000000: gateways", "type": "https"}));
        state.list("kv").push(json!({"id": format!("k{at}"), "title": format!("repomind-0000000{at}-FLAGS")}));
    }
    state.list("routes").push(json!({"id": "r1", "pattern": "shop.example.org/*", "script": "shop"}));
    state.list("balancers").push(json!({"id": "b1", "name": "shop.example.org", "description": "", "default_pools": ["p1"], "fallback_pool": "p1"}));
    state
        .scripts
        .insert("shop".to_owned(), super::fake::Script { tags: vec!["repomind".to_owned()], ..Default::default() });
    json!([state.things, state.ruleset])
}

#[test]
fn destroying_takes_what_is_ours_and_nothing_else() {
    let site = Site::new();
    let before = furnish(&site);
    site.settings(&SETTINGS.replace("  secrets:", "  kv: [FLAGS]\n  secrets:"));
    let deployed = site.run(&["deploy"]);
    assert!(deployed.status.success(), "{}", said(&deployed));
    let ruleset = site.fake.state().ruleset.clone().expect("a ruleset");
    let refs: Vec<&str> =
        ruleset["rules"].as_array().expect("rules").iter().filter_map(|rule| rule["ref"].as_str()).collect();
    assert_eq!(refs[..2], ["first", "second"], "the order of others' rules changed");
    assert_eq!(refs.len(), 3);

    // A route that somebody else led to our worker would lead nowhere.
    site.fake.state().list("routes").push(json!({"id": "r2", "pattern": "app.example.org/*", "script": WORKER}));
    let refused = site.run(&["destroy"]);
    assert_eq!(refused.status.code(), Some(64), "{}", said(&refused));
    assert!(said(&refused).contains("app.example.org/*"), "{}", said(&refused));
    site.fake.state().list("routes").retain(|route| route["id"] != "r2");

    // The state directory is not thrown away under what stands.
    let mut local = std::process::Command::new(crate::cluster::BINARY);
    local.args(["destroy", "--purge", "--tree"]).arg(site.tree.path()).arg("--state").arg(site.state.path());
    let local = local.output().expect("the binary runs");
    assert!(!local.status.success() && said(&local).contains("deployed at Cloudflare"), "{}", said(&local));

    let kept = site.run(&["destroy"]);
    assert!(kept.status.success() && said(&kept).contains("kv/FLAGS stays"), "{}", said(&kept));
    assert!(!site.fake.state().scripts.contains_key(WORKER));
    let all = site.run(&["destroy", "--purge"]);
    assert!(all.status.success(), "{}", said(&all));
    let state = site.fake.state();
    assert_eq!(json!([state.things, state.ruleset]), before);
    assert_eq!(state.scripts.keys().collect::<Vec<_>>(), ["shop"]);
    drop(state);
    let again = site.run(&["destroy", "--purge"]);
    assert!(again.status.success() && said(&again).contains("nothing to do"), "{}", said(&again));
    nothing_secret(&site, &[&deployed, &refused, &kept, &all, &again]);
}

#[test]
fn a_purge_reaches_the_worker_and_the_zone() {
    let site = Site::deployed();
    let purged = site.run(&[
        "edge",
        "purge",
        "--tag",
        "assets",
        "--url",
        "https://www.example.org/docs/a?x=1",
        "--rule",
        "assets-long",
    ]);
    assert!(purged.status.success(), "{}", said(&purged));
    let tags = json!(["assets", "rule:assets-long", "url:www.example.org/docs/a"]);
    let state = site.fake.state();
    assert_eq!(state.purged.0, [json!({"tags": tags})]);
    assert_eq!(state.purged.1, [json!({"tags": tags, "soft": false})]);
    drop(state);
    let bad = site.run(&["edge", "purge", "--tag", "two words"]);
    assert_eq!(bad.status.code(), Some(64), "{}", said(&bad));
    site.fake.state().sick_from = Some(1);
    let failed = site.run(&["edge", "purge", "--tag", "assets"]);
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    assert!(said(&failed).contains("the worker was not told"), "{}", said(&failed));
    nothing_secret(&site, &[&purged, &bad, &failed]);
}

#[test]
fn a_token_travels_to_nobody_but_the_api_and_never_in_the_open() {
    let site = Site::new();
    let output = |command: &mut std::process::Command| command.output().expect("the binary runs");
    let open = output(&mut site.command_to("http://api.example.org/client/v4", &["plan"]));
    assert_eq!(open.status.code(), Some(2), "{}", said(&open));
    assert!(said(&open).contains("is not encrypted"), "{}", said(&open));
    let missing = output(site.command(&["plan"]).env_remove("CLOUDFLARE_API_TOKEN"));
    assert_eq!(missing.status.code(), Some(2), "{}", said(&missing));
    assert!(said(&missing).contains("CLOUDFLARE_API_TOKEN"), "{}", said(&missing));
    let wrong = output(site.command(&["plan"]).env("CLOUDFLARE_API_TOKEN", "another-token"));
    assert!(said(&wrong).contains("Authentication error") && said(&wrong).contains("permissions"), "{}", said(&wrong));
    let file = site.tree.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).expect("a file");
    let from_file = output(site.command(&["plan"]).arg("--token-file").arg(&file).env_remove("CLOUDFLARE_API_TOKEN"));
    assert_eq!(from_file.status.code(), Some(1), "{}", said(&from_file));
    // An API that repeats what it was sent, as errors do, does not bring a secret into log or journal.
    site.fake.state().echo = true;
    let echoed = site.run(&["deploy"]);
    assert_eq!(echoed.status.code(), Some(2), "{}", said(&echoed));
    assert!(said(&echoed).contains("[secret]"), "{}", said(&echoed));
    let journal = std::fs::read_to_string(site.journal()).expect("the journal");
    assert!(journal.contains("[secret]") && !journal.contains(OPERATOR), "{journal}");
    nothing_secret(&site, &[&open, &missing, &wrong, &from_file, &echoed]);
}
