//! What the policy host costs: one child, asked over its socket.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use model::question::{Answer, Question};
use model::record::{Address, Content, DataClass, Labels, Payload, Record, Sibling};
use model::residency::{ResidencyPlan, ScopeId};
use model::version::{Actor, CausalContext, Dot, Incarnation, Version};
use model::{Country, Finding, Hlc, Key, Namespace, NodeId, UnixMillis};
use policy::{Generation, HostLimits, PolicyHost};

use super::bench::{Figure, figure};
use super::percentile;

/// How often each question is put.
const TIMES: usize = 200;

/// Loads the tree's policies and times the questions that the daemon asks. `puts` a second were durable in one region.
pub async fn figures(tree: &Path, puts: f64) -> anyhow::Result<Vec<Figure>> {
    let regions = config::load(tree).map_err(crate::deploy::BadConfiguration)?;
    let files = crate::start::watch::read_tree(tree).map_err(crate::deploy::BadConfiguration)?;
    let tracker = routing::HealthTracker::new(regions.by_id.keys().cloned().collect());
    let facts = routing::facts(&regions, &regions.primary, &tracker, &routing::classes());
    let host = PolicyHost::start(&std::env::current_exe()?, crate::embedded::library(), HostLimits::default())?;
    let good =
        |findings: Vec<Finding>| anyhow::anyhow!("{}", findings.first().map_or(String::new(), ToString::to_string));
    let mut loads = Vec::new();
    let mut last = None;
    for _ in 0..10 {
        // The engine of the next child is built while this one is asked; what is timed is the load itself.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let began = Instant::now();
        last = Some(host.load(files.clone(), facts.clone()).await.map_err(good)?);
        loads.push(began.elapsed());
    }
    let (child, declarations) = last.context("nothing was loaded")?;
    let cases = compliance::cases();
    let classes = facts.clients.len();
    let mut figures = vec![figure("policy host: loading the ten files, with their tests", show(loads), "")];
    let question = Question::Route { facts: facts.clone() };
    figures.push(figure(
        format!("policy host: ranking {} regions for {classes} client classes", facts.regions.len()),
        show(times(&child, &question, 20).await?),
        "",
    ));
    let question = Question::Residency { cases: cases.clone() };
    let all = times(&child, &question, 20).await?;
    let each = all.iter().sum::<Duration>().as_secs_f64() * 1e6 / (all.len() * cases.len()) as f64;
    figures.push(figure(format!("policy host: ruling on {} residency cases", cases.len()), show(all), ""));
    figures.push(figure("policy host: one residency case among these, for all regions", format!("{each:.1} µs"), ""));
    let question = Question::Residency { cases: cases[..1].to_vec() };
    figures.push(figure("policy host: one residency case alone", show(times(&child, &question, TIMES).await?), ""));
    let Answer::Residency(rulings) = ask(&child, Question::Residency { cases: cases.clone() }).await? else {
        bail!("another answer than asked for");
    };
    let plan = compliance::plan_from(cases, rulings, declarations.region_policies.clone());
    let labels = Labels::of_class(DataClass::Operational, UnixMillis(0));
    let scope = plan.permit(&labels, &regions.primary, UnixMillis(1))?.scope();
    if let Some(resolver) = declarations.resolvers.first() {
        let question = conflict(resolver, scope)?;
        let found = show(times(&child, &question, TIMES).await?);
        figures.push(figure(format!("policy host: settling one conflict by `{resolver}`"), found, ""));
    }
    let nobody = Labels::of_class(DataClass::Operational, UnixMillis(0));
    figures.push(figure("residency decision from the plan, no Scheme", decision(&plan, &regions, &nobody).0, ""));
    let mut person = Labels { classes: [DataClass::Personal, DataClass::Health].into(), ..nobody };
    person.jurisdictions = ["DE", "US"].iter().filter_map(|code| Country::new(code).ok()).collect();
    let (found, each) = decision(&plan, &regions, &person);
    // Two decisions a put: when it is let in and when it is stored.
    let share = 2.0 * each.as_secs_f64() * puts * 100.0;
    let beside = format!("twice a put, at {puts:.0} puts/s: {share:.2} % of one processor");
    figures.push(figure("the same, of two classes under two laws", found, beside));
    host.shutdown();
    Ok(figures)
}

async fn ask(child: &Generation, question: Question) -> anyhow::Result<Answer> {
    match child.ask(question).await? {
        Answer::Refused(findings) => bail!("{}", findings.first().map_or(String::new(), ToString::to_string)),
        answer => Ok(answer),
    }
}

async fn times(child: &Generation, question: &Question, count: usize) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..count {
        let question = question.clone();
        let began = Instant::now();
        ask(child, question).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

fn show(times: Vec<Duration>) -> String {
    let mut sorted: Vec<u64> = times.iter().map(|time| time.as_micros() as u64).collect();
    sorted.sort_unstable();
    let at = |share| percentile(&sorted, share).map_or(f64::NAN, |us| us as f64 / 1000.0);
    format!("p50 {:.2} ms, p99 {:.2} ms ({} times)", at(0.5), at(0.99), sorted.len())
}

/// Two concurrent writes of 1 KiB.
fn conflict(resolver: &str, scope: ScopeId) -> anyhow::Result<Question> {
    let sibling = |region: &str, text: &str| -> anyhow::Result<Sibling> {
        let actor = Actor { region: region.parse()?, node: NodeId(0), incarnation: Incarnation(1) };
        let record = Record {
            payload: Payload::Plain(text.repeat(1024 / text.len()).into()),
            content_type: "text/plain".into(),
            labels: Labels::of_class(DataClass::Operational, UnixMillis(0)),
            generation: 1,
        };
        let version =
            Version { dot: Dot { actor, counter: 1 }, hlc: Hlc::new(UnixMillis(1), 0), context: CausalContext::new() };
        Ok(Sibling { version, scope, content: Content::Live(record) })
    };
    Ok(Question::Resolve {
        resolver: resolver.to_owned(),
        address: Address { namespace: Namespace::new("settings")?, key: Key::new("bench")? },
        siblings: vec![sibling("us-east", "theme=dark tabs=4\n")?, sibling("eu-west", "theme=dark lang=en\n")?],
    })
}

fn decision(plan: &ResidencyPlan, regions: &model::region::Regions, labels: &Labels) -> (String, Duration) {
    let (rounds, began) = (100_000_u32, Instant::now());
    let allowed =
        (0..rounds).filter(|_| plan.permit(std::hint::black_box(labels), &regions.primary, UnixMillis(1)).is_ok());
    let allowed = allowed.count();
    let each = began.elapsed() / rounds;
    (format!("{} ns ({allowed} of {rounds} allowed)", each.as_nanos()), each)
}
