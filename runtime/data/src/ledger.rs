//! The ledger beside the data: every durable commit adds leaves to it, in the same atomic batch.
//!
//! The writer thread owns the [`Book`]. It writes a [`Page`] on top of a copy of
//! the ledger's end and puts that in place once the commit is on disk; a commit
//! that fails takes the page with it. What others may sign or prove is only ever
//! the durable end. Notes of checkpoints, the region's own and those that it
//! cosigned for others, are facts in the same store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use compliance::ledger::merkle::leaf_hash;
use compliance::ledger::note::Note;
use compliance::ledger::{
    Checkpoint, CheckpointError, CommitImages, Digest, LeafHashes, Ledger, LedgerEvent, LoadError, ProofError,
    ResumeError, RowKeyHasher, consistency_proof,
};
use model::bundle::TreeHash;
use model::orders::Order;
use model::sealing::KeyFacts;
use model::{RegionId, RuleId, UnixMillis, codec};
use store::{Store, StoreError, StoredLeaf, StoredRow};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::group::Change;
use crate::petitions::PETITION;
use crate::plane::DataPlane;
use crate::plans::Plans;
use crate::types::DataError;

/// The note of the newest checkpoint that this region has signed.
const SIGNED: &str = "ledger/signed";
/// The note of the newest checkpoint that enough other regions have cosigned.
const WITNESSED: &str = "ledger/witnessed";
/// Before the names of the regions whose checkpoints this one has cosigned.
const COSIGNED: &str = "witness/";
/// Rules of which refusals are counted apart between two commits; those of more are counted together.
const RULES: usize = 256;
/// Under which rule those are counted.
const OTHER_RULES: &str = "other-rules";

/// Why a ledger cannot be written on. The region must not open then: it would show two histories.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It is not the one that this region has signed.
    #[error(
        "{0}; to go on would fork the history that other regions have cosigned: keep this disk as evidence, and put \
         a copy of the data directory in its place that has every leaf"
    )]
    Resume(#[from] ResumeError),
    /// The last checkpoint is no checkpoint.
    #[error("the last checkpoint of the ledger was changed on disk: {0}; put a whole copy of the data directory back")]
    Checkpoint(#[from] CheckpointError),
}

/// Reads hashes of the ledger for proofs.
struct StoredTree<'s>(&'s Store);

impl LeafHashes for StoredTree<'_> {
    type Error = StoreError;

    fn leaf(&self, index: u64) -> Result<Digest, StoreError> {
        let bytes = self.0.leaf(index)?;
        bytes.map(|bytes| leaf_hash(&bytes)).ok_or_else(|| StoreError::Missing { place: format!("leaf {index}") })
    }

    fn node(&self, level: u8, position: u64) -> Result<Option<Digest>, StoreError> {
        Ok(self.0.node(level, position)?.map(Digest))
    }
}

/// Refusals that no leaf tells of yet.
#[derive(Debug, Default)]
pub(crate) struct Refusals(BTreeMap<RuleId, u32>);

impl Refusals {
    pub(crate) fn add(&mut self, rule: &RuleId, count: u32) {
        let known = self.0.contains_key(rule) || self.0.len() < RULES;
        let rule = if known { rule.clone() } else { RuleId::new(OTHER_RULES).expect("a fixed rule name") };
        let counted = self.0.entry(rule).or_insert(0);
        *counted = counted.saturating_add(count);
    }
}

/// What the ledger shares with those who do not write it.
#[derive(Debug)]
pub(crate) struct Desk {
    /// The durable end.
    end: Mutex<Ledger>,
    refusals: Mutex<Refusals>,
}

impl Desk {
    fn end(&self) -> MutexGuard<'_, Ledger> {
        self.end.lock().expect("nothing panics while it holds the lock")
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().expect("nothing panics while it holds the lock")
    }

    /// A write was refused by `rule`; the next commit says so.
    pub(crate) fn refused(&self, rule: &RuleId) {
        self.refusals().add(rule, 1);
    }
}

/// The ledger as the writer keeps it.
pub(crate) struct Book {
    ledger: Ledger,
    hasher: RowKeyHasher,
    plans: Arc<ArcSwap<Plans>>,
    desk: Arc<Desk>,
    clock: Arc<dyn Clock>,
}

/// Leaves of one commit, not yet on disk.
pub(crate) struct Page {
    next: Ledger,
    at: UnixMillis,
    generation: u64,
    pub(crate) leaves: Vec<StoredLeaf>,
}

impl Page {
    pub(crate) fn event(&mut self, event: LedgerEvent) {
        self.write(event, None);
    }

    /// The rows of a commit, as stored.
    pub(crate) fn committed(&mut self, hasher: &RowKeyHasher, rows: &[StoredRow], removed: &[Vec<u8>]) {
        let stay = rows.iter().map(|row| (row.key.as_slice(), Some(row.envelope.as_slice())));
        let go = removed.iter().map(|key| (key.as_slice(), None));
        let images = CommitImages::of(hasher, stay.chain(go));
        self.write(images.event(), Some(codec::encode(&images)));
    }

    pub(crate) fn refusals(&mut self, refusals: Refusals) {
        refusals.0.into_iter().for_each(|(rule, count)| self.event(LedgerEvent::Refused { rule, count }));
    }

    fn write(&mut self, event: LedgerEvent, images: Option<Vec<u8>>) {
        let record = self.next.append(self.at, self.generation, event);
        let nodes = record.completed.into_iter().map(|(place, Digest(hash))| (place, hash)).collect();
        self.leaves.push(StoredLeaf { index: record.index, bytes: record.bytes, nodes, images });
    }
}

impl Book {
    /// Takes up the ledger of `region` where `store` has it, and notes that a life began.
    pub(crate) fn open(
        region: &RegionId,
        store: &Store,
        secret: &[u8],
        plans: Arc<ArcSwap<Plans>>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Arc<Desk>), DataError> {
        let signed = match text(store.meta(SIGNED)?)? {
            Some(note) => {
                let note = Note::parse(&note).map_err(|error| LedgerError::from(CheckpointError::from(error)))?;
                Some(Checkpoint::parse(note.text()).map_err(LedgerError::from)?)
            }
            None => None,
        };
        let ledger = Ledger::load(region.clone(), store.leaf_count()?, &StoredTree(store), signed.as_ref());
        let ledger = ledger.map_err(|error| match error {
            LoadError::Resume(error) => DataError::Ledger(error.into()),
            LoadError::Unread(error) => DataError::Store(error),
        })?;
        let desk = Arc::new(Desk { end: Mutex::new(ledger.clone()), refusals: Mutex::default() });
        let mut book = Self { ledger, hasher: RowKeyHasher::new(secret), plans, desk: desk.clone(), clock };
        let mut page = book.page();
        page.event(LedgerEvent::Began { incarnation: store.incarnation() });
        store.commit(store::Commit { leaves: std::mem::take(&mut page.leaves), ..store::Commit::default() })?;
        book.turn(page);
        Ok((book, desk))
    }

    /// A page on top of what is durable. Turn it once it is on disk, else drop it.
    pub(crate) fn page(&self) -> Page {
        let generation = self.plans.load().generation;
        Page { next: self.ledger.clone(), at: self.clock.wall(), generation, leaves: Vec::new() }
    }

    pub(crate) fn hasher(&self) -> &RowKeyHasher {
        &self.hasher
    }

    /// Refusals of writes since the last page.
    pub(crate) fn take_refusals(&self) -> Refusals {
        std::mem::take(&mut *self.desk.refusals())
    }

    /// The page is on disk.
    pub(crate) fn turn(&mut self, page: Page) {
        self.ledger = page.next;
        metrics::gauge!("repomind_ledger_leaves").set(self.ledger.size() as f64);
        *self.desk.end() = self.ledger.clone();
    }
}

/// The text of a note that was kept.
fn text(bytes: Option<Vec<u8>>) -> Result<Option<String>, LedgerError> {
    let layout = CheckpointError::Layout("it is not text");
    bytes.map(|bytes| String::from_utf8(bytes).map_err(|_| layout.into())).transpose()
}

/// The notes of this region's own checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointNotes {
    /// The newest that it has signed, with the cosignatures so far.
    pub signed: Option<String>,
    /// The newest that enough other regions have cosigned.
    pub witnessed: Option<String>,
}

/// A piece of what the audit reads, as it lies on disk.
#[derive(Clone, Copy, Debug)]
pub enum EvidencePart<'b> {
    /// A row: key and envelope.
    Row(&'b [u8], &'b [u8]),
    /// A leaf with its index.
    Leaf(u64, &'b [u8]),
    /// The list of row images of the leaf with this index.
    Images(u64, &'b [u8]),
    /// The note of the checkpoint that this region stands by: [`CheckpointNotes::witnessed`], else the one signed.
    Checkpoint(&'b [u8]),
    /// The name of a data key that is here, of the region key that wraps it, and what is known of it.
    Key(&'b [u8; 16], &'b [u8; 8], Option<&'b KeyFacts>),
    /// A petition as stored.
    Petition(&'b [u8]),
    /// An entry of the conflict log: key and envelope.
    Loss(&'b [u8], &'b [u8]),
}

impl DataPlane {
    /// The end of the ledger, as far as it is durable: what may be signed.
    pub fn ledger(&self) -> Ledger {
        self.shared.desk.end().clone()
    }

    /// The proof that the ledger of `size` leaves continues that of `old`.
    ///
    /// # Errors
    /// [`DataError::Store`] where a leaf cannot be read or the ledger is shorter.
    pub fn consistency_proof(&self, old: u64, size: u64) -> Result<Vec<Digest>, DataError> {
        consistency_proof(&StoredTree(&self.shared.store), old, size).map_err(|error| match error {
            ProofError::Unread(error) => error.into(),
            ProofError::Range { from, size } => {
                StoreError::Missing { place: format!("a ledger of {from} leaves in one of {size}") }.into()
            }
        })
    }

    /// Notes that a policy generation is in force, durably.
    ///
    /// # Errors
    /// [`DataError::Closed`] where nothing can be written any more.
    pub async fn in_force(&self, number: u64, tree: TreeHash) -> Result<(), DataError> {
        let (answer, durable) = oneshot::channel();
        self.wait_in_line(Change::Event(LedgerEvent::Generation { number, tree }, answer)).await?;
        durable.await.map_err(|_| DataError::Closed)?
    }

    /// Notes in the ledger that an operator's order was taken up; returns once that is durable.
    ///
    /// # Errors
    /// [`DataError::Closed`] where nothing can be written any more.
    pub async fn ordered(&self, revision: u64, order: &Order) -> Result<(), DataError> {
        let words = model::codec::plain(order).unwrap_or_default();
        let order = Digest(*blake3::hash(&words).as_bytes());
        let (answer, durable) = oneshot::channel();
        self.wait_in_line(Change::Event(LedgerEvent::Ordered { revision, order }, answer)).await?;
        durable.await.map_err(|_| DataError::Closed)?
    }

    /// Keeps the notes of this region's own checkpoints; returns once they are on disk.
    ///
    /// # Errors
    /// [`DataError::Closed`].
    pub async fn keep_notes(&self, notes: &CheckpointNotes) -> Result<(), DataError> {
        let of = |name: &str, note: &Option<String>| note.as_ref().map(|note| (name.to_owned(), note.clone().into()));
        self.keep([of(SIGNED, &notes.signed), of(WITNESSED, &notes.witnessed)].into_iter().flatten().collect()).await
    }

    /// Keeps the note of another region's checkpoint that is about to be cosigned; returns once it is on disk.
    ///
    /// # Errors
    /// [`DataError::Closed`].
    pub async fn keep_cosigned(&self, of: &RegionId, note: String) -> Result<(), DataError> {
        self.keep(vec![(format!("{COSIGNED}{of}"), note.into())]).await
    }

    async fn keep(&self, facts: Vec<(String, Vec<u8>)>) -> Result<(), DataError> {
        let (answer, durable) = oneshot::channel();
        self.wait_in_line(Change::Keep(facts, answer)).await?;
        durable.await.map_err(|_| DataError::Closed)?
    }

    /// The notes of this region's own checkpoints.
    ///
    /// # Errors
    /// Those of the disk, and [`DataError::Ledger`] where a note is no text.
    pub fn notes(&self) -> Result<CheckpointNotes, DataError> {
        let note = |name| Ok::<_, DataError>(text(self.shared.store.meta(name)?)?);
        Ok(CheckpointNotes { signed: note(SIGNED)?, witnessed: note(WITNESSED)? })
    }

    /// The notes of other regions' checkpoints that this one cosigned last.
    ///
    /// # Errors
    /// Those of the disk, and [`DataError::Ledger`] where a note is no text.
    pub fn cosigned(&self) -> Result<BTreeMap<RegionId, String>, DataError> {
        let mut notes = BTreeMap::new();
        for (name, note) in self.shared.store.facts(COSIGNED)? {
            let region = name.strip_prefix(COSIGNED).and_then(|region| RegionId::new(region).ok());
            let region = region.ok_or_else(|| StoreError::Key { place: "a cosigned checkpoint".into() })?;
            notes.extend(text(Some(note))?.map(|note| (region, note)));
        }
        Ok(notes)
    }

    /// Visits all that the audit reads, out of one snapshot, until `visit` says `false`: the checkpoint, leaves and
    /// images, and the rows where `rows` says so.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn evidence(&self, rows: bool, visit: &mut dyn FnMut(EvidencePart<'_>) -> bool) -> Result<(), StoreError> {
        let snapshot = self.shared.store.snapshot();
        let mut show = |part: EvidencePart<'_>| {
            if visit(part) { Ok(()) } else { Err(StoreError::Visitor(String::new())) }
        };
        let note = match snapshot.meta(WITNESSED)? {
            Some(note) => Some(note),
            None => snapshot.meta(SIGNED)?,
        };
        let mut all = || {
            if let Some(note) = &note {
                show(EvidencePart::Checkpoint(note))?;
            }
            snapshot.each_leaf(&mut |index, bytes| show(EvidencePart::Leaf(index, bytes)))?;
            if let Some(vault) = self.shared.vault.as_ref().filter(|_| rows) {
                let mut stopped = None;
                let read = vault.each_key(&mut |id, by, facts| {
                    stopped = show(EvidencePart::Key(&id.0, &by, facts)).err();
                    stopped.is_none()
                });
                read.map_err(|error| StoreError::Missing { place: format!("a data key ({error})") })?;
                stopped.map_or(Ok(()), Err)?;
            }
            for (_, petition) in self.shared.store.facts(PETITION)? {
                show(EvidencePart::Petition(&petition))?;
            }
            if rows {
                snapshot.each_images(&mut |index, bytes| show(EvidencePart::Images(index, bytes)))?;
                snapshot.each_row(&mut |key, envelope| show(EvidencePart::Row(key, envelope)))?;
                snapshot.each_loss(&mut |key, envelope| show(EvidencePart::Loss(key, envelope)))?;
            }
            Ok(())
        };
        match all() {
            Err(StoreError::Visitor(_)) => Ok(()),
            other => other,
        }
    }
}
