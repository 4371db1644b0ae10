//! The region's object store: where it is, and that nothing stays in it which no record names.

use std::path::PathBuf;
use std::time::Duration;

use data::{DataError, DataPlane, SWEEP_GRACE};
use model::region::Region;
use tokio_util::sync::CancellationToken;

use super::mending::jittered;
use crate::args::StartArgs;

/// The folder of large values and backups: the one that `services.storage` names, else one in this region's state.
pub fn place(args: &StartArgs, me: &Region) -> PathBuf {
    let storage = args.storage.as_deref().unwrap_or(&me.storage);
    crate::assets::folder_of(storage).unwrap_or_else(|| {
        let folder = args.state.join(me.id.as_str()).join("objects");
        tracing::warn!(%storage, folder = %folder.display(), "large values lie in a folder of this region: stores other than file:// are not there yet");
        folder
    })
}

/// Sweeps about every `every`, until `stop`.
pub async fn keep(data: DataPlane, every: Duration, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(jittered(every))).await.is_some() {
        match stop.run_until_cancelled(data.sweep_objects(SWEEP_GRACE)).await {
            Some(Err(DataError::Closed)) | None => return,
            Some(Err(error)) => tracing::warn!(%error, "the object store was not swept"),
            Some(Ok(swept)) if swept.gone > 0 => tracing::info!(gone = swept.gone, "chunks that no record names went"),
            Some(Ok(_)) => {}
        }
    }
}
