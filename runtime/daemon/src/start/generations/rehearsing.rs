//! Has a candidate loaded in the other regions while the primary still examines it.
//!
//! ```text
//!   primary:   load and test ──▶ prove, compare ──▶ agree ──▶ in force
//!                    └──rehearsal──┐                  │ the log
//!   others:                        └──▶ load, compare answers ──▶ in force
//! ```
//!
//! The primary's two children have answered alike by then, and the hash of their answers comes along: one child that
//! gives the same answers here says as much as two of this region's would. What was rehearsed is text until the log
//! brings its number, hash and signature. A rehearsal that does not come, is late or comes out otherwise costs time and
//! nothing else: the generation is loaded once it is agreed on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::bundle::{Bundle, TreeHash};
use model::routing::Facts;
use net::Rehearsal;

use super::{Candidate, Generations, RefusedGeneration, gate, took};

/// How long what was rehearsed is kept for its agreement; then its child goes.
pub(super) const KEPT: Duration = Duration::from_secs(30);
/// How long a generation that was agreed on waits for its rehearsal to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// A candidate that was loaded with these facts.
pub(super) struct Rehearsed {
    generation: u64,
    hash: TreeHash,
    facts: Facts,
    candidate: Candidate,
    at: Instant,
}

impl Generations {
    /// As the primary: tells the others of a candidate. Waits for nothing.
    pub(super) fn have_rehearsed(&self, bundle: &Bundle, candidate: &Candidate, facts: &Facts) {
        let Some(answers) = candidate.answers else { return };
        let (generation, tree) = (bundle.generation, bundle.tree.clone());
        let rehearsal = Arc::new(Rehearsal { generation, tree, facts: facts.clone(), answers });
        for client in &self.control.clients {
            let (client, rehearsal) = (client.clone(), rehearsal.clone());
            tokio::spawn(async move {
                if let Err(error) = client.rehearse(&rehearsal).await {
                    tracing::debug!(peer = %client.peer(), %error, "a candidate is not loaded before it is agreed on");
                }
            });
        }
    }

    /// Loads a candidate that the primary examines. One at a time: a second one meanwhile is refused.
    ///
    /// # Errors
    /// It does not load, or another one is being loaded.
    pub async fn rehearse(&self, next: Rehearsal, facts: Facts) -> Result<(), RefusedGeneration> {
        let Ok(mut place) = self.rehearsed.try_lock() else {
            return Err(RefusedGeneration::Side("another candidate is being loaded".to_owned()));
        };
        *place = None;
        let Rehearsal { generation, tree, facts: theirs, answers } = next;
        if generation <= self.number() {
            return Ok(());
        }
        let began = Instant::now();
        let around = (&*self.regions, &facts);
        match gate::compile_as(&self.host, (&tree, generation), around, (&theirs, answers)).await? {
            Some(candidate) => {
                *place = Some(Rehearsed { generation, hash: tree.hash(), facts, candidate, at: Instant::now() });
                took("rehearsed", began);
            }
            None => tracing::info!(generation, "a candidate answers otherwise here than where it is proposed"),
        }
        Ok(())
    }

    /// The candidate of a generation that was agreed on, where it was rehearsed.
    pub(super) async fn rehearsed(&self, bundle: &Bundle) -> Option<(Candidate, Facts)> {
        let mut place = tokio::time::timeout(PATIENCE, self.rehearsed.lock()).await.ok()?;
        let Rehearsed { generation, hash, facts, candidate, at } = place.take()?;
        let same = generation == bundle.generation && hash == bundle.tree.hash();
        (same && at.elapsed() < KEPT).then_some((candidate, facts))
    }

    /// Lets go of what was rehearsed and not agreed on, [`KEPT`] after it was.
    pub async fn forget_rehearsal(&self) {
        tokio::time::sleep(KEPT).await;
        if let Ok(mut place) = self.rehearsed.try_lock()
            && place.as_ref().is_some_and(|rehearsed| rehearsed.at.elapsed() >= KEPT)
        {
            *place = None;
        }
    }
}
