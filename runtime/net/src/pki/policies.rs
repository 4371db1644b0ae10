//! Whose signature makes a tree of policies a generation.
//!
//! In production those of the operators whom the region files name; in development that of the region which proposes
//! it. The private half of an operator's key is on no machine that runs a region: [`no_operator_key`] sees to that.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use model::RegionId;
use model::bundle::{Bundle, SignedBundle};
use model::signing::{Operator, SignedBy};

use super::files::file_error;
use super::{PkiError, SigningKey, VerifyingKey};

/// The public keys of all who may sign policies.
pub struct PolicyKeys {
    operators: Vec<Operator>,
    regions: BTreeMap<RegionId, VerifyingKey>,
}

impl PolicyKeys {
    /// Those of the operators, and of the regions for where there are no operators.
    pub fn new(operators: &[Operator], regions: BTreeMap<RegionId, VerifyingKey>) -> Self {
        Self { operators: operators.to_vec(), regions }
    }

    /// Whether only operators may sign.
    pub fn production(&self) -> bool {
        !self.operators.is_empty()
    }

    /// The names of the operators; none in development.
    pub fn operators(&self) -> Vec<String> {
        self.operators.iter().map(|operator| operator.name.clone()).collect()
    }

    /// The bundle, and who signed it.
    ///
    /// # Errors
    /// A sentence: nobody did who may.
    pub fn verify(&self, signed: &SignedBundle) -> Result<(Bundle, SignedBy), String> {
        let (bundle, by) = self.verify_known(signed)?;
        if let (SignedBy::Region(region), true) = (&by, self.production()) {
            let operators = self.operators().join(", ");
            return Err(format!(
                "it is signed with the key of region {region}, and only operators sign policies here ({operators})"
            ));
        }
        Ok((bundle, by))
    }

    /// As [`Self::verify`], for what was in force in this region before: where operators were named since, what a
    /// region had signed stays until an operator signs.
    ///
    /// # Errors
    /// A sentence: no key that is known here signed it.
    pub fn verify_known(&self, signed: &SignedBundle) -> Result<(Bundle, SignedBy), String> {
        let signed_with = |key: &VerifyingKey| key.verify(&signed.bundle, &signed.signature);
        let operator = self.operators.iter().find(|operator| signed_with(&VerifyingKey::from_bytes(operator.key)));
        if let Some(operator) = operator {
            return Ok((bundle_from_bytes(&signed.bundle)?, SignedBy::Operator(operator.name.clone())));
        }
        let Some((region, _)) = self.regions.iter().find(|(_, key)| signed_with(key)) else {
            let who = match self.production() {
                true => format!("an operator ({})", self.operators().join(", ")),
                false => "a region of this deployment".to_owned(),
            };
            return Err(format!("its signature is not that of {who}: it was changed, or signed with another key"));
        };
        let bundle = bundle_from_bytes(&signed.bundle)?;
        if bundle.proposer != *region {
            return Err(format!("it is signed with the key of region {region}, and {} proposed it", bundle.proposer));
        }
        Ok((bundle, SignedBy::Region(region.clone())))
    }
}

/// Reads an operator's private key, which nobody else may be able to read.
///
/// # Errors
/// [`PkiError`], naming the file.
pub fn load_operator_key(path: &Path) -> Result<SigningKey, PkiError> {
    let key = SigningKey::load(path)?;
    let mode = fs::metadata(path).map_err(file_error(path))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(PkiError::Content {
            path: path.to_owned(),
            what: "private key",
            reason: format!("others may read it (mode {mode:03o})"),
            remedy: "take that away with chmod 600; if others could log in there, make a new key and take this one off \
                     the region files",
        });
    }
    Ok(key)
}

/// Refuses a key directory with the private key of an operator: a region that was stolen could sign policies with it.
///
/// # Errors
/// [`PkiError::Content`], naming the file.
pub fn no_operator_key(dir: &Path, operators: &[Operator]) -> Result<(), PkiError> {
    let entries = fs::read_dir(dir).map_err(file_error(dir))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        // Most files are other things than Ed25519 keys.
        let Ok(key) = SigningKey::load(&path) else { continue };
        let operator = operators.iter().find(|operator| operator.key == *key.verifying_key().bytes());
        if let Some(operator) = operator {
            return Err(PkiError::Content {
                path,
                what: "key of a region",
                reason: format!("it is the private key of the operator {}, which no region may have", operator.name),
                remedy: "move it to where that operator works",
            });
        }
    }
    Ok(())
}

/// The bytes of a bundle that are signed and shipped.
pub fn bundle_bytes(bundle: &Bundle) -> Vec<u8> {
    postcard::to_stdvec(bundle).expect("plain data always encodes into memory")
}

/// The bundle of [`bundle_bytes`].
///
/// # Errors
/// The decoder's words.
pub fn bundle_from_bytes(bytes: &[u8]) -> Result<Bundle, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((bundle, [])) => Ok(bundle),
        Ok((_, rest)) => Err(format!("{} bytes are left over", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}
