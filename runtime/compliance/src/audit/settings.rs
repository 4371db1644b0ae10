//! Who a region is, which policies it follows, and whether it follows them: RES-03, POL-01, POL-02, POL-04.

use std::collections::BTreeSet;

use model::RegionId;

use super::checks::Check;
use super::evidence::{Evidence, GENERATION_GRACE, Inputs, PolicyEvidence};
use super::report::Tally;

/// RES-03: the region asked is the one that the certificate names.
pub(super) fn identity(tally: &mut Tally, region: &RegionId, evidence: &Evidence) {
    match &evidence.attested {
        None => tally.not_run(Check::Res03, region, "no certificate of the node was seen"),
        Some(attested) => {
            tally.examined(Check::Res03, 1);
            if attested != region.as_str() {
                let rule = format!("its certificate is that of {attested}");
                let remedy = "take the node out of service; give it the certificate of the place where it stands";
                tally.find(Check::Res03, region, attested.as_bytes(), rule, remedy);
            }
        }
    }
}

/// POL-04: what the policies decided comes out the same again.
pub(super) fn decisions(tally: &mut Tally, region: &RegionId, evidence: &Evidence) {
    let Some(decisions) = &evidence.decisions else {
        tally.not_run(Check::Pol04, region, "its decisions could not be read or asked again");
        return;
    };
    tally.examined(Check::Pol04, decisions.same as usize + decisions.differ.len());
    for (why, count) in &decisions.not_asked {
        tally.limit(Check::Pol04, format!("{region}: {count} decisions were not asked again: {why}"));
    }
    for what in &decisions.differ {
        let remedy = "see `repomind-run policy replay --log REGION`; the log was changed, or a region answered what its \
                      policies do not say";
        tally.find(Check::Pol04, region, what.as_bytes(), what.as_str(), remedy);
    }
}

/// POL-01 and POL-02, over all regions that were reached.
pub(super) fn generations(tally: &mut Tally, inputs: &Inputs) {
    let mut policies: Vec<(&RegionId, &PolicyEvidence)> = Vec::new();
    for region in &inputs.regions {
        let Ok(evidence) = &region.evidence else { continue };
        match &evidence.policy {
            Some(policy) => policies.push((&region.region, policy)),
            None => {
                tally.not_run(Check::Pol01, &region.region, "it did not say which policies it follows");
                tally.not_run(Check::Pol02, &region.region, "it did not show its policy bundle");
            }
        }
    }
    tally.examined(Check::Pol01, policies.len());
    tally.examined(Check::Pol02, policies.len());
    for &(region, policy) in &policies {
        if let Err(reason) = &policy.signature {
            let rule = format!("the signature of generation {} does not hold: {reason}", policy.generation);
            let remedy = "publish the policies again from the tree that you trust, and find out who changed the bundle";
            tally.find(Check::Pol02, region, &bytes_of(policy), rule, remedy);
        }
    }
    lagging(tally, inputs, &policies);
    differing(tally, &policies);
}

fn bytes_of(policy: &PolicyEvidence) -> Vec<u8> {
    format!("{} {}", policy.generation, policy.tree).into_bytes()
}

/// Regions that follow an older generation than others, for too long.
fn lagging(tally: &mut Tally, inputs: &Inputs, policies: &[(&RegionId, &PolicyEvidence)]) {
    let Some(newest) = policies.iter().map(|(_, policy)| policy.generation).max() else { return };
    let first = policies.iter().filter(|(_, policy)| policy.generation == newest).map(|(_, policy)| policy.since).min();
    let waited = inputs.now.saturating_sub(first.unwrap_or(inputs.now)).0;
    for &(region, policy) in policies.iter().filter(|(_, policy)| policy.generation < newest) {
        let rule = format!("it follows generation {}, others follow {newest} since {waited} ms", policy.generation);
        if waited > GENERATION_GRACE.0 {
            let remedy = "see in the region's log why it refused or missed the newer generation";
            tally.find(Check::Pol01, region, &bytes_of(policy), rule, remedy);
        } else {
            tally.limit(Check::Pol01, format!("{region}: {rule}, which is within {GENERATION_GRACE}"));
        }
    }
}

/// Regions that call different files by the same number.
fn differing(tally: &mut Tally, policies: &[(&RegionId, &PolicyEvidence)]) {
    for &(region, policy) in policies {
        let same = policies.iter().filter(|(_, other)| other.generation == policy.generation);
        let trees: BTreeSet<_> = same.map(|(_, other)| other.tree).collect();
        if trees.len() > 1 {
            let rule = format!(
                "generation {} has {} different trees; here it is {}",
                policy.generation,
                trees.len(),
                policy.tree
            );
            let remedy = "publish one tree again as the next generation";
            tally.find(Check::Pol01, region, &bytes_of(policy), rule, remedy);
        }
    }
}
