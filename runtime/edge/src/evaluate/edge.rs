//! A whole edge in memory: the steps of [`super`] with a cache, buckets and breakers, for tests and explanations.
//!
//! Refreshing in the background is done at once here: what an edge gives while it revalidates is the stale answer in
//! either case.

use std::collections::{BTreeMap, BTreeSet};

use model::edge::Request;
use model::{RegionId, RuleId};

use super::answer::{Freshness, Head, Kept, keep};
use super::limit::Bucket;
use super::token::{self, Denied, Keys};
use super::{Asked, Bypass, LONGEST_TARGET, Lookup, Place, Plan, is_devious, plan};
use crate::form::Form;

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// Stored and fresh.
    Hit,
    /// Stored, past its time, while a fresh one is fetched.
    Stale,
    /// Stored, past its time, because no region answered.
    StaleOnError,
    /// Looked up and not found: from a region.
    Miss,
    /// Not looked up: from a region.
    Bypass,
    /// From the edge itself: refused, limited, or no region answered.
    Edge,
}

impl Came {
    /// The word in tests and explanations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::StaleOnError => "stale-error",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
            Self::Edge => "edge",
        }
    }
}

/// What the edge answered, as far as backends are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// How it came about.
    pub came: Came,
    /// The rule that gave the key.
    pub rule: Option<RuleId>,
    /// The key, where it was looked up.
    pub key: Option<String>,
    /// What is stored of it now, where it is.
    pub kept: Option<Kept>,
    /// The region that answered, now or when it was stored.
    pub region: Option<RegionId>,
    /// Why the guard refused.
    pub denied: Option<Denied>,
    /// Seconds to wait, where a limit refused.
    pub retry_after: Option<u32>,
}

/// What a region gave: the head of its answer, or nothing in time.
pub type Given = Option<Head>;

#[derive(Clone, Debug)]
struct Entry {
    kept: Kept,
    status: u16,
    region: RegionId,
    /// When it was stored, or soft-purged: then it counts as just past its time.
    at: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Breaker {
    failures: u32,
    closed_at: u64,
}

/// An edge at one place.
#[derive(Debug)]
pub struct Edge<'f> {
    form: &'f Form,
    place: Place,
    keys: Keys,
    /// Whether tokens are verified here; else guards that allow it are left to the origin.
    verifies: bool,
    down: BTreeSet<RegionId>,
    cache: BTreeMap<String, Entry>,
    buckets: BTreeMap<(RuleId, String), Bucket>,
    breakers: BTreeMap<RegionId, Breaker>,
}

impl<'f> Edge<'f> {
    /// An empty edge.
    pub fn new(form: &'f Form, place: Place, keys: Keys) -> Self {
        Self {
            form,
            place,
            keys,
            verifies: true,
            down: BTreeSet::new(),
            cache: BTreeMap::new(),
            buckets: BTreeMap::new(),
            breakers: BTreeMap::new(),
        }
    }

    /// The same edge without cryptography, such as Varnish.
    #[must_use]
    pub fn leaving_tokens_to_the_origin(mut self) -> Self {
        self.verifies = false;
        self
    }

    /// Takes over which regions are down.
    pub fn set_down(&mut self, down: BTreeSet<RegionId>) {
        self.down = down;
    }

    /// Takes a new form into force. What was stored stays, and is given as far as the new rules permit.
    pub fn set_form(&mut self, form: &'f Form) {
        self.form = form;
    }

    /// Forgets what has any of these tags; or, softly, takes it as just past its time.
    pub fn purge(&mut self, tags: &[&str], soft: bool, now: u64) {
        let hit = |entry: &Entry| entry.kept.tags.iter().any(|tag| tags.contains(&tag.as_str()));
        if soft {
            for entry in self.cache.values_mut().filter(|entry| hit(entry)) {
                let past = u64::from(entry.kept.ttl) * 1000;
                entry.at = entry.at.min(now.saturating_sub(past));
            }
        } else {
            self.cache.retain(|_, entry| !hit(entry));
        }
    }

    /// Answers a request at `now` (unix milliseconds); `origin` gives what a region answers.
    pub fn handle(&mut self, asked: &Asked, now: u64, mut origin: impl FnMut(&RegionId) -> Given) -> Answered {
        if asked.target.len() > LONGEST_TARGET {
            return refused(414, None);
        }
        if is_devious(asked.path()) {
            return refused(400, None);
        }
        let form = self.form;
        let plan = plan(form, asked, &self.passed_over(now));
        for (limit, key) in &plan.limits {
            let bucket = self.buckets.entry((limit.name.clone(), key.clone())).or_default();
            let taken = bucket.take(limit, now);
            if !taken.passes {
                return Answered {
                    retry_after: Some(taken.retry_after),
                    ..refused(429, plan.rule.map(|r| &r.rule.name))
                };
            }
        }
        let mut lookup = plan.lookup.clone();
        if let Some(guard) = plan.guard {
            let verified = if self.verifies || !super::left_to_origin(guard) {
                token::verify(guard, asked, &self.keys, now / 1000)
            } else {
                lookup = Lookup::Bypass(Bypass::OriginVerifies);
                token::bearer(asked).map(|_| ()).ok_or(Denied::Missing)
            };
            if let Err(denied) = verified {
                return Answered {
                    denied: Some(denied),
                    ..refused(token::status(guard), plan.rule.map(|r| &r.rule.name))
                };
            }
        }
        match lookup {
            Lookup::Bypass(_) => self.pass(&plan, asked, now, &mut origin),
            Lookup::Key(key) => self.look_up(&plan, key, asked, now, &mut origin),
        }
    }

    fn passed_over(&self, now: u64) -> BTreeSet<RegionId> {
        let open = self.breakers.iter().filter(|(_, breaker)| now < breaker.closed_at).map(|(region, _)| region);
        self.down.iter().chain(open).cloned().collect()
    }

    fn pass(
        &mut self,
        plan: &Plan<'_>,
        asked: &Asked,
        now: u64,
        origin: &mut impl FnMut(&RegionId) -> Given,
    ) -> Answered {
        let rule = plan.rule.map(|rule| rule.rule.name.clone());
        match self.fetch(plan, asked, now, origin) {
            Some((region, head)) => Answered {
                status: head.status,
                came: Came::Bypass,
                region: Some(region),
                ..refused(head.status, rule.as_ref())
            },
            None => refused(503, rule.as_ref()),
        }
    }

    fn look_up(
        &mut self,
        plan: &Plan<'_>,
        key: String,
        asked: &Asked,
        now: u64,
        origin: &mut impl FnMut(&RegionId) -> Given,
    ) -> Answered {
        let rule = plan.rule.expect("a key has a rule");
        let stored = self.cache.get(&key).filter(|entry| entry.kept.revision == rule.revision).cloned();
        let freshness =
            stored.as_ref().map_or(Freshness::Gone, |entry| entry.kept.freshness(now.saturating_sub(entry.at)));
        let name = rule.rule.name.clone();
        let from = |entry: Entry, came| Answered {
            status: entry.status,
            came,
            rule: Some(name.clone()),
            key: Some(key.clone()),
            kept: Some(entry.kept),
            region: Some(entry.region),
            denied: None,
            retry_after: None,
        };
        match (stored, freshness) {
            (Some(entry), Freshness::Fresh) => from(entry, Came::Hit),
            (Some(entry), Freshness::Revalidate) => {
                self.refresh(plan, &key, asked, now, origin);
                from(entry, Came::Stale)
            }
            (stored, freshness) => {
                // An error does for an answer only where nothing stored could be given in its place.
                match self.refresh(plan, &key, asked, now, origin) {
                    Some((region, head, kept)) if !failed(&head) || freshness == Freshness::Gone => Answered {
                        status: head.status,
                        came: Came::Miss,
                        kept,
                        region: Some(region),
                        key: Some(key.clone()),
                        ..refused(head.status, Some(&name))
                    },
                    _ => match stored.filter(|_| freshness == Freshness::IfError) {
                        Some(entry) => from(entry, Came::StaleOnError),
                        None => Answered { key: Some(key.clone()), ..refused(503, Some(&name)) },
                    },
                }
            }
        }
    }

    /// Fetches an answer and stores it where it may be. An error leaves what is stored as it is; an answer that may not
    /// be stored takes it away, because it is not what the origin would have given any more.
    fn refresh(
        &mut self,
        plan: &Plan<'_>,
        key: &str,
        asked: &Asked,
        now: u64,
        origin: &mut impl FnMut(&RegionId) -> Given,
    ) -> Option<(RegionId, Head, Option<Kept>)> {
        let (region, head) = self.fetch(plan, asked, now, origin)?;
        let kept = keep(self.form, &self.place, plan, asked, &head, now).ok();
        if let Some(kept) = &kept {
            let entry = Entry { kept: kept.clone(), status: head.status, region: region.clone(), at: now };
            self.cache.insert(key.to_owned(), entry);
        } else if !failed(&head) {
            self.cache.remove(key);
        }
        Some((region, head, kept))
    }

    /// Asks the regions in order, as often as the route permits.
    fn fetch(
        &mut self,
        plan: &Plan<'_>,
        asked: &Asked,
        now: u64,
        origin: &mut impl FnMut(&RegionId) -> Given,
    ) -> Option<(RegionId, Head)> {
        let attempts = if is_idempotent(asked.method()) { usize::from(plan.route.attempts) } else { 1 };
        let mut last = None;
        for region in plan.regions.iter().take(attempts) {
            let given = origin(region);
            let unwell = given.as_ref().is_none_or(|head| matches!(head.status, 502..=504));
            let breaker = self.breakers.entry(region.clone()).or_default();
            breaker.failures = if unwell { breaker.failures + 1 } else { 0 };
            if breaker.failures >= plan.route.break_after {
                *breaker = Breaker { failures: 0, closed_at: now + u64::from(plan.route.break_seconds) * 1000 };
            }
            last = given.map(|head| (region.clone(), head)).or(last);
            if !unwell {
                break;
            }
        }
        last
    }
}

/// Whether an answer is an error in the sense of RFC 5861, section 4.
pub fn failed(head: &Head) -> bool {
    matches!(head.status, 500 | 502..=504)
}

/// Whether a request may be sent twice (RFC 9110, section 9.2.2).
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE" | "TRACE")
}

fn refused(status: u16, rule: Option<&RuleId>) -> Answered {
    Answered {
        status,
        came: Came::Edge,
        rule: rule.cloned(),
        key: None,
        kept: None,
        region: None,
        denied: None,
        retry_after: None,
    }
}
