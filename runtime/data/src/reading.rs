//! What readers are shown, and what those see who compare regions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use model::question::Resolution;
use model::record::{Address, Content, Labels, Payload, Record, Row, Sibling};
use model::replication::Strategy;
use model::residency::{Barred, ScopeId};
use model::version::CausalContext;
use model::{Key, Namespace, RegionId};
use replication::{Fold, ScopeDigest, ScopeDigests};
use store::{Store, StoreError};
use tokio::sync::oneshot;

use crate::faults::Fault;
use crate::group::Change;
use crate::losses::Settlement;
use crate::plane::{ASKED, DataPlane, RESOLVER_WAIT, SETTLED};
use crate::plans::Plans;
use crate::types::{DataError, ETag, ScopeSummary, Siblings, View};
use crate::vault::{Fate, VaultError};

/// Which sibling of a row is shown, why, and the value that a resolver put in its place.
struct Shown {
    at: usize,
    resolved_by: String,
    merged: Option<Bytes>,
}

impl Shown {
    fn view(self, row: &Row) -> Option<View> {
        let mut view = View::of(row, self.at, &self.resolved_by)?;
        if let Some(value) = self.merged {
            view.record.payload = Payload::Plain(value);
        }
        Some(view)
    }
}

impl DataPlane {
    /// What a reader is shown of a key; `None` where there is no live record.
    ///
    /// # Errors
    /// [`DataError::Elsewhere`] where the record has left this region, [`DataError::Barred`] where it is still here and
    /// policies do not permit that any more, [`DataError::Store`] where its bytes are damaged.
    pub async fn read(&self, address: &Address) -> Result<Option<View>, DataError> {
        let Some(row) = self.whole_row(address).await? else { return Ok(None) };
        let plans = self.shared.plans.load();
        let strategy = plans.replication.strategy(&address.namespace);
        let fold = replication::fold(&row, strategy);
        if let Fold::Ask { resolver, .. } = &fold
            && self.settlement(plans.generation, address, &row).is_none()
        {
            self.have_settled(plans.generation, resolver, address, &row).await;
        }
        let shown = self.shown(address, &row, (&fold, strategy), plans.generation);
        match row.siblings.get(shown.at) {
            Some(winner) if winner.is_marker() => Err(self.elsewhere(winner)),
            _ if self.is_over(&strategy.labels, &row) => Ok(None),
            _ => {
                let Some(mut view) = shown.view(&row) else { return Ok(None) };
                self.lawful(&view, &plans)?;
                view.record = self.opened(address, &view.record)?;
                Ok(Some(view))
            }
        }
    }

    /// All concurrent writes of a key, opened, once every write in `after` has arrived; `None` where there is nothing.
    ///
    /// # Errors
    /// Those of [`DataPlane::read_after`]; nothing is shown where one of them may not be.
    pub async fn siblings(
        &self,
        address: &Address,
        after: Option<&CausalContext>,
    ) -> Result<Option<Siblings>, DataError> {
        if let Some(after) = after {
            self.has_caught_up(address, after).await?;
        }
        let Some(row) = self.whole_row(address).await? else { return Ok(None) };
        let (plans, now) = (self.shared.plans.load(), self.shared.clock.wall());
        if self.is_over(&plans.replication.strategy(&address.namespace).labels, &row) {
            return Ok(None);
        }
        let mut here = Vec::with_capacity(row.siblings.len());
        for sibling in row.siblings.iter().filter(|sibling| !sibling.is_marker()) {
            if let Some(labels) = sibling.content.labels() {
                plans.residency.permit_in(labels, &self.shared.me, now)?;
            }
            let record = sibling.content.record().map(|record| self.opened(address, record)).transpose()?;
            here.push((sibling.version.clone(), record));
        }
        let elsewhere = row.siblings.len() - here.len();
        Ok(Some(Siblings { here, elsewhere, etag: ETag::of(&row), context: row.context() }))
    }

    /// The record with its value in plain text: what everything uses that has to read a value.
    ///
    /// # Errors
    /// [`DataError::Vault`] where its owner was erased, or its bytes or labels are not those that were encrypted.
    pub fn opened(&self, address: &Address, record: &Record) -> Result<Record, DataError> {
        if self.shared.fenced.load(Ordering::Acquire) && record.payload.is_sealed() {
            return Err(DataError::Unready { retry_after: crate::plane::RETRY_AFTER });
        }
        match &self.shared.vault {
            Some(vault) => Ok(vault.opened(address, record)?),
            None if record.payload.is_sealed() => Err(VaultError::NoVault.into()),
            None => Ok(record.clone()),
        }
    }

    /// The siblings with their values in plain text, for a resolver.
    fn all_opened(&self, address: &Address, row: &Row) -> Result<Vec<Sibling>, DataError> {
        let opened = |sibling: &Sibling| match &sibling.content {
            Content::Live(record) => {
                Ok(Sibling { content: Content::Live(self.opened(address, record)?), ..sibling.clone() })
            }
            _ => Ok(sibling.clone()),
        };
        row.siblings.iter().map(opened).collect()
    }

    /// Whether what is stored may be shown here by the policies in force, which may be stricter than those by which it
    /// came here.
    fn lawful(&self, view: &View, plans: &Plans) -> Result<(), Barred> {
        plans.residency.permit_in(&view.record.labels, &self.shared.me, self.shared.clock.wall())
    }

    /// What settles conflicts in a namespace, by name.
    pub fn strategy(&self, namespace: &Namespace) -> String {
        self.shared.plans.load().replication.strategy(namespace).conflict_resolution.name().to_owned()
    }

    /// Everything that is stored of a key.
    ///
    /// # Errors
    /// [`DataError::Store`] where its bytes are damaged.
    pub fn row(&self, address: &Address) -> Result<Option<Row>, DataError> {
        Ok(self.shared.store.row(address)?)
    }

    /// [`DataPlane::read`], once every write in `after` has arrived in this region: what a client that was rerouted
    /// has written or read elsewhere, it finds here, or what replaced that. Waits for some seconds at most.
    ///
    /// # Errors
    /// [`DataError::Behind`] where something of it has not arrived, and those of [`DataPlane::read`].
    pub async fn read_after(
        &self,
        address: &Address,
        after: Option<&CausalContext>,
    ) -> Result<Option<View>, DataError> {
        if let Some(after) = after.filter(|_| !self.shared.faults.makes(Fault::IgnoreContext)) {
            self.has_caught_up(address, after).await?;
        }
        self.read(address).await
    }

    /// Has the resolver asked, and waits for its answer for at most [`RESOLVER_WAIT`]. A later one is kept for later
    /// readers; those of now are shown the last write.
    async fn have_settled(&self, generation: u64, resolver: &str, address: &Address, row: &Row) {
        let key = (generation, address.clone(), ETag::of(row).to_string());
        let siblings = match self.all_opened(address, row) {
            Ok(siblings) => siblings,
            Err(error) => return tracing::error!(%error, "a conflict could not be shown to its resolver"),
        };
        {
            let mut asked = self.shared.asked.lock().expect("nothing panics while it holds the lock");
            if asked.len() >= ASKED || !asked.insert(key.clone()) {
                return;
            }
        }
        let resolver = if self.shared.faults.makes(Fault::OtherResolver) { "another" } else { resolver };
        let answer = self.shared.resolver.resolve(resolver, address, &siblings);
        let (data, shared) = (self.clone(), self.shared.clone());
        let settling = tokio::spawn(async move {
            let resolution = answer.await;
            if let Some(resolution) = resolution {
                let (generation, address, etag) = key.clone();
                let etag = etag.parse().expect("it was made from a tag");
                let settlement = Settlement { address, etag, generation, resolution: resolution.clone() };
                let (answer, _) = oneshot::channel();
                // One that finds no room is noted when the resolver is asked again.
                let _ = data.enqueue(Change::Settled(Box::new(settlement), answer)).await;
                let mut settled = shared.settled.lock().expect("nothing panics while it holds the lock");
                if settled.len() >= SETTLED {
                    settled.clear();
                }
                settled.insert(key.clone(), resolution);
            }
            shared.asked.lock().expect("nothing panics while it holds the lock").remove(&key);
        });
        let _ = tokio::time::timeout(RESOLVER_WAIT, settling).await;
    }

    /// Where the write lives that `marker` stands for.
    fn elsewhere(&self, marker: &Sibling) -> DataError {
        DataError::elsewhere(&self.shared.me, self.shared.scopes.regions(marker.lives_in()).unwrap_or_default())
    }

    fn settlement(&self, generation: u64, address: &Address, row: &Row) -> Option<Resolution> {
        let key = (generation, address.clone(), ETag::of(row).to_string());
        self.shared.settled.lock().expect("nothing panics while it holds the lock").get(&key).cloned()
    }

    fn shown(&self, address: &Address, row: &Row, (fold, strategy): (&Fold, &Strategy), generation: u64) -> Shown {
        let show = |at: usize, by: &str| Shown { at, resolved_by: by.to_owned(), merged: None };
        match fold {
            Fold::Winner(at) => {
                let at = if self.shared.faults.makes(Fault::FoldDifferently) { &0 } else { at };
                show(*at, if row.siblings.len() > 1 { strategy.conflict_resolution.name() } else { "none" })
            }
            Fold::Siblings => show(replication::last_write(&row.siblings), "siblings"),
            Fold::Ask { resolver, meanwhile } => match self.settlement(generation, address, row) {
                Some(Resolution::Winner(at)) => show(at as usize, resolver),
                Some(Resolution::Keep) => show(*meanwhile, "siblings"),
                Some(Resolution::Merged(value)) => Shown { merged: Some(value.into()), ..show(*meanwhile, resolver) },
                None => show(*meanwhile, &format!("pending:{resolver}")),
            },
        }
    }

    /// Live records of a namespace in key order; those that live elsewhere, or may not be here any more, are left out.
    /// Resolvers are not asked: what they settled before is shown. Values are as they are stored.
    ///
    /// # Errors
    /// [`DataError::Store`] where bytes are damaged.
    pub fn list(
        &self,
        namespace: &Namespace,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, View)>, DataError> {
        self.none_wounded(namespace, prefix)?;
        let plans = self.shared.plans.load();
        let strategy = plans.replication.strategy(namespace);
        let (mut found, mut after) = (Vec::new(), after.cloned());
        while found.len() < limit {
            let wanted = limit - found.len();
            let rows = self.shared.store.scan(namespace, prefix, after.as_ref(), wanted);
            let rows = self.suspecting(rows.map_err(DataError::from))?;
            let last_page = rows.len() < wanted;
            after = rows.last().map(|(key, _)| key.clone());
            for (key, row) in rows.into_iter().filter(|(_, row)| !self.is_over(&strategy.labels, row)) {
                let address = Address { namespace: namespace.clone(), key };
                let fold = replication::fold(&row, strategy);
                let view = self.shown(&address, &row, (&fold, strategy), plans.generation).view(&row);
                let view = view.filter(|view| self.lawful(view, &plans).is_ok() && self.is_there(&view.record));
                found.extend(view.map(|view| (address.key, view)));
            }
            if last_page {
                break;
            }
        }
        // Also what somebody has come upon meanwhile.
        self.none_wounded(namespace, prefix)?;
        Ok(found)
    }

    /// Whether the value has not been erased.
    fn is_there(&self, record: &Record) -> bool {
        self.shared.vault.as_ref().is_none_or(|vault| vault.fate_of(record) != Fate::Gone)
    }

    /// Visits every stored row, key and envelope as they lie on disk, until `visit` says `false`.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn each_row(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        let outcome = self.shared.store.each_row(&mut |key, row| {
            if visit(key, row) { Ok(()) } else { Err(StoreError::Visitor(String::new())) }
        });
        match outcome {
            Err(StoreError::Visitor(_)) => Ok(()),
            other => other,
        }
    }

    /// A digest of each scope, by its name in hexadecimal.
    ///
    /// # Errors
    /// Those of the disk, and damaged rows.
    pub fn digests(&self) -> Result<BTreeMap<String, ScopeSummary>, DataError> {
        let (plans, now) = (self.shared.plans.load_full(), self.shared.clock.wall());
        let mut digests = ScopeDigests::new(self.shared.digest_key);
        // What of a scope is lawful by the plan in force: regions that had to give something up compare the rest.
        let mut left = BTreeMap::<ScopeId, BTreeSet<RegionId>>::new();
        let mut known = HashMap::<_, ScopeId>::new();
        let mut lawful = |sibling: &Sibling| {
            let Some(Labels { classes, jurisdictions, basis, purpose, .. }) = sibling.content.labels() else {
                return sibling.scope;
            };
            let case = (sibling.scope, classes.clone(), jurisdictions.clone(), *basis, *purpose);
            *known.entry(case).or_insert_with(|| {
                let regions = self.shared.scopes.regions(sibling.scope).unwrap_or_default();
                let labels = sibling.content.labels().expect("looked at above");
                let (name, regions) = plans.residency.within((sibling.scope, &regions), labels, now);
                left.insert(name, regions);
                name
            })
        };
        let read = self.shared.store.each_row(&mut |key, bytes| {
            let address = Store::address_of(key).ok_or_else(|| StoreError::Key { place: "the rows".into() })?;
            let row: Row = model::codec::decode(bytes)
                .map_err(|reason| StoreError::Corrupt { place: format!("row {address}"), reason })?;
            digests.add(&address, &row, &mut lawful);
            Ok(())
        });
        self.suspecting(read.map_err(DataError::from))?;
        let summary = |(scope, digest): (ScopeId, ScopeDigest)| {
            let regions = left.get(&scope).cloned().or_else(|| self.shared.scopes.regions(scope)).unwrap_or_default();
            (scope.to_string(), ScopeSummary { regions, rows: digest.siblings, digest: digest.digest })
        };
        Ok(digests.finish().into_iter().map(summary).collect())
    }
}
