//! Who saw what of whom, and whose word counts.
//!
//! Each region tells with every answer to a probe what it sees of the others. An
//! observer that has not been heard for a while has no vote, nor has one that loses
//! probes to most of the regions that live: its own link is then the likelier cause,
//! and a slow observer must not condemn the healthy.

use std::collections::{BTreeMap, BTreeSet};

use model::judgement::{Vote, VoteLost};
use model::routing::Observation;
use model::{Millis, Mono, RegionId};

/// So many losses in a row are more than weather to an observer that looks at itself.
const DOUBT_RUN: u32 = 6;
/// So is a loss in this many probes.
const DOUBT_SHARE: u32 = 5;

/// What was heard from one observer. At most one entry a region.
#[derive(Clone, Debug, Default)]
struct Row {
    heard: Mono,
    seen: BTreeMap<RegionId, Observation>,
}

/// The matrix of observers and the regions that they see, as large as the deployment at most.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    regions: BTreeSet<RegionId>,
    rows: BTreeMap<RegionId, Row>,
}

impl Matrix {
    pub(crate) fn new(regions: BTreeSet<RegionId>) -> Self {
        Self { regions, rows: BTreeMap::new() }
    }

    /// Takes in all that `observer` sees. Gives the regions of which it has lost more than before.
    pub(crate) fn hear(
        &mut self,
        observer: &RegionId,
        seen: &BTreeMap<RegionId, Observation>,
        now: Mono,
    ) -> Vec<RegionId> {
        if !self.regions.contains(observer) {
            return Vec::new();
        }
        let known = seen.iter().filter(|(id, _)| self.regions.contains(*id) && *id != observer);
        let seen: BTreeMap<_, _> = known.map(|(id, observation)| (id.clone(), *observation)).collect();
        let row = self.rows.entry(observer.clone()).or_default();
        let none = Observation { probes: 0, losses: 0, losses_in_a_row: 0 };
        let worse = seen.iter().filter(|(id, observation)| {
            let before = row.seen.get(*id).unwrap_or(&none);
            observation.losses > before.losses || observation.losses_in_a_row > before.losses_in_a_row
        });
        let worse = worse.map(|(id, _)| id.clone()).collect();
        *row = Row { heard: now, seen };
        worse
    }

    /// What each observer saw of `target`, in the order of their names. `lost` are regions that are no measure of an
    /// observer's own link, because they do not live.
    pub(crate) fn votes(&self, target: &RegionId, lost: &BTreeSet<RegionId>, unheard: Millis, now: Mono) -> Vec<Vote> {
        let rows = self.rows.iter().filter(|(observer, _)| *observer != target);
        rows.filter_map(|(observer, row)| {
            let seen = *row.seen.get(target)?;
            let age = now - row.heard;
            let why = match () {
                () if age > unheard => Some(VoteLost::Unheard),
                () if row.doubts_itself(lost) => Some(VoteLost::SelfDoubt),
                () => None,
            };
            Some(Vote { observer: observer.clone(), seen, age, lost: why })
        })
        .collect()
    }
}

impl Row {
    /// Whether most of the living regions that it sees, and two at least, look bad.
    fn doubts_itself(&self, lost: &BTreeSet<RegionId>) -> bool {
        let living: Vec<_> = self.seen.iter().filter(|(id, _)| !lost.contains(*id)).collect();
        let bad = living.iter().filter(|(_, seen)| {
            seen.losses_in_a_row >= DOUBT_RUN || seen.losses.saturating_mul(DOUBT_SHARE) > seen.probes
        });
        living.len() >= 2 && bad.count() * 2 > living.len()
    }
}
