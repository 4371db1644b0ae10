//! Whether regions that have taken over the same hold the same: the proof that convergence is, and the way to find what no
//! checksum tells of, such as a row that is missing.
//!
//! Two regions whose position vectors are equal must hold the same of every scope that both belong to. Each region
//! compares its digests with every other one's, scope by scope; both must have been at rest meanwhile, else nothing is said.
//! Where a scope differs, their rows are compared page by page, and each region checks its own rows of the keys that
//! differ against its own ledger, which has a hash of every row as it was last committed. The region whose row is not
//! the one that it committed is wrong, and mends it as it does damaged ones ([`crate::mending`]). So nothing is decided by
//! majority, by who has more, or by who spoke first; and where both rows are as committed, that is said and nothing is
//! changed.

use std::collections::BTreeMap;

use compliance::ledger::merkle::content_hash;
use compliance::ledger::{CommitImages, Digest, RowImage};
use model::RegionId;
use model::codec;
use model::record::{Address, Row, Sibling};
use model::version::PositionVector;
use serde::{Deserialize, Serialize};
use store::StoreError;
use tokio::sync::oneshot;

use crate::group::{Change, Group};
use crate::plane::DataPlane;
use crate::types::{DataError, ScopeSummary};
use crate::writer::Writer;

/// Rows of one page.
pub const PAGE: usize = 2048;
/// Bytes of rows that are read for one page, about.
const PAGE_BYTES: usize = 4 << 20;

/// What a region holds, scope by scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// How far it had taken over each log, before it read its rows and after.
    pub vector: PositionVector,
    /// By scope.
    pub scopes: BTreeMap<String, ScopeSummary>,
}

/// Rows of a span of keys that two regions may both hold, as keyed hashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The last key that was looked at; none at the end.
    pub upto: Option<Address>,
    /// Keys in order, each with a hash of what both may hold of it.
    pub rows: BTreeMap<Address, [u8; 16]>,
}

impl DataPlane {
    /// What this region holds; nothing where it changed meanwhile. Reads all rows.
    ///
    /// # Errors
    /// Those of the disk, and damaged rows.
    pub fn account(&self) -> Result<Option<Account>, DataError> {
        let vector = self.vector();
        // Of a wounded key it has forgotten what it held.
        let scopes = self.digests()?;
        let rest = vector == self.vector() && self.wounds().open.is_empty();
        Ok(rest.then_some(Account { vector, scopes }))
    }

    /// A page of what this region and `peer` may both hold, after `after`.
    ///
    /// # Errors
    /// Those of the disk, and damaged rows.
    pub fn page(&self, peer: &RegionId, after: Option<&Address>, upto: Option<&Address>) -> Result<Page, DataError> {
        let rows = self.shared.store.rows_between(after, upto, PAGE, PAGE_BYTES);
        let (rows, more) = self.suspecting(rows.map_err(DataError::from))?;
        let upto = match more {
            true => rows.last().map(|(address, _)| address.clone()),
            false => upto.cloned(),
        };
        let mut page = Page { upto, rows: BTreeMap::new() };
        for (address, row) in rows {
            // As the digests have it: a tombstone counts beside something alive.
            let live =
                |scope| row.siblings.iter().any(|other| other.scope == scope && other.content.record().is_some());
            let both = |scope| self.shared.scopes.regions(scope).is_some_and(|regions| regions.contains(peer));
            let common = row
                .siblings
                .iter()
                .filter(|sibling| !sibling.is_marker() && live(sibling.scope) && both(sibling.scope));
            let common: Vec<Sibling> = common.cloned().collect();
            if !common.is_empty() {
                let hash = blake3::keyed_hash(&self.shared.digest_key, &codec::encode(&Row { siblings: common }));
                page.rows.insert(address, hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes"));
            }
        }
        Ok(page)
    }

    /// Checks rows against the ledger, and takes those aside that are not as they were committed. Gives how many.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn check_against_ledger(&self, keys: Vec<Address>) -> Result<u64, DataError> {
        let (answer, done) = oneshot::channel();
        self.wait_in_line(Change::Check(keys, answer)).await?;
        done.await.map_err(|_| DataError::Closed)?
    }
}

impl Writer {
    /// Takes rows aside that are not as they were last committed here.
    pub(crate) fn check(&mut self, group: &mut Group, keys: Vec<Address>) -> Result<u64, DataError> {
        let mut astray = 0;
        for address in keys {
            if group.rows.contains_key(&address) || self.is_wounded(group, &address) {
                continue;
            }
            // What the ledger does not tell of was never committed.
            let committed = self.committed(&address)?.unwrap_or(RowImage::REMOVED);
            let bytes = self.store.raw_row(&address)?;
            let now = bytes.as_deref().map_or(RowImage::REMOVED, content_hash);
            if now != committed {
                tracing::error!(
                    "a row is not the one that was committed; it is kept aside and asked of the other regions"
                );
                self.wound_with(group, address, bytes.unwrap_or_default())?;
                astray += 1;
            }
        }
        Ok(astray)
    }

    /// The hash of a row as it was last committed; nothing where the ledger does not tell.
    fn committed(&self, address: &Address) -> Result<Option<Digest>, DataError> {
        let record = self.record_of(&store::row_key(address));
        let find = |index: u64, bytes: &[u8]| -> Result<Option<Digest>, DataError> {
            let images: CommitImages = codec::decode(bytes)
                .map_err(|reason| StoreError::Corrupt { place: format!("the row images of leaf {index}"), reason })?;
            let found = images.0.binary_search_by_key(&record, |image| image.record);
            Ok(found.ok().map(|at| images.0[at].content))
        };
        let (_, lists) = self.store.images_to_pass(usize::MAX)?;
        for (index, bytes) in lists.iter().rev() {
            if let Some(found) = find(*index, bytes)? {
                return Ok(Some(found));
            }
        }
        let Some(index) = self.store.owner_of(&record.0)? else { return Ok(None) };
        match self.store.images(index)? {
            Some(bytes) => find(index, &bytes),
            None => Ok(None),
        }
    }
}
