//! Which regions each scope consists of, for every scope that this region has seen.
//!
//! A stored sibling names its scope by a hash, and the plan that made it may
//! have changed since. What the hash stood for is kept in the store, written in
//! the same commit as the first sibling of the scope. There are at most as many
//! scopes as sets of regions and duties that some generation's plan combined:
//! dozens, not thousands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::RwLock;

use model::RegionId;
use model::codec;
use model::record::ScopeRegions;
use model::residency::ScopeId;
use store::{Store, StoreError};

/// Before the names of the facts.
const FACT: &str = "scope/";

/// The register of scopes. Readers share it with the writer.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    known: RwLock<BTreeMap<ScopeId, BTreeSet<RegionId>>>,
}

/// Scopes first seen in a group that is not on disk yet.
pub(crate) type NewScopes = BTreeMap<ScopeId, BTreeSet<RegionId>>;

impl Scopes {
    /// Reads the register.
    pub(crate) fn open(store: &Store) -> Result<Self, StoreError> {
        let mut known = BTreeMap::new();
        for (name, bytes) in store.facts(FACT)? {
            let ScopeRegions { scope, regions } = codec::decode(&bytes)
                .map_err(|reason| StoreError::Corrupt { place: format!("fact {name}"), reason })?;
            known.insert(scope, regions);
        }
        Ok(Self { known: RwLock::new(known) })
    }

    /// The regions of a scope; none where it was never seen.
    pub(crate) fn regions(&self, scope: ScopeId) -> Option<BTreeSet<RegionId>> {
        self.known.read().expect("nothing panics while it holds the lock").get(&scope).cloned()
    }

    /// Whether the register has the scope.
    pub(crate) fn knows(&self, scope: ScopeId) -> bool {
        self.known.read().expect("nothing panics while it holds the lock").contains_key(&scope)
    }

    /// The scopes are on disk.
    pub(crate) fn learned(&self, scopes: NewScopes) {
        if !scopes.is_empty() {
            self.known.write().expect("nothing panics while it holds the lock").extend(scopes);
        }
    }

    /// The scopes as facts, to be committed with the first siblings that name them.
    pub(crate) fn facts(scopes: &NewScopes) -> impl Iterator<Item = (String, Vec<u8>)> {
        scopes.iter().map(|(scope, regions)| {
            let name: String = scope.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            let value = codec::encode(&ScopeRegions { scope: *scope, regions: regions.clone() });
            (format!("{FACT}{name}"), value)
        })
    }
}
