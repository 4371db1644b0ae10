//! Reads what regions store, sign and say of themselves, and finds what is
//! wrong with it.
//!
//! Nothing is believed because the code that wrote it would have written it
//! right: rows ([`raw`]), leaves, checkpoints and the Merkle tree ([`tree`]) are read by
//! code of their own, written from the formats' descriptions. A finding never
//! shows a key or a value: records are named by a keyed hash. And nothing is
//! claimed that was not checked: every check says how much it looked at, and
//! where it did not run and why.
//!
//! Evidence comes in as plain data, a [`Report`] goes out; there is no socket,
//! disk or clock here. Start with [`audit`].

mod chain;
mod checks;
mod detect;
mod evidence;
mod facts;
mod images;
mod keys;
mod leaf;
mod petitions;
mod processing;
pub mod raw;
pub mod render;
mod report;
mod rows;
mod settings;
mod told;
mod travel;
pub mod tree;

pub use checks::{Check, NOT_PERFORMED, Severity};
pub use detect::Detector;
pub use evidence::{
    DecisionEvidence, Evidence, GENERATION_GRACE, HeldKey, Inputs, KeyEvidence, LedgerEvidence, PolicyEvidence,
    RETENTION_GRACE, RawRow, RegionEvidence, RegionKeys, Revision, UNWITNESSED_GRACE, WITNESS_QUORUM,
};
pub use processing::{Activity, ActivityName};
pub use report::{CheckRun, Finding, LEAST_REGIONS, NotRun, Outcome, RegionSummary, Report};

use report::Tally;

/// Runs every check over the evidence of all regions.
pub fn audit(inputs: &Inputs) -> Report {
    let mut tally = Tally::new(inputs);
    let mut barred = keys::Barred::default();
    let mut orders = petitions::Orders::read(&mut tally, inputs);
    let mut names = told::Names::default();
    let (mut journeys, mut activities) = (travel::Journeys::default(), processing::Activities::default());
    for region in &inputs.regions {
        match &region.evidence {
            Err(reason) => tally.unreached(&region.region, reason),
            Ok(evidence) => {
                settings::identity(&mut tally, &region.region, evidence);
                settings::decisions(&mut tally, &region.region, evidence);
                let seen = rows::Seen {
                    barred: &mut barred,
                    orders: &mut orders,
                    names: &mut names,
                    journeys: &mut journeys,
                    activities: &mut activities,
                };
                rows::judge(&mut tally, inputs, &region.region, evidence, seen);
                chain::judge(&mut tally, inputs, &region.region, evidence);
                images::judge(&mut tally, inputs, &region.region, evidence);
            }
        }
    }
    keys::at_home(&mut tally, inputs, &barred);
    keys::rotation(&mut tally, inputs);
    facts::reviewed(&mut tally, inputs);
    journeys.judge(&mut tally, inputs);
    let processing = activities.judge(&mut tally, inputs);
    told::judge(&mut tally, inputs, &names);
    orders.judge(&mut tally, inputs);
    settings::generations(&mut tally, inputs);
    Report { processing, ..tally.finish() }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
use tests::samples as tests_support;
