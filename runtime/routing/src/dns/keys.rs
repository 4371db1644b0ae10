//! The keys of signed zones, and what each of them does at a moment.
//!
//! A zone has keys of one kind, ECDSA P-256 with SHA-256 (algorithm 13 of RFC
//! 6605) as a combined signing key: flag SEP, over all records. To roll, a
//! second one signs beside the first until the parent's DS names the new one
//! and every cache has forgotten the old (RFC 6781, section 4.1.2: double
//! signatures). What a key does when follows from its times alone, in the terms
//! of BIND's key files, so that all regions do the same without a word.

use std::fmt::Write as _;
use std::sync::Arc;

use model::names::DnsName;
use sha2::{Digest, Sha256};

use super::wire::encode_name;

/// ECDSA P-256 with SHA-256 (RFC 6605).
pub(super) const ALGORITHM: u8 = 13;
/// SHA-256 (RFC 4509).
const DIGEST: u8 = 2;
/// Zone key and secure entry point (RFC 4034, section 2.1.1).
const FLAGS: u16 = 257;
/// Always 3 (RFC 4034, section 2.1.2).
const PROTOCOL: u8 = 3;

/// Signs with the private half of a key.
pub trait SignBytes: Send + Sync {
    /// The signature of RFC 6605, section 4: r and s, 32 bytes each. None where the system gives none.
    fn sign(&self, bytes: &[u8]) -> Option<[u8; 64]>;
}

/// When a key does what, in seconds since 1970. The names are those of BIND's key files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyTimes {
    /// When it was made.
    pub created: u64,
    /// From then on it stands in the DNSKEY records.
    pub publish: u64,
    /// From then on it signs.
    pub activate: u64,
    /// From then on the parent should name it: it stands in the CDS records (RFC 7344).
    pub sync_publish: u64,
    /// From then on it does not sign.
    pub inactive: Option<u64>,
    /// From then on it is gone.
    pub delete: Option<u64>,
    /// From then on the parent should not name it.
    pub sync_delete: Option<u64>,
}

impl KeyTimes {
    fn published(&self, now: u64) -> bool {
        self.publish <= now && self.delete.is_none_or(|delete| now < delete)
    }

    /// Whether it signs.
    pub fn signs(&self, now: u64) -> bool {
        self.activate <= now && self.published(now) && self.inactive.is_none_or(|inactive| now < inactive)
    }

    /// Whether the parent should name it.
    pub fn synced(&self, now: u64) -> bool {
        self.sync_publish <= now && self.published(now) && self.sync_delete.is_none_or(|delete| now < delete)
    }
}

/// One key of one zone.
#[derive(Clone)]
pub struct ZoneKey {
    /// The zone's apex.
    pub zone: DnsName,
    /// The public half: x and y of the point, 32 bytes each (RFC 6605, section 4).
    pub public: [u8; 64],
    /// When it does what.
    pub times: KeyTimes,
    /// The private half.
    pub signer: Arc<dyn SignBytes>,
}

impl std::fmt::Debug for ZoneKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZoneKey").field("zone", &self.zone).field("tag", &self.tag()).finish_non_exhaustive()
    }
}

impl PartialEq for ZoneKey {
    /// The private half follows from the public one.
    fn eq(&self, other: &Self) -> bool {
        (&self.zone, self.public, self.times) == (&other.zone, other.public, other.times)
    }
}

impl ZoneKey {
    /// The data of its DNSKEY record (RFC 4034, section 2.1).
    pub fn dnskey(&self) -> Vec<u8> {
        let mut data = FLAGS.to_be_bytes().to_vec();
        data.extend([PROTOCOL, ALGORITHM]);
        data.extend(self.public);
        data
    }

    /// The tag by which signatures name it.
    pub fn tag(&self) -> u16 {
        key_tag(&self.dnskey())
    }

    /// The data of the DS record by which the parent names it (RFC 4034, section 5.1).
    pub fn ds(&self) -> Vec<u8> {
        let mut data = self.tag().to_be_bytes().to_vec();
        data.extend([ALGORITHM, DIGEST]);
        data.extend(Sha256::new().chain_update(encode_name(self.zone.as_str())).chain_update(self.dnskey()).finalize());
        data
    }

    /// The DS record as a parent's operator enters it.
    pub fn ds_text(&self) -> String {
        let data = self.ds();
        let mut text = format!("{}. IN DS {} {ALGORITHM} {DIGEST} ", self.zone, self.tag());
        for byte in &data[4..] {
            let _ = write!(text, "{byte:02X}");
        }
        text
    }
}

/// RFC 4034, appendix B.
fn key_tag(data: &[u8]) -> u16 {
    let sum =
        data.iter().enumerate().map(|(at, byte)| u32::from(*byte) << if at % 2 == 0 { 8 } else { 0 }).sum::<u32>();
    (sum + (sum >> 16)) as u16
}

/// The keys that sign at `now`. A zone that was signed stays signed: where every key is to be inactive, the one that
/// is so for the shortest time goes on, because resolvers would take a zone without signatures for a forgery.
pub(super) fn signing(keys: &[ZoneKey], now: u64) -> Vec<&ZoneKey> {
    let active: Vec<&ZoneKey> = keys.iter().filter(|key| key.times.signs(now)).collect();
    if !active.is_empty() {
        return active;
    }
    let begun = keys.iter().filter(|key| key.times.activate <= now && key.times.publish <= now);
    let ended = |key: &&ZoneKey| key.times.inactive.unwrap_or(u64::MAX).min(key.times.delete.unwrap_or(u64::MAX));
    begun.max_by_key(|key| ended(key)).into_iter().collect()
}

/// The keys that stand in the DNSKEY records at `now`: those that sign among them.
pub(super) fn published(keys: &[ZoneKey], now: u64) -> Vec<&ZoneKey> {
    let signing = signing(keys, now);
    let shown = |key: &ZoneKey| key.times.published(now) || signing.contains(&key);
    keys.iter().filter(|key| shown(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Never;

    impl SignBytes for Never {
        fn sign(&self, _: &[u8]) -> Option<[u8; 64]> {
            None
        }
    }

    fn key(number: u8, times: KeyTimes) -> ZoneKey {
        let zone = DnsName::new("repomind.io").unwrap();
        ZoneKey { zone, public: [number; 64], times, signer: Arc::new(Never) }
    }

    #[test]
    fn the_tag_and_ds_of_the_standard_s_example_are_never_others() {
        // RFC 6605, section 6.1.
        let digits = "1a88c88615d437fbb8bf9e1942a1929f28562706ae6c2bd399e7b1bfb6d1e9e7\
                      5b92b4aa42917ae1c61b701ef035c3fe7be3009cbafe5a2f71316c902dcf0d00";
        let mut public = [0; 64];
        for (at, byte) in public.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap();
        }
        let zone = DnsName::new("example.net").unwrap();
        let key = ZoneKey { zone, public, times: KeyTimes::default(), signer: Arc::new(Never) };
        assert_eq!(key.tag(), 55648);
        assert_eq!(
            key.ds_text(),
            "example.net. IN DS 55648 13 2 B4C8C1FE2E7477127B27115656AD6256F424625BF5C1E2770CE6D6E37DF61D17"
        );
    }

    #[test]
    fn a_zone_that_was_signed_is_never_without_a_signature_whatever_the_times_say() {
        let old = KeyTimes { inactive: Some(500), delete: Some(600), ..KeyTimes::default() };
        let new =
            KeyTimes { publish: 100, activate: 100, sync_publish: 300, inactive: Some(900), ..KeyTimes::default() };
        let keys = [key(1, old), key(2, new)];
        let tags = |of: Vec<&ZoneKey>| of.iter().map(|key| key.public[0]).collect::<Vec<_>>();
        for (now, signs, shown) in [
            (50, vec![1], vec![1]),
            (100, vec![1, 2], vec![1, 2]),
            (550, vec![2], vec![1, 2]),
            (700, vec![2], vec![2]),
            (10_000, vec![2], vec![2]),
        ] {
            assert_eq!((tags(signing(&keys, now)), tags(published(&keys, now))), (signs, shown), "at {now}");
        }
        let later = [key(3, KeyTimes { publish: 100, activate: 100, ..KeyTimes::default() })];
        assert!(signing(&later, 99).is_empty(), "a key signs before its time");
    }
}
