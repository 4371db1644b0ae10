//! Large values on their way out, a chunk at a time, each verified before anything of it is given.

use std::sync::Arc;

use bytes::Bytes;
use model::object::{CHUNK_BYTES, Manifest};
use model::record::Address;
use model::version::Dot;

use super::Pins;
use crate::plane::{DataPlane, RETRY_AFTER};
use crate::types::{DataError, View};
use crate::vault::decrypt_piece;
use crate::vault::ring::DataKey;

/// An object that somebody reads. Its chunks stay until it is dropped, whatever becomes of its row.
pub struct ObjectReader {
    data: DataPlane,
    address: Address,
    dot: Dot,
    manifest: Arc<Manifest>,
    key: Option<DataKey>,
    _pins: Pins,
}

impl DataPlane {
    /// What reads the value that a view shows, where that is an object.
    ///
    /// # Errors
    /// [`DataError::Vault`] where its owner was erased, [`DataError::NoObjects`].
    pub fn open_object(&self, address: &Address, view: &View) -> Result<Option<ObjectReader>, DataError> {
        let Some(manifest) = view.record.payload.object() else { return Ok(None) };
        let objects = self.objects().ok_or(DataError::NoObjects)?;
        let key = match self.vault() {
            Some(vault) => vault.object_key_of(address, &view.record)?,
            None => None,
        };
        Ok(Some(ObjectReader {
            data: self.clone(),
            address: address.clone(),
            dot: view.dot.clone(),
            manifest: Arc::new(manifest.clone()),
            key,
            _pins: objects.pin(&manifest.chunks),
        }))
    }
}

impl ObjectReader {
    /// Bytes of the value.
    pub fn length(&self) -> u64 {
        self.manifest.length
    }

    /// The bytes of the value from `at` on, up to the end of the chunk that they lie in.
    ///
    /// # Errors
    /// [`DataError::Damaged`] where the chunk is damaged and no region has another, [`DataError::Vault`].
    pub async fn from(&self, at: u64) -> Result<Bytes, DataError> {
        let (index, begin) = ((at / CHUNK_BYTES as u64) as usize, (at % CHUNK_BYTES as u64) as usize);
        let piece = self.piece(index).await?;
        if begin >= piece.len() {
            return Err(DataError::Damaged { retry_after: RETRY_AFTER });
        }
        Ok(piece.slice(begin..))
    }

    async fn piece(&self, index: usize) -> Result<Bytes, DataError> {
        let damaged = || DataError::Damaged { retry_after: RETRY_AFTER };
        let chunk = *self.manifest.chunks.get(index).ok_or_else(damaged)?;
        let sealed = self.manifest.sealed.is_some();
        let stored = match self.data.with_objects(move |objects| Ok(objects.get(chunk, sealed)?)).await? {
            Some(stored) => stored,
            None => self.data.repair_chunk(&self.address, &self.dot, chunk, sealed).await?,
        };
        let Some(key) = self.key else { return Ok(stored) };
        let opened = tokio::task::spawn_blocking(move || decrypt_piece(&key, index, &stored)).await;
        Ok(opened.map_err(|_| DataError::Closed)??.into())
    }
}
