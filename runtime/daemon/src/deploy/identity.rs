//! Keys and certificates of a deployment on one machine, made when absent.
//!
//! The only file of the operator's commands that knows `net::pki`.

use std::path::Path;

use anyhow::Context;
use model::region::Regions;

/// Makes whatever is missing under `state/pki`: the authority, a certificate for each region, the
/// signing keys and the development token. Says whether a region's certificate or the token was new.
pub fn ensure(state: &Path, regions: &Regions) -> anyhow::Result<bool> {
    let folder = state.join("pki");
    let complete =
        folder.join("token").exists() && regions.by_id.keys().all(|id| folder.join(format!("{id}.pem")).exists());
    net::pki::ensure(&folder, regions.by_id.keys())
        .with_context(|| format!("cannot make keys in {}", folder.display()))?;
    Ok(!complete)
}
