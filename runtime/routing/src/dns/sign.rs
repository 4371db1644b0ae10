//! Signatures over what a table answers (RFC 4034, 4035).
//!
//! Every record set of a table is signed once and remembers its signatures. Which
//! sets a query needs is known only then, so whoever asks first has a set
//! signed, unless [`Table::sign_ahead`](super::Table::sign_ahead) was there
//! before; a signature takes some tens of microseconds. A table that is made
//! because a region went down finds the signatures of all that it has in common
//! with the one before in [`Signatures`].
//!
//! Signatures are good for two weeks and made anew every day, all regions
//! taking the same days: at least [`LEAST_DAYS`] are left, more than any record
//! may be kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::keys::{ALGORITHM, ZoneKey, published, signing};
use super::table::RecordSet;
use super::wire::{encode_name, labels, rtype};

const DAY: u64 = 86_400;
/// Days from the one in which a signature is made to its end.
const DAYS: u64 = 14;
/// Days that a signature which is given out is good for at least.
pub const LEAST_DAYS: u64 = DAYS - 1;
/// A signature is good since the day before, for resolvers whose clocks are behind.
const DAYS_BEFORE: u64 = 1;
/// Signatures that are kept for the next table, 96 bytes each. A table of 500 names in ten rankings has 10,000 sets.
const KEPT: usize = 65_536;

/// Signatures made so far, by what they are over.
#[derive(Default)]
pub struct Signatures(Mutex<BTreeMap<[u8; 32], [u8; 64]>>);

impl Signatures {
    fn get(&self, over: &[u8; 32]) -> Option<[u8; 64]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(over).copied()
    }

    fn keep(&self, over: [u8; 32], signature: [u8; 64]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            // What is still in use is made again. It takes days of changes to come here.
            kept.clear();
        }
        kept.insert(over, signature);
    }
}

/// What signs one zone.
#[derive(Clone, Debug, PartialEq)]
struct ZoneSigning {
    signing: Vec<ZoneKey>,
    published: Vec<ZoneKey>,
    /// Those that the parent should name.
    synced: Vec<ZoneKey>,
}

/// How zones are signed at a moment.
pub struct Signing {
    /// By apex, as on the wire.
    zones: BTreeMap<Box<[u8]>, ZoneSigning>,
    /// From when to when signatures are good, in seconds since 1970, which wrap (RFC 4034, section 3.1.5).
    window: [u64; 2],
    kept: Arc<Signatures>,
}

impl std::fmt::Debug for Signing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signing").field("zones", &self.zones.len()).field("window", &self.window).finish()
    }
}

impl PartialEq for Signing {
    fn eq(&self, other: &Self) -> bool {
        (&self.zones, self.window) == (&other.zones, other.window)
    }
}

impl Signing {
    /// What these keys do at `now`, in seconds since 1970.
    pub fn at(keys: &[ZoneKey], now: u64, kept: Arc<Signatures>) -> Self {
        let mut by_zone: BTreeMap<Box<[u8]>, Vec<ZoneKey>> = BTreeMap::new();
        for key in keys {
            by_zone.entry(encode_name(key.zone.as_str()).into()).or_default().push(key.clone());
        }
        let owned = |keys: Vec<&ZoneKey>| keys.into_iter().cloned().collect::<Vec<_>>();
        let zones = by_zone.into_iter().filter_map(|(apex, keys)| {
            let (signing, published) = (owned(signing(&keys, now)), owned(published(&keys, now)));
            let synced = published.iter().filter(|key| key.times.synced(now)).cloned().collect();
            (!signing.is_empty()).then_some((apex, ZoneSigning { signing, published, synced }))
        });
        let day = now / DAY;
        let window = [day.saturating_sub(DAYS_BEFORE) * DAY, (day + DAYS) * DAY];
        Self { zones: zones.collect(), window, kept }
    }

    /// Until when what is signed now is good, in seconds since 1970.
    pub fn expires(&self) -> u64 {
        self.window[1]
    }

    /// The apexes of the zones that are signed, as on the wire.
    pub(super) fn apexes(&self) -> impl Iterator<Item = &[u8]> {
        self.zones.keys().map(|apex| &**apex)
    }

    /// The records that stand at the apex of a signed zone because it is signed: type and data.
    pub(super) fn apex_records(&self, apex: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let Some(zone) = self.zones.get(apex) else { return Vec::new() };
        let keys = zone.published.iter().map(|key| (rtype::DNSKEY, key.dnskey()));
        let synced = zone.synced.iter().flat_map(|key| [(rtype::CDS, key.ds()), (rtype::CDNSKEY, key.dnskey())]);
        keys.chain(synced).collect()
    }

    /// What the parent names: the keys that it should, or all that sign before any is to be named.
    pub(super) fn ds(&self, apex: &[u8]) -> Vec<Vec<u8>> {
        let Some(zone) = self.zones.get(apex) else { return Vec::new() };
        let named = if zone.synced.is_empty() { &zone.signing } else { &zone.synced };
        named.iter().map(ZoneKey::ds).collect()
    }

    /// The signatures over the records of `owner`, which is in lower case, in the zone of `apex`. None where a key
    /// gave none.
    pub(super) fn signatures<'s>(&self, apex: &[u8], owner: &[u8], set: &'s RecordSet) -> Option<&'s RecordSet> {
        if let Some(signed) = set.signed.get() {
            return Some(signed);
        }
        let made = self.sign(apex, owner, set)?;
        Some(set.signed.get_or_init(|| Box::new(made)))
    }

    fn sign(&self, apex: &[u8], owner: &[u8], set: &RecordSet) -> Option<RecordSet> {
        let mut records: Vec<&[u8]> = set.bare().collect();
        // The canonical order (RFC 4034, section 6.3). Names in our data are in lower case and not compressed.
        records.sort_by(|a, b| a[10..].cmp(&b[10..]));
        let first = records.first()?;
        let (rtype, ttl) = ([first[0], first[1]], [first[4], first[5], first[6], first[7]]);
        let mut made = RecordSet::default();
        for key in &self.zones.get(apex)?.signing {
            let mut data = rtype.to_vec();
            data.extend([ALGORITHM, labels(owner)]);
            data.extend(ttl);
            let [inception, expiration] = self.window;
            data.extend((expiration as u32).to_be_bytes());
            data.extend((inception as u32).to_be_bytes());
            data.extend(key.tag().to_be_bytes());
            data.extend(apex);
            let mut over = data.clone();
            for record in &records {
                over.extend(owner);
                over.extend(*record);
            }
            data.extend(self.signature(key, &over)?);
            made.push(rtype::RRSIG, u32::from_be_bytes(ttl), &data);
        }
        Some(made)
    }

    fn signature(&self, key: &ZoneKey, over: &[u8]) -> Option<[u8; 64]> {
        let name = *blake3::Hasher::new().update(&key.public).update(over).finalize().as_bytes();
        if let Some(kept) = self.kept.get(&name) {
            return Some(kept);
        }
        let signature = key.signer.sign(over)?;
        self.kept.keep(name, signature);
        Some(signature)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use model::names::DnsName;
    use model::routing::RegionState;

    use super::super::tests::{plan, regions, states, table};
    use super::super::{KeyTimes, SignBytes, Table};
    use super::*;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl SignBytes for Counting {
        fn sign(&self, _: &[u8]) -> Option<[u8; 64]> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Some([1; 64])
        }
    }

    fn keys(signer: &Arc<Counting>) -> [ZoneKey; 1] {
        let zone = DnsName::new("repomind.io").unwrap();
        [ZoneKey { zone, public: [7; 64], times: KeyTimes::default(), signer: signer.clone() }]
    }

    #[test]
    fn a_signature_is_never_given_out_that_ends_before_a_cache_may_forget_it() {
        let signer = Arc::<Counting>::default();
        for now in (0..100 * DAY).step_by(7777).map(|passed| 1_767_225_600 + passed) {
            let signing = Signing::at(&keys(&signer), now, Arc::default());
            assert!(signing.expires() - now >= LEAST_DAYS * DAY, "at {now}");
            assert!(signing.window[0] + DAY <= now, "at {now} a clock that is behind would not take it");
            assert!(LEAST_DAYS * DAY > u64::from(model::routing::LONGEST_RECORD_TTL));
        }
    }

    #[test]
    fn what_was_signed_is_never_signed_again_before_its_day_is_over() {
        let (signer, kept) = (Arc::<Counting>::default(), Arc::<Signatures>::default());
        let signing = |day: u64| Arc::new(Signing::at(&keys(&signer), day * DAY + 5, kept.clone()));
        let signed = || signer.0.load(Ordering::Relaxed);
        let first = table(&[]).signed(&signing(20_000));
        let sets = first.sign_ahead(|| true);
        // Answers that are equal for several rankings are signed once.
        let made = signed();
        assert!(made > 20 && made <= sets, "{sets} sets, {made} signatures");
        assert_eq!((first.sign_ahead(|| true), signed()), (sets, made));
        table(&[]).signed(&signing(20_000)).sign_ahead(|| true);
        assert_eq!(signed(), made, "another table with the same records was signed again");
        // A region that goes down changes the answers of the routed names alone.
        let down = Table::new(&plan(), 7, &regions(), &states(&[("eu-west", RegionState::Down)]));
        down.signed(&signing(20_000)).sign_ahead(|| true);
        let more = signed() - made;
        assert!((1..made / 2).contains(&more), "{more} of {made} were signed anew");
        table(&[]).signed(&signing(20_001)).sign_ahead(|| true);
        assert_eq!(signed(), 2 * made + more, "the next day all are made anew");
    }

    #[test]
    fn a_key_that_gives_no_signature_never_makes_an_answer_without_one() {
        struct Broken;
        impl SignBytes for Broken {
            fn sign(&self, _: &[u8]) -> Option<[u8; 64]> {
                None
            }
        }
        let zone = DnsName::new("repomind.io").unwrap();
        let keys = [ZoneKey { zone, public: [7; 64], times: KeyTimes::default(), signer: Arc::new(Broken) }];
        let table = table(&[]).signed(&Arc::new(Signing::at(&keys, 20_000 * DAY, Arc::default())));
        // The queries of these tests want signatures as soon as they have an option.
        let ask = |rtype| super::super::tests::ask("api.repomind.io", rtype).option(3, &[]).of(&table).unwrap().0.rcode;
        assert_eq!([ask(1), ask(16)], [super::super::Rcode::ServFail; 2]);
    }
}
