//! How far a change of policies reaches: what would be otherwise if a candidate
//! took the place of the generation in force.
//!
//! Made by a dry run on the facts of the moment (`routing::moves`,
//! `compliance::flips`, and [`declared`] here), held against the
//! [`ChangeBounds`] of the generation in force, and shown to whoever wants the
//! change. Lists are cut to a bounded length; the numbers beside them are not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bundle::Because;
use crate::edge::{CacheRule, EdgeAuth, EdgePlan, EdgeRoute, Named, RateLimit, RequestMatch};
use crate::eviction::{Impact, ImpactGroup};
use crate::names::RegionId;
use crate::record::DataClass;
use crate::replication::{LabelRules, LagBands, Quota, ReplicationPlan, Strategy};
use crate::routing::ClientClass;
use crate::signing::Endorsement;
use crate::units::UnixMillis;

/// The most entries of each list of a [`BlastRadius`], and countries of a [`Move`].
pub const MOST_SHOWN: usize = 24;

/// Milliseconds of a day.
const DAY: u64 = 24 * 3600 * 1000;

/// What a save may change without a second look, as `change-bounds` of the default strategy states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeBounds {
    /// The share of traffic that may go to another region first, in per cent, 0 to 100.
    pub traffic: u8,
    /// How many residency verdicts may become more permissive.
    pub more_permissive: u32,
}

impl Default for ChangeBounds {
    fn default() -> Self {
        Self { traffic: 30, more_permissive: 0 }
    }
}

impl ChangeBounds {
    /// Whether `other` lets through what these bounds hold back.
    pub const fn loosened_by(self, other: Self) -> bool {
        other.traffic > self.traffic || other.more_permissive > self.more_permissive
    }
}

impl fmt::Display for ChangeBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} % of traffic, {} more permissive verdicts", self.traffic, self.more_permissive)
    }
}

/// What the shares of traffic are shares of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weighed {
    /// So many requests and DNS answers that were routed lately, older ones counting less.
    Requests(u64),
    /// No traffic was seen: each of so many client classes counts the same.
    Classes(u32),
}

/// Clients that would be served by another region first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// Where they go today; nowhere if no region would take them.
    pub from: Option<RegionId>,
    /// Where they would go.
    pub to: Option<RegionId>,
    /// Whether that shows only once every region serves: today's health hides it.
    pub once_all_serve: bool,
    /// Their share of the traffic, in per cent.
    pub percent: f64,
    /// How many client classes that is.
    pub classes: u32,
    /// Those with the most traffic, at most [`MOST_SHOWN`].
    pub clients: Vec<ClientClass>,
}

/// Who would go where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moves {
    /// What the shares are shares of.
    pub weighed: Weighed,
    /// The share that would go to another region first, in per cent.
    pub percent: f64,
    /// From where to where, the largest first.
    pub moves: Vec<Move>,
    /// Classes whose first region stays and whose order behind it changes.
    pub reordered: u32,
}

/// In which direction a verdict changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Turn {
    /// Something is allowed that was not, or with fewer duties.
    MorePermissive,
    /// Something is no longer allowed, or only with more duties.
    Stricter,
}

/// A residency verdict that changes, for one class and law.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Flip {
    /// In which direction.
    pub turn: Turn,
    /// The class of data.
    pub class: DataClass,
    /// The law that applies, by its name in policies.
    pub law: String,
    /// The region that may or may not hold it, or take it in.
    pub region: RegionId,
    /// The region that it would travel from, where the verdict is about travelling.
    pub from: Option<RegionId>,
    /// What is ruled today.
    pub was: String,
    /// What would be ruled.
    pub becomes: String,
    /// For how many combinations of basis and purpose.
    pub cases: u32,
    /// The namespace, where it is because records without a class are taken as another one there.
    pub unlabelled_in: Option<String>,
}

/// The residency verdicts that change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flips {
    /// How many become more permissive, each case of class, law, basis and purpose counted for each region.
    pub more_permissive: u32,
    /// How many become stricter.
    pub stricter: u32,
    /// The first of them, the more permissive ones before the others.
    pub shown: Vec<Flip>,
}

/// What else would be otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What differs.
    pub what: String,
    /// What it is today; nothing where it is new.
    pub was: Option<String>,
    /// What it would be; nothing where it goes away.
    pub becomes: Option<String>,
}

impl Difference {
    /// A difference between two descriptions, if there is one.
    pub fn between(what: impl Into<String>, was: Option<String>, becomes: Option<String>) -> Option<Self> {
        (was != becomes).then(|| Self { what: what.into(), was, becomes })
    }
}

/// All that a candidate would change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlastRadius {
    /// Clients that move.
    pub traffic: Moves,
    /// Residency verdicts that flip.
    pub residency: Flips,
    /// Names over DNS, strategies, resolvers, lag actions, cache rules, verdicts about regions; at most
    /// [`MOST_SHOWN`].
    pub differences: Vec<Difference>,
    /// What edges keep and would have to fetch anew: a consequence of the rest, also of a residency that tightens.
    #[serde(default)]
    pub given_up: Vec<Difference>,
    /// How many more differences there are.
    pub more_differences: u32,
    /// The bounds that the candidate would have instead of those in force.
    pub bounds: Option<(ChangeBounds, ChangeBounds)>,
    /// What each region holds that it would have to give up; looked for only where verdicts become stricter.
    #[serde(default)]
    pub stored: Vec<RegionImpact>,
}

/// What one region holds that it would have to give up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionImpact {
    /// The region.
    pub region: RegionId,
    /// What it found, or why it was not asked with success.
    pub found: Result<Impact, String>,
}

impl BlastRadius {
    /// Puts together what was found.
    pub fn new(
        traffic: Moves,
        residency: Flips,
        mut differences: Vec<Difference>,
        (before, after): (ChangeBounds, ChangeBounds),
    ) -> Self {
        let more_differences = differences.len().saturating_sub(MOST_SHOWN) as u32;
        differences.truncate(MOST_SHOWN);
        let bounds = (before != after).then_some((before, after));
        Self { traffic, residency, differences, given_up: Vec::new(), more_differences, bounds, stored: Vec::new() }
    }

    /// Whether anything that the dry run looks at would be otherwise.
    pub fn is_nothing(&self) -> bool {
        self.traffic.moves.is_empty()
            && self.traffic.reordered == 0
            && self.residency == Flips::default()
            && self.differences.is_empty()
            && self.given_up.is_empty()
            && self.bounds.is_none()
    }

    /// Why this is more than a tightening: residency verdicts that become stricter, and nothing else that a dry run
    /// sees. Empty where it is none.
    pub fn beyond_tightening(&self) -> Vec<String> {
        let mut beyond = Vec::new();
        if self.residency.more_permissive > 0 {
            beyond.push(format!("{} residency verdicts would become more permissive", self.residency.more_permissive));
        }
        if !self.traffic.moves.is_empty() || self.traffic.reordered > 0 {
            beyond.push("clients would be served by other regions".to_owned());
        }
        if !self.differences.is_empty() || self.bounds.is_some() {
            beyond.push("something other than residency would change".to_owned());
        }
        if self.residency.stricter == 0 {
            beyond.push("no residency verdict would become stricter".to_owned());
        }
        beyond
    }

    /// Which of the bounds in force the change is beyond, a sentence each; empty where it may come into force at once.
    pub fn beyond(&self, bounds: ChangeBounds) -> Vec<String> {
        let mut beyond = Vec::new();
        if self.traffic.percent > f64::from(bounds.traffic) {
            beyond.push(format!(
                "{:.0} % of {} would be served by another region first; the bound is {} %",
                self.traffic.percent,
                self.traffic.weighed.noun(),
                bounds.traffic
            ));
        }
        let flips = self.residency.more_permissive;
        if flips > bounds.more_permissive {
            let verdicts = if flips == 1 { "verdict" } else { "verdicts" };
            beyond.push(format!(
                "{flips} residency {verdicts} would become more permissive; the bound is {}",
                bounds.more_permissive
            ));
        }
        if let Some((before, after)) = self.bounds
            && before.loosened_by(after)
        {
            beyond.push(format!("the bounds themselves would be loosened, from {before} to {after}"));
        }
        beyond
    }

    /// A line for each thing that would be otherwise, for a person.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.traffic.lines();
        lines.extend(self.residency.lines());
        lines.extend(stored_lines(&self.stored));
        lines.extend(self.differences.iter().chain(&self.given_up).map(ToString::to_string));
        if self.more_differences > 0 {
            lines.push(format!("and {} more differences", self.more_differences));
        }
        if let Some((before, after)) = self.bounds {
            lines.push(format!("the bounds of a change: {before} → {after}"));
        }
        if lines.is_empty() {
            lines.push("no client moves, no verdict flips, and nothing else that a dry run sees differs".to_owned());
        }
        lines
    }
}

/// What would have to leave where it is, a line for each region and kind.
fn stored_lines(stored: &[RegionImpact]) -> Vec<String> {
    let mut lines = Vec::new();
    for RegionImpact { region, found } in stored {
        let impact = match found {
            Ok(impact) => impact,
            Err(reason) => {
                lines.push(format!("what {region} stores was not looked at: {reason}"));
                continue;
            }
        };
        let Impact { looked_at, complete, groups, further } = impact;
        let (least, seen) = if *complete { ("", "all of") } else { ("at least ", "the first") };
        lines.push(match impact.records() {
            0 => format!("{region} would keep what it stores ({seen} {looked_at} rows looked at)"),
            count => format!(
                "{region} would have to give up {least}{count} of its records ({seen} {looked_at} rows looked at):"
            ),
        });
        for ImpactGroup { class, law, rule, lawful, records, some } in groups {
            let home = match lawful.iter().map(RegionId::as_str).collect::<Vec<_>>().join(" ") {
                none if none.is_empty() => "no region may hold them: they stay, and are shown to nobody".to_owned(),
                regions => format!("they stay in {regions}"),
            };
            lines.push(format!("  {records} {class}, law {law}, by {rule}; {home}: {} …", some.join(" ")));
        }
        if *further > 0 {
            lines.push(format!("  and {further} of further kinds"));
        }
    }
    lines
}

impl Weighed {
    /// What is counted, in words.
    pub fn noun(self) -> String {
        match self {
            Self::Requests(count) => format!("the recent traffic ({count} requests, older ones counting less)"),
            Self::Classes(count) => format!("{count} client classes (no traffic was seen, so each counts the same)"),
        }
    }
}

impl Moves {
    /// A line for each move, for a person.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.moves.is_empty() {
            lines.push(format!("{:.1} % of {} would move:", self.percent, self.weighed.noun()));
        }
        let name = |id: &Option<RegionId>| id.as_ref().map_or_else(|| "nowhere".to_owned(), ToString::to_string);
        for Move { from, to, once_all_serve, percent, classes, clients } in &self.moves {
            let mut who: Vec<String> = clients
                .iter()
                .take(8)
                .map(|client| client.country.map_or_else(|| "unknown".to_owned(), |country| country.to_string()))
                .collect();
            if *classes as usize > who.len() {
                who.push(format!("and {} more", *classes as usize - who.len()));
            }
            let when = if *once_all_serve { ", once every region serves" } else { "" };
            lines.push(format!("  {percent:.1} % {} → {}{when}: {}", name(from), name(to), who.join(" ")));
        }
        if self.reordered > 0 {
            lines.push(format!("{} client classes keep their first region and get others behind it", self.reordered));
        }
        lines
    }
}

impl Flips {
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (turn, count, words) in [
            (Turn::MorePermissive, self.more_permissive, "more permissive"),
            (Turn::Stricter, self.stricter, "stricter"),
        ] {
            if count == 0 {
                continue;
            }
            lines.push(format!("{count} residency {} {words}:", if count == 1 { "verdict" } else { "verdicts" }));
            let shown = self.shown.iter().filter(|flip| flip.turn == turn);
            let mut left = count;
            for flip in shown {
                left = left.saturating_sub(flip.cases);
                lines.push(format!("  {flip}"));
            }
            if left > 0 {
                lines.push(format!("  and {left} more"));
            }
        }
        lines
    }
}

impl fmt::Display for Flip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { class, law, region, from, was, becomes, cases, unlabelled_in, .. } = self;
        if let Some(namespace) = unlabelled_in {
            write!(f, "without a class in {namespace}, ")?;
        } else {
            write!(f, "{class}, ")?;
        }
        match from {
            Some(from) => write!(f, "law {law}, {from} → {region}: ")?,
            None => write!(f, "law {law}, in {region}: ")?,
        }
        write!(f, "{was} → {becomes}")?;
        if *cases > 1 { write!(f, " ({cases} combinations of basis and purpose)") } else { Ok(()) }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.was, &self.becomes) {
            (None, Some(becomes)) => write!(f, "{}: new: {becomes}", self.what),
            (Some(was), None) => write!(f, "{}: gone (was {was})", self.what),
            (was, becomes) => {
                let text = |side: &Option<String>| side.clone().unwrap_or_default();
                write!(f, "{}: {} → {}", self.what, text(was), text(becomes))
            }
        }
    }
}

/// A candidate that waits for an operator's word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// The hash of its files: what `policy confirm` names.
    pub hash: String,
    /// The hash of the files in force when it was examined.
    pub parent: String,
    /// Since when it waits.
    pub since: UnixMillis,
    /// Who wanted it, and why.
    pub because: Because,
    /// Which bounds it is beyond, a sentence each.
    pub beyond: Vec<String>,
    /// All that it would change.
    pub radius: BlastRadius,
    /// Whether it waits for an operator's signature, too.
    #[serde(default)]
    pub unsigned: bool,
}

/// An operator's word for a candidate that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// The hash of the candidate's files: another one by now refuses the word.
    pub hash: String,
    /// Who says so.
    pub author: String,
    /// The operator's signature; needed in production.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endorsement: Option<Endorsement>,
}

/// What became of a tree that was handed in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Published {
    /// It is in force here, as this generation.
    Generation(u64),
    /// It waits for `policy confirm`.
    Waiting(Box<Waiting>),
}

/// Two trees to compare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The one.
    pub from: Side,
    /// The other.
    pub to: Side,
}

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// A generation that the region keeps.
    Generation(u64),
    /// These files.
    Tree(crate::bundle::PolicyTree),
}

/// What two trees declare otherwise: strategies, lag actions, cache rules.
pub fn declared(
    (replication, lag, edge): (&ReplicationPlan, &LagBands, &EdgePlan),
    (new_replication, new_lag, new_edge): (&ReplicationPlan, &LagBands, &EdgePlan),
) -> Vec<Difference> {
    let mut differences = Vec::new();
    differences.extend(Difference::between(
        "the default strategy",
        Some(strategy(&replication.default)),
        Some(strategy(&new_replication.default)),
    ));
    let namespaces = replication.namespaces.keys().chain(new_replication.namespaces.keys());
    for namespace in namespaces.collect::<BTreeSet<_>>() {
        let of = |plan: &ReplicationPlan| strategy(plan.strategy(namespace));
        differences.extend(Difference::between(
            format!("the strategy of `{namespace}`"),
            Some(of(replication)),
            Some(of(new_replication)),
        ));
    }
    differences.extend(Difference::between("lag actions", Some(bands(lag)), Some(bands(new_lag))));
    let find = |plan: &EdgePlan, name| plan.rules.iter().find(|rule| rule.name == name).map(cache);
    let names = edge.rules.iter().chain(&new_edge.rules).map(|rule| rule.name.clone());
    for name in names.collect::<BTreeSet<_>>() {
        let what = format!("the cache rule `{name}`");
        differences.extend(Difference::between(what, find(edge, name.clone()), find(new_edge, name)));
    }
    // The first rule that matches decides, so the order matters; where rules came or went, it differs anyway.
    let order = |plan: &EdgePlan, other: &EdgePlan| {
        let in_both = plan.rules.iter().filter(|rule| other.rules.iter().any(|one| one.name == rule.name));
        in_both.map(|rule| rule.name.to_string()).collect::<Vec<_>>().join(", ")
    };
    differences.extend(Difference::between(
        "the order of the cache rules",
        Some(order(edge, new_edge)),
        Some(order(new_edge, edge)),
    ));
    let (besides, new_besides) = (besides(edge), besides(new_edge));
    for what in besides.keys().chain(new_besides.keys()).collect::<BTreeSet<_>>() {
        let (was, is) = (besides.get(what).cloned(), new_besides.get(what).cloned());
        differences.extend(Difference::between(what.as_str(), was, is));
    }
    differences
}

fn strategy(strategy: &Strategy) -> String {
    let Strategy { lag_target, conflict_resolution, priority_regions, ack, default_class, labels, quota } = strategy;
    let regions = priority_regions.iter().map(RegionId::as_str).collect::<Vec<_>>().join(" ");
    format!(
        "{}, lag target {lag_target}, priority ({regions}), ack {ack}, default class {default_class}{}{}",
        conflict_resolution.name(),
        label_rules(labels),
        quota_words(*quota)
    )
}

fn quota_words(Quota { bytes, records, object_bytes }: Quota) -> String {
    let bytes = bytes.map(|bytes| format!(", at most {} bytes", bytes.0));
    let records = records.map(|records| format!(", at most {records} records"));
    let object = object_bytes.map(|bytes| format!(", at most {} bytes a value", bytes.0));
    bytes.into_iter().chain(records).chain(object).collect()
}

/// What a namespace says of labels, behind its other settings; nothing where it says nothing.
fn label_rules(rules: &LabelRules) -> String {
    let LabelRules { jurisdictions, purpose, basis, required, retention } = rules;
    let mut text = String::new();
    let mut add = |what: &str, words: Vec<String>| {
        if !words.is_empty() {
            text.push_str(&format!(", {what} {}", words.join(" ")));
        }
    };
    add("default jurisdiction", jurisdictions.iter().map(ToString::to_string).collect());
    add("default purpose", purpose.iter().map(ToString::to_string).collect());
    add("default basis", basis.iter().map(ToString::to_string).collect());
    add("requires", required.iter().map(|label| label.name().to_owned()).collect());
    add("keeps", retention.iter().map(|(class, kept)| format!("{class} for {} days", kept.0 / DAY)).collect());
    text
}

fn bands(LagBands(bands): &LagBands) -> String {
    bands.iter().map(|(from, action)| format!("{} from {from}", action.name())).collect::<Vec<_>>().join(", ")
}

fn cache(rule: &CacheRule) -> String {
    let mut text =
        format!("{} edge {} s, browser {} s", requests(&rule.when), rule.edge_ttl_seconds, rule.browser_ttl_seconds);
    let mut add = |what: &str, said: String, usual: &str| {
        if said != usual {
            text.push_str(&format!(", {what}{said}"));
        }
    };
    let stale = [rule.stale_while_revalidate_seconds, rule.stale_if_error_seconds];
    add(
        "stale ",
        format!("{} s while refreshed and {} s on errors", stale[0], stale[1]),
        "0 s while refreshed and 0 s on errors",
    );
    add("", if rule.bypass { "bypassed" } else { "" }.to_owned(), "");
    add("of status ", format!("{:?}", rule.statuses), "[]");
    add("of type ", format!("{:?}", rule.content_types), "[]");
    add("key ", format!("{:?}", rule.key), "[Host, Path, Query]");
    add("vary ", format!("{:?}", rule.vary), "[]");
    add("tags ", rule.tags.join(" "), "");
    add("class ", rule.class.to_string(), "public");
    text
}

/// The requests that something is about.
fn requests(when: &RequestMatch) -> String {
    let mut text = when.paths.join(" ");
    for (what, values) in [("ending in", &when.suffixes), ("by", &when.methods)] {
        if !values.is_empty() {
            text.push_str(&format!(" {what} {}", values.join(" ")));
        }
    }
    for (what, named) in [("header", &when.headers), ("cookie", &when.cookies)] {
        for Named { name, value } in named {
            text.push_str(&format!(
                " with {what} {name}{}",
                value.as_ref().map_or(String::new(), |value| format!("={value}"))
            ));
        }
    }
    text
}

/// Everything that is declared for the edge besides cache rules: what it is, and what it says.
fn besides(plan: &EdgePlan) -> BTreeMap<String, String> {
    let limits = plan.limits.iter().map(|limit| {
        let RateLimit { name, when, key, rate, per_seconds, burst, scope } = limit;
        let says =
            format!("{} {rate} in {per_seconds} s, {burst} at once, for each {key:?}, {scope:?}", requests(when));
        (format!("the rate limit `{name}`"), says)
    });
    let auth = plan.auth.iter().map(|auth| {
        let EdgeAuth { name, when, except, proof, origin_may_verify } = auth;
        let says = format!("{} except {except:?}, {proof:?}, by the origin {origin_may_verify}", requests(when));
        (format!("the guard `{name}`"), says)
    });
    let routes = plan.routes.iter().map(|route| {
        let EdgeRoute { name, when, regions, attempts, break_after, break_seconds, timeout_ms } = route;
        let says = format!(
            "{} to {regions:?}, {attempts} attempts of {timeout_ms} ms, passed over after {break_after} for {break_seconds} s",
            requests(when)
        );
        (format!("the route `{name}`"), says)
    });
    let used: Vec<String> = plan.backends.iter().map(|used| used.name()).collect();
    let used = (!used.is_empty()).then(|| ("the kinds of edge in use".to_owned(), used.join(", ")));
    limits.chain(auth).chain(routes).chain(used).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn radius(percent: f64, more_permissive: u32, bounds: (ChangeBounds, ChangeBounds)) -> BlastRadius {
        let traffic = Moves { weighed: Weighed::Requests(10), percent, moves: Vec::new(), reordered: 0 };
        BlastRadius::new(traffic, Flips { more_permissive, ..Flips::default() }, Vec::new(), bounds)
    }

    #[test]
    fn a_change_waits_beyond_a_bound_and_not_at_it() {
        let bounds = ChangeBounds::default();
        let beyond = |percent, flips| radius(percent, flips, (bounds, bounds)).beyond(bounds);
        assert!(beyond(30.0, 0).is_empty());
        assert!(beyond(30.1, 0)[0].contains("30 % of the recent traffic"), "{:?}", beyond(30.1, 0));
        assert!(beyond(0.0, 1)[0].contains("1 residency verdict would become more permissive"));
        assert_eq!(beyond(100.0, 7).len(), 2);
    }

    #[test]
    fn nobody_lifts_the_bounds_with_the_save_that_they_would_hold_back() {
        let (narrow, wide) = (ChangeBounds::default(), ChangeBounds { traffic: 100, more_permissive: 9999 });
        assert!(radius(0.0, 0, (narrow, wide)).beyond(narrow)[0].contains("loosened"));
        assert!(radius(0.0, 0, (wide, narrow)).beyond(wide).is_empty());
        // Those in force count, not those of the candidate.
        assert_eq!(radius(90.0, 5, (narrow, wide)).beyond(narrow).len(), 3);
    }
}
