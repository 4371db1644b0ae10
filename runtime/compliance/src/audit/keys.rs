//! Who has which keys, and whether what is encrypted is bound to its labels: KEY-01, KEY-03, LBL-03.
//!
//! The files of keys are read here a second time, from the description of their format, where they are on the auditor's
//! machine. Elsewhere the regions are asked for the names of their keys alone, and the values stay closed.
//!
//! ```text
//! region.keys   "repomind region keys 1\n", then lines of: name (16 hex digits) made wrapping key (64 hex digits) other
//! data.keys     slots of 128 bytes; the first is the head; then 1 | name, 16 | region key, 8 | nonce, 12 | wrapped, 48
//! wrapped       AES-256-GCM under the wrapping key; bound to "repomind data key 1\n" region "\n" name in hex
//! value         AES-256-GCM under the data key; bound to "repomind sealed record 1\n", the length of the stored row key
//!               (u32, big-endian), the row key, and what follows the value in the row up to the end of the record
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use model::{Millis, RegionId};

use super::checks::Check;
use super::evidence::{Evidence, HeldKey, Inputs, KeyEvidence};
use super::raw::Sealed;
use super::report::Tally;
use super::tree::hex;

/// A region key is to be replaced within a year.
pub const ROTATION: Millis = Millis::from_secs(365 * 24 * 3600);
/// A rotation is to be finished within a day.
const UNFINISHED: Millis = Millis::from_secs(24 * 3600);

/// The name of a data key.
pub(super) type KeyName = [u8; 16];

/// What opens the values of a region.
pub(super) struct Opener {
    keys: HashMap<KeyName, [u8; 32]>,
    /// The keys that the region says it has.
    held: HashSet<KeyName>,
}

/// What became of a value.
pub(super) enum Opened {
    Value(Vec<u8>),
    /// The key is not on this machine.
    Closed,
    /// The region itself has no such key.
    NoKey,
    /// Bytes, labels or place were changed.
    NotBound,
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let pairs: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    pairs.try_into().ok().filter(|_| digits.len() == 2 * N)
}

/// AES-256-GCM, opened.
fn open(key: &[u8; 32], nonce: [u8; 12], bound: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
    let mut bytes = bytes.to_vec();
    let length = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(bound), &mut bytes).ok()?.len();
    bytes.truncate(length);
    Some(bytes)
}

fn wrapping_keys(file: &[u8]) -> HashMap<[u8; 8], [u8; 32]> {
    let text = String::from_utf8_lossy(file);
    let key = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        Some((unhex(words.first()?)?, unhex(words.get(2)?)?))
    };
    text.lines().skip(1).filter_map(key).collect()
}

fn data_keys(region: &RegionId, ring: &[u8], slots: &[u8]) -> HashMap<KeyName, [u8; 32]> {
    let wrapping = wrapping_keys(ring);
    let key = |slot: &[u8]| {
        let name: KeyName = slot.get(1..17)?.try_into().ok()?;
        let by: [u8; 8] = slot.get(17..25)?.try_into().ok()?;
        let nonce = slot.get(25..37)?.try_into().ok()?;
        let bound = format!("repomind data key 1\n{region}\n{}", hex(&name));
        let key = open(wrapping.get(&by)?, nonce, bound.as_bytes(), slot.get(37..85)?)?;
        Some((name, key.try_into().ok()?))
    };
    slots.chunks(128).skip(1).filter(|slot| slot.first() == Some(&1)).filter_map(key).collect()
}

impl Opener {
    pub(super) fn of(region: &RegionId, keys: Option<&KeyEvidence>) -> Self {
        let files = keys.and_then(|keys| keys.files.as_ref());
        Self {
            keys: files.map(|(ring, slots)| data_keys(region, ring, slots)).unwrap_or_default(),
            held: keys.map(|keys| keys.held.iter().map(|key| key.name).collect()).unwrap_or_default(),
        }
    }

    pub(super) fn open(&self, row_key: &[u8], sealed: &Sealed<'_>) -> Opened {
        let Some(name) = unhex::<16>(sealed.key) else { return Opened::NoKey };
        if !self.held.contains(&name) {
            return Opened::NoKey;
        }
        let Some(key) = self.keys.get(&name) else { return Opened::Closed };
        let length = (row_key.len() as u32).to_be_bytes();
        let bound = [b"repomind sealed record 1\n", length.as_slice(), row_key, sealed.rest].concat();
        open(key, sealed.nonce, &bound, sealed.ciphertext).map_or(Opened::NotBound, Opened::Value)
    }
}

/// For each data key, the regions that may not hold what it opens.
#[derive(Default)]
pub(super) struct Barred(HashMap<KeyName, BTreeSet<RegionId>>);

impl Barred {
    pub(super) fn note(&mut self, key: &str, regions: impl Iterator<Item = RegionId>) {
        if let Some(name) = unhex(key) {
            self.0.entry(name).or_default().extend(regions);
        }
    }
}

/// KEY-01: no region has a key to what it may not hold, and no region key is in two regions.
pub(super) fn at_home(tally: &mut Tally, inputs: &Inputs, barred: &Barred) {
    let remedy =
        "rotate the region keys of both, find out how the key came there, and take what it opens for disclosed";
    let mut places = BTreeMap::<[u8; 8], Vec<&RegionId>>::new();
    for (region, keys) in with_keys(tally, inputs) {
        tally.examined(Check::Key01, keys.held.len() + keys.region_keys.len());
        for HeldKey { name, by, .. } in &keys.held {
            if barred.0.get(name).is_some_and(|barred| barred.contains(region)) {
                let rule = format!("it has the data key {} of values that it may not hold", hex(&name[..6]));
                tally.find(Check::Key01, region, name, rule, remedy);
            }
            if !keys.region_keys.iter().any(|(own, _)| own == by) {
                let rule = format!("the data key {} is wrapped with a region key that is not its own", hex(&name[..6]));
                tally.find(Check::Key01, region, name, rule, remedy);
            }
        }
        keys.region_keys.iter().for_each(|(name, _)| places.entry(*name).or_default().push(region));
    }
    for (name, regions) in places.iter().filter(|(_, regions)| regions.len() > 1) {
        for region in regions {
            tally.find(
                Check::Key01,
                region,
                name,
                format!("its region key {} is in {} regions", hex(name), regions.len()),
                remedy,
            );
        }
    }
}

/// KEY-03: region keys are replaced in time, and those replaced are gone.
pub(super) fn rotation(tally: &mut Tally, inputs: &Inputs) {
    for (region, keys) in with_keys(tally, inputs) {
        tally.examined(Check::Key03, keys.region_keys.len());
        let Some((name, made)) = keys.region_keys.last() else {
            tally.find(
                Check::Key03,
                region,
                b"",
                "it has no region key",
                "restart the region with its directory of keys",
            );
            continue;
        };
        let age = inputs.now.saturating_sub(*made);
        if age.0 > ROTATION.0 {
            let rule = format!("its region key {} is {} days old", hex(name), age.0 / 86_400_000);
            tally.find(Check::Key03, region, name, rule, "run `repomind-run keys rotate` for the region");
        }
        if keys.region_keys.len() > 1 && age.0 > UNFINISHED.0 {
            let rule = format!("its rotation to region key {} is not finished", hex(name));
            tally.find(Check::Key03, region, name, rule, "run `repomind-run keys rotate` again, and see its log");
        }
    }
}

fn with_keys<'i>(tally: &mut Tally, inputs: &'i Inputs<'_>) -> Vec<(&'i RegionId, &'i KeyEvidence)> {
    let mut found = Vec::new();
    for region in &inputs.regions {
        let Ok(Evidence { keys, .. }) = &region.evidence else { continue };
        match keys {
            Some(keys) => found.push((&region.region, keys)),
            None => {
                for check in [Check::Key01, Check::Key03] {
                    tally.not_run_once(check, &region.region, "it did not say which keys it has");
                }
            }
        }
    }
    found
}
