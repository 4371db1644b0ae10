//! The checkpoints that the auditor saw last, under `STATE/audit/remembered`: a ledger that forgets what it once showed
//! is caught by them, also where all regions agree to forget.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use compliance::audit::{Check, Inputs, Report};
use model::RegionId;

use super::gather::size_of;

fn folder(state: &Path) -> PathBuf {
    state.join("audit").join("remembered")
}

fn file(state: &Path, region: &RegionId) -> PathBuf {
    folder(state).join(format!("{region}.note"))
}

/// What is remembered of these regions.
pub fn read<'r>(state: &Path, regions: impl Iterator<Item = &'r RegionId>) -> BTreeMap<RegionId, String> {
    regions.filter_map(|region| Some((region.clone(), std::fs::read_to_string(file(state, region)).ok()?))).collect()
}

/// Remembers the checkpoints that an audit has verified: of regions whose ledgers it found nothing wrong with, where
/// they are larger than what is remembered.
///
/// # Errors
/// Those of the disk.
pub fn keep(state: &Path, notes: &BTreeMap<RegionId, String>, report: &Report) -> anyhow::Result<()> {
    let known = read(state, notes.keys());
    for summary in report.regions.iter().filter(|summary| summary.checkpoint.is_some()) {
        let region = &summary.region;
        let accused = report.findings.iter().any(|found| found.check == Check::Aud01 && found.region == *region);
        let Some(note) = notes.get(region).filter(|_| !accused) else { continue };
        if known.get(region).and_then(|known| size_of(known)) >= size_of(note) {
            continue;
        }
        let (path, draft) = (file(state, region), folder(state).join(format!("{region}.draft")));
        std::fs::create_dir_all(folder(state))
            .and_then(|()| std::fs::write(&draft, note))
            .and_then(|()| std::fs::rename(&draft, &path))
            .with_context(|| format!("cannot remember the checkpoint in {}", path.display()))?;
    }
    Ok(())
}

/// The notes that the regions showed.
pub fn shown(inputs: &Inputs<'_>) -> BTreeMap<RegionId, String> {
    let note = |region: &compliance::audit::RegionEvidence| {
        let ledger = region.evidence.as_ref().ok()?.ledger.as_ref()?;
        Some((region.region.clone(), ledger.checkpoint.clone()?))
    };
    inputs.regions.iter().filter_map(note).collect()
}
