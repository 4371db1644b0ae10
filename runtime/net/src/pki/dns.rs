//! The keys that sign DNS zones, in the files that BIND's tools use:
//! `KZONE.+013+TAG.key` with the DNSKEY record and `KZONE.+013+TAG.private`.
//!
//! All regions need both files, because each of them answers for the zones and
//! signs what it answers. A key of another server is taken over by copying its
//! two files here, if it is a combined signing key (flags 257) of algorithm 13.
//!
//! A roll is [`roll`], the new DS at the parent, and [`retire`].

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use model::UnixMillis;
use model::names::DnsName;
use routing::dns::{KeyTimes, SignBytes, ZoneKey};

use super::files::{self, file_error};
use super::{PkiError, content, read};

/// Keys that a zone has at once, at most: two while one is rolled, and some that are over.
pub const MOST_ZONE_KEYS: usize = 8;

const ENDING: &str = ".private";

/// The private half of a key, in the process.
struct Signer(EcdsaKeyPair);

impl SignBytes for Signer {
    fn sign(&self, bytes: &[u8]) -> Option<[u8; 64]> {
        self.0.sign(&SystemRandom::new(), bytes).ok()?.as_ref().try_into().ok()
    }
}

/// Makes the first key of a zone. The parent should name it after `wait` seconds: by then no cache holds an answer
/// from before the zone was signed.
///
/// # Errors
/// [`PkiError::Refused`] where the zone has a key, and what the system says.
pub fn create(dir: &Path, zone: &DnsName, now: u64, wait: u64) -> Result<ZoneKey, PkiError> {
    let _lock = files::lock(dir)?;
    if load(dir)?.iter().any(|key| key.zone == *zone) {
        return Err(refused(zone, "it has a key; `pki dns-key roll` makes the next one"));
    }
    let times = KeyTimes { created: now, publish: now, activate: now, sync_publish: now + wait, ..KeyTimes::default() };
    make(dir, zone, times)
}

/// Makes the next key of a zone. It signs beside the last one at once; the parent should name it instead of that one
/// after `wait` seconds, when no cache holds the DNSKEY records without it.
///
/// # Errors
/// [`PkiError::Refused`] where the zone has no key, or is being rolled; and what the system says.
pub fn roll(dir: &Path, zone: &DnsName, now: u64, wait: u64) -> Result<ZoneKey, PkiError> {
    let _lock = files::lock(dir)?;
    let keys: Vec<ZoneKey> = load(dir)?.into_iter().filter(|key| key.zone == *zone).collect();
    let living: Vec<&ZoneKey> = keys.iter().filter(|key| key.times.delete.is_none_or(|delete| now < delete)).collect();
    let old = match living[..] {
        [] => return Err(refused(zone, "it has no key; make one with `pki dns-key create`")),
        [old] => old,
        _ => return Err(refused(zone, "it is being rolled; finish that first with `pki dns-key retire`")),
    };
    if keys.len() >= MOST_ZONE_KEYS {
        return Err(refused(zone, "it has 8 key files; take away those that `pki dns-key show` calls gone"));
    }
    let change = now + wait;
    let times = KeyTimes { created: now, publish: now, activate: now, sync_publish: change, ..KeyTimes::default() };
    let made = make(dir, zone, times)?;
    write_times(dir, old, KeyTimes { sync_delete: Some(change), ..old.times })?;
    Ok(made)
}

/// Ends a key `wait` seconds from now: by then no cache may hold the parent's DS record that names it. Gives when.
///
/// # Errors
/// [`PkiError::Refused`] where there is no such key, no other one to sign on, or the parent cannot have changed yet;
/// and what the system says.
pub fn retire(dir: &Path, zone: &DnsName, tag: u16, now: u64, wait: u64) -> Result<u64, PkiError> {
    let _lock = files::lock(dir)?;
    let keys: Vec<ZoneKey> = load(dir)?.into_iter().filter(|key| key.zone == *zone).collect();
    let Some(key) = keys.iter().find(|key| key.tag() == tag) else {
        return Err(refused(zone, &format!("it has no key {tag}; `pki dns-key show` lists its keys")));
    };
    let end = now + wait;
    let stays = |other: &&ZoneKey| other.tag() != tag && other.times.signs(end);
    match keys.iter().find(stays) {
        None => Err(refused(zone, "no other key would sign it then; make one with `pki dns-key roll`")),
        Some(other) if now < other.times.sync_publish => {
            let hours = (other.times.sync_publish - now).div_ceil(3600);
            let reason = format!("caches may hold its DNSKEY records without key {}; wait {hours} h more", other.tag());
            Err(refused(zone, &reason))
        }
        Some(_) => {
            write_times(dir, key, KeyTimes { inactive: Some(end), delete: Some(end), ..key.times })?;
            Ok(end)
        }
    }
}

/// All keys in `dir`, by zone and from old to new.
///
/// # Errors
/// [`PkiError`], naming the file.
pub fn load(dir: &Path) -> Result<Vec<ZoneKey>, PkiError> {
    let mut keys = Vec::new();
    for path in private_files(dir)? {
        keys.push(load_one(&path)?);
    }
    keys.sort_by_key(|key| (key.zone.to_string(), key.times.created, key.tag()));
    Ok(keys)
}

/// The files of all keys, to be copied to every region.
pub(super) fn all_files(dir: &Path) -> Result<Vec<PathBuf>, PkiError> {
    Ok(private_files(dir)?.into_iter().flat_map(|path| [path.with_extension("key"), path]).collect())
}

/// By what the keys in `dir` are told from those before: the names of their files, sizes and times.
pub fn stamp(dir: &Path) -> Vec<(PathBuf, u64, Option<std::time::SystemTime>)> {
    let files = all_files(dir).unwrap_or_default();
    let stamp = |path: PathBuf| {
        let metadata = fs::metadata(&path).ok()?;
        Some((path, metadata.len(), metadata.modified().ok()))
    };
    files.into_iter().filter_map(stamp).collect()
}

fn private_files(dir: &Path) -> Result<Vec<PathBuf>, PkiError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(file_error(dir))? {
        let name = entry.map_err(file_error(dir))?.file_name().into_string().unwrap_or_default();
        if name.starts_with('K') && name.ends_with(ENDING) {
            found.push(dir.join(name));
        }
    }
    found.sort();
    Ok(found)
}

fn make(dir: &Path, zone: &DnsName, times: KeyTimes) -> Result<ZoneKey, PkiError> {
    let failed = |_| refused(zone, "the system gave no random numbers");
    // Tags are short; two keys of a zone must not share one, or `retire` could not tell them apart.
    let taken: Vec<u16> = load(dir)?.iter().filter(|key| key.zone == *zone).map(ZoneKey::tag).collect();
    loop {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
        let secret: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().map_err(failed)?;
        let secret = BASE64.encode(secret.as_ref());
        let key = zone_key(zone.clone(), pair, times);
        if taken.contains(&key.tag()) {
            continue;
        }
        let path = path_of(dir, &key);
        files::write_public(&path.with_extension("key"), &public_text(&key))?;
        files::write_private(&path, &private_text(&secret, times))?;
        return Ok(key);
    }
}

fn zone_key(zone: DnsName, pair: EcdsaKeyPair, times: KeyTimes) -> ZoneKey {
    let mut public = [0; 64];
    // An uncompressed point: 4, x, y (SEC 1, section 2.3.3).
    public.copy_from_slice(&pair.public_key().as_ref()[1..]);
    ZoneKey { zone, public, times, signer: Arc::new(Signer(pair)) }
}

fn path_of(dir: &Path, key: &ZoneKey) -> PathBuf {
    dir.join(format!("K{}.+013+{:05}{ENDING}", key.zone, key.tag()))
}

fn public_text(key: &ZoneKey) -> String {
    format!("; key {} of {}.\n{}. IN DNSKEY 257 3 13 {}\n", key.tag(), key.zone, key.zone, BASE64.encode(key.public))
}

fn private_text(secret: &str, times: KeyTimes) -> String {
    let mut text = format!("Private-key-format: v1.3\nAlgorithm: 13 (ECDSAP256SHA256)\nPrivateKey: {secret}\n");
    let all = [
        ("Created", Some(times.created)),
        ("Publish", Some(times.publish)),
        ("Activate", Some(times.activate)),
        ("Inactive", times.inactive),
        ("Delete", times.delete),
        ("SyncPublish", Some(times.sync_publish)),
        ("SyncDelete", times.sync_delete),
    ];
    for (name, time) in all {
        if let Some(time) = time {
            text.push_str(&format!("{name}: {}\n", stamp_text(time)));
        }
    }
    text
}

fn write_times(dir: &Path, key: &ZoneKey, times: KeyTimes) -> Result<(), PkiError> {
    let path = path_of(dir, key);
    let text = read(&path)?;
    let secret = field(&text, "PrivateKey").ok_or_else(|| content(&path, WHAT, "it has no line `PrivateKey:`"))?;
    files::write_private(&path, &private_text(secret, times))
}

const WHAT: &str = "DNSSEC key of algorithm 13";

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn load_one(path: &Path) -> Result<ZoneKey, PkiError> {
    let wrong = |reason: &str| content(path, WHAT, reason);
    let text = read(path)?;
    if field(&text, "Algorithm").is_none_or(|algorithm| algorithm.split(' ').next() != Some("13")) {
        return Err(wrong("only algorithm 13 (ECDSAP256SHA256) is offered"));
    }
    let time = |name: &str| match field(&text, name) {
        None => Ok(None),
        Some(stamp) => {
            stamp_of(stamp).map(Some).ok_or_else(|| wrong(&format!("{name} is no time like 20260131235959")))
        }
    };
    let created = time("Created")?.unwrap_or(0);
    let activate = time("Activate")?.unwrap_or(created);
    let times = KeyTimes {
        created,
        publish: time("Publish")?.unwrap_or(activate),
        activate,
        sync_publish: time("SyncPublish")?.unwrap_or(activate),
        inactive: time("Inactive")?,
        delete: time("Delete")?,
        sync_delete: time("SyncDelete")?,
    };
    let secret = field(&text, "PrivateKey").and_then(|secret| BASE64.decode(secret).ok());
    let secret = secret.ok_or_else(|| wrong("the line `PrivateKey:` is missing or is not in Base64"))?;

    let public_path = path.with_extension("key");
    let unusable = |reason: &str| content(&public_path, "DNSKEY record", reason);
    let public = read(&public_path)?;
    let record = public.lines().find(|line| !line.trim_start().starts_with(';') && line.contains("DNSKEY"));
    let words: Vec<&str> = record.unwrap_or_default().split_ascii_whitespace().collect();
    let at = words.iter().position(|word| *word == "DNSKEY").ok_or_else(|| unusable("it has no DNSKEY record"))?;
    let zone = words[0].strip_suffix('.').and_then(|zone| DnsName::new(zone).ok());
    let zone = zone.ok_or_else(|| unusable("its owner is no whole name with a dot at its end"))?;
    if words.get(at + 1..at + 4) != Some(&["257", "3", "13"]) {
        return Err(unusable("only combined signing keys are offered: flags 257, protocol 3, algorithm 13"));
    }
    let public = BASE64.decode(words[at + 4..].concat()).ok().filter(|public| public.len() == 64);
    let public = public.ok_or_else(|| unusable("its key is not 64 bytes in Base64"))?;
    let point = [&[4][..], &public].concat();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &secret, &point);
    let pair = pair.map_err(|_| wrong("it is not the private half of the `.key` file beside it"))?;
    Ok(zone_key(zone, pair, times))
}

fn refused(zone: &DnsName, reason: &str) -> PkiError {
    PkiError::Refused { name: format!("the zone {zone}"), reason: reason.to_owned() }
}

/// A time as BIND writes it: year to second, in UTC.
fn stamp_text(seconds: u64) -> String {
    let at = UnixMillis(seconds * 1000);
    let ((year, month, day), (hour, minute, second)) = (at.date(), at.time_of_day());
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
}

fn stamp_of(text: &str) -> Option<u64> {
    let digits =
        text.split(' ').next().filter(|digits| digits.len() == 14 && digits.bytes().all(|b| b.is_ascii_digit()))?;
    let part = |range: std::ops::Range<usize>| digits[range].parse::<u64>().ok();
    let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
    let (hour, minute, second) = (part(8..10)?, part(10..12)?, part(12..14)?);
    let day = UnixMillis::of_date(year, month, day)?.0 / 1000;
    (hour < 24 && minute < 60 && second < 60).then_some(day + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
