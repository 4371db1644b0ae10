//! The authenticator of causal contexts that clients carry.
//!
//! A context says what its client has seen. One that was made up could name
//! writes not made yet, and so hide them once they are. Every region of a
//! deployment derives the same key, so that a context from one is taken in all.

/// Derivation context: BLAKE3 section 2.3 asks for a hard-coded, globally unique string.
const PURPOSE: &str = "repomind.io 2026 causal context authenticator v1";

/// Makes and checks authenticators: the first [`ContextKey::TAG`] bytes of keyed BLAKE3.
#[derive(Clone)]
pub struct ContextKey([u8; 32]);

impl ContextKey {
    /// Bytes of an authenticator: 128 bits, which nobody guesses.
    pub const TAG: usize = 16;

    /// The key of a deployment, from the digest key that its regions share.
    pub fn derive(digest_key: &[u8; 32]) -> Self {
        Self(blake3::derive_key(PURPOSE, digest_key))
    }

    /// The authenticator of `bytes`.
    pub fn tag(&self, bytes: &[u8]) -> [u8; Self::TAG] {
        let hash = blake3::keyed_hash(&self.0, bytes);
        let mut tag = [0; Self::TAG];
        tag.copy_from_slice(&hash.as_bytes()[..Self::TAG]);
        tag
    }

    /// Whether `tag` belongs to `bytes`. Takes as long for a wrong tag as for the right one.
    pub fn verifies(&self, bytes: &[u8], tag: &[u8; Self::TAG]) -> bool {
        let right = self.tag(bytes);
        let difference = right.iter().zip(tag).fold(0, |all, (ours, theirs)| all | (ours ^ theirs));
        std::hint::black_box(difference) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authenticator_fits_its_bytes_and_its_deployment_alone() {
        let (here, there) = (ContextKey::derive(&[7; 32]), ContextKey::derive(&[7; 32]));
        let tag = here.tag(b"seen");
        assert!(there.verifies(b"seen", &tag), "a region of the same deployment refuses it");
        assert!(!here.verifies(b"seen more", &tag));
        assert!(!ContextKey::derive(&[8; 32]).verifies(b"seen", &tag));
        for at in 0..ContextKey::TAG * 8 {
            let mut bad = tag;
            bad[at / 8] ^= 1 << (at % 8);
            assert!(!here.verifies(b"seen", &bad), "bit {at}");
        }
    }
}
