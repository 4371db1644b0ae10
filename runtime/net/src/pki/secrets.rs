//! What one daemon reads from the key directory.

use std::collections::BTreeMap;
use std::path::Path;

use model::RegionId;
use rcgen::KeyPair;

use super::keys::digest_key;
use super::machines::{key_of, public_keys};
use super::{
    LEDGER, POLICY, PkiError, SigningKey, VerifyingKey, WITNESS, check_name, content, ledger, policy, read, witness,
};
use crate::identity::Identity;

/// All keys that a region needs. Has no `Debug` output worth printing, on purpose.
pub struct Secrets {
    /// Its certificate and key for the other regions.
    pub identity: Identity,
    /// Signs the policies that this region proposes in development; absent where its key is not on this machine.
    pub policy_signer: Option<SigningKey>,
    /// Verifies the policies that regions propose in development, of all regions whose key is on this machine.
    pub policy_verifiers: BTreeMap<RegionId, VerifyingKey>,
    /// Signs this region's ledger.
    pub ledger_signer: SigningKey,
    /// Verifies the ledgers of all regions whose key is on this machine; this one's always is.
    pub ledger_verifiers: BTreeMap<RegionId, VerifyingKey>,
    /// Cosigns the ledgers of other regions.
    pub witness_signer: SigningKey,
    /// Verifies the cosignatures of all regions whose key is on this machine; this one's always is.
    pub witness_verifiers: BTreeMap<RegionId, VerifyingKey>,
    /// The public key of bearer tokens, PEM, for [`crate::TokenVerifier::new`].
    pub token_key: Vec<u8>,
    /// The key of the digests by which regions compare what they hold; the same in all of them.
    pub digest_key: [u8; 32],
}

/// Reads what `region` needs from `dir`, which [`super::ensure`] has filled or
/// which holds what [`super::bundle_for`] lists.
///
/// # Errors
/// [`PkiError`], naming the file.
pub fn load(dir: &Path, region: &RegionId) -> Result<Secrets, PkiError> {
    check_name(region)?;
    let identity = Identity::load(dir, region)?;
    check_pair(dir, region, &identity)?;
    let ledger_signer = own_pair(dir, &ledger(region))?;
    let witness_signer = own_pair(dir, &witness(region))?;
    let policy = policy(region);
    let signs = dir.join(format!("{policy}.key")).exists();
    Ok(Secrets {
        identity,
        policy_signer: if signs { Some(own_pair(dir, &policy)?) } else { None },
        policy_verifiers: verifiers(dir, POLICY)?,
        ledger_signer,
        ledger_verifiers: verifiers(dir, LEDGER)?,
        witness_signer,
        witness_verifiers: verifiers(dir, WITNESS)?,
        token_key: read(&dir.join("token.pub"))?.into_bytes(),
        digest_key: digest_key(&dir.join("digest.key"))?,
    })
}

/// The private key of a pair, both of whose files must be there and belong together.
fn own_pair(dir: &Path, name: &str) -> Result<SigningKey, PkiError> {
    let signer = SigningKey::load(&dir.join(format!("{name}.key")))?;
    let path = dir.join(format!("{name}.pub"));
    if VerifyingKey::load(&path)? != signer.verifying_key() {
        return Err(content(&path, "public key", format!("it does not belong to {name}.key")));
    }
    Ok(signer)
}

fn verifiers(dir: &Path, ending: &str) -> Result<BTreeMap<RegionId, VerifyingKey>, PkiError> {
    public_keys(dir, ending)?.into_iter().map(|(region, path)| Ok((region, VerifyingKey::load(&path)?))).collect()
}

/// What an auditor of the deployment needs: no private key is among it.
pub struct PublicKeys {
    /// Verifies the ledgers of all regions.
    pub ledger: BTreeMap<RegionId, VerifyingKey>,
    /// Verifies their cosignatures.
    pub witness: BTreeMap<RegionId, VerifyingKey>,
    /// Verifies the policies that regions propose in development.
    pub policy: BTreeMap<RegionId, VerifyingKey>,
    /// The secret from which records are named; the same in all regions.
    pub digest_key: [u8; 32],
}

impl PublicKeys {
    /// Reads them from the key directory of the deployment.
    ///
    /// # Errors
    /// [`PkiError`], naming the file.
    pub fn load(dir: &Path) -> Result<Self, PkiError> {
        Ok(Self {
            ledger: verifiers(dir, LEDGER)?,
            witness: verifiers(dir, WITNESS)?,
            policy: verifiers(dir, POLICY)?,
            digest_key: digest_key(&dir.join("digest.key"))?,
        })
    }
}

/// Refuses a key of another certificate, which an interrupted rotation or copy leaves behind.
fn check_pair(dir: &Path, region: &RegionId, identity: &Identity) -> Result<(), PkiError> {
    let (key_path, path) = (dir.join(format!("{region}.key")), dir.join(format!("{region}.pem")));
    let what = "private key";
    let key = KeyPair::from_pem(&identity.key).map_err(|error| content(&key_path, what, error))?;
    if key_of(&path, &identity.cert)? == key.public_key_raw() {
        return Ok(());
    }
    Err(PkiError::Content {
        path: key_path,
        what,
        reason: format!("it is not the key of {region}.pem"),
        remedy: "copy both from where the authority was made, or rotate them there again",
    })
}
