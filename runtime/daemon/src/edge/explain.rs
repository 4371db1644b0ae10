//! `explain edge`: what the edge would do with a request, step by step, by the reference evaluator.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use ::edge::Backend;
use ::edge::evaluate::answer::{Head, browser_control, keep};
use ::edge::evaluate::{Asked, Lookup, Place, Plan, is_devious, left_to_origin, plan};
use anyhow::Context;
use clap::Args;
use model::edge::Proof;
use model::{Country, RegionId};
use serde_json::{Value, json};

use super::{Compiled, compile};
use crate::args::USAGE;

/// Flags of `explain edge`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// The tree with region-config/ and the policies.
    #[arg(long, default_value = ".", env = "REPOMIND_TREE")]
    pub tree: PathBuf,
    /// The URL asked for.
    #[arg(long)]
    pub url: http::Uri,
    /// The method.
    #[arg(long, default_value = "GET")]
    pub method: http::Method,
    /// The client's country.
    #[arg(long)]
    pub country: Option<Country>,
    /// A request header, `name: value`; may be repeated.
    #[arg(long, value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// The status that the origin answers with.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(100..=599))]
    pub status: u16,
    /// A header of the origin's answer, `name: value`; may be repeated.
    #[arg(long, value_name = "NAME: VALUE")]
    pub answer_header: Vec<String>,
    /// A region that is down; may be repeated.
    #[arg(long)]
    pub down: Vec<RegionId>,
    /// The kind of edge.
    #[arg(long, value_parser = super::kinds(), default_value = "cloudflare")]
    pub backend: Backend,
    /// The region that a Varnish or nginx stands in; the primary unless named.
    #[arg(long)]
    pub region: Option<RegionId>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `repomind-run explain edge`.
///
/// # Errors
/// Where the tree is bad or the policy host cannot be started.
pub async fn explain(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let (asked, head) = match (asked(&args), headers(&args.answer_header)) {
        (Ok(asked), Ok(headers)) => (asked, Head { status: args.status, headers }),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("error: {error:#}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    let compiled = compile(&args.tree, &[]).await?;
    let place = match args.backend {
        Backend::Cloudflare => Place::worldwide(),
        _ => Place::in_memory(args.region.clone().unwrap_or_else(|| compiled.primary.clone())),
    };
    let report = report(&compiled, &args, &asked, &head, &place);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        say(&report);
    }
    Ok(ExitCode::SUCCESS)
}

fn asked(args: &ExplainArgs) -> anyhow::Result<Asked> {
    let host = args.url.host().context("--url needs a host, such as https://www.repomind.io/assets/a.css")?;
    Ok(Asked {
        method: args.method.to_string(),
        host: host.to_owned(),
        target: args.url.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
        headers: headers(&args.header)?,
        country: args.country,
        client: "the client's address".to_owned(),
    })
}

fn headers(lines: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let one = |line: &String| {
        let (name, value) =
            line.split_once(':').with_context(|| format!("{line:?} is no header; write it as \"name: value\""))?;
        Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    };
    lines.iter().map(one).collect()
}

fn report(compiled: &Compiled, args: &ExplainArgs, asked: &Asked, head: &Head, place: &Place) -> Value {
    let form = &compiled.form;
    let backend = args.backend;
    if is_devious(model::edge::Request::path(asked)) {
        return json!({ "revision": form.revision, "backend": backend.name(), "refused": 400 });
    }
    let down: BTreeSet<RegionId> = args.down.iter().cloned().collect();
    let plan = plan(form, asked, &down);
    let since = UNIX_EPOCH.elapsed().unwrap_or_default();
    let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let limits: Vec<Value> = plan
        .limits
        .iter()
        .map(|(limit, key)| {
            json!({ "name": limit.name, "rate": limit.rate, "per_seconds": limit.per_seconds, "burst": limit.burst,
                "scope": limit.scope, "counts_for": key })
        })
        .collect();
    let guard = plan.guard.map(|guard| {
        let left = backend != Backend::Cloudflare && left_to_origin(guard);
        let wants = match &guard.proof {
            Proof::Token { issuers, .. } => format!("a bearer token of {}", issuers.join(" or ")),
            Proof::SignedUrl { .. } => "a signed URL".to_owned(),
        };
        json!({ "name": guard.name, "wants": wants, "verified_by": if left { "the origin" } else { "the edge" } })
    });
    let (key, bypass) = match &plan.lookup {
        Lookup::Key(key) => (Some(key.clone()), None),
        Lookup::Bypass(why) => (None, Some(why.name())),
    };
    json!({
        "revision": form.revision,
        "backend": backend.name(),
        "can_be_built": ::edge::complaints(backend, form).iter().all(|complaint| complaint.reducible),
        "limits": limits,
        "guard": guard,
        "rule": plan.rule.map(|rule| rule.rule.name.to_string()),
        "key": key,
        "bypass": bypass,
        "regions": plan.regions,
        "attempts": plan.route.attempts,
        "route": plan.route.name,
        "answer": answer(compiled, &plan, asked, head, place, now),
    })
}

fn answer(compiled: &Compiled, plan: &Plan<'_>, asked: &Asked, head: &Head, place: &Place, now: u64) -> Value {
    let browser = browser_control(&compiled.form, asked, head);
    if matches!(plan.lookup, Lookup::Bypass(_)) {
        return json!({ "kept": false, "why": "bypass", "browser": browser });
    }
    match keep(&compiled.form, place, plan, asked, head, now) {
        Ok(kept) => json!({
            "kept": true, "by": kept.rule, "ttl": kept.ttl, "stale_while_revalidate": kept.stale_while_revalidate,
            "stale_if_error": kept.stale_if_error, "tags": kept.tags, "browser": browser,
        }),
        Err(why) => json!({ "kept": false, "why": why.name(), "browser": browser }),
    }
}

/// The report for a person: a line for each step, in the order in which the edge takes them.
fn say(report: &Value) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
    println!("backend  {} at revision {}", text(&report["backend"]), text(&report["revision"]));
    if report["refused"].is_number() {
        println!("path     refused with {}: it may mean another path to somebody behind the edge", report["refused"]);
        return;
    }
    if report["can_be_built"] == false {
        println!("         this backend cannot do all that is declared: see `repomind-run edge build`");
    }
    for limit in report["limits"].as_array().into_iter().flatten() {
        println!(
            "limit    {}: {} in {} s, {} at once, {}, for {}",
            text(&limit["name"]),
            limit["rate"],
            limit["per_seconds"],
            limit["burst"],
            text(&limit["scope"]),
            text(&limit["counts_for"])
        );
    }
    if let Some(guard) = report["guard"].as_object() {
        println!(
            "guard    {}: {}, verified by {}",
            text(&guard["name"]),
            text(&guard["wants"]),
            text(&guard["verified_by"])
        );
    }
    println!("rule     {}", report["rule"].as_str().unwrap_or("none"));
    match report["key"].as_str() {
        Some(key) => println!("key      {key}"),
        None => println!("key      not looked up: {}", text(&report["bypass"])),
    }
    println!(
        "regions  {} (route {}, at most {})",
        list(&report["regions"]),
        text(&report["route"]),
        report["attempts"]
    );
    let answer = &report["answer"];
    if answer["kept"] == true {
        println!(
            "kept     {} s by {}; then {} s while it is refreshed, {} s where no region answers",
            answer["ttl"],
            text(&answer["by"]),
            answer["stale_while_revalidate"],
            answer["stale_if_error"]
        );
        println!("tags     {}", list(&answer["tags"]));
    } else {
        println!("kept     no: {}", text(&answer["why"]));
    }
    println!("browser  {}", answer["browser"].as_str().unwrap_or("as the origin says"));
}
