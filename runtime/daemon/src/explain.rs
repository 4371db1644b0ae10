//! `repomind-run explain`: why something was decided as it was, from what the region itself kept.

pub mod conflict;

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use model::judgement::{Bound, Decision, Outcome, Said};
use model::{RegionId, UnixMillis};

use model::explain::{About, Candidate, Explanation, Step};
use model::record::Labels;

use crate::args::{
    ExplainDecisionArgs, ExplainFailoverArgs, ExplainResidencyArgs, ExplainRouteArgs, FINDING, Place, USAGE,
};
use crate::client::Client;
use crate::decisions::Told;

/// A policy may be asked once more for an explanation.
const PATIENCE: Duration = Duration::from_secs(10);

/// `repomind-run explain failover`.
pub async fn failover(args: ExplainFailoverArgs) -> anyhow::Result<ExitCode> {
    let deployment = crate::status::at(&args.place)?;
    let region = args.region.unwrap_or_else(|| deployment.primary.clone());
    let Some(admin) = deployment.admins().get(&region).copied() else {
        eprintln!("error: no region is called {region}");
        return Ok(ExitCode::from(USAGE));
    };
    let client = Client::new(&args.place.state)?;
    let (decisions, status) = (client.decisions(admin).await?, client.status(admin).await?);
    if args.json {
        let report = serde_json::json!({
            "region": region, "sees": status.sees, "plan": status.plan, "decisions": decisions,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(ExitCode::SUCCESS);
    }
    let sees: Vec<String> = status.sees.iter().map(|(id, state)| format!("{id} {}", state.name())).collect();
    println!("{region} sees {}", sees.join(", "));
    if let Some(plan) = &status.plan {
        let drain: Vec<String> = plan.drain.iter().map(ToString::to_string).collect();
        let drain = if drain.is_empty() { "nobody".into() } else { drain.join(", ") };
        let promote = plan.promote.as_ref().map_or_else(|| "nobody".into(), ToString::to_string);
        println!("failover-plan: drain {drain}, shift {} per cent at a time, promote {promote} (advice)", plan.shift);
    }
    if decisions.is_empty() {
        println!("nothing was judged since {region} started: no probe was lost");
    }
    for decision in &decisions {
        print!("\n{}", account(decision));
    }
    Ok(ExitCode::SUCCESS)
}

/// `repomind-run explain route`.
pub async fn route(args: ExplainRouteArgs) -> anyhow::Result<ExitCode> {
    let ExplainRouteArgs { place, client, name, region, json } = args;
    ask(&place, region, &About::Route { client, name }, json).await
}

/// `repomind-run explain residency`.
pub async fn residency(args: ExplainResidencyArgs) -> anyhow::Result<ExitCode> {
    let mut labels = Labels::of_class(args.class[0], UnixMillis(0));
    labels.classes = args.class.into_iter().collect();
    labels.jurisdictions = args.jurisdiction.into_iter().collect();
    (labels.basis, labels.purpose) = (args.basis, args.purpose);
    ask(&args.place, args.region, &About::Residency { labels: Box::new(labels), region: args.r#in }, args.json).await
}

/// `repomind-run explain decision`.
pub async fn decision(args: ExplainDecisionArgs) -> anyhow::Result<ExitCode> {
    let ExplainDecisionArgs { id, last: _, place, region, json } = args;
    let deployment = crate::status::at(&place)?;
    let region = region.unwrap_or_else(|| deployment.primary.clone());
    let Some(admin) = deployment.admins().get(&region).copied() else {
        eprintln!("error: no region is called {region}");
        return Ok(ExitCode::from(USAGE));
    };
    let which = id.map_or_else(|| "last".to_owned(), |id| format!("id={id}"));
    let told: Told = Client::new(&place.state)?.get_admin(admin, &format!("/decision?{which}")).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&told)?);
    } else {
        print!("{}", told.text());
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(place: &Place, region: Option<RegionId>, about: &About, json: bool) -> anyhow::Result<ExitCode> {
    let deployment = crate::status::at(place)?;
    let region = region.unwrap_or_else(|| deployment.primary.clone());
    let Some(admin) = deployment.admins().get(&region).copied() else {
        eprintln!("error: no region is called {region}");
        return Ok(ExitCode::from(USAGE));
    };
    match Client::new(&place.state)?.post::<Explanation>(admin, "/explain", about, PATIENCE).await? {
        Ok(explanation) if json => println!("{}", serde_json::to_string_pretty(&explanation)?),
        Ok(explanation) => print!("{}", told(&explanation)),
        Err(findings) => {
            findings.iter().for_each(|finding| eprintln!("{}", finding.render(false)));
            return Ok(ExitCode::from(FINDING));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An explanation for a person.
fn told(explanation: &Explanation) -> String {
    let Explanation { by, at, generation, policy_hash, facts, about, steps, candidates, outcome } = explanation;
    let mut text = format!("{about}: {outcome}\n");
    let _ =
        writeln!(text, "  decided by {by} at {}, generation {generation} ({policy_hash}), facts {facts}", time(*at));
    let stands = |file: &str, line: u32| match (file, line) {
        ("", _) => "the runtime".to_owned(),
        (file, 0) => file.to_owned(),
        (file, line) => format!("{file}:{line}"),
    };
    for Step { file, line, asked, gave } in steps {
        let _ = writeln!(text, "  {}  {asked}: {gave}", stands(file, *line));
    }
    for Candidate { region, taken, why, rule, file, line } in candidates {
        let mark = if *taken { "+" } else { "-" };
        let rule = rule.as_ref().map_or_else(String::new, |rule| format!(", by {rule} ({})", stands(file, *line)));
        let _ = writeln!(text, "  {mark} {region}: {why}{rule}");
    }
    text
}

/// A decision with everything that led to it, a line each.
fn account(decision: &Decision) -> String {
    let mut text = time(decision.at);
    if decision.times > 1 {
        let _ = write!(text, " to {} ({} times)", time(decision.until), decision.times);
    }
    let _ = writeln!(text, "  {}", words(decision));
    for vote in &decision.votes {
        let seen = vote.seen;
        let counts = vote.lost.map_or_else(|| "counts".into(), |lost| format!("does not count: {}", lost.reason()));
        let _ = writeln!(
            text,
            "    {} lost {} of {} probes, {} in a row, {} ago; {counts}",
            vote.observer, seen.losses, seen.probes, seen.losses_in_a_row, vote.age
        );
    }
    text
}

/// A decision as a sentence.
pub fn words(decision: &Decision) -> String {
    let Decision { region, generation, native, .. } = decision;
    let said = match &decision.said {
        Said::Steady => format!("generation {generation} calls {region} steady"),
        Said::Unwell => format!("generation {generation} calls {region} unwell"),
        Said::Drain => format!("generation {generation} drains {region}"),
        Said::NoDrain => format!("generation {generation} does not drain {region}"),
        Said::Nothing(why) => format!("nothing was said of {region} ({why})"),
    };
    let came = match decision.outcome {
        Outcome::StaysIn => "it stays in".into(),
        Outcome::Out => "it is taken out".into(),
        Outcome::StaysOut => "it stays out".into(),
        Outcome::Back => "it serves again".into(),
        Outcome::Released(bound) => format!("it serves again: {}", because(bound)),
        Outcome::Held(bound) => format!("held back by the bound `{}`: {}", bound.name(), because(bound)),
        Outcome::OutNatively => "the native rule has it out already".into(),
    };
    format!("{said}; natively it is {}; {came}", native.name())
}

/// What a bound wants, in words.
const fn because(bound: Bound) -> &'static str {
    match bound {
        Bound::LastServing => "no other region serves",
        Bound::OneAtATime => "another region is out by judgement",
        Bound::Pace => "the last judged change was less than 5 s ago",
        Bound::Panic => "most regions seem unwell, so the detector is distrusted",
        Bound::TooFewVotes => "no more than half of the observers have a vote that counts",
        Bound::Recovery => "it must be steady for a while and answer by the native rule first",
        Bound::Stale => "without verdicts the last one holds for 10 s and no longer",
    }
}

/// Day and time in UTC.
pub fn day_and_time(at: UnixMillis) -> String {
    let (year, month, day) = at.date();
    format!("{year:04}-{month:02}-{day:02} {}", time(at))
}

/// The time of day in UTC, to the millisecond.
pub fn time(at: UnixMillis) -> String {
    let (hour, minute, second) = at.time_of_day();
    format!("{hour:02}:{minute:02}:{second:02}.{:03}Z", at.0 % 1000)
}

#[cfg(test)]
mod tests {
    use model::judgement::{Vote, VoteLost};
    use model::routing::{Observation, RegionState};
    use model::{Millis, RegionId};

    use super::*;

    #[test]
    fn days_are_counted_as_the_calendar_has_them() {
        assert_eq!(day_and_time(UnixMillis(0)), "1970-01-01 00:00:00.000Z");
        assert_eq!(day_and_time(UnixMillis(951_827_696_789)), "2000-02-29 12:34:56.789Z");
        assert_eq!(day_and_time(UnixMillis(1_767_225_599_999)), "2025-12-31 23:59:59.999Z");
    }

    #[test]
    fn an_account_names_who_saw_what_whose_vote_counts_and_the_bound() {
        let id = |name: &str| RegionId::new(name).unwrap();
        let vote = |observer: &str, lost| Vote {
            observer: id(observer),
            seen: Observation { probes: 64, losses: 25, losses_in_a_row: 3 },
            age: Millis(40),
            lost,
        };
        let decision = Decision {
            at: UnixMillis(3_661_005),
            until: UnixMillis(3_665_000),
            times: 9,
            region: id("eu-west"),
            native: RegionState::Suspect,
            generation: 4,
            votes: vec![vote("ap-southeast", Some(VoteLost::SelfDoubt)), vote("us-east", None)],
            said: Said::Unwell,
            outcome: Outcome::Held(Bound::Pace),
        };
        assert_eq!(
            account(&decision),
            "01:01:01.005Z to 01:01:05.000Z (9 times)  generation 4 calls eu-west unwell; natively it is suspect; \
             held back by the bound `pace`: the last judged change was less than 5 s ago\n    \
             ap-southeast lost 25 of 64 probes, 3 in a row, 40 ms ago; does not count: loses probes to most regions \
             itself\n    us-east lost 25 of 64 probes, 3 in a row, 40 ms ago; counts\n"
        );
    }
}
