//! Signs generations with an operator's key, on the operator's machine.
//!
//! An operator signs only what lies in the operator's own tree, or what an operator of that tree has signed before: a
//! region that was stolen cannot have something signed that nobody read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, bail};
use clap::Args;
use model::UnixMillis;
use model::bundle::{Because, Bundle, PolicyTree, SignedBundle};
use model::radius::{Confirmation, Waiting};
use model::signing::{Endorsement, NextGeneration, SignedBy};
use net::pki::PolicyKeys;

use super::{Primary, author};
use crate::args::Place;
use crate::deploy::BadConfiguration;

/// The key to sign with.
#[derive(Clone, Debug, Args)]
pub struct OperatorKey {
    /// Your operator's key, where only operators sign policies (made by `pki operator-key`).
    #[arg(long, value_name = "FILE", env = "REPOMIND_OPERATOR_KEY")]
    pub key: Option<PathBuf>,
}

impl Primary {
    /// The signature under the next generation with these files; none in development.
    pub(super) async fn endorse(
        &self,
        key: &OperatorKey,
        because: &Because,
        tree: &PolicyTree,
    ) -> anyhow::Result<Option<Endorsement>> {
        let next: NextGeneration = self.client.get_admin(self.admin, "/policy/next").await?;
        let operators = next.operators.join(", ");
        match (&key.key, next.operators.is_empty()) {
            (None, true) => Ok(None),
            (None, false) => bail!("only operators sign policies here ({operators}): name your key with --key FILE"),
            (Some(key), true) => bail!(
                "this deployment names no operators, so its regions sign by themselves: leave {} out, or name operators \
                 in its region files first",
                key.display()
            ),
            (Some(key), false) => Ok(Some(signed(key, next, because, tree)?)),
        }
    }

    /// The files of an earlier generation, to be put in force again.
    pub(super) async fn earlier(
        &self,
        generation: u64,
        key: &OperatorKey,
        place: &Place,
    ) -> anyhow::Result<PolicyTree> {
        if key.key.is_none() {
            return self.tree(generation).await;
        }
        self.kept(generation).await?;
        let signed: SignedBundle =
            self.client.get_admin(self.admin, &format!("/policy/bundle?generation={generation}")).await?;
        let operators = config::load(&place.tree).map_err(BadConfiguration)?.operators;
        let verified = PolicyKeys::new(&operators, BTreeMap::new()).verify(&signed);
        let (bundle, _) = verified.ok().filter(|(_, by)| matches!(by, SignedBy::Operator(_))).with_context(|| {
            format!(
                "no operator of {} has signed generation {generation}: read its files (`repomind-run policy diff`), and \
                 publish them from a tree of your own",
                place.tree.join(config::FOLDER).display()
            )
        })?;
        if bundle.generation != generation {
            bail!("the region gave generation {} when it was asked for {generation}", bundle.generation);
        }
        Ok(bundle.tree)
    }

    /// The word for a candidate that waits, signed where that is needed.
    pub(super) async fn word(&self, hash: String, key: &OperatorKey, place: &Place) -> anyhow::Result<Confirmation> {
        let author = author();
        let waiting: Option<Waiting> = self.client.get_admin(self.admin, "/policy/waiting").await?;
        // Where something else waits, the region says so.
        let Some(waiting) = waiting.filter(|waiting| waiting.hash == hash) else {
            return Ok(Confirmation { hash, author, endorsement: None });
        };
        let because = waiting.because.confirmed_by(&author);
        let tree = match &key.key {
            None => PolicyTree::default(),
            Some(_) => crate::start::watch::read_tree(&place.tree).map_err(BadConfiguration)?,
        };
        if key.key.is_some() && tree.hash().to_string() != hash {
            bail!(
                "{hash} waits, and the files in {} are {}: sign only what you have read, in a tree of your own (--tree)",
                place.tree.display(),
                tree.hash()
            );
        }
        let endorsement = self.endorse(key, &because, &tree).await?;
        Ok(Confirmation { hash, author, endorsement })
    }
}

fn signed(key: &Path, next: NextGeneration, because: &Because, tree: &PolicyTree) -> anyhow::Result<Endorsement> {
    let key = net::pki::load_operator_key(key)?;
    let NextGeneration { generation, parent, proposer, .. } = next;
    let signed_at = UnixMillis(UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64));
    let bundle = Bundle {
        generation,
        parent,
        proposer: proposer.clone(),
        proposed_at: signed_at,
        because: because.clone(),
        tree: tree.clone(),
    };
    let signature = key.sign(&net::pki::bundle_bytes(&bundle));
    Ok(Endorsement { generation, proposer, signed_at, signature })
}
