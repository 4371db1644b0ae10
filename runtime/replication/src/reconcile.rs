//! Two regions' states of one key, compared without the log between them.
//!
//! A write's counter is its place in its region's log, so a position vector tells which writes a region has taken
//! over. What a region has taken over and does not hold any more was superseded there. That is enough to bring a
//! region up to date from another's rows alone, also where the entry that superseded a write, or the tombstone of a
//! deleted key, is long gone (the node-wide causality of Gonçalves et al., "Concise server-wide causality management
//! for eventually consistent data stores", 2015).

use model::record::{Row, Sibling};
use model::version::{CausalContext, Dot, PositionVector};

use crate::merge;

/// What another region says of a key.
#[derive(Clone, Copy)]
pub struct Statement<'s> {
    /// The siblings that it holds and this region may hold.
    pub siblings: &'s [Sibling],
    /// How far it had taken over each log, at the latest when it read the row.
    pub vector: &'s PositionVector,
    /// Whether it would hold this write of ours, had nothing superseded it.
    pub would_hold: &'s dyn Fn(&Sibling) -> bool,
}

/// The row after hearing another region's statement; without siblings where nothing is left of it.
///
/// `vector` is how far this region has taken over each log. A write of `theirs` that this region has taken over and
/// does not hold is not taken back. Markers of writes that live elsewhere stay until something supersedes them: who
/// sends them is not who knows.
pub fn reconcile(ours: Option<&Row>, vector: &PositionVector, theirs: &Statement<'_>) -> Row {
    let held = |siblings: &[Sibling], sibling: &Sibling| siblings.iter().any(|s| s.version.dot == sibling.version.dot);
    let before: &[Sibling] = ours.map_or(&[], |row| &row.siblings);
    let keeps = |sibling: &&Sibling| {
        sibling.is_marker()
            || held(theirs.siblings, sibling)
            || !theirs.vector.covers_dot(&sibling.version.dot)
            || !(theirs.would_hold)(sibling)
    };
    let kept: Vec<Sibling> = before.iter().filter(keeps).cloned().collect();
    let comes = |sibling: &&Sibling| !held(before, sibling) && !vector.covers_dot(&sibling.version.dot);
    let row = theirs
        .siblings
        .iter()
        .filter(comes)
        .fold(Row { siblings: kept }, |row, sibling| merge(Some(row), sibling.clone()));
    // What both hold may supersede what only one of them had.
    let superseded = |of: &Sibling| {
        let known = |by: &Sibling| by.version.supersedes(&of.version);
        row.siblings.iter().any(known) || theirs.siblings.iter().any(known)
    };
    Row { siblings: row.siblings.iter().filter(|sibling| !superseded(sibling)).cloned().collect() }
}

/// What a new write must say that it has seen, to replace `row` in every region, where `stable` is what every region
/// has taken over.
///
/// What a sibling had seen before it goes without saying once every region has taken over both: each has removed it.
/// So contexts stay as small as what is under way between regions, and do not grow with every life of every region.
/// A region whose disk goes back behind `stable` must be given rows, as by [`reconcile`], before entries.
///
/// `all_hold` says of a sibling whether every region may hold it: from others, some regions get no more than a marker.
pub fn seen(row: &Row, stable: &PositionVector, all_hold: &dyn Fn(&Sibling) -> bool) -> CausalContext {
    let mut seen = CausalContext::new();
    for sibling in &row.siblings {
        let everywhere = stable.covers_dot(&sibling.version.dot) && all_hold(sibling);
        for (actor, counter) in sibling.version.context.iter() {
            let dot = Dot { actor: actor.clone(), counter };
            if !(everywhere && stable.covers_dot(&dot)) {
                seen.observe(&dot);
            }
        }
        seen.observe(&sibling.version.dot);
    }
    seen
}
