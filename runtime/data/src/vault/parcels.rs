//! Keys on their way between regions: each is encrypted for one region, by a key that was agreed on for that parcel alone.

use std::collections::BTreeSet;

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use model::sealing::{DataKeyId, GivenKey, KeyFacts, KeyParcel, RegionPublicKey};
use model::{RegionId, codec};

use super::ring::{DataKey, decrypt, encrypt, random};
use super::{Fate, Fresh, GONE, Vault, VaultError, Wanted, context, key_fact, read_facts};

impl Vault {
    /// These keys for `peer`, encrypted for its region key. Those that are gone are named as such, and so are those that
    /// this region has made and lost: then the peer knows that it need not wait. Others that it may not have, or of
    /// which nothing is known here, are left out.
    pub(crate) fn parcel(
        &self,
        peer: &RegionId,
        to: RegionPublicKey,
        wanted: &[Wanted],
    ) -> Result<KeyParcel, VaultError> {
        let failed = || VaultError::Crypto("a key agreement");
        let private: [u8; 32] = random()?;
        let private = PrivateKey::from_private_key(&X25519, &private).map_err(|_| failed())?;
        let public = private.compute_public_key().map_err(|_| failed())?;
        let ephemeral: [u8; 32] = public.as_ref().try_into().map_err(|_| failed())?;
        let secret = agreement::agree(&private, UnparsedPublicKey::new(&X25519, &to.key), failed(), |secret| {
            secret.try_into().map_err(|_| failed())
        })?;
        let key = parcel_key(&secret, &ephemeral, &to)?;
        let mut keys = Vec::with_capacity(wanted.len());
        for Wanted { id, owner, ours } in wanted {
            let fact = self.store.meta(&key_fact(*owner, *id))?;
            let fact = fact.map(|bytes| read_facts("about a key", &bytes)).transpose()?;
            let wrapped = match (self.data_key(*id), &fact) {
                (Ok(data_key), Some(facts)) if facts.regions.contains(peer) => {
                    Some(encrypt(&key, parcel_nonce(keys.len()), &parcel_bound(*id, facts), &data_key)?)
                }
                (Err(VaultError::Erased), _) => None,
                // One that was dropped is elsewhere.
                (Err(VaultError::NoKey(_)), _) if *ours && !self.table().dropped.contains(id) => None,
                (Ok(_) | Err(VaultError::NoKey(_)), _) => continue,
                (Err(error), _) => return Err(error),
            };
            let unknown = || KeyFacts { owner: *owner, regions: BTreeSet::new(), after: BTreeSet::new() };
            keys.push(GivenKey { id: *id, facts: fact.unwrap_or_else(unknown), wrapped });
        }
        Ok(KeyParcel { region_key: to.id, ephemeral, keys })
    }

    /// Takes in keys that a peer gives; they are on disk when this returns, and what is known of them is with the next
    /// commit. A key that was made before its owner was erased, by somebody who did not know of that, is not taken.
    pub(crate) fn take(&self, parcel: &KeyParcel) -> Result<(), VaultError> {
        let to = self.ring.public_of(parcel.region_key).ok_or(VaultError::NoRegionKey(parcel.region_key))?;
        let secret = self.ring.agree(parcel.region_key, &parcel.ephemeral)?;
        let key = parcel_key(&secret, &parcel.ephemeral, &to)?;
        let mut slots = self.slots();
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        for (at, given) in parcel.keys.iter().enumerate() {
            match self.fate(given.id) {
                // It is needed again.
                Fate::Unknown if self.table_mut().barred.remove(&given.id) => continue,
                Fate::Unknown => {}
                Fate::Gone => continue,
                Fate::Here => {
                    // The data was put back from a copy of before the key came.
                    if given.wrapped.is_some() && self.store.meta(&key_fact(given.facts.owner, given.id))?.is_none() {
                        let fresh = Fresh { facts: given.facts.clone(), taken: false };
                        self.table_mut().fresh.entry(given.id).or_insert(fresh);
                    }
                    continue;
                }
            }
            let erased = self.table().erased.get(&given.facts.owner).cloned().unwrap_or_default();
            let Some(wrapped) = given.wrapped.as_ref().filter(|_| erased.is_subset(&given.facts.after)) else {
                gone.push(given);
                continue;
            };
            if !given.facts.regions.contains(&self.me) {
                return Err(VaultError::NotForUs(self.me.clone()));
            }
            let opened = decrypt(&key, parcel_nonce(at), &parcel_bound(given.id, &given.facts), wrapped);
            let data_key: DataKey = opened.and_then(|key| key.try_into().ok()).ok_or(VaultError::NotBound)?;
            new.push((given, self.ring.wrap(&data_key, &context(&self.me, given.id))?));
        }
        let keys: Vec<_> = new.iter().map(|(given, wrapped)| (given.id, *wrapped)).collect();
        let places = if keys.is_empty() { Vec::new() } else { slots.put(&keys)? };
        let mut table = self.table_mut();
        for ((given, _), place) in new.into_iter().zip(places) {
            table.held.insert(given.id, place);
            table.fresh.insert(given.id, Fresh { facts: given.facts.clone(), taken: false });
        }
        for given in gone {
            table.gone.insert(given.id);
            table.unkept.push((format!("{GONE}{}", given.id), Vec::new()));
        }
        Ok(())
    }
}

/// The keys of a parcel have nonces of their own: its key encrypts nothing else.
fn parcel_nonce(at: usize) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&(at as u64).to_be_bytes());
    nonce
}

fn parcel_bound(id: DataKeyId, facts: &KeyFacts) -> Vec<u8> {
    [&id.0[..], &codec::encode(facts)].concat()
}

/// The length of an AES-256 key, for HKDF.
struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        32
    }
}

/// HKDF-SHA256 (RFC 5869) of the shared secret, bound to both public keys.
fn parcel_key(secret: &[u8; 32], ephemeral: &[u8; 32], to: &RegionPublicKey) -> Result<[u8; 32], VaultError> {
    let failed = |_| VaultError::Crypto("deriving a key");
    let salt = Salt::new(HKDF_SHA256, b"repomind parcel of data keys 1");
    let mut key = [0; 32];
    let info: [&[u8]; 3] = [ephemeral, &to.key, &to.id];
    salt.extract(secret).expand(&info, KeyLength).map_err(failed)?.fill(&mut key).map_err(failed)?;
    Ok(key)
}
