//! Reports that put a deployment to the test and say what came out.
//!
//! Every report is measured on running regions: it lists its checks, each with
//! the bound and the value found, and its exit code is 0 when all hold, 1 when
//! one does not. A report that could not measure says so and is 2, never 0.

pub mod audit;
pub mod bench;
mod bench_policy;
mod bench_redis;
pub mod drill;
mod leavings;
pub mod load;
pub mod replication;
mod traffic;

use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{Cell, Table, presets};
use serde::Serialize;

use crate::args::{FINDING, Place, WanProfile};
use crate::client::Client;
use crate::deploy::processes::{self, Deployment, Started};

/// One check of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What must hold, as a sentence.
    pub what: String,
    /// Whether it does.
    pub holds: bool,
    /// The bound.
    pub bound: String,
    /// What was found.
    pub found: String,
}

impl Check {
    /// A check that `found` is at most `bound` milliseconds; nothing found does not hold.
    pub fn at_most_ms(what: impl Into<String>, found: Option<u64>, bound: u64) -> Self {
        Self {
            what: what.into(),
            holds: found.is_some_and(|found| found <= bound),
            bound: format!("at most {bound} ms"),
            found: found.map_or_else(|| "did not happen".into(), |found| format!("{found} ms")),
        }
    }

    /// A check that nothing was counted.
    pub fn none(what: impl Into<String>, found: usize) -> Self {
        Self { what: what.into(), holds: found == 0, bound: "none".into(), found: found.to_string() }
    }
}

/// Prints a report, as JSON or for a person, and gives its exit code.
pub fn conclude<T: Serialize>(json: bool, details: &T, checks: &[Check], notes: &[String]) -> anyhow::Result<ExitCode> {
    let holds = checks.iter().all(|check| check.holds);
    if json {
        let report = serde_json::json!({ "passed": holds, "checks": checks, "measured": details, "notes": notes });
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(["", "check", "bound", "found"]);
        for check in checks {
            let mark = if check.holds { "ok" } else { "FAILED" };
            table.add_row([Cell::new(mark), Cell::new(&check.what), Cell::new(&check.bound), Cell::new(&check.found)]);
        }
        println!("{table}");
        for note in notes {
            println!("{note}");
        }
        let failed = checks.iter().filter(|check| !check.holds).count();
        if failed > 0 {
            println!("{failed} of {} checks failed", checks.len());
        }
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::from(FINDING) })
}

/// A deployment to test: the one that runs, or one of our own that is taken away afterwards.
pub struct Stage {
    /// Where it is.
    pub place: Place,
    /// What runs.
    pub deployment: Deployment,
    /// A client with its token.
    pub client: Client,
    ours: Option<tempfile::TempDir>,
    /// Where the test writes; what it wrote is taken away again where the deployment is not ours.
    namespaces: &'static [&'static str],
    /// What links were before the test changed them; empty while they are as they were.
    pub links: drill::fault::Links,
}

impl Stage {
    /// Takes the deployment of `place` if all its regions run, else deploys into a private state directory. The test
    /// will write into `namespaces`, under keys that begin with [`run_id`].
    pub async fn enter(place: &Place, namespaces: &'static [&'static str]) -> anyhow::Result<Self> {
        let timeout = Duration::from_secs(60);
        match Deployment::read(&place.state)? {
            Some(deployment) if deployment.complete() => {
                crate::deploy::serving(&place.state, &deployment, timeout).await?;
                let client = Client::new(&place.state)?;
                Ok(Self::of(place.clone(), deployment, client, namespaces))
            }
            _ => {
                eprintln!("no running deployment: starting one of its own");
                Self::own(&place.tree, WanProfile::Realistic).await
            }
        }
    }

    /// Deploys `tree` into a private state directory, whatever else runs.
    pub async fn own(tree: &std::path::Path, wan: WanProfile) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("repomind-").tempdir()?;
        let place = Place { tree: tree.to_owned(), state: folder.path().join("state") };
        let deployed =
            crate::deploy::deploy(&place, &crate::deploy::Wishes::regions(wan, None), Duration::from_secs(60)).await;
        let deployment = deployed.map_err(cannot_measure)?.deployment;
        // From here on the value takes the deployment away with it.
        let mut stage = Self::of(place, deployment, Client::default(), &[]);
        stage.ours = Some(folder);
        stage.client = Client::new(&stage.place.state)?;
        Ok(stage)
    }

    fn of(place: Place, deployment: Deployment, client: Client, namespaces: &'static [&'static str]) -> Self {
        Self { place, deployment, client, ours: None, namespaces, links: Default::default() }
    }

    /// Whether the deployment was there before, and stays.
    pub const fn is_borrowed(&self) -> bool {
        self.ours.is_none()
    }

    /// Runs `test` until it ends or is interrupted. Then takes our own deployment away, keeping its
    /// logs after a failure; a deployment that was there before is mended, and loses what the test
    /// wrote: a note about that goes to the report's, or to standard error where there is no report.
    pub async fn run<T>(
        mut self,
        notes: &mut Vec<String>,
        test: impl AsyncFnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let result = tokio::select! {
            result = test(&mut self) => result,
            () = crate::deploy::interrupted() => Err(anyhow::anyhow!("interrupted")),
        };
        if self.ours.is_some() {
            processes::stop(&self.deployment.started, Duration::from_secs(10)).await;
        }
        match self.ours.take() {
            Some(folder) if result.is_err() => eprintln!("logs are kept in {}", folder.keep().display()),
            Some(_) => {}
            None => {
                if result.is_err()
                    && let Err(error) = self.mend().await
                {
                    eprintln!("error: the deployment could not be mended: {error:#}; run `repomind-run deploy`");
                }
                if let Some(note) = self.clear().await {
                    if result.is_err() { eprintln!("{note}") } else { notes.push(note) }
                }
            }
        }
        result
    }

    /// Deletes what the test wrote, until it is gone or somebody interrupts that too.
    async fn clear(&self) -> Option<String> {
        if self.namespaces.is_empty() {
            return None;
        }
        tokio::select! {
            cleared = leavings::clear(self, self.namespaces) => Some(cleared.note()),
            () = crate::deploy::signalled() => {
                let spaces = self.namespaces.join(", ");
                Some(format!("interrupted: keys that begin with {} are left in {spaces}", run_id()))
            }
        }
    }

    /// Starts what a broken-off test left dead, and restores every link that it may have cut.
    async fn mend(&mut self) -> anyhow::Result<()> {
        for process in self.deployment.started.clone() {
            // One that stands still goes on.
            if !process.signal(rustix::process::Signal::CONT) {
                eprintln!("starting {} again", process.region);
                self.deployment.record(Started::spawn(process.role, &process.region, process.command, &process.log)?);
                self.deployment.write(&self.place.state)?;
            }
        }
        for (region, addresses) in &self.deployment.regions {
            for peer in self.deployment.regions.keys().filter(|peer| *peer != region) {
                // Without emulated links there is nothing to restore, and a region that starts has none cut.
                let _ = self.client.cut(addresses.admin, peer, false).await;
            }
        }
        drill::fault::restore(self, &self.links).await
    }
}

/// Policies that are refused are no finding of a report: it could not be run.
fn cannot_measure(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<crate::deploy::BadPolicies>() {
        Ok(bad) => anyhow::anyhow!("a deployment of its own could not be started\n{bad}"),
        Err(other) => other,
    }
}

impl Drop for Stage {
    /// Whatever way a report ends, a panic included: a deployment of our own ends with it.
    fn drop(&mut self) {
        if self.ours.is_some() {
            for process in &self.deployment.started {
                process.signal(rustix::process::Signal::KILL);
            }
        }
    }
}

/// What keys of this run begin with, so that two runs never meet. The same throughout a process.
pub fn run_id() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
    static ID: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    ID.get_or_init(|| format!("{now:x}-{:x}", std::process::id())).clone()
}

/// The value below which `share` (0 to 1) of the sorted samples lie; nearest rank.
pub fn percentile(sorted: &[u64], share: f64) -> Option<u64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_sample_and_nothing_has_none() {
        let samples: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&samples, 0.5), Some(50));
        assert_eq!(percentile(&samples, 0.99), Some(99));
        assert_eq!(percentile(&samples, 1.0), Some(100));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn what_did_not_happen_does_not_hold() {
        assert!(!Check::at_most_ms("detected", None, 3000).holds);
        assert!(!Check::at_most_ms("detected", Some(3001), 3000).holds);
        assert!(Check::at_most_ms("detected", Some(3000), 3000).holds);
    }
}
