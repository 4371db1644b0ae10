//! Looks at every region several times a second, and keeps what changed and when.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::RegionId;
use model::control::ControlRole;
use model::region::Addresses;
use model::routing::RegionState;

use super::super::Stage;
use super::dns;
use crate::client::Client;

/// The pause between two looks at `/status`, and between two questions to a DNS server.
const LOOK: Duration = Duration::from_millis(20);
/// A region that does not answer is asked again after so long.
const PATIENCE: Duration = Duration::from_millis(1000);
/// The most looks that are kept of one region: an hour's.
const MOST: usize = 180_000;

/// One thing that was seen to have changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Sight {
    /// How a region sees the one that the drill is about.
    State(RegionState),
    /// What a region is in the common log.
    Role(ControlRole),
    /// Whether its DNS server names the region that the drill is about to that one's clients; none without an answer.
    Named(Option<bool>),
    /// It does not answer its admin address.
    Silent,
}

/// A sight, when and in which region.
#[derive(Clone, Debug)]
pub struct Moment {
    /// When the answer was there.
    pub at: Instant,
    /// Who gave it.
    pub by: RegionId,
    /// What it showed.
    pub sight: Sight,
}

/// A region that says it may answer for the primary, somewhen between two moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which.
    pub by: RegionId,
    /// In which term.
    pub term: u64,
    /// When it was asked.
    pub asked: Instant,
    /// When its answer was there.
    pub answered: Instant,
}

/// All that was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What changed, in order of time.
    pub moments: Vec<Moment>,
    /// Every claim to be the primary.
    pub claims: Vec<Claim>,
}

/// Which DNS question is asked everywhere.
#[derive(Clone, Debug)]
pub struct Question {
    /// The name.
    pub name: String,
    /// A client that is sent to the region that the drill is about.
    pub client: IpAddr,
}

/// Looks until it is ended.
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Watch {
    /// Begins to look at all regions, for what they make of `victim`.
    pub fn begin(stage: &Stage, victim: &RegionId, question: Option<&Question>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let regions = &stage.deployment.regions;
        let its = regions.get(victim).map(|addresses| addresses.public.clone()).unwrap_or_default();
        let mut tasks = Vec::new();
        for (region, Addresses { admin, dns, .. }) in regions {
            let looked = status(stage.client.clone(), *admin, region.clone(), victim.clone(), seen.clone());
            tasks.push(tokio::spawn(looked));
            if let Some(question) = question.filter(|_| region != victim) {
                tasks.push(tokio::spawn(named(*dns, question.clone(), its.clone(), region.clone(), seen.clone())));
            }
        }
        Self { seen, tasks }
    }

    /// Ends it and gives all that was seen.
    pub fn finish(self) -> Seen {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.moments.sort_by_key(|moment| moment.at);
        seen
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn note(seen: &Mutex<Seen>, last: &mut BTreeMap<&'static str, Sight>, kind: &'static str, by: &RegionId, sight: Sight) {
    if last.get(kind) != Some(&sight) {
        last.insert(kind, sight.clone());
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.moments.push(Moment { at: Instant::now(), by: by.clone(), sight });
    }
}

async fn status(client: Client, admin: SocketAddr, by: RegionId, victim: RegionId, seen: Arc<Mutex<Seen>>) {
    let mut last = BTreeMap::new();
    for _ in 0..MOST {
        let asked = Instant::now();
        match tokio::time::timeout(PATIENCE, client.status(admin)).await {
            Ok(Ok(status)) => {
                let answered = Instant::now();
                if status.control.role == ControlRole::Primary {
                    let claim = Claim { by: by.clone(), term: status.control.term, asked, answered };
                    seen.lock().unwrap_or_else(PoisonError::into_inner).claims.push(claim);
                }
                last.remove("silent");
                note(&seen, &mut last, "role", &by, Sight::Role(status.control.role));
                let state = if by == victim { Some(status.state) } else { status.sees.get(&victim).copied() };
                if let Some(state) = state {
                    note(&seen, &mut last, "state", &by, Sight::State(state));
                }
            }
            // Either way it says nothing.
            Ok(Err(_)) | Err(_) => {
                note(&seen, &mut last, "silent", &by, Sight::Silent);
                last.remove("role");
                last.remove("state");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn named(server: SocketAddr, question: Question, its: Vec<IpAddr>, by: RegionId, seen: Arc<Mutex<Seen>>) {
    let mut last = BTreeMap::new();
    for _ in 0..MOST {
        let answer = dns::addresses(server, &question.name, question.client).await.ok();
        let named = answer.map(|addresses| addresses.iter().any(|address| its.contains(address)));
        note(&seen, &mut last, "named", &by, Sight::Named(named));
        tokio::time::sleep(LOOK).await;
    }
}

impl Seen {
    /// The first moment from `since` on, in milliseconds after it, by which all of `by` had shown something that `is`
    /// it; none where one never did.
    pub fn last_first(&self, by: &[RegionId], since: Instant, is: impl Fn(&Sight) -> bool) -> Option<u64> {
        let first = |region: &RegionId| {
            let its = self.moments.iter().filter(|moment| moment.by == *region && moment.at >= since);
            its.into_iter().find(|moment| is(&moment.sight)).map(|moment| millis(since, moment.at))
        };
        by.iter().map(first).try_fold(0, |latest, one| one.map(|one| latest.max(one)))
    }

    /// When the first of `by` was the primary, in a term later than any before `since`, in milliseconds after that.
    pub fn promoted(&self, by: &[RegionId], since: Instant) -> Option<u64> {
        let before = self.claims.iter().filter(|claim| claim.answered < since).map(|claim| claim.term).max();
        let later = self.claims.iter().filter(|claim| claim.asked >= since && Some(claim.term) > before);
        later.filter(|claim| by.contains(&claim.by)).map(|claim| millis(since, claim.answered)).min()
    }

    /// How often, from `since` on, some region changed its mind on whether the victim serves: the most of any of `by`.
    pub fn changes(&self, by: &[RegionId], since: Instant) -> usize {
        let count = |region: &RegionId| {
            let states = self.moments.iter().filter(|moment| moment.by == *region);
            let mut serves: Vec<(Instant, bool)> = Vec::new();
            for moment in states {
                if let Sight::State(state) = moment.sight
                    && serves.last().is_none_or(|(_, last)| *last != state.serves())
                {
                    serves.push((moment.at, state.serves()));
                }
            }
            // The first is no change.
            serves.iter().skip(1).filter(|(at, _)| *at >= since).count()
        };
        by.iter().map(count).max().unwrap_or_default()
    }

    /// Claims that prove that two regions were the primary at a time: of two in one term, or of one in an older term
    /// that was asked after the answer of a later one.
    pub fn second_primaries(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut holders: BTreeMap<u64, &RegionId> = BTreeMap::new();
        for claim in &self.claims {
            let holder = *holders.entry(claim.term).or_insert(&claim.by);
            if *holder != claim.by {
                found.push(format!("{holder} and {} in term {}", claim.by, claim.term));
            }
        }
        let mut answered: Vec<&Claim> = self.claims.iter().collect();
        answered.sort_by_key(|claim| claim.answered);
        let mut asked = answered.clone();
        asked.sort_by_key(|claim| claim.asked);
        let (mut newest, mut at) = (None::<&Claim>, 0);
        for claim in asked {
            while at < answered.len() && answered[at].answered < claim.asked {
                newest = newest.filter(|newest| newest.term >= answered[at].term).or(Some(answered[at]));
                at += 1;
            }
            if let Some(newest) = newest.filter(|newest| newest.term > claim.term) {
                found.push(format!(
                    "{} in term {} after {} was in term {}",
                    claim.by, claim.term, newest.by, newest.term
                ));
            }
        }
        found.sort();
        found.dedup();
        found
    }
}

fn millis(since: Instant, at: Instant) -> u64 {
    at.duration_since(since).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> RegionId {
        RegionId::new(name).unwrap()
    }

    fn after(began: Instant, ms: u64) -> Instant {
        began + Duration::from_millis(ms)
    }

    #[test]
    fn a_claim_in_an_older_term_after_a_newer_one_was_heard_is_a_second_primary() {
        let began = Instant::now();
        let claim = |by: &str, term, asked, answered| Claim {
            by: region(by),
            term,
            asked: after(began, asked),
            answered: after(began, answered),
        };
        let told = |claims| Seen { claims, ..Seen::default() }.second_primaries();
        // Handed over while the old one's answer was under way: that proves nothing.
        assert!(told(vec![claim("us-east", 1, 0, 20), claim("eu-west", 2, 15, 25)]).is_empty());
        assert_eq!(
            told(vec![claim("eu-west", 2, 15, 25), claim("us-east", 1, 30, 31)]),
            ["us-east in term 1 after eu-west was in term 2"]
        );
        assert_eq!(
            told(vec![claim("eu-west", 2, 15, 25), claim("us-east", 2, 15, 25)]),
            ["eu-west and us-east in term 2"]
        );
    }

    #[test]
    fn changes_of_service_are_counted_and_what_was_there_before_is_none() {
        let began = Instant::now();
        let state = |by: &str, ms, state| Moment { at: after(began, ms), by: region(by), sight: Sight::State(state) };
        let seen = Seen {
            moments: vec![
                state("eu-west", 0, RegionState::Ready),
                state("eu-west", 10, RegionState::Suspect),
                state("eu-west", 20, RegionState::Down),
                state("eu-west", 30, RegionState::CatchingUp),
                state("eu-west", 40, RegionState::Ready),
                state("us-east", 5, RegionState::Ready),
            ],
            ..Seen::default()
        };
        let by = [region("eu-west"), region("us-east")];
        assert_eq!(seen.changes(&by, began), 2);
        assert_eq!(seen.changes(&by[1..], began), 0);
        let down = |sight: &Sight| *sight == Sight::State(RegionState::Down);
        assert_eq!(seen.last_first(&by[..1], began, down), Some(20));
        assert_eq!(seen.last_first(&by, began, down), None, "one of them never said so");
    }
}
