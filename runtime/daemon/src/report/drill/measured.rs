//! What a drill measured, and what is asked of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use model::routing::RegionState;
use model::{Namespace, RegionId};
use serde::Serialize;

use super::super::traffic::{self, Event, Worker};
use super::super::{Check, Stage, percentile};
use super::fault::Fault;
use super::watch::{Seen, Sight};
use crate::client::Client;

/// A region that is neither dead nor cut off, or that flaps, may leave service once and come back once.
const CHANGES: usize = 2;

/// What one drill measured. Times are milliseconds from the beginning of the fault, and absent for what did not happen.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// What was done.
    pub fault: Fault,
    /// To which region.
    pub region: RegionId,
    /// Whether it was the primary.
    pub led: bool,
    /// How long the fault lasted.
    pub outage_ms: u64,
    /// When the first surviving region noticed something.
    pub noticed_ms: Option<u64>,
    /// When the last surviving region called it down.
    pub detected_ms: Option<u64>,
    /// When another region could answer for the primary, where the place became vacant.
    pub promoted_ms: Option<u64>,
    /// When the last surviving DNS server had ceased to name it to its clients.
    pub dns_ms: Option<u64>,
    /// Whether DNS servers named it before, so that `dns_ms` means something.
    pub dns_asked: bool,
    /// When the last of its clients at surviving gateways was served elsewhere.
    pub rerouted_ms: Option<u64>,
    /// The slowest request of those after the beginning of the fault.
    pub slowest_request_ms: Option<u64>,
    /// Requests of its clients at surviving gateways.
    pub requests: usize,
    /// Those of them that ended after the beginning of the fault.
    pub requests_after: usize,
    /// Those of these that failed.
    pub failed_requests: usize,
    /// Requests at its own gateway after the beginning of the fault, and how many of them failed.
    pub at_its_own_gateway: (usize, usize),
    /// The most times that a surviving region changed its mind on whether it serves.
    pub changes_of_service: usize,
    /// Writes that two regions acknowledged.
    pub writes_acknowledged: usize,
    /// Writes in surviving regions that were not.
    pub writes_not_acknowledged: usize,
    /// From the end of the fault until every region was ready and had caught up in the eyes of all others.
    pub recovered_ms: Option<u64>,
    /// From the end of the fault until all served as before.
    pub in_service_ms: Option<u64>,
    /// Acknowledged writes that some region could not give back, and some of them.
    pub acknowledged_writes_lost: usize,
    /// Some of those.
    pub lost: Vec<String>,
    /// Claims that prove two primaries at a time.
    pub second_primaries: Vec<String>,
    /// Why requests and writes failed, some of each.
    pub failures: Vec<String>,
    /// What happened, in order: milliseconds from the beginning of the fault (below zero before it), where, and what.
    pub timeline: Vec<Happened>,
    /// Requests at surviving gateways, for the picture: milliseconds as above, how long each took, whether it failed.
    #[serde(skip)]
    pub answered: Vec<(i64, u64, bool)>,
    #[serde(skip)]
    began: Instant,
}

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Happened {
    /// Milliseconds from the beginning of the fault.
    pub at_ms: i64,
    /// In which region.
    pub region: RegionId,
    /// Of what kind: `state`, `role`, `dns`, `silent`.
    pub kind: &'static str,
    /// What it is from then on.
    pub is: String,
}

impl Measured {
    /// What the looks at all regions say.
    pub fn of(
        fault: Fault,
        region: &RegionId,
        led: bool,
        (began, ended): (Instant, Instant),
        survivors: &[RegionId],
        seen: &Seen,
    ) -> Self {
        let state = |wanted: fn(RegionState) -> bool| move |sight: &Sight| matches!(sight, Sight::State(state) if wanted(*state));
        let noticed = survivors.iter().filter_map(|one| {
            seen.last_first(std::slice::from_ref(one), began, state(|state| state != RegionState::Ready))
        });
        let asked: Vec<RegionId> = survivors.iter().filter(|one| named_before(seen, one, began)).cloned().collect();
        Self {
            fault,
            region: region.clone(),
            led,
            outage_ms: ended.duration_since(began).as_millis() as u64,
            noticed_ms: noticed.min(),
            detected_ms: seen.last_first(survivors, began, state(|state| state == RegionState::Down)),
            promoted_ms: seen.promoted(survivors, began),
            dns_ms: seen
                .last_first(&asked, began, |sight| *sight == Sight::Named(Some(false)))
                .filter(|_| !asked.is_empty()),
            dns_asked: !asked.is_empty(),
            rerouted_ms: None,
            slowest_request_ms: None,
            requests: 0,
            requests_after: 0,
            failed_requests: 0,
            at_its_own_gateway: (0, 0),
            changes_of_service: seen.changes(survivors, began),
            writes_acknowledged: 0,
            writes_not_acknowledged: 0,
            recovered_ms: None,
            in_service_ms: None,
            acknowledged_writes_lost: 0,
            lost: Vec::new(),
            second_primaries: seen.second_primaries(),
            failures: Vec::new(),
            timeline: timeline(seen, began),
            answered: Vec::new(),
            began,
        }
    }

    /// Takes in what the readers saw at surviving gateways, and at the region's own.
    pub async fn read_results(&mut self, readers: Vec<Worker>, own: Option<Worker>) -> anyhow::Result<()> {
        let began = self.began;
        let mut rerouted = Some(0_u64);
        for reader in readers {
            let gateway = reader.region.clone();
            let events = reader.finish().await?;
            self.requests += events.len();
            let took = |event: &Event| (event.ended - event.sent).as_millis() as u64;
            self.answered.extend(events.iter().map(|event| (signed(began, event.ended), took(event), !event.good)));
            let after: Vec<&Event> = events.iter().filter(|event| event.ended >= began).collect();
            self.requests_after += after.len();
            let failed: Vec<&&Event> = after.iter().filter(|event| !event.good).collect();
            self.failed_requests += failed.len();
            self.failures.extend(failed.iter().take(3).map(|event| format!("{gateway}: {}", event.why)));
            self.slowest_request_ms = self.slowest_request_ms.max(after.iter().map(|event| took(event)).max());
            // Served elsewhere from the first good answer after the last bad one.
            let bad_until = failed.iter().map(|event| event.ended).max().unwrap_or(began);
            let elsewhere = after
                .iter()
                .find(|event| event.good && event.ended >= bad_until && event.detail != self.region.as_str())
                .map(|event| event.ended.duration_since(began).as_millis() as u64);
            rerouted = rerouted.zip(elsewhere).map(|(a, b)| a.max(b));
        }
        self.rerouted_ms = rerouted.filter(|_| self.requests > 0);
        if let Some(own) = own {
            let events = own.finish().await?;
            let after = events.iter().filter(|event| event.ended >= began);
            self.at_its_own_gateway = (after.clone().count(), after.filter(|event| !event.good).count());
        }
        Ok(())
    }

    /// The acknowledged writes: key to value.
    pub async fn written(
        &mut self,
        writers: Vec<Worker>,
        victim: &RegionId,
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let mut acknowledged = BTreeMap::new();
        for writer in writers {
            let region = writer.region.clone();
            let mut shown = 0;
            for (number, event) in writer.finish().await?.into_iter().enumerate() {
                if event.good {
                    acknowledged.insert(event.detail, traffic::value(&region, number as u64));
                } else if region != *victim {
                    self.writes_not_acknowledged += 1;
                    if shown < 3 {
                        shown += 1;
                        self.failures.push(format!("write in {region}: {}", event.why));
                    }
                }
            }
        }
        self.writes_acknowledged = acknowledged.len();
        Ok(acknowledged)
    }

    /// Reads every acknowledged write in every region. A region has a few seconds to receive the last ones.
    pub async fn missing(&mut self, stage: &Stage, acknowledged: BTreeMap<String, String>) -> anyhow::Result<()> {
        let namespace = Namespace::new("drill")?;
        let mut readers = Vec::new();
        for (region, addresses) in &stage.deployment.regions {
            let (client, gateway) = (stage.client.clone(), addresses.gateway);
            let (namespace, wanted, region) = (namespace.clone(), acknowledged.clone(), region.clone());
            readers.push(tokio::spawn(async move {
                let deadline = Instant::now() + Duration::from_secs(10);
                let mut lost = Vec::new();
                for (key, value) in wanted {
                    while !holds(&client, gateway, &namespace, &key, &value).await {
                        if Instant::now() >= deadline {
                            lost.push(format!("{key} in {region}"));
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
                lost
            }));
        }
        for reader in readers {
            let lost = reader.await.context("a reader ended")?;
            self.acknowledged_writes_lost += lost.len();
            self.lost.extend(lost.into_iter().take(20));
        }
        Ok(())
    }

    /// What is worth saying beside the checks.
    pub fn notes(&self, several: bool) -> Vec<String> {
        let ms = |found: Option<u64>| found.map_or_else(|| "-".into(), |ms| format!("{ms} ms"));
        let of = if several { format!("{}: ", self.fault) } else { String::new() };
        let (own, failed) = self.at_its_own_gateway;
        let mut notes = vec![format!(
            "{of}{} requests and {} acknowledged writes; slowest request after the beginning {}; {} writes in the other \
             regions not acknowledged; at the gateway of {} itself {failed} of {own} requests failed; in service as before after {}",
            self.requests,
            self.writes_acknowledged,
            ms(self.slowest_request_ms),
            self.writes_not_acknowledged,
            self.region,
            ms(self.in_service_ms),
        )];
        let some = self.failures.iter().take(10).chain(self.lost.iter().take(10)).chain(&self.second_primaries);
        notes.extend(some.map(|line| format!("{of}{line}")));
        notes
    }
}

/// Whether the DNS server of a region named the one that the drill is about when the fault began.
fn named_before(seen: &Seen, region: &RegionId, began: Instant) -> bool {
    let mut its = seen.moments.iter().filter(|moment| moment.by == *region && moment.at < began);
    let last = its.rfind(|moment| matches!(moment.sight, Sight::Named(_)));
    last.is_some_and(|moment| moment.sight == Sight::Named(Some(true)))
}

fn timeline(seen: &Seen, began: Instant) -> Vec<Happened> {
    let happened = |moment: &super::watch::Moment| {
        let (kind, is) = match &moment.sight {
            Sight::State(state) => ("state", state.name().to_owned()),
            Sight::Role(role) => ("role", word(role)),
            Sight::Named(Some(true)) => ("dns", "names it".into()),
            Sight::Named(Some(false)) => ("dns", "names others".into()),
            Sight::Named(None) => ("dns", "no answer".into()),
            Sight::Silent => ("silent", "does not answer".into()),
        };
        Happened { at_ms: signed(began, moment.at), region: moment.by.clone(), kind, is }
    };
    seen.moments.iter().map(happened).collect()
}

/// The word that `status` has for it.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn signed(began: Instant, at: Instant) -> i64 {
    match at.checked_duration_since(began) {
        Some(after) => after.as_millis() as i64,
        None => -(began.duration_since(at).as_millis() as i64),
    }
}

async fn holds(client: &Client, gateway: std::net::SocketAddr, namespace: &Namespace, key: &str, value: &str) -> bool {
    let reply = client.get(gateway, namespace, key, Duration::from_secs(5)).await;
    reply.is_ok_and(|reply| reply.status.is_success() && reply.body == value.as_bytes())
}

/// What is asked of the runs of one fault, judged by the worst of them: `within` is in milliseconds.
pub fn checks(runs: &[&Measured], within: u64, recovery: Duration) -> Vec<Check> {
    let Some(first) = runs.first() else { return Vec::new() };
    let gone = &first.region;
    let worst = |time: fn(&Measured) -> Option<u64>| {
        let mut each = runs.iter().map(|run| time(run));
        each.try_fold(0, |worst: u64, one| one.map(|one| worst.max(one)))
    };
    let sum = |count: fn(&Measured) -> usize| runs.iter().map(|run| count(run)).sum::<usize>();
    let mut checks = Vec::new();
    if first.fault.takes_out() {
        checks.push(Check::at_most_ms(
            format!("every surviving region calls {gone} down"),
            worst(|run| run.detected_ms),
            within,
        ));
        if sum(|run| run.requests) > 0 {
            checks.push(Check::at_most_ms("its clients are served elsewhere", worst(|run| run.rerouted_ms), within));
        }
        if runs.iter().all(|run| run.dns_asked) {
            checks.push(Check::at_most_ms("DNS names others to its clients", worst(|run| run.dns_ms), within));
        }
        if runs.iter().all(|run| run.led) {
            checks.push(Check::at_most_ms("another region is the primary", worst(|run| run.promoted_ms), within));
        }
    } else {
        let most = runs.iter().map(|run| run.changes_of_service).max().unwrap_or_default();
        checks.push(Check {
            what: format!("how often a region changed its mind on whether {gone} serves"),
            holds: most <= CHANGES,
            bound: format!("at most {CHANGES}"),
            found: most.to_string(),
        });
    }
    if sum(|run| run.requests) > 0 {
        checks.push(Check::none(
            "requests of its clients that failed at surviving gateways",
            sum(|run| run.failed_requests),
        ));
    }
    checks.push(Check::at_most_ms(
        "it comes back and catches up",
        worst(|run| run.recovered_ms),
        recovery.as_millis() as u64,
    ));
    checks.push(Check {
        what: "writes acknowledged by two regions, before and during the outage".into(),
        holds: runs.iter().all(|run| run.writes_acknowledged > 0),
        bound: "some".into(),
        found: sum(|run| run.writes_acknowledged).to_string(),
    });
    checks.push(Check::none(
        "acknowledged writes that some region cannot give back",
        sum(|run| run.acknowledged_writes_lost),
    ));
    checks.push(Check::none("two primaries at a time", sum(|run| run.second_primaries.len())));
    checks
}

/// Median and maximum over several runs of one fault, in a line.
pub fn spread(runs: &[&Measured]) -> String {
    let of = |name: &str, time: fn(&Measured) -> Option<u64>| {
        let mut times: Vec<u64> = runs.iter().filter_map(|run| time(run)).collect();
        times.sort_unstable();
        let (half, most) = (percentile(&times, 0.5)?, times.last()?);
        Some(format!("{name} {half} / {most} ms"))
    };
    let parts = [
        of("down", |run| run.detected_ms),
        of("rerouted", |run| run.rerouted_ms),
        of("DNS", |run| run.dns_ms),
        of("new primary", |run| run.promoted_ms),
        of("back", |run| run.recovered_ms),
        of("in service", |run| run.in_service_ms),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    format!("{}, {} runs, median / longest: {}", runs[0].fault, runs.len(), parts.join(", "))
}
