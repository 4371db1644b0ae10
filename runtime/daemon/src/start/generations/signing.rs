//! Whose signature a generation has: that of the operator who handed it in, or in development this region's own.

use model::bundle::{Because, Bundle, PolicyTree, SignedBundle, TreeHash};
use model::radius::{BlastRadius, ChangeBounds, Flips, Moves, Weighed};
use model::signing::{Endorsement, NextGeneration, SignedBy};

use super::{Generations, Moment, RefusedGeneration};

/// Where the signature of a candidate comes from.
pub(super) enum Signature {
    /// An operator gave it.
    Given(SignedBundle, SignedBy),
    /// This region signs, in development.
    Ours,
    /// An operator has to give it yet.
    Lacking,
}

impl Generations {
    /// What the next generation grows from: the one in force. What the regions agreed on and nobody signed who may, such
    /// as the proposal of a region that was stolen, is in force nowhere; the next generation takes its place.
    fn base(&self) -> Option<(u64, TreeHash)> {
        let states = self.control.log.states();
        if let Some(decided) = states.borrow().generation.as_ref().map(|decided| &decided.generation)
            && self.keys.verify(&decided.bundle).is_err()
        {
            return Some((decided.number, decided.hash));
        }
        self.live.load_full().map(|live| (live.bundle.generation, live.hash))
    }

    /// What an operator has to know to sign the next generation.
    pub fn next(&self) -> NextGeneration {
        let (generation, parent) = self.base().map_or((1, None), |(number, hash)| (number + 1, Some(hash)));
        NextGeneration { generation, parent, proposer: self.me.clone(), operators: self.keys.operators() }
    }

    /// The generation that would follow with these files, and where its signature comes from.
    ///
    /// # Errors
    /// [`RefusedGeneration::Signature`] where an operator's does not hold, [`RefusedGeneration::Stale`] where it is for
    /// another number.
    pub(super) fn bundle(
        &self,
        tree: PolicyTree,
        because: Because,
        endorsement: Option<Endorsement>,
        moment: &Moment,
    ) -> Result<(Bundle, Signature), RefusedGeneration> {
        let NextGeneration { generation, parent, proposer, .. } = self.next();
        let bundle = Bundle { generation, parent, proposer, proposed_at: moment.now, because, tree };
        let Some(Endorsement { generation: signed, proposer, signed_at, signature }) = endorsement else {
            let signature = if self.keys.production() { Signature::Lacking } else { Signature::Ours };
            return Ok((bundle, signature));
        };
        if !self.keys.production() {
            let message = "this deployment names no operators: its regions sign by themselves".to_owned();
            return Err(RefusedGeneration::Signature(message));
        }
        if signed != generation {
            let (parent, ours) = (format!("generation {}", signed.saturating_sub(1)), self.hash());
            return Err(RefusedGeneration::Stale { parent, ours });
        }
        let bundle = Bundle { proposer, proposed_at: signed_at, ..bundle };
        let signed = SignedBundle { bundle: net::pki::bundle_bytes(&bundle), signature };
        let (_, by) = self.keys.verify(&signed).map_err(RefusedGeneration::Signature)?;
        Ok((bundle, Signature::Given(signed, by)))
    }

    /// Refuses what no operator signed, in production.
    pub(super) fn need_operator(&self, endorsement: Option<&Endorsement>) -> Result<(), RefusedGeneration> {
        if !self.keys.production() || endorsement.is_some() {
            return Ok(());
        }
        let operators = self.keys.operators().join(", ");
        Err(RefusedGeneration::Signature(format!("only operators sign policies here ({operators}), and none did")))
    }

    pub(super) fn sign(
        &self,
        bundle: &Bundle,
        signature: Signature,
    ) -> Result<(SignedBundle, SignedBy), RefusedGeneration> {
        match (signature, &self.signer) {
            (Signature::Given(signed, by), _) => Ok((signed, by)),
            (Signature::Ours, Some(signer)) => {
                let bytes = net::pki::bundle_bytes(bundle);
                let signed = SignedBundle { signature: signer.sign(&bytes), bundle: bytes };
                Ok((signed, SignedBy::Region(self.me.clone())))
            }
            (Signature::Ours, None) => {
                Err(RefusedGeneration::Signature("this region has no key to sign policies with".to_owned()))
            }
            (Signature::Lacking, _) => Err(RefusedGeneration::Signature("no operator has signed it".to_owned())),
        }
    }
}

/// What the first generation changes: there is nothing to compare it with.
pub(super) fn first() -> BlastRadius {
    let traffic = Moves { weighed: Weighed::Classes(0), percent: 0.0, moves: Vec::new(), reordered: 0 };
    let bounds = ChangeBounds::default();
    BlastRadius::new(traffic, Flips::default(), Vec::new(), (bounds, bounds))
}
