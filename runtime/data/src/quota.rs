//! How much a region holds of the namespaces that have a quota, and what it takes no more of.
//!
//! What is held of such a namespace is counted with every commit, in the commit: live records and the bytes of their
//! values as they are stored. A namespace that gets a quota is counted once, by reading it. The quota bounds what a region
//! takes from its own clients. What other regions have taken arrives and counts here, but is never refused: a region that
//! refused it would differ from the others for good. So together the regions can go beyond a quota by what they take at the
//! same time, each up to the whole quota while they are cut off from each other.

use std::collections::BTreeMap;

use model::Namespace;
use model::record::{Address, Row};
use store::{Store, StoreError};

use crate::faults::Fault;
use crate::group::Group;
use crate::types::DataError;
use crate::writer::Writer;

/// Before the name of a namespace, the fact that says what is held of it.
const USED: &str = "used/";
/// Rows that are read in one go where a namespace is counted.
const ROWS: usize = 1024;

/// What is held of each namespace that is counted.
pub(crate) type Usage = BTreeMap<Namespace, Used>;

/// How much that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    bytes: u64,
    records: u64,
}

impl Used {
    fn of(row: Option<&Row>) -> Self {
        let live = row.into_iter().flat_map(|row| &row.siblings).filter_map(|sibling| sibling.content.record());
        let sizes: Vec<u64> = live.map(|record| record.payload.stored_len()).collect();
        Self { bytes: sizes.iter().sum(), records: u64::from(!sizes.is_empty()) }
    }

    /// As a fact: two numbers, 8 bytes each, little-endian.
    fn to_bytes(self) -> Vec<u8> {
        [self.bytes.to_le_bytes(), self.records.to_le_bytes()].concat()
    }

    fn from_bytes(fact: &[u8]) -> Option<Self> {
        let (bytes, records) = fact.split_first_chunk::<8>()?;
        Some(Self { bytes: u64::from_le_bytes(*bytes), records: u64::from_le_bytes(records.try_into().ok()?) })
    }

    /// With one row in the place of another.
    fn replaced(self, before: Self, after: Self) -> Self {
        Self {
            bytes: (self.bytes + after.bytes).saturating_sub(before.bytes),
            records: (self.records + after.records).saturating_sub(before.records),
        }
    }
}

fn name(namespace: &Namespace) -> String {
    format!("{USED}{namespace}")
}

/// What is held, as the last commits have said.
pub(crate) fn read_usage(store: &Store) -> Result<Usage, StoreError> {
    let mut usage = Usage::new();
    for (fact, bytes) in store.facts(USED)? {
        let namespace = fact.strip_prefix(USED).and_then(|name| Namespace::new(name).ok());
        let namespace = namespace.ok_or_else(|| StoreError::Key { place: "the facts".into() })?;
        // What cannot be read is counted again.
        usage.extend(Used::from_bytes(&bytes).map(|used| (namespace, used)));
    }
    Ok(usage)
}

impl Writer {
    /// Refuses a write by which a namespace would grow beyond its quota. What makes it smaller is never refused.
    pub(crate) fn within_quota(
        &mut self,
        group: &mut Group,
        address: &Address,
        before: Option<&Row>,
        after: &Row,
    ) -> Result<(), DataError> {
        let namespace = &address.namespace;
        let quota = self.plans.load().replication.strategy(namespace).quota;
        if !quota.counts() || self.faults.makes(Fault::IgnoreQuota) {
            return Ok(());
        }
        let used = match group.used.get(namespace).or_else(|| self.usage.get(namespace)) {
            Some(used) => *used,
            None => {
                let counted = self.count(namespace)?;
                self.usage.insert(namespace.clone(), counted);
                counted
            }
        };
        let (smaller, larger) = (Used::of(before), Used::of(Some(after)));
        let then = used.replaced(smaller, larger);
        for (what, limit, before, then, grows) in [
            ("bytes", quota.bytes.map(|bytes| bytes.0), used.bytes, then.bytes, larger.bytes > smaller.bytes),
            ("records", quota.records, used.records, then.records, larger.records > smaller.records),
        ] {
            if let Some(limit) = limit.filter(|limit| grows && then > *limit) {
                metrics::counter!("repomind_quota_refused_total", "namespace" => namespace.to_string()).increment(1);
                return Err(DataError::OverQuota { namespace: namespace.clone(), what, limit, used: before });
            }
        }
        group.used.insert(namespace.clone(), then);
        Ok(())
    }

    /// A row of a namespace was damaged: nobody knows what it counted for, so the namespace is counted again.
    pub(crate) fn count_again(&mut self, group: &mut Group, namespace: &Namespace) {
        if self.usage.remove(namespace).is_some() {
            group.used.remove(namespace);
            group.forget_fact(name(namespace));
        }
    }

    fn count(&self, namespace: &Namespace) -> Result<Used, DataError> {
        let (mut used, mut after) = (Used::default(), None);
        loop {
            let rows = self.store.scan(namespace, "", after.as_ref(), ROWS)?;
            let last = rows.len() < ROWS;
            for (_, row) in &rows {
                used = used.replaced(Used::default(), Used::of(Some(row)));
            }
            after = rows.into_iter().next_back().map(|(key, _)| key);
            if last {
                return Ok(used);
            }
        }
    }

    /// What is held of the namespaces that are counted, once these rows are on disk.
    pub(crate) fn usage_with(&self, rows: &BTreeMap<Address, Option<Row>>) -> Usage {
        let mut changed = Usage::new();
        for (address, row) in rows {
            let Some(used) = changed.get(&address.namespace).or_else(|| self.usage.get(&address.namespace)) else {
                continue;
            };
            let before = self.store.row(address).ok().flatten();
            let used = used.replaced(Used::of(before.as_ref()), Used::of(row.as_ref()));
            changed.insert(address.namespace.clone(), used);
        }
        changed
    }

    /// The facts that say so.
    pub(crate) fn usage_facts(changed: &Usage) -> impl Iterator<Item = (String, Vec<u8>)> {
        changed.iter().map(|(namespace, used)| (name(namespace), used.to_bytes()))
    }

    /// They are on disk.
    pub(crate) fn used(&mut self, changed: Usage) {
        for (namespace, used) in &changed {
            let label = namespace.to_string();
            metrics::gauge!("repomind_namespace_bytes", "namespace" => label.clone()).set(used.bytes as f64);
            metrics::gauge!("repomind_namespace_records", "namespace" => label).set(used.records as f64);
        }
        self.usage.extend(changed);
    }

    /// Counts no longer what has no quota any more.
    pub(crate) fn forget_usage(&mut self, group: &mut Group) {
        let plans = self.plans.load_full();
        if plans.generation == 0 {
            // There are no policies yet.
            return;
        }
        let without = |namespace: &&Namespace| !plans.replication.strategy(namespace).quota.counts();
        let gone: Vec<Namespace> = self.usage.keys().filter(without).cloned().collect();
        for namespace in gone {
            group.forget_fact(name(&namespace));
            self.usage.remove(&namespace);
        }
    }
}
