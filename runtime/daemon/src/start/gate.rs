//! The gate that a candidate passes before it comes into force.
//!
//! ```text
//!   files ──host──▶ parse, contract, own tests, laws of the resolvers    (in the child, all findings at once)
//!         ──▶ compiled: the residency space and the routing table, asked for once
//!         ──▶ determinism: a second child gives the same answers, byte for byte; where the proposer's two did and
//!             sent the hash of what they answered, the second child is theirs (`generations::rehearsing`)
//!         ──▶ the edge: its form, and what a kind of edge in use cannot do of it (`edges`)
//!         ──▶ invariants: what must never happen is proved for every case (`proofs`)
//!         ──▶ dry run: what would be otherwise than in force, on the facts of this moment
//! ```
//!
//! Whoever proposes goes through all of it; whoever receives a generation stops
//! after determinism. Nothing here changes anything: what comes out is either
//! findings, or a [`Candidate`] and its [`BlastRadius`]. Start with [`compile`].

use std::collections::{BTreeMap, BTreeSet};

use data::plans::Plans;
use model::bundle::PolicyTree;
use model::question::{Answer, Declarations, Invariant, Question, Resolution};
use model::radius::{BlastRadius, ChangeBounds, Difference};
use model::region::Regions;
use model::residency::{ResidencyCase, ResidencyPlan};
use model::routing::{ClientClass, Facts, Observation, RegionState, RoutingPlan};
use model::{RegionId, UnixMillis};
use policy::{Generation, HostError, PolicyHost};

use super::generations::RefusedGeneration;

/// The most resolvers that are compared, by name: each is asked to settle a few dozen conflicts.
const RESOLVERS: usize = 32;
/// Probes of a window that has just begun, in which verdicts about a region are compared.
const PROBES: u32 = 10;
/// In a full window, verdicts are compared for up to so many losses, ...
const MOST_LOSSES: u32 = 48;
/// ... and for so many of them in a row, or all.
const LONGEST_RUN: u32 = 12;
/// The most regions whose loss is imagined.
const LOST: usize = 16;

/// What a change is examined by.
#[derive(Clone, Debug)]
pub struct Moment {
    /// What policies are told.
    pub facts: Facts,
    /// The wall clock.
    pub now: UnixMillis,
    /// The health of every region, as requests are routed by it.
    pub states: BTreeMap<RegionId, RegionState>,
    /// Recent traffic by client class, over all regions that told of it.
    pub traffic: BTreeMap<ClientClass, f64>,
}

/// A tree that was loaded and compiled to plans.
pub struct Candidate {
    /// Answers for it.
    pub child: Generation,
    /// What requests would be answered from.
    pub plans: Plans,
    /// The resolvers that it defines.
    pub resolvers: Vec<String>,
    /// What a save may change without a second look while it is in force.
    pub bounds: ChangeBounds,
    /// What must be proved before it comes into force.
    pub invariants: Vec<Invariant>,
    /// What was asked of it so far, and what it answered: its declarations, the residency space, the routing table.
    pub asked: [(Question, Answer); 3],
    /// BLAKE3 of all that two children declared and answered alike, where two were asked.
    pub answers: Option<[u8; 32]>,
}

/// Loads a tree that was examined before, and compiles it.
///
/// # Errors
/// All findings at once, or that the host gave no usable answer.
pub async fn compile(
    host: &PolicyHost,
    tree: &PolicyTree,
    generation: u64,
    (regions, facts): (&Regions, &Facts),
) -> Result<Candidate, RefusedGeneration> {
    let (child, declarations) =
        host.load_again(tree.clone(), facts.clone()).await.map_err(RefusedGeneration::Findings)?;
    let rulings = ask(&child, Question::Residency { cases: compliance::cases() }).await?;
    let routes = ask(&child, Question::Route { facts: facts.clone() }).await?;
    candidate(child, declarations, (generation, tree), (rulings, routes), (regions, facts))
}

/// As [`compile`], in two children that know nothing of each other, all of whose answers must be equal. Where the tree is
/// to be examined, its tests run and its resolvers are held against the laws.
///
/// # Errors
/// As for [`compile`], or the first answer that differs: regions would never agree.
pub async fn compile_twice(
    host: &PolicyHost,
    tree: &PolicyTree,
    (generation, examine): (u64, bool),
    (regions, facts): (&Regions, &Facts),
) -> Result<Candidate, RefusedGeneration> {
    let loaded = host.load_twice(tree.clone(), facts.clone(), examine).await;
    let (child, declarations) = loaded.map_err(RefusedGeneration::Findings)?;
    let answers = alike(&child, &questions(&declarations, facts)).await?;
    let digest = digest(&child, &answers);
    let mut answers = answers.into_iter();
    // There is an answer to each question.
    let mut next = || usable(answers.next().unwrap_or_else(|| Answer::Refused(Vec::new())));
    let (rulings, routes) = (next()?, next()?);
    // The rest was asked for to be compared.
    for answer in answers {
        usable(answer)?;
    }
    let candidate = candidate(child, declarations, (generation, tree), (rulings, routes), (regions, facts))?;
    Ok(Candidate { answers: Some(digest), ..candidate })
}

/// As [`compile_twice`], where another region has two children that answered alike: its answers, by their hash, are held
/// against those of one child here to the same questions. Nothing where they differ: that region may run another version
/// of this program, and two children here have to say.
///
/// # Errors
/// As for [`compile`].
pub async fn compile_as(
    host: &PolicyHost,
    (tree, generation): (&PolicyTree, u64),
    (regions, facts): (&Regions, &Facts),
    (theirs, answers): (&Facts, [u8; 32]),
) -> Result<Option<Candidate>, RefusedGeneration> {
    let (child, declarations) =
        host.load_again(tree.clone(), facts.clone()).await.map_err(RefusedGeneration::Findings)?;
    let mut given = Vec::new();
    for question in questions(&declarations, theirs) {
        given.push(ask(&child, question).await?);
    }
    if digest(&child, &given) != answers {
        return Ok(None);
    }
    // Where records may be is no matter of the facts of a moment; who is served where is.
    let rulings = given.swap_remove(0);
    let routes = ask(&child, Question::Route { facts: facts.clone() }).await?;
    candidate(child, declarations, (generation, tree), (rulings, routes), (regions, facts)).map(Some)
}

fn digest(child: &Generation, answers: &[Answer]) -> [u8; 32] {
    blake3::hash(&child.transcript(answers)).into()
}

fn candidate(
    child: Generation,
    declarations: Declarations,
    (generation, tree): (u64, &PolicyTree),
    (rulings, routes): (Answer, Answer),
    (regions, facts): (&Regions, &Facts),
) -> Result<Candidate, RefusedGeneration> {
    let residency = residency_of(rulings.clone(), compliance::cases(), &declarations, regions)?;
    let routing = routing_of(routes.clone(), facts)?;
    let loaded = Question::Load { tree: PolicyTree::default(), facts: facts.clone(), examine: false };
    let asked = [
        (loaded, Answer::Loaded(Box::new(crate::decisions::declared(&declarations)))),
        (Question::Residency { cases: compliance::cases() }, rulings),
        (Question::Route { facts: facts.clone() }, routes),
    ];
    let Declarations { replication, lag, edge, resolvers, bounds, invariants, .. } = declarations;
    let policy = Some(tree.hash());
    let plans = Plans { generation, policy, replication, lag, residency, routing, edge };
    Ok(Candidate { child, plans, resolvers, bounds, invariants, asked, answers: None })
}

/// All that a generation is asked at its start: its residency space first, its routing table second.
fn questions(declarations: &Declarations, facts: &Facts) -> Vec<Question> {
    let mut questions = vec![
        Question::Residency { cases: compliance::cases() },
        Question::Route { facts: facts.clone() },
        Question::Failover { regions: facts.regions.clone() },
    ];
    questions.extend([0, PROBES].map(|losses| Question::Health { observations: vec![seen(losses, losses); 2] }));
    let resolvers = declarations.resolvers.iter().take(RESOLVERS);
    questions.extend(resolvers.map(|resolver| Question::Samples { resolver: resolver.clone() }));
    questions
}

async fn alike(child: &Generation, questions: &[Question]) -> Result<Vec<Answer>, RefusedGeneration> {
    child.answers_alike(questions).await.map_err(|findings| match findings.as_slice() {
        // About the host itself, and nothing that an author could do.
        [only] if only.file.is_empty() && only.help.is_empty() => RefusedGeneration::Host(only.message.clone()),
        _ => RefusedGeneration::Findings(findings),
    })
}

/// Where records may be, by the policies that `child` has loaded.
///
/// # Errors
/// Where the host gave no usable rulings.
pub async fn residency(
    child: &Generation,
    declarations: &Declarations,
    regions: &Regions,
) -> Result<ResidencyPlan, RefusedGeneration> {
    let cases = compliance::cases();
    let answer = ask(child, Question::Residency { cases: cases.clone() }).await?;
    residency_of(answer, cases, declarations, regions)
}

fn residency_of(
    answer: Answer,
    cases: Vec<ResidencyCase>,
    declarations: &Declarations,
    regions: &Regions,
) -> Result<ResidencyPlan, RefusedGeneration> {
    let Answer::Residency(rulings) = answer else { return Err(unexpected("residency", answer)) };
    let known = declarations.region_policies.iter().filter(|(region, _)| regions.by_id.contains_key(*region));
    let policies = known.map(|(region, policy)| (region.clone(), policy.clone())).collect();
    Ok(compliance::plan_from(cases, rulings, policies))
}

/// The routing table, by the policies that `child` has loaded and these facts.
///
/// # Errors
/// Where the host gave no usable rankings.
pub async fn route(child: &Generation, facts: &Facts) -> Result<RoutingPlan, RefusedGeneration> {
    routing_of(ask(child, Question::Route { facts: facts.clone() }).await?, facts)
}

/// The table that an answer to [`Question::Route`] about these facts makes.
///
/// # Errors
/// Where it makes none.
pub fn routing_of(answer: Answer, facts: &Facts) -> Result<RoutingPlan, RefusedGeneration> {
    let Answer::Routes(routes) = answer else { return Err(unexpected("routes", answer)) };
    routing::plan_from(facts, *routes).map_err(|error| RefusedGeneration::Host(error.to_string()))
}

/// What would be otherwise if `after` took the place of `before`, whose plans may be `in_force` longer than `after`
/// knows: the table of `before` is asked for anew, so that both are about the same facts.
///
/// # Errors
/// Where `after` gives no usable answer. A `before` that gives none is taken as its plans say.
pub async fn dry_run(
    before: (&Generation, &Plans, &[String], ChangeBounds),
    after: &Candidate,
    (regions, moment): (&Regions, &Moment),
) -> Result<BlastRadius, RefusedGeneration> {
    let (child, plans, resolvers, bounds) = before;
    // Each child has one question at a time: what they are asked runs beside each other, in no order that matters.
    let (table, resolvers, verdicts, failovers) = tokio::join!(
        route(child, &moment.facts),
        resolvers_differ((child, resolvers), (&after.child, &after.resolvers)),
        verdicts_differ(child, &after.child),
        plans_differ(child, &after.child, &moment.facts),
    );
    let table = table.unwrap_or_else(|error| {
        tracing::warn!(%error, "the generation in force was not asked again: its last table is compared");
        plans.routing.clone()
    });
    let new = &after.plans;
    let traffic = routing::moves(&table, &new.routing, regions, &moment.states, &moment.traffic);
    let flips = compliance::flips((&plans.residency, &plans.replication), (&new.residency, &new.replication));
    let mut differences = routing::dns_differences(&table.dns, &new.routing.dns);
    differences.extend(model::radius::declared(
        (&plans.replication, &plans.lag, &plans.edge),
        (&new.replication, &new.lag, &new.edge),
    ));
    differences.extend(resolvers?);
    differences.extend(verdicts?);
    differences.extend(failovers?);
    let mut radius = BlastRadius::new(traffic, flips, differences, (bounds, after.bounds));
    radius.given_up = super::edges::given_up(plans, new, regions, moment.now);
    Ok(radius)
}

fn seen(losses: u32, losses_in_a_row: u32) -> Observation {
    Observation { probes: PROBES, losses, losses_in_a_row }
}

/// Resolvers that came, went, or settle the conflicts that they are tried on in another way.
async fn resolvers_differ(
    (before, old): (&Generation, &[String]),
    (after, new): (&Generation, &[String]),
) -> Result<Vec<Difference>, RefusedGeneration> {
    let mut differences = Vec::new();
    let all: BTreeSet<&String> = old.iter().chain(new).collect();
    for resolver in all.into_iter().take(RESOLVERS) {
        let what = format!("the resolver `{resolver}`");
        let defined = |there: bool| there.then(|| "defined".to_owned());
        if old.contains(resolver) != new.contains(resolver) {
            let (was, becomes) = (defined(old.contains(resolver)), defined(new.contains(resolver)));
            differences.push(Difference { what, was, becomes });
            continue;
        }
        let (settled, settles) = tokio::join!(samples(before, resolver), samples(after, resolver));
        let (Ok(settled), settles) = (settled, settles?) else { continue };
        let other: Vec<_> = settled.iter().zip(&settles).filter(|((_, was), (_, becomes))| was != becomes).collect();
        if let Some(((set, was), (_, becomes))) = other.first() {
            let what =
                format!("{what} settles {} of {} conflicts otherwise, such as {set}", other.len(), settles.len());
            differences.push(Difference { what, was: Some(outcome(was)), becomes: Some(outcome(becomes)) });
        }
    }
    Ok(differences)
}

async fn samples(child: &Generation, resolver: &str) -> Result<Vec<(String, Option<Resolution>)>, RefusedGeneration> {
    match ask(child, Question::Samples { resolver: resolver.to_owned() }).await? {
        Answer::Samples(samples) => Ok(samples),
        other => Err(unexpected("settlements", other)),
    }
}

fn outcome(outcome: &Option<Resolution>) -> String {
    match outcome {
        None => "no settlement".to_owned(),
        Some(Resolution::Keep) => "all are kept".to_owned(),
        Some(Resolution::Winner(at)) => format!("number {at} wins"),
        Some(Resolution::Merged(bytes)) => format!("merged to {:?}", String::from_utf8_lossy(bytes)),
    }
}

/// Observations that `region-verdict` judges otherwise, where every observer saw the same.
async fn verdicts_differ(before: &Generation, after: &Generation) -> Result<Option<Difference>, RefusedGeneration> {
    let seen = observations();
    let (was, becomes) = tokio::join!(verdicts(before, &seen), verdicts(after, &seen));
    // The generation in force is not to blame here.
    let (Ok(was), becomes) = (was, becomes?) else { return Ok(None) };
    let other: Vec<_> =
        seen.iter().zip(was.iter().zip(&becomes)).filter(|(_, (was, becomes))| was != becomes).collect();
    let word = |unwell: &bool| (if *unwell { "unwell" } else { "steady" }).to_owned();
    Ok(other.first().map(|(Observation { probes, losses, losses_in_a_row }, (was, becomes))| Difference {
        what: format!(
            "a region that lost {losses} of {probes} probes, {losses_in_a_row} in a row (and {} other cases)",
            other.len() - 1
        ),
        was: Some(word(was)),
        becomes: Some(word(becomes)),
    }))
}

/// What is imagined of a region: a window that has just begun, and a full one, with every loss that might be a bound.
fn observations() -> Vec<Observation> {
    let begun = (0..=PROBES).flat_map(|losses| (u32::from(losses > 0)..=losses).map(move |run| (PROBES, losses, run)));
    let full = (0..=MOST_LOSSES).flat_map(|losses| {
        let runs = (u32::from(losses > 0)..=losses).filter(move |run| *run <= LONGEST_RUN || *run == losses);
        runs.map(move |run| (routing::WINDOW, losses, run))
    });
    let seen = |(probes, losses, losses_in_a_row)| Observation { probes, losses, losses_in_a_row };
    full.chain(begun).map(seen).collect()
}

async fn verdicts(child: &Generation, seen: &[Observation]) -> Result<Vec<bool>, RefusedGeneration> {
    match ask(child, Question::Verdicts { seen: seen.to_vec() }).await? {
        Answer::Verdicts(verdicts) => Ok(verdicts),
        other => Err(unexpected("verdicts", other)),
    }
}

/// What follows otherwise from a region that is down, whichever it is.
async fn plans_differ(
    before: &Generation,
    after: &Generation,
    facts: &Facts,
) -> Result<Vec<Difference>, RefusedGeneration> {
    let mut differences = Vec::new();
    for lost in facts.regions.iter().take(LOST) {
        let mut regions = facts.regions.clone();
        for region in &mut regions {
            region.state = if region.id == lost.id { RegionState::Down } else { RegionState::Ready };
        }
        let (was, becomes) = tokio::join!(failover(before, &regions), failover(after, &regions));
        let (Ok(was), becomes) = (was, becomes?) else { return Ok(differences) };
        differences.extend(Difference::between(
            format!("the failover plan while {} is down", lost.id),
            Some(was),
            Some(becomes),
        ));
    }
    Ok(differences)
}

async fn failover(child: &Generation, regions: &[model::routing::RegionFacts]) -> Result<String, RefusedGeneration> {
    match ask(child, Question::Failover { regions: regions.to_vec() }).await? {
        Answer::Failover(plan) => {
            let drain = plan.drain.iter().map(RegionId::as_str).collect::<Vec<_>>().join(" ");
            let promote = plan.promote.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
            Ok(format!("drain ({drain}), shift {} %, promote {promote}", plan.shift))
        }
        other => Err(unexpected("a plan", other)),
    }
}

/// Puts a question to a child; what a policy did wrong comes back as findings.
pub async fn ask(child: &Generation, question: Question) -> Result<Answer, RefusedGeneration> {
    match child.ask(question).await {
        Ok(answer) => usable(answer),
        // What a policy did to its child is a finding about the policy.
        Err(HostError::Deadline(finding) | HostError::Died(finding)) if !finding.file.is_empty() => {
            Err(RefusedGeneration::Findings(vec![*finding]))
        }
        Err(error) => Err(RefusedGeneration::Host(error.to_string())),
    }
}

fn usable(answer: Answer) -> Result<Answer, RefusedGeneration> {
    match answer {
        Answer::Refused(findings) => Err(RefusedGeneration::Findings(findings)),
        answer => Ok(answer),
    }
}

/// The error for an answer to another question.
pub fn unexpected(wanted: &str, found: Answer) -> RefusedGeneration {
    let found = format!("{found:?}").chars().take(80).collect::<String>();
    RefusedGeneration::Host(format!("asked for {wanted}, got {found}"))
}
