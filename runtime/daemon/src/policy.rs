//! `repomind-run policy`: the generations of the policies, as an operator handles them.
//!
//! The primary orders generations; every command here asks who that is, and
//! speaks with its admin address. Where nobody is, one that answers is asked: it
//! shows what it has, and takes what only tightens. `publish` hands in a tree from anywhere, `rollback` an earlier one.
//! Both go through the whole gate, as a save does, and name the generation that
//! they grew from, so that two people never overwrite each other unseen. What
//! changes more than the bounds of a change allow waits for `confirm`. Where only operators sign policies, all three
//! take an operator's `--key` ([`signing`]).

mod signing;

mod replay;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::bail;
use clap::Subcommand;
use comfy_table::{Cell, Table, presets};
use model::Finding;
use model::bundle::{Because, GenerationInfo, PolicyTree, Proposal};
use model::radius::{BlastRadius, Comparison, Confirmation, Published, Side, Waiting};
use serde::Serialize;
use serde::de::DeserializeOwned;
use similar::{ChangeTag, TextDiff};

use crate::args::{FINDING, Place};
use crate::client::Client;
use crate::deploy::BadConfiguration;
use signing::OperatorKey;

/// Loading a tree, its tests included, is bounded by a few seconds in the region.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long an election is waited for before a region that is not the primary is asked.
const ELECTION: Duration = Duration::from_secs(3);

/// What to do with generations.
#[derive(Clone, Debug, Subcommand)]
pub enum Policy {
    /// List the generations kept by the primary.
    History {
        /// Where.
        #[command(flatten)]
        place: Place,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show how two generations differ, or one and the files on disk: the lines, and what would be otherwise on the
    /// facts of this moment. 1 when they do.
    Diff {
        /// The one generation.
        from: u64,
        /// The other; the files on disk unless named.
        to: Option<u64>,
        /// Where.
        #[command(flatten)]
        place: Place,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Put a change in force that waits because it goes beyond the bounds of a change.
    Confirm {
        /// The hash of its files, as `status` shows it; what waits is shown where it is left out.
        hash: Option<String>,
        /// Whose signature.
        #[command(flatten)]
        key: OperatorKey,
        /// Where.
        #[command(flatten)]
        place: Place,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Bring an earlier generation back, as a new one. The files on disk stay as they are.
    Rollback {
        /// The generation to bring back.
        generation: u64,
        /// Why; kept with the generation.
        #[arg(long, value_parser = why)]
        reason: String,
        /// Also where that changes more than the bounds of a change allow.
        #[arg(long)]
        confirm: bool,
        /// Whose signature.
        #[command(flatten)]
        key: OperatorKey,
        /// Where.
        #[command(flatten)]
        place: Place,
    },
    /// Put recorded decisions, or the queries of a log, to other policies: what would have come out otherwise. 1 when
    /// something does, 2 when it could not be asked.
    Replay(replay::ReplayArgs),
    /// Hand a tree to the primary, from anywhere that reaches its admin address.
    Publish {
        /// The tree with the policies.
        dir: PathBuf,
        /// Why; kept with the generation.
        #[arg(long, value_parser = why)]
        reason: String,
        /// Also where that changes more than the bounds of a change allow.
        #[arg(long)]
        confirm: bool,
        /// Whose signature.
        #[command(flatten)]
        key: OperatorKey,
        /// Where.
        #[command(flatten)]
        place: Place,
    },
}

/// Runs one of the commands.
pub async fn run(command: Policy) -> anyhow::Result<ExitCode> {
    match command {
        Policy::History { place, json } => {
            let all = Primary::of(&place).await?.history().await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&all)?);
            } else {
                println!("{}", table(&all));
            }
            Ok(ExitCode::SUCCESS)
        }
        Policy::Diff { from, to, place, json } => Primary::of(&place).await?.diff((from, to), &place, json).await,
        Policy::Confirm { hash: None, json, place, .. } => Primary::of(&place).await?.show_waiting(json).await,
        Policy::Confirm { hash: Some(hash), key, place, json } => {
            let primary = Primary::of(&place).await?;
            let word = primary.word(hash, &key, &place).await?;
            primary.confirm(&word, json).await
        }
        Policy::Rollback { generation, reason, confirm, key, place } => {
            let primary = Primary::of(&place).await?;
            let tree = primary.earlier(generation, &key, &place).await?;
            primary.publish(tree, format!("back to generation {generation}: {reason}"), confirm, &key).await
        }
        Policy::Replay(args) => replay::run(args).await,
        Policy::Publish { dir, reason, confirm, key, place } => {
            let tree = crate::start::watch::read_tree(&dir).map_err(BadConfiguration)?;
            Primary::of(&place).await?.publish(tree, reason, confirm, &key).await
        }
    }
}

/// The region that orders generations.
pub struct Primary {
    /// Speaks with it.
    pub client: Client,
    /// Its admin address.
    pub admin: SocketAddr,
}

impl Primary {
    /// Finds it; one that answers where there is none.
    ///
    /// # Errors
    /// No region answers.
    pub async fn of(place: &Place) -> anyhow::Result<Self> {
        let deployment = crate::status::at(place)?;
        let client = Client::new(&place.state)?;
        let deadline = Instant::now() + ELECTION;
        let status = loop {
            let status = crate::status::gather(&client, &deployment.admins(), &deployment.primary).await;
            if let Some(primary) = status.primary {
                return Ok(Self { client, admin: deployment.regions[&primary].admin });
            }
            if Instant::now() >= deadline {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        // The preferred one comes first.
        let Some(first) = status.regions.first() else { bail!("no region answers; see `repomind-run status`") };
        eprintln!("no region is the primary at this moment; asking {}", first.id);
        Ok(Self { client, admin: first.admin })
    }

    async fn history(&self) -> anyhow::Result<Vec<GenerationInfo>> {
        self.client.get_admin(self.admin, "/policy/history").await
    }

    /// Says so where a generation is not kept.
    async fn kept(&self, generation: u64) -> anyhow::Result<()> {
        let kept: Vec<u64> = self.history().await?.iter().map(|info| info.generation).collect();
        if !kept.contains(&generation) {
            let all: Vec<String> = kept.iter().map(ToString::to_string).collect();
            bail!("generation {generation} is not kept; there are {} (`repomind-run policy history`)", all.join(", "));
        }
        Ok(())
    }

    async fn tree(&self, generation: u64) -> anyhow::Result<PolicyTree> {
        self.kept(generation).await?;
        self.client.get_admin(self.admin, &format!("/policy/tree?generation={generation}")).await
    }

    async fn publish(
        &self,
        tree: PolicyTree,
        reason: String,
        confirmed: bool,
        key: &OperatorKey,
    ) -> anyhow::Result<ExitCode> {
        let parent = self.client.status(self.admin).await?.policy_hash;
        let because = Because { author: author(), reason };
        let endorsement = self.endorse(key, &because, &tree).await?;
        match self.post("/policy/publish", &Proposal { parent, because, tree, confirmed, endorsement }).await? {
            Ok(Published::Generation(number)) => Ok(in_force(number)),
            Ok(Published::Waiting(waiting)) => {
                say(&waiting);
                Ok(ExitCode::from(FINDING))
            }
            Err(findings) => Ok(refused(&findings)),
        }
    }

    async fn show_waiting(&self, json: bool) -> anyhow::Result<ExitCode> {
        let waiting: Option<Waiting> = self.client.get_admin(self.admin, "/policy/waiting").await?;
        match &waiting {
            _ if json => println!("{}", serde_json::to_string_pretty(&waiting)?),
            Some(waiting) => say(waiting),
            None => println!("nothing waits for a word"),
        }
        Ok(if waiting.is_some() { ExitCode::from(FINDING) } else { ExitCode::SUCCESS })
    }

    /// Gives the word for what waits.
    async fn confirm(&self, word: &Confirmation, json: bool) -> anyhow::Result<ExitCode> {
        #[derive(serde::Deserialize, Serialize)]
        struct Confirmed {
            generation: u64,
        }
        match self.post::<Confirmed>("/policy/confirm", word).await? {
            Ok(confirmed) if json => {
                println!("{}", serde_json::to_string_pretty(&confirmed)?);
                Ok(ExitCode::SUCCESS)
            }
            Ok(confirmed) => Ok(in_force(confirmed.generation)),
            Err(findings) => Ok(refused(&findings)),
        }
    }

    async fn diff(&self, (from, to): (u64, Option<u64>), place: &Place, json: bool) -> anyhow::Result<ExitCode> {
        let old = self.tree(from).await?;
        let (new, side) = match to {
            Some(to) => (self.tree(to).await?, Side::Generation(to)),
            None => {
                let tree = crate::start::watch::read_tree(&place.tree).map_err(BadConfiguration)?;
                (tree.clone(), Side::Tree(tree))
            }
        };
        let lines = diff(&old, &new);
        let radius = match lines.is_empty() {
            true => None,
            false => {
                match self.post("/policy/compare", &Comparison { from: Side::Generation(from), to: side }).await? {
                    Ok(radius) => Some::<BlastRadius>(radius),
                    Err(findings) => return Ok(refused(&findings)),
                }
            }
        };
        if json {
            println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "lines": lines, "radius": radius }))?);
        } else {
            lines.iter().for_each(|line| println!("{line}"));
            for line in radius.iter().flat_map(BlastRadius::lines) {
                println!("{line}");
            }
        }
        Ok(if lines.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FINDING) })
    }

    /// Posts to it, and reads the answer or the findings of a refusal.
    ///
    /// # Errors
    /// It does not answer as expected.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<Result<T, Vec<Finding>>> {
        self.client.post(self.admin, path, body, PATIENCE).await
    }
}

/// A reason that says something.
fn why(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Err("say why: the reason is kept with the generation, and the next person reads it"),
        text => Ok(text.to_owned()),
    }
}

/// Who gives a command: the name of the user.
pub fn author() -> String {
    std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned())
}

fn in_force(number: u64) -> ExitCode {
    println!("generation {number} is in force here, and in the others as soon as they hear of it");
    ExitCode::SUCCESS
}

fn refused(findings: &[Finding]) -> ExitCode {
    findings.iter().for_each(|finding| eprintln!("{}\n", finding.render(false)));
    eprintln!("refused: nothing was changed");
    ExitCode::from(FINDING)
}

fn say(waiting: &Waiting) {
    account(waiting).iter().for_each(|line| println!("{line}"));
}

/// A change that waits, for a person: which bounds it is beyond, what it would change, how to put it in force.
pub fn account(waiting: &Waiting) -> Vec<String> {
    let Waiting { hash, since, because, beyond, radius, unsigned, .. } = waiting;
    let mut lines = vec![format!("{hash} ({}, {}) waits since {}:", because.author, because.reason, age(since.0))];
    lines.extend(beyond.iter().map(|bound| format!("  {bound}")));
    if *unsigned {
        lines.push("  no operator has signed it".to_owned());
    }
    lines.push("it would change:".to_owned());
    lines.extend(radius.lines().iter().map(|line| format!("  {line}")));
    let key = if *unsigned { " --key FILE" } else { "" };
    lines.push(format!("to put it in force: repomind-run policy confirm {hash}{key}"));
    lines
}

fn table(all: &[GenerationInfo]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["generation", "files", "proposed", "by", "why", "signed by"]);
    for info in all.iter().rev() {
        let mark = if info.in_force { " (in force)" } else { "" };
        table.add_row([
            Cell::new(format!("{}{mark}", info.generation)),
            Cell::new(&info.hash),
            Cell::new(age(info.proposed_at.0)),
            Cell::new(&info.because.author),
            Cell::new(&info.because.reason),
            Cell::new(info.signed_by.as_ref().map_or("a key that is not known here".to_owned(), ToString::to_string)),
        ]);
    }
    table
}

/// How long ago a time in milliseconds since 1970 was, to one unit.
fn age(at: u64) -> String {
    let now = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64);
    let seconds = now.saturating_sub(at) / 1000;
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// The lines that differ, file by file: the form of `diff`, each line with its number.
fn diff(old: &PolicyTree, new: &PolicyTree) -> Vec<String> {
    let text = |tree: &PolicyTree, file: &str| tree.0.get(file).cloned().unwrap_or_default();
    let mut lines = Vec::new();
    for file in old.0.keys().chain(new.0.keys()).collect::<BTreeSet<_>>() {
        let (before, after) = (text(old, file), text(new, file));
        if before == after {
            continue;
        }
        lines.push(format!("--- {file}"));
        for change in TextDiff::from_lines(&before, &after).iter_all_changes() {
            let line = change.value().trim_end_matches('\n');
            match (change.tag(), change.old_index(), change.new_index()) {
                (ChangeTag::Delete, Some(at), _) => lines.push(format!("-{}: {line}", at + 1)),
                (ChangeTag::Insert, _, Some(at)) => lines.push(format!("+{}: {line}", at + 1)),
                _ => {}
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_changed_are_shown_with_their_numbers() {
        let tree = |text: &str| PolicyTree([("a.scm".to_owned(), text.to_owned())].into());
        assert!(diff(&tree("x\ny\n"), &tree("x\ny\n")).is_empty());
        assert_eq!(diff(&tree("x\ny\nz\n"), &tree("x\nw\nz\n")), ["--- a.scm", "-2: y", "+2: w"]);
        assert_eq!(diff(&tree("x\n"), &PolicyTree::default()), ["--- a.scm", "-1: x"]);
    }
}
