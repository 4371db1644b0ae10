//! Which writes of a key live on, and which of them a reader sees.

use model::RegionId;
use model::record::{Row, Sibling};
use model::replication::{ConflictResolution, Strategy};
use model::version::{CausalContext, PositionVector, Version};

use crate::seen;

/// Adds a write to a row: what it supersedes goes, and it goes if it was superseded.
///
/// Commutative, associative and idempotent: regions that have merged the same
/// writes, in any order and any number of times, hold the same row. Siblings
/// stay in dot order.
pub fn merge(existing: Option<Row>, incoming: Sibling) -> Row {
    let mut siblings = existing.map_or_else(Vec::new, |row| row.siblings);
    let known = siblings
        .iter()
        .any(|sibling| sibling.version.dot == incoming.version.dot || sibling.version.supersedes(&incoming.version));
    // Also where it is superseded itself: what superseded it need not say all that it has seen, see `seen`.
    siblings.retain(|sibling| !incoming.version.supersedes(&sibling.version));
    if !known {
        let at = siblings.partition_point(|sibling| sibling.version.dot < incoming.version.dot);
        siblings.insert(at, incoming);
    }
    Row { siblings }
}

/// What is left of a row that a write of this version supersedes in part, where the write itself is superseded already.
pub fn without_superseded(row: &Row, version: &Version) -> Row {
    Row { siblings: row.siblings.iter().filter(|sibling| !version.supersedes(&sibling.version)).cloned().collect() }
}

/// What a write in this region may replace: everything that the row has seen, apart from writes
/// that live elsewhere and left only a marker here. `None` where nothing but such writes is left,
/// or where they cannot be told apart.
///
/// `stable` is what every region has taken over, and `all_hold` says what all may hold; see [`seen`].
pub fn replaceable(row: &Row, stable: &PositionVector, all_hold: &dyn Fn(&Sibling) -> bool) -> Option<CausalContext> {
    let (markers, here): (Vec<&Sibling>, Vec<&Sibling>) = row.siblings.iter().partition(|sibling| sibling.is_marker());
    let seen = seen(&Row { siblings: here.iter().copied().cloned().collect() }, stable, all_hold);
    let apart = markers.iter().all(|marker| !seen.covers(&marker.version.dot));
    (!here.is_empty() && apart).then_some(seen)
}

/// What a reader is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fold {
    /// The sibling at this index.
    Winner(usize),
    /// All of them: nobody wins until someone writes.
    Siblings,
    /// A resolver is to be asked; until it has answered, the sibling at this index is shown.
    Ask {
        /// The resolver's name.
        resolver: String,
        /// The last write.
        meanwhile: usize,
    },
}

/// The index of the last write, by stamp and then by dot.
pub fn last_write(siblings: &[Sibling]) -> usize {
    let order = |&at: &usize| siblings[at].version.lww_order();
    (0..siblings.len()).max_by(|left, right| order(left).cmp(&order(right))).unwrap_or(0)
}

/// Settles a row by its namespace's strategy. Pure: every region that holds the row settles it alike.
///
/// The winner may be a marker: then the record lives elsewhere. A resolver is asked only where
/// all siblings are here; elsewhere the last write stands for its answer.
pub fn fold(row: &Row, strategy: &Strategy) -> Fold {
    let siblings = &row.siblings;
    if siblings.len() <= 1 {
        return Fold::Winner(0);
    }
    match &strategy.conflict_resolution {
        ConflictResolution::LastWriteWins => Fold::Winner(last_write(siblings)),
        ConflictResolution::PriorityRegions => Fold::Winner(first_priority(siblings, &strategy.priority_regions)),
        ConflictResolution::KeepSiblings => Fold::Siblings,
        ConflictResolution::Custom(_) if siblings.iter().any(Sibling::is_marker) => Fold::Winner(last_write(siblings)),
        // A resolver is given values, and an object is too large for that: whoever reads it settles it.
        ConflictResolution::Custom(_) if siblings.iter().any(is_object) => Fold::Siblings,
        ConflictResolution::Custom(resolver) => {
            Fold::Ask { resolver: resolver.clone(), meanwhile: last_write(siblings) }
        }
    }
}

fn is_object(sibling: &Sibling) -> bool {
    sibling.content.record().is_some_and(|record| record.payload.object().is_some())
}

fn first_priority(siblings: &[Sibling], regions: &[RegionId]) -> usize {
    let rank = |sibling: &Sibling| {
        let region = &sibling.version.dot.actor.region;
        regions.iter().position(|candidate| candidate == region).unwrap_or(regions.len())
    };
    let order = |&at: &usize| (std::cmp::Reverse(rank(&siblings[at])), siblings[at].version.lww_order());
    (0..siblings.len()).max_by(|left, right| order(left).cmp(&order(right))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::record::{Content, DataClass, Labels};
    use model::replication::AckLevel;
    use model::residency::ResidencyPlan;
    use model::version::{Actor, CausalContext, Dot, Incarnation, Version};
    use model::{Hlc, Millis, NodeId, UnixMillis};
    use proptest::prelude::{Strategy as _, any, prop, prop_assert_eq, proptest};

    use super::*;

    const REGIONS: [&str; 3] = ["ap-southeast", "eu-west", "us-east"];

    fn scope() -> model::residency::ScopeId {
        use model::residency::{CaseRuling, RegionPolicy, Verdict};
        let labels = Labels::of_class(DataClass::Public, UnixMillis(0));
        let region = RegionId::new("eu-west").unwrap();
        let rule = model::RuleId::new("any").unwrap();
        let verdict = Verdict::Allow {
            rule,
            obligations: Default::default(),
            valid_from: UnixMillis(0),
            valid_until: UnixMillis::MAX,
        };
        let ruling = CaseRuling { hold: BTreeMap::from([(region.clone(), verdict)]), ..CaseRuling::default() };
        let cases =
            ResidencyPlan::cases_of(&labels).into_iter().map(|case| (case, std::sync::Arc::new(ruling.clone())));
        let policy = RegionPolicy {
            region: region.clone(),
            jurisdiction: model::Country::new("IE").unwrap(),
            accepts: labels.classes.clone(),
            requires: Default::default(),
        };
        let plan = ResidencyPlan::new(cases.collect(), BTreeMap::from([(region.clone(), policy)]));
        plan.permit(&labels, &region, UnixMillis(1)).unwrap().scope()
    }

    /// A history of writes by three regions, each of which has seen some of the writes before.
    fn history() -> impl proptest::strategy::Strategy<Value = Vec<Sibling>> {
        prop::collection::vec((0..3_usize, prop::collection::vec(any::<bool>(), 8), 0..4_u64), 1..8).prop_map(
            |writes| {
                let mut made: Vec<Sibling> = Vec::new();
                let mut counters = [0_u64; 3];
                for (region, saw, time) in writes {
                    counters[region] += 1;
                    let mut context = CausalContext::new();
                    for (earlier, _) in made
                        .iter()
                        .zip(&saw)
                        .filter(|(earlier, saw)| **saw || earlier.version.dot.actor.region.as_str() == REGIONS[region])
                    {
                        context.join(&earlier.version.context);
                        context.observe(&earlier.version.dot);
                    }
                    let above =
                        made.iter().filter(|earlier| context.covers(&earlier.version.dot)).map(|e| e.version.hlc).max();
                    let hlc = Hlc::new(UnixMillis(time), 0).max(above.map_or(Hlc::ZERO, Hlc::next));
                    let region = RegionId::new(REGIONS[region]).unwrap();
                    let actor = Actor { region, node: NodeId(0), incarnation: Incarnation(1) };
                    let counter = counters[REGIONS.iter().position(|r| *r == actor.region.as_str()).unwrap()];
                    let version = Version { dot: Dot { actor, counter }, hlc, context };
                    let labels = Labels::of_class(DataClass::Public, UnixMillis(0));
                    made.push(Sibling { version, scope: scope(), content: Content::Tombstone { labels } });
                }
                made
            },
        )
    }

    fn merged(writes: &[Sibling]) -> Option<Row> {
        writes.iter().fold(None, |row, write| Some(merge(row, write.clone())))
    }

    proptest! {
        #[test]
        fn regions_that_saw_the_same_writes_hold_the_same_row(
            writes in history(), order in any::<prop::sample::Index>(), repeat in any::<prop::sample::Index>()
        ) {
            let mut other = writes.clone();
            other.rotate_left(order.index(writes.len()));
            other.reverse();
            other.push(writes[repeat.index(writes.len())].clone());
            prop_assert_eq!(merged(&writes), merged(&other));
        }

        #[test]
        fn what_survives_is_exactly_what_no_other_write_knew_of(writes in history()) {
            let mut alive: Vec<_> = writes.iter()
                .filter(|write| !writes.iter().any(|other| other.version.supersedes(&write.version)))
                .map(|write| write.version.dot.clone()).collect();
            alive.sort();
            let row = merged(&writes).unwrap();
            prop_assert_eq!(row.siblings.iter().map(|s| s.version.dot.clone()).collect::<Vec<_>>(), alive);
        }
    }

    #[test]
    fn the_strategy_names_the_winner() {
        let write = |region: &str, time| {
            let actor = Actor { region: RegionId::new(region).unwrap(), node: NodeId(0), incarnation: Incarnation(1) };
            let version = Version {
                dot: Dot { actor, counter: 1 },
                hlc: Hlc::new(UnixMillis(time), 0),
                context: CausalContext::new(),
            };
            let labels = Labels::of_class(DataClass::Public, UnixMillis(0));
            Sibling { version, scope: scope(), content: Content::Tombstone { labels } }
        };
        let row = merged(&[write("us-east", 5), write("eu-west", 9)]).unwrap();
        let strategy = |conflict_resolution| Strategy {
            lag_target: Millis(5000),
            conflict_resolution,
            priority_regions: vec![RegionId::new("us-east").unwrap()],
            ack: AckLevel::LOCAL,
            default_class: DataClass::Public,
            labels: model::replication::LabelRules::default(),
            quota: Default::default(),
        };
        let winner = |resolution| match fold(&row, &strategy(resolution)) {
            Fold::Winner(at) => Some(row.siblings[at].version.dot.actor.region.to_string()),
            _ => None,
        };
        assert_eq!(winner(ConflictResolution::LastWriteWins).as_deref(), Some("eu-west"));
        assert_eq!(winner(ConflictResolution::PriorityRegions).as_deref(), Some("us-east"));
        assert_eq!(winner(ConflictResolution::KeepSiblings), None);
    }
}
