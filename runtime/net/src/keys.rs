//! What operators see and do of a region's keys: `GET /keys`, `POST /keys/rotate`. No key is ever shown.

use data::{DataError, DataPlane};
use http::{Response, StatusCode};
use model::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::gateway::problem_of;
use crate::problem::Problem;
use crate::serve::{Body, json_response};

/// A region key by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHead {
    /// 16 hexadecimal digits.
    pub id: String,
    /// When it was made, by the region's clock.
    pub made_at: UnixMillis,
}

/// What a rotation came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// The new region key.
    pub region_key: KeyHead,
    /// How many data keys were wrapped anew.
    pub data_keys: u64,
}

fn none() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no-keys", "this region has no keys")
}

fn heads(data: &DataPlane) -> Result<Vec<KeyHead>, Problem> {
    let keys = data.vault().ok_or_else(none)?.region_keys();
    let head = |(id, made_at): ([u8; 8], UnixMillis)| KeyHead {
        id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
        made_at,
    };
    Ok(keys.into_iter().map(head).collect())
}

/// The region keys, the newest last.
pub(crate) fn list(data: &DataPlane) -> Result<Response<Body>, Problem> {
    Ok(json_response(&heads(data)?))
}

/// Makes a new region key and destroys the one before.
pub(crate) async fn rotate(data: DataPlane) -> Result<Response<Body>, Problem> {
    let rotating = data.clone();
    let rotated = tokio::task::spawn_blocking(move || rotating.rotate_keys()).await;
    let rotated = rotated.map_err(|_| Problem::unavailable("storage", "the keys could not be rotated"))?;
    let data_keys = rotated.map_err(|error| match error {
        DataError::Vault(data::vault::VaultError::NoVault) => none(),
        other => problem_of(&other),
    })?;
    let region_key = heads(&data)?.pop().ok_or_else(none)?;
    tracing::info!(region_key = region_key.id, data_keys, "the region key was rotated");
    Ok(json_response(&Rotated { region_key, data_keys }))
}
