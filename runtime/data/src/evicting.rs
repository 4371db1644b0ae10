//! What happens to stored records when policies change: values leave regions that may hold them no more, and come back.
//!
//! Every region looks through its own rows by the plan in force. A value that it may hold no more is taken out of its row
//! once a region that may hold it has said so, and left behind is a marker that names where it lives; where no such
//! region has it, it is brought to one first. A value that no region may hold stays, is shown to nobody
//! ([`DataError::Barred`]), and the audit names it. What was evicted is asked for again once policies allow it.
//!
//! **Two regions never evict the same value because of each other.** What a region says of a value goes through its
//! writer, by the plan that the asker follows ([`Writer::vouch`]); an eviction goes through the writer as well, and is
//! dropped there if another plan is in force by then or the value may be here again. So whoever has said "it is here"
//! evicts nothing until it has another plan, and asks by that one.
//!
//! The data key of evicted values goes too, once nothing here needs it. It is no erased key: it may come back.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Instant;

use compliance::ledger::RowKeyHasher;
use model::codec;
use model::eviction::{
    Holding, HoldingAnswer, HoldingQuestion, Homecoming, Impact, ImpactGroup, PlanStamp, ReturnQuestion,
};
use model::record::{Address, Content, Labels, Row};
use model::residency::{Law, PlanDigest, ResidencyPlan};
use model::sealing::{DataKeyId, KeyParcel, Owner, RegionPublicKey};
use model::snapshot::Given;
use model::version::{Dot, LogPosition};
use model::{Millis, RegionId};
use store::StoreError;
use tokio::sync::oneshot;

use crate::arriving::merge_into;
use crate::group::{Change, Group};
use crate::plane::DataPlane;
use crate::types::DataError;
use crate::vault::{Fate, Wanted};
use crate::writer::Writer;

/// Before the names of the facts that say which keys opened what was evicted; each holds the key's owner.
const BARRED_KEY: &str = "barred-key/";
/// Before the names of the facts that say by which rulings a region was offered what it may hold.
const OFFERED: &str = "offered/";
/// Rows that are looked at in one go.
const ROWS: usize = 1024;
/// Bytes of them.
const ROWS_BYTES: usize = 1 << 20;
/// Bytes of values in one homecoming, where one value is not larger.
const HOMECOMING_BYTES: usize = 2 << 20;

/// A write, and other regions of its scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its key.
    pub address: Address,
    /// Which write.
    pub dot: Dot,
    /// The regions.
    pub regions: BTreeSet<RegionId>,
}

/// What was found in a span of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// How many rows there were.
    pub rows: u64,
    /// The last key; none where the last row was seen.
    pub next: Option<Address>,
    /// Values that may not be here, and the regions that may hold them; where there is none, they have to stay.
    pub unlawful: Vec<Placed>,
    /// Writes of which only a marker is here though their scope names this region: they might be here again.
    pub away: Vec<Placed>,
    /// Values that may be here, and the other regions that may hold them: those may have refused them by an earlier plan.
    pub lawful: Vec<Placed>,
    /// Deletes whose labels may not be here; they go once every region has them.
    pub deletes: u64,
}

impl DataPlane {
    /// By which rulings this region decides.
    pub fn plan_stamp(&self) -> PlanStamp {
        self.shared.plans.load().stamp()
    }

    /// Looks through the rows after a key. Reads from disk.
    ///
    /// # Errors
    /// Those of the disk, and damaged rows.
    pub fn look_after(&self, after: Option<&Address>) -> Result<Looked, DataError> {
        let (plans, now) = (self.shared.plans.load_full(), self.shared.clock.wall());
        let rows = self.shared.store.rows_between(after, None, ROWS, ROWS_BYTES);
        let (rows, more) = self.suspecting(rows.map_err(DataError::from))?;
        let mut looked = Looked { rows: rows.len() as u64, ..Looked::default() };
        looked.next = rows.last().filter(|_| more).map(|(address, _)| address.clone());
        let me = &self.shared.me;
        for (address, row) in rows {
            for sibling in &row.siblings {
                let (address, dot) = (address.clone(), sibling.version.dot.clone());
                let mut regions = self.shared.scopes.regions(sibling.scope).unwrap_or_default();
                let in_scope = regions.remove(me);
                match &sibling.content {
                    Content::Live(record) => match plans.residency.permit_in(&record.labels, me, now) {
                        Err(barred) => {
                            let lawful = barred.elsewhere.intersection(&regions).cloned().collect();
                            looked.unlawful.push(Placed { address, dot, regions: lawful });
                        }
                        Ok(()) => {
                            let may =
                                |region: &RegionId| plans.residency.permit_in(&record.labels, region, now).is_ok();
                            regions.retain(may);
                            looked.lawful.push(Placed { address, dot, regions });
                        }
                    },
                    Content::Tombstone { labels } => {
                        looked.deletes += u64::from(plans.residency.permit_in(labels, me, now).is_err());
                    }
                    Content::Evicted { .. } if in_scope => looked.away.push(Placed { address, dot, regions }),
                    Content::Evicted { .. } => {}
                }
            }
        }
        Ok(looked)
    }

    /// Whether everything that `peer` may hold by these rulings was offered to it.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn has_offered(&self, peer: &RegionId, by: PlanDigest) -> Result<bool, DataError> {
        Ok(self.shared.store.meta(&format!("{OFFERED}{peer}"))?.is_some_and(|bytes| bytes == by.0))
    }

    /// Notes that it was offered to these.
    ///
    /// # Errors
    /// [`DataError::Closed`].
    pub async fn offered(&self, peers: &BTreeSet<RegionId>, by: PlanDigest) -> Result<(), DataError> {
        self.keep_facts(peers.iter().map(|peer| (format!("{OFFERED}{peer}"), by.0.to_vec())).collect()).await
    }

    /// Waits until everything that was decided before is on disk.
    ///
    /// # Errors
    /// [`DataError::Closed`].
    pub async fn settle_queue(&self) -> Result<(), DataError> {
        let (answer, done) = oneshot::channel();
        self.wait_in_line(Change::Keep(Vec::new(), answer)).await?;
        done.await.map_err(|_| DataError::Closed)?
    }

    /// What this region has of some writes, for one that wants to evict them.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn holdings(&self, mut question: HoldingQuestion) -> Result<HoldingAnswer, DataError> {
        question.about.truncate(HoldingQuestion::MOST);
        let about = question.about.clone();
        let (answer, vouched) = oneshot::channel();
        self.wait_in_line(Change::Vouch(Box::new(question), answer)).await?;
        let mut holdings = vouched.await.map_err(|_| DataError::Closed)??;
        // A record without its chunks is no copy.
        for (holding, whole) in holdings.iter_mut().zip(self.has_chunks(about).await?) {
            if *holding == Holding::Here && !whole {
                *holding = Holding::Absent;
            }
        }
        Ok(HoldingAnswer { holdings, region_key: self.vault().map(|vault| vault.public_key()) })
    }

    /// Values of these writes for `to`, as far as it may hold them and they fit, with the keys that open them for its
    /// region key.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn homecoming(
        &self,
        to: &RegionId,
        region_key: Option<RegionPublicKey>,
        about: &[(Address, Dot)],
    ) -> Result<Homecoming, DataError> {
        let (plans, now) = (self.shared.plans.load_full(), self.shared.clock.wall());
        let (mut rows, mut wanted, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (address, dot) in about.iter().take(HoldingQuestion::MOST) {
            let Some(row) = self.shared.store.row(address)? else { continue };
            let Some(sibling) = row.siblings.into_iter().find(|sibling| sibling.version.dot == *dot) else { continue };
            let Some(record) = sibling.content.record() else { continue };
            let permitted = self.shared.scopes.regions(sibling.scope).unwrap_or_default();
            if !permitted.contains(to) || plans.residency.permit_in(&record.labels, to, now).is_err() {
                continue;
            }
            if let (Some(vault), Some(id)) = (&self.shared.vault, record.payload.data_key()) {
                wanted.push(Wanted { id, owner: vault.owner_of(address, &record.labels), ours: false });
            }
            bytes += record.payload.bytes().len();
            rows.push((address.clone(), Given { sibling, permitted }));
            if bytes >= HOMECOMING_BYTES {
                break;
            }
        }
        let keys = match (&self.shared.vault, region_key) {
            (Some(vault), Some(key)) if !wanted.is_empty() => {
                wanted.chunks(KeyParcel::MOST).map(|some| vault.parcel(to, key, some)).collect::<Result<_, _>>()?
            }
            _ => Vec::new(),
        };
        Ok(Homecoming { keys, rows })
    }

    /// The values that a peer asks back, as far as it may hold them.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn give_back(&self, to: &RegionId, question: &ReturnQuestion) -> Result<Homecoming, DataError> {
        self.homecoming(to, question.region_key, &question.about)
    }

    /// Takes over values that may be here, outside any log, and gives how many that were. They are on disk then.
    ///
    /// # Errors
    /// Those of the disk and of the vault.
    pub async fn come_home(&self, from: &RegionId, coming: Homecoming) -> Result<u64, DataError> {
        let Homecoming { keys, mut rows } = coming;
        if !keys.is_empty() {
            let data = self.clone();
            let take = move || keys.iter().try_for_each(|parcel| data.take_keys(parcel));
            // Writes to disk: not on the threads that serve sockets.
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => runtime.spawn_blocking(take).await.map_err(|_| DataError::Closed)??,
                Err(_) => take()?,
            }
        }
        let _chunks = self.chunks_of_homecoming(from, &mut rows).await?;
        let (answer, done) = oneshot::channel();
        self.wait_in_line(Change::ComeHome(rows, answer)).await?;
        done.await.map_err(|_| DataError::Closed)?
    }

    /// How many values came in outside any log since this was opened.
    pub fn came_home(&self) -> u64 {
        self.shared.came_home.load(Ordering::Relaxed)
    }

    /// Takes the values of these writes out of their rows, which regions that may hold them have by the plan `by`. Gives
    /// how many that were: none where another plan is in force.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn evict_barred(&self, by: PlanStamp, which: Vec<(Address, Dot)>) -> Result<u64, DataError> {
        let (answer, done) = oneshot::channel();
        self.wait_in_line(Change::EvictBarred(by, which, answer)).await?;
        done.await.map_err(|_| DataError::Closed)?
    }

    /// Destroys the keys of what was evicted, as far as nothing here needs them, and gives how many. Reads all rows where
    /// there are any.
    ///
    /// # Errors
    /// Those of disk and vault; what is left is done by the next call.
    pub async fn drop_barred_keys(&self) -> Result<u64, DataError> {
        let Some(vault) = self.shared.vault.clone() else { return Ok(0) };
        let mut owners = HashMap::<DataKeyId, Owner>::new();
        for (name, bytes) in self.shared.store.facts(BARRED_KEY)? {
            let wrong = || StoreError::Key { place: format!("fact {name}") };
            let id = name.strip_prefix(BARRED_KEY).and_then(|id| id.parse().ok()).ok_or_else(wrong)?;
            owners.insert(id, Owner(bytes.as_slice().try_into().map_err(|_| wrong())?));
        }
        if owners.is_empty() {
            return Ok(0);
        }
        // Nothing that needs one of them comes in from here on; what was let in before is in its row afterwards.
        vault.bar(owners.keys().copied());
        self.settle_queue().await?;
        let used = match self.keys_in_use(&owners) {
            Ok(used) => used,
            Err(error) => {
                vault.unbar(owners.keys());
                return Err(error);
            }
        };
        vault.unbar(used.iter());
        let free: Vec<DataKeyId> = owners.keys().filter(|id| !used.contains(*id)).copied().collect();
        self.keep_facts(free.iter().map(|id| (crate::vault::dropped_fact(*id), Vec::new())).collect()).await?;
        let dropped = vault.drop_keys(&free)?;
        let mut gone = Vec::new();
        for id in &dropped {
            for name in [format!("{BARRED_KEY}{id}"), crate::vault::key_fact(owners[id], *id)] {
                gone.extend(self.shared.store.meta(&name)?.map(|bytes| (name, bytes)));
            }
        }
        let (answer, done) = oneshot::channel();
        self.wait_in_line(Change::Forget(gone, answer)).await?;
        done.await.map_err(|_| DataError::Closed)??;
        // The chunks of what left, too.
        self.sweep_soon().await?;
        Ok(dropped.len() as u64)
    }

    fn keys_in_use(&self, among: &HashMap<DataKeyId, Owner>) -> Result<HashSet<DataKeyId>, DataError> {
        let mut used = HashSet::new();
        self.shared.store.each_row(&mut |_, bytes| {
            let row: Row =
                codec::decode(bytes).map_err(|reason| StoreError::Corrupt { place: "a row".to_owned(), reason })?;
            let records = row.siblings.iter().filter_map(|sibling| sibling.content.record());
            used.extend(records.filter_map(|record| record.payload.data_key()).filter(|id| among.contains_key(id)));
            Ok(())
        })?;
        // After the rows: what a later write takes out of its row meanwhile goes into the conflict log.
        used.extend(self.keys_of_losses()?.into_iter().filter(|id| among.contains_key(id)));
        Ok(used)
    }

    /// What is stored here and lawful, and would not be by `plan`. Looks for so long at most.
    ///
    /// # Errors
    /// Those of the disk, and damaged rows.
    pub fn impact(&self, plan: &ResidencyPlan, within: Millis) -> Result<Impact, DataError> {
        let (plans, now, me) = (self.shared.plans.load_full(), self.shared.clock.wall(), &self.shared.me);
        let hasher = RowKeyHasher::new(&self.shared.digest_key);
        let began = Instant::now();
        let mut impact = Impact { complete: true, ..Impact::default() };
        let mut groups = BTreeMap::<_, (u64, Vec<String>)>::new();
        self.each_row(&mut |key, bytes| {
            // The clock is looked at now and then.
            if impact.looked_at.is_multiple_of(256) && began.elapsed() > within.duration() {
                impact.complete = false;
                return false;
            }
            impact.looked_at += 1;
            let Ok(row) = codec::decode::<Row>(bytes) else { return true };
            for labels in row.siblings.iter().filter_map(|sibling| Some(&sibling.content.record()?.labels)) {
                let Err(barred) = plan.permit_in(labels, me, now) else { continue };
                if plans.residency.permit_in(labels, me, now).is_err() {
                    continue;
                }
                let (count, some) = groups
                    .entry((first_case(labels), barred.rule.to_string(), barred.elsewhere))
                    .or_insert((0, Vec::new()));
                *count += 1;
                if some.len() < Impact::MOST_NAMED {
                    some.push(hasher.record(key).0[..8].iter().map(|byte| format!("{byte:02x}")).collect());
                }
            }
            true
        })?;
        let mut groups: Vec<ImpactGroup> = groups
            .into_iter()
            .map(|(((class, law), rule, lawful), (records, some))| ImpactGroup {
                class,
                law: law.name().to_owned(),
                rule,
                lawful,
                records,
                some,
            })
            .collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.records));
        impact.further = groups.iter().skip(Impact::MOST_GROUPS).map(|group| group.records).sum();
        groups.truncate(Impact::MOST_GROUPS);
        impact.groups = groups;
        Ok(impact)
    }
}

/// The first class, about people where there is one, and the first law.
fn first_case(labels: &Labels) -> (model::record::DataClass, Law) {
    let personal = labels.classes.iter().find(|class| class.is_personal());
    let class = personal.or(labels.classes.first()).copied().unwrap_or(model::record::DataClass::Personal);
    (class, labels.jurisdictions.first().map_or(Law::None, |country| Law::of(*country)))
}

impl Writer {
    /// What this region has of some writes, if it follows the plan of whoever asks; else nothing is said.
    pub(crate) fn vouch(&self, group: &Group, question: &HoldingQuestion) -> Result<Vec<Holding>, DataError> {
        let (plans, now) = (self.plans.load_full(), self.time.wall());
        if plans.stamp() != question.plan {
            return Ok(Vec::new());
        }
        let holding = |(address, dot): &(Address, Dot)| {
            let row = self.row(group, address)?;
            let here = row.iter().flat_map(|row| &row.siblings).find(|sibling| sibling.version.dot == *dot);
            Ok(match here.map(|sibling| &sibling.content) {
                Some(Content::Live(record)) => {
                    let lawful = plans.residency.permit_in(&record.labels, &self.me, now).is_ok();
                    if lawful && self.fate_of(record) == Fate::Here { Holding::Here } else { Holding::Absent }
                }
                Some(_) => Holding::Absent,
                None if self.has_replaced(group, address, row.as_ref(), dot)? => Holding::Replaced,
                None => Holding::Absent,
            })
        };
        question.about.iter().map(holding).collect()
    }

    /// Whether a write that is not in its row was replaced, as far as this region can tell.
    fn has_replaced(&self, group: &Group, address: &Address, row: Option<&Row>, dot: &Dot) -> Result<bool, DataError> {
        let graves = self.graves_of(group, address)?;
        let replaced = row.into_iter().chain(&graves).flat_map(|row| &row.siblings);
        // Of a wounded key it has forgotten what it held.
        let whole = !self.is_wounded(group, address) && {
            let partial = self.partial.read().expect("nothing panics while it holds the lock");
            !partial.contains(&(dot.actor.region.clone(), dot.actor.incarnation))
        };
        let mut replaced = replaced.filter(|sibling| !sibling.is_marker());
        Ok(replaced.any(|by| by.version.context.covers(dot)) || whole && group.vector.covers_dot(dot))
    }

    /// Takes values out of their rows that may not be here by the plan `by`, if that is in force.
    pub(crate) fn evict_barred(
        &mut self,
        group: &mut Group,
        by: PlanStamp,
        which: &[(Address, Dot)],
    ) -> Result<u64, DataError> {
        let (plans, now) = (self.plans.load_full(), self.time.wall());
        let mut evicted = 0;
        for (address, dot) in which.iter().filter(|_| plans.stamp() == by) {
            let Some(mut row) = self.row(group, address)? else { continue };
            let Some(sibling) = row.siblings.iter_mut().find(|sibling| sibling.version.dot == *dot) else { continue };
            let Content::Live(record) = &sibling.content else { continue };
            if plans.residency.permit_in(&record.labels, &self.me, now).is_ok() {
                continue;
            }
            let regions = self.regions_of(group, sibling.scope);
            let (scope, lawful) = plans.residency.within((sibling.scope, &regions), &record.labels, now);
            if let (Some(id), Some(vault)) = (record.payload.data_key(), self.vault()) {
                let owner = vault.owner_of(address, &record.labels);
                group.keep_fact(format!("{BARRED_KEY}{id}"), owner.0.to_vec());
            }
            sibling.content = Content::Evicted { scope };
            self.learn(group, scope, &lawful);
            let (origin, incarnation) = (dot.actor.region.clone(), dot.actor.incarnation);
            self.is_partial(group, &LogPosition { origin, incarnation, offset: dot.counter });
            group.left += 1;
            self.strip_losses(group, address)?;
            group.rows.insert(address.clone(), Some(row));
            evicted += 1;
        }
        Ok(evicted)
    }

    /// Takes over values that may be here and are not, by whatever way they were missed.
    pub(crate) fn come_home(&mut self, group: &mut Group, rows: Vec<(Address, Given)>) -> Result<u64, DataError> {
        let (plans, now) = (self.plans.load_full(), self.time.wall());
        let mut taken = 0;
        for (address, Given { sibling, permitted }) in rows {
            let Some(record) = sibling.content.record() else { continue };
            let lawful =
                permitted.contains(&self.me) && plans.residency.permit_in(&record.labels, &self.me, now).is_ok();
            if !lawful || self.fate_of(record) != Fate::Here || self.is_replaced_by_lost(&address, &sibling.version) {
                continue;
            }
            let before = self.row(group, &address)?;
            let dot = sibling.version.dot.clone();
            self.learn(group, sibling.scope, &permitted);
            let known = before.as_ref().and_then(|row| row.siblings.iter().position(|s| s.version.dot == dot));
            if let (Some(at), Some(mut row)) = (known, before.clone()) {
                if row.siblings[at].is_marker() {
                    row.siblings[at] = sibling;
                    group.rows.insert(address, Some(row));
                    taken += 1;
                }
                continue;
            }
            if self.has_replaced(group, &address, before.as_ref(), &dot)? {
                continue;
            }
            self.note_arrival(group, &address, before.as_ref(), (&sibling, &BTreeSet::new()))?;
            let row = self.row_or_grave(group, &address)?;
            let merged = merge_into(group, &address, row, sibling);
            self.close_grave(group, &address, before.as_ref(), &merged)?;
            self.note_losses(group, &address, before.as_ref(), &merged)?;
            taken += u64::from(merged.siblings.iter().any(|s| s.version.dot == dot));
        }
        self.came_home.fetch_add(taken, Ordering::Relaxed);
        metrics::counter!("repomind_came_back_total").increment(taken);
        Ok(taken)
    }
}
