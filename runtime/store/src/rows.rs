//! Where rows lie: by namespace and key, with a mark for those that have tombstones.

use std::ops::Bound;

use model::codec;
use model::record::{Address, Row};
use model::{Key, Namespace};

use crate::engine::{Pairs, Space, Span, prefixed};
use crate::{Store, StoreError};

/// Between a namespace and its key: no namespace contains it, so prefixes do not collide.
pub(crate) const SEPARATOR: u8 = 0;
/// Before the names of rows that have tombstones, among the small facts.
const DEAD: &[u8] = b"dead/";

/// A row as it lies on disk, so that whoever commits it can hash the very bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// The stored key.
    pub key: Vec<u8>,
    /// The envelope.
    pub envelope: Vec<u8>,
    /// Whether tombstones are in it: then it is listed by [`Store::dead_rows`].
    pub dead: bool,
}

impl StoredRow {
    /// The row of a key.
    pub fn of(address: &Address, row: &Row) -> Self {
        Self { key: row_key(address), envelope: codec::encode(row), dead: row.tombstones().next().is_some() }
    }
}

/// The stored key of a row.
pub fn row_key(address: &Address) -> Vec<u8> {
    [address.namespace.as_str().as_bytes(), &[SEPARATOR], address.key.as_str().as_bytes()].concat()
}

pub(crate) fn parse_row_key(bytes: &[u8]) -> Option<Address> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (namespace, key) = text.split_once(char::from(SEPARATOR))?;
    Some(Address { namespace: Namespace::new(namespace).ok()?, key: Key::new(key).ok()? })
}

fn decode_row(address: &Address, bytes: &[u8]) -> Result<Row, StoreError> {
    codec::decode(bytes).map_err(|reason| StoreError::Corrupt { place: format!("row {address}"), reason })
}

pub(crate) fn dead_key(row_key: &[u8]) -> Vec<u8> {
    [DEAD, row_key].concat()
}

/// The rows of a span of addresses: after the first, up to and including the last; without bounds where there are none.
fn between(after: Option<&Address>, upto: Option<&Address>) -> Span {
    (
        after.map_or(Bound::Unbounded, |address| Bound::Excluded(row_key(address))),
        upto.map_or(Bound::Unbounded, |address| Bound::Included(row_key(address))),
    )
}

impl Store {
    /// The stored row of a key.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where its bytes are damaged.
    pub fn row(&self, address: &Address) -> Result<Option<Row>, StoreError> {
        self.engine.get(Space::Rows, &row_key(address))?.map(|bytes| decode_row(address, &bytes)).transpose()
    }

    /// The bytes of a row as they lie on disk, whole or not.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn raw_row(&self, address: &Address) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.engine.get(Space::Rows, &row_key(address))?.map(|bytes| bytes.to_vec()))
    }

    /// The keys of damaged rows after `after`, among about `max_bytes` of rows, and the key after which the next look
    /// begins; none where these were the last.
    ///
    /// # Errors
    /// Those of the disk, and [`StoreError::Key`] where a key cannot be read: it is no row of ours.
    pub fn damaged_rows(
        &self,
        after: Option<&Address>,
        max_bytes: usize,
    ) -> Result<(Vec<Address>, Option<Address>), StoreError> {
        let (mut damaged, mut bytes) = (Vec::new(), 0);
        for pair in self.engine.range(Space::Rows, between(after, None)) {
            let (key, value) = pair?;
            let address = parse_row_key(&key).ok_or_else(|| StoreError::Key { place: "the rows".into() })?;
            bytes += value.len();
            if decode_row(&address, &value).is_err() {
                damaged.push(address.clone());
            }
            if bytes >= max_bytes {
                return Ok((damaged, Some(address)));
            }
        }
        Ok((damaged, None))
    }

    /// Up to `limit` rows of a namespace in key order, of keys that begin with `prefix` and come after `after`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] at the first damaged row.
    pub fn scan(
        &self,
        namespace: &Namespace,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Row)>, StoreError> {
        let start = [namespace.as_str().as_bytes(), &[SEPARATOR], prefix.as_bytes()].concat();
        let (mut from, to) = prefixed(&start);
        if let Some(key) = after {
            let after = row_key(&Address { namespace: namespace.clone(), key: key.clone() });
            if after >= start {
                from = Bound::Excluded(after);
            }
        }
        if matches!((&from, &to), (Bound::Excluded(from), Bound::Excluded(to)) if from >= to) {
            return Ok(Vec::new());
        }
        let rows = decoded(self.engine.range(Space::Rows, (from, to)), limit)?;
        Ok(rows.into_iter().map(|(address, row)| (address.key, row)).collect())
    }

    /// Rows of all namespaces in stored order, from after `after` up to `upto`: the first of them up to about
    /// `max_bytes` and at most `limit`, and whether there are more.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] at the first damaged row.
    pub fn rows_between(
        &self,
        after: Option<&Address>,
        upto: Option<&Address>,
        limit: usize,
        max_bytes: usize,
    ) -> Result<(Vec<(Address, Row)>, bool), StoreError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for pair in self.engine.range(Space::Rows, between(after, upto)) {
            let (key, value) = pair?;
            if found.len() >= limit || (bytes > 0 && bytes + value.len() > max_bytes) {
                return Ok((found, true));
            }
            bytes += value.len();
            let address = parse_row_key(&key).ok_or_else(|| StoreError::Key { place: "the rows".into() })?;
            let row = decode_row(&address, &value)?;
            found.push((address, row));
        }
        Ok((found, false))
    }

    /// Reads a key as [`Store::each_row`] shows it.
    pub fn address_of(raw: &[u8]) -> Option<Address> {
        parse_row_key(raw)
    }

    /// The keys of a span, after one and up to another, that facts are named after: `prefix`, then the stored key.
    ///
    /// # Errors
    /// Those of the disk, and [`StoreError::Key`] where a name cannot be read.
    pub fn addresses_of_facts(
        &self,
        prefix: &str,
        after: Option<&Address>,
        upto: Option<&Address>,
    ) -> Result<Vec<Address>, StoreError> {
        let prefix = crate::fact(prefix).into_bytes();
        let at = |address: &Address| [prefix.as_slice(), &row_key(address)].concat();
        let (first, last) = prefixed(&prefix);
        let from = after.map_or(first, |address| Bound::Excluded(at(address)));
        let to = upto.map_or(last, |address| Bound::Included(at(address)));
        let mut found = Vec::new();
        for pair in self.engine.range(Space::Meta, (from, to)) {
            let (key, _) = pair?;
            let address = key.get(prefix.len()..).and_then(parse_row_key);
            found.push(address.ok_or_else(|| StoreError::Key { place: "the facts".into() })?);
        }
        Ok(found)
    }

    /// Up to `limit` of the rows that had tombstones when they were last listed, after `after`.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn dead_rows(&self, after: Option<&Address>, limit: usize) -> Result<Vec<Address>, StoreError> {
        let (mut from, to) = prefixed(DEAD);
        if let Some(address) = after {
            from = Bound::Excluded(dead_key(&row_key(address)));
        }
        let mut found = Vec::new();
        for pair in self.engine.range(Space::Meta, (from, to)).take(limit) {
            let (key, _) = pair?;
            let address = key.get(DEAD.len()..).and_then(parse_row_key);
            found.push(address.ok_or_else(|| StoreError::Key { place: "the list of dead rows".into() })?);
        }
        Ok(found)
    }
}

fn decoded(pairs: Pairs, limit: usize) -> Result<Vec<(Address, Row)>, StoreError> {
    let mut found = Vec::new();
    for pair in pairs.take(limit) {
        let (key, value) = pair?;
        let address = parse_row_key(&key).ok_or_else(|| StoreError::Key { place: "the rows".into() })?;
        let row = decode_row(&address, &value)?;
        found.push((address, row));
    }
    Ok(found)
}
