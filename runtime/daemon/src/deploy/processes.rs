//! Processes that `deploy` started: their record on disk, and proof that a
//! process id still means what it meant.
//!
//! A process is ours only while its command line and its start time are those
//! that were recorded. A number that was given to another process in the
//! meantime is never signalled.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use model::RegionId;
use model::region::Addresses;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

/// The format of `deploy.json`.
const VERSION: u32 = 1;
/// The record's name in the state directory.
const FILE: &str = "deploy.json";

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// `sample-service`.
    Service,
    /// `start`.
    Daemon,
    /// `edge run`.
    Edge,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// What it is for.
    pub role: Role,
    /// Its region.
    pub region: RegionId,
    /// Its process id.
    pub pid: i32,
    /// Its start in clock ticks since boot: field 22 of `/proc/PID/stat`, see proc_pid_stat(5).
    pub start_time: u64,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where its output goes.
    pub log: PathBuf,
    /// How long that file was when it started, in bytes: what comes later is its own.
    #[serde(default)]
    pub log_from: u64,
}

/// `deploy.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deployment {
    /// The format.
    pub version: u32,
    /// The tree it runs.
    pub tree: PathBuf,
    /// The primary of the tree.
    pub primary: RegionId,
    /// Where each region listens.
    pub regions: BTreeMap<RegionId, Addresses>,
    /// The processes.
    pub started: Vec<Started>,
}

impl Deployment {
    /// A deployment in which nothing runs yet.
    pub fn new(tree: PathBuf, regions: &model::region::Regions) -> Self {
        Self {
            version: VERSION,
            tree,
            primary: regions.primary.clone(),
            regions: regions.by_id.iter().map(|(id, region)| (id.clone(), region.addresses.clone())).collect(),
            started: Vec::new(),
        }
    }

    /// Reads the record of `state`; none when nothing was ever deployed there.
    pub fn read(state: &Path) -> anyhow::Result<Option<Self>> {
        let path = state.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let deployment: Self = serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} is damaged; end what runs by hand (`pgrep -af 'repomind-run start.*{}'`), delete this file and \
                 deploy again",
                path.display(),
                std::path::absolute(state).unwrap_or_else(|_| state.to_owned()).display()
            )
        })?;
        if deployment.version != VERSION {
            bail!("{} has format {}; this program knows {VERSION}", path.display(), deployment.version);
        }
        Ok(Some(deployment))
    }

    /// Whether there is a record in `state`, readable or not.
    pub fn recorded(state: &Path) -> bool {
        state.join(FILE).exists()
    }

    /// Writes the record: a new file that then takes the old one's place.
    pub fn write(&self, state: &Path) -> anyhow::Result<()> {
        let path = state.join(FILE);
        let fresh = state.join(format!("{FILE}.new"));
        std::fs::write(&fresh, serde_json::to_vec_pretty(self)?)
            .and_then(|()| std::fs::rename(&fresh, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Removes the record.
    pub fn forget(state: &Path) -> anyhow::Result<()> {
        let path = state.join(FILE);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// The process with this role in this region, if it still runs.
    pub fn running(&self, role: Role, region: &RegionId) -> Option<&Started> {
        self.started.iter().find(|p| p.role == role && p.region == *region && p.runs())
    }

    /// Whether every region's daemon runs.
    pub fn complete(&self) -> bool {
        self.regions.keys().all(|region| self.running(Role::Daemon, region).is_some())
    }

    /// Puts `process` in the place of an earlier one with the same role and region.
    pub fn record(&mut self, process: Started) {
        self.started.retain(|p| p.role != process.role || p.region != process.region);
        self.started.push(process);
    }

    /// Where one region listens, or all of them where none is named.
    ///
    /// # Errors
    /// Where no region has that name.
    pub fn chosen(&self, only: Option<&RegionId>) -> anyhow::Result<Vec<(&RegionId, &Addresses)>> {
        let regions = self.regions.iter().filter(|(id, _)| only.is_none_or(|only| only == *id));
        let regions: Vec<_> = regions.collect();
        match only {
            Some(only) if regions.is_empty() => bail!("no region is called {only}"),
            _ => Ok(regions),
        }
    }

    /// The admin address of each region.
    pub fn admins(&self) -> BTreeMap<RegionId, SocketAddr> {
        self.regions.iter().map(|(id, addresses)| (id.clone(), addresses.admin)).collect()
    }
}

impl Started {
    /// Starts `command` in a session of its own, its output appended to `log`.
    pub fn spawn(role: Role, region: &RegionId, command: Vec<String>, log: &Path) -> anyhow::Result<Self> {
        if let Some(folder) = log.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let output = std::fs::OpenOptions::new().create(true).append(true).open(log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let log_from = output.metadata().map_or(0, |file| file.len());
        let (program, arguments) = command.split_first().context("a command without a program")?;
        let mut child = Command::new(program);
        child.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        leave_session(&mut child);
        let child = child.spawn().with_context(|| format!("cannot start {program}"))?;
        let pid = i32::try_from(child.id())?;
        let (start_time, _) = stat(pid).with_context(|| format!("{program} ended at once; see {}", log.display()))?;
        Ok(Self { role, region: region.clone(), pid, start_time, command, log: log.to_owned(), log_from })
    }

    /// Whether this very process runs: same start time, same command line, not a zombie.
    pub fn runs(&self) -> bool {
        match (stat(self.pid), command_line(self.pid)) {
            (Some((start, state)), Some(command)) => {
                start == self.start_time && state != 'Z' && command == self.command
            }
            _ => false,
        }
    }

    /// Whether anything of it is left: a process that was killed keeps its sockets until its last thread has gone,
    /// a moment after its command line is no longer there.
    pub fn lingers(&self) -> bool {
        match stat(self.pid) {
            Some((start, state)) if start == self.start_time => {
                let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count);
                state != 'Z' || tasks > 1
            }
            _ => false,
        }
    }

    /// Sends `signal` if the process is still ours. Says whether it was sent.
    pub fn signal(&self, signal: Signal) -> bool {
        self.runs() && Pid::from_raw(self.pid).is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
    }

    /// The last lines of its log, since it started.
    pub fn last_words(&self, lines: usize) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let own = usize::try_from(self.log_from).ok().and_then(|from| bytes.get(from..)).unwrap_or(&bytes);
        let text = String::from_utf8_lossy(&own[own.len().saturating_sub(16 << 10)..]).into_owned();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// Asks the processes to end, waits at most `patience`, then kills what is left. Gives how many were killed.
pub async fn stop(processes: &[Started], patience: Duration) -> usize {
    let deadline = Instant::now() + patience;
    for process in processes {
        process.signal(Signal::TERM);
    }
    while processes.iter().any(Started::runs) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let killed = processes.iter().filter(|process| process.signal(Signal::KILL)).count();
    gone(processes, Duration::from_secs(5)).await;
    killed
}

/// Waits until nothing is left of the processes; says whether that came true in time.
pub async fn gone(processes: &[Started], patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while processes.iter().any(Started::lingers) {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

/// Start time in ticks and state letter of a process.
fn stat(pid: i32) -> Option<(u64, char)> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<(u64, char)> {
    // The second field is the program's name in brackets and may hold spaces and brackets itself.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.nth(18)?.parse().ok()?, state))
}

/// The program and arguments of a process that runs.
pub fn command_line(pid: i32) -> Option<Vec<String>> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let bytes = bytes.strip_suffix(b"\0")?;
    Some(bytes.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

#[allow(unsafe_code)]
fn leave_session(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec and makes one system call, setsid(2), which is
    // async-signal-safe; it allocates nothing and touches no state of the parent.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_brackets_does_not_shift_the_start_time() {
        let text = "4711 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20";
        assert_eq!(parse_stat(text), Some((987_654, 'S')));
    }

    #[tokio::test]
    async fn only_the_very_process_that_was_started_is_signalled() {
        let folder = tempfile::tempdir().unwrap();
        let region = RegionId::new("us-east").unwrap();
        let command = vec!["/bin/sleep".to_owned(), "60".to_owned()];
        let process = Started::spawn(Role::Service, &region, command, &folder.path().join("log")).unwrap();
        let another_start = Started { start_time: process.start_time + 1, ..process.clone() };
        let another_command = Started { command: vec!["/bin/sleep".into(), "61".into()], ..process.clone() };
        assert!(!another_start.signal(Signal::KILL));
        assert!(!another_command.signal(Signal::KILL));
        assert!(process.runs());
        assert_eq!(stop(std::slice::from_ref(&process), Duration::from_secs(5)).await, 0);
        assert!(!process.runs());
    }
}
