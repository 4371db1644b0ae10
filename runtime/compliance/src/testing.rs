//! Keys and histories that tests share.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use model::RegionId;

use crate::ledger::{KeyKind, Signer, VerifierKey, origin, witness_name};

pub(crate) fn region(id: &str) -> RegionId {
    RegionId::new(id).unwrap()
}

/// Signs with a key made from a seed.
pub(crate) struct TestSigner {
    name: String,
    kind: KeyKind,
    pair: Ed25519KeyPair,
}

impl TestSigner {
    pub(crate) fn new(name: &str, kind: KeyKind, seed: [u8; 32]) -> Self {
        Self { name: name.into(), kind, pair: Ed25519KeyPair::from_seed_unchecked(&seed).unwrap() }
    }

    fn of(name: String, kind: KeyKind) -> Self {
        let seed = *blake3::hash(name.as_bytes()).as_bytes();
        Self::new(&name, kind, seed)
    }

    /// The key of a region's own ledger.
    pub(crate) fn log(region: &RegionId) -> Self {
        Self::of(origin(region), KeyKind::Log)
    }

    /// The key with which a region cosigns.
    pub(crate) fn witness(region: &RegionId) -> Self {
        Self::of(witness_name(region), KeyKind::Witness)
    }

    pub(crate) fn key(&self) -> VerifierKey {
        VerifierKey::new(self.name.clone(), self.kind, self.public_key()).unwrap()
    }
}

impl Signer for TestSigner {
    fn name(&self) -> &str {
        &self.name
    }
    fn public_key(&self) -> [u8; 32] {
        self.pair.public_key().as_ref().try_into().unwrap()
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(message).as_ref().try_into().unwrap()
    }
}
