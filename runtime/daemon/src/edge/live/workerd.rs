//! The worker on this machine: `live.mjs` runs it on miniflare, and is told here what to do, a line a command.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use edge::{Backend, Form};
use model::status::EdgeOrder;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::child;

/// How long a command may take, with workerd started anew.
const COMMAND: Duration = Duration::from_secs(30);
/// How long it may take to end.
const END: Duration = Duration::from_secs(4);
/// What `live.mjs` needs from `npm ci`.
const NEEDED: [&str; 3] = ["miniflare", "esbuild", "workerd"];

/// A worker, started with the first order.
pub struct Worker {
    /// Where it listens.
    pub address: SocketAddr,
    dir: PathBuf,
    folder: PathBuf,
    running: Option<Running>,
    /// The revision of each rule in force.
    rules: BTreeMap<String, String>,
    /// The revision of the form in force; empty before the first.
    revision: String,
    id: u64,
}

struct Running {
    child: Child,
    commands: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// One that is not started yet; its own files are in `dir`.
    ///
    /// # Errors
    /// What is missing on this machine, and how to get it.
    pub fn new(address: SocketAddr, dir: &Path, folder: &Path) -> anyhow::Result<Self> {
        let script = dir.join("live.mjs");
        anyhow::ensure!(
            script.is_file(),
            "there is no {}: name the worker's files with --worker-dir, such as edge-deployment/cloudflare-workers of \
             the source",
            script.display()
        );
        let node = std::process::Command::new("node").arg("--version").output();
        let version = node.ok().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        let major = version.as_deref().and_then(|said| said.strip_prefix('v')?.split('.').next()?.parse::<u32>().ok());
        anyhow::ensure!(
            major.is_some_and(|major| major >= 20),
            "the worker runs on Node 20 or newer; found {}",
            version.unwrap_or_else(|| "none".to_owned())
        );
        for package in NEEDED {
            anyhow::ensure!(
                dir.join("node_modules").join(package).is_dir(),
                "{package} is not installed in {}: run `npm ci` there",
                dir.display()
            );
        }
        let folder = folder.join("worker");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let dir = std::path::absolute(dir)?;
        Ok(Self { address, dir, folder, running: None, rules: BTreeMap::new(), revision: String::new(), id: 0 })
    }

    /// Whether it runs with some policy.
    pub const fn is_up(&self) -> bool {
        self.running.is_some() && !self.revision.is_empty()
    }

    /// Returns when it has ended.
    pub async fn ended(&mut self) {
        match &mut self.running {
            Some(running) => {
                let _ = running.child.wait().await;
                self.gone();
            }
            None => std::future::pending().await,
        }
    }

    /// Ends it: it does so by itself once it can read no more commands.
    pub async fn stop(&mut self) {
        if let Some(Running { mut child, commands, said }) = self.running.take() {
            drop((commands, said));
            child::end(&mut child, END).await;
        }
        self.gone();
    }

    fn gone(&mut self) {
        (self.running, self.revision) = (None, String::new());
    }

    /// Takes an order: a worker that does not come up with it leaves the one before.
    ///
    /// # Errors
    /// Why it was not taken.
    pub async fn take(&mut self, order: &EdgeOrder, form: &Form) -> Result<(), String> {
        let complaints = edge::complaints(Backend::Cloudflare, form);
        if let Some(complaint) = complaints.first() {
            return Err(format!("{} {}: {}", complaint.form, complaint.name, complaint.message));
        }
        if self.running.is_none() {
            self.running = Some(self.start()?);
        }
        let mut command = json!({ "down": order.down });
        let rules: BTreeMap<String, String> =
            form.rules.iter().map(|rule| (rule.rule.name.to_string(), rule.revision.clone())).collect();
        if self.revision != form.revision {
            // They are not given any more under another policy; here they are forgotten, too.
            let gone = self.rules.iter().filter(|(name, revision)| rules.get(*name) != Some(revision));
            let gone: Vec<String> = gone.map(|(name, _)| format!("rule:{name}")).collect();
            command["purge"] = gone.into();
            command["policy"] = serde_json::from_str(&order.form).map_err(|error| error.to_string())?;
        }
        let done = tokio::time::timeout(COMMAND, self.order(command)).await;
        match done {
            Ok(Ok(())) => {
                (self.rules, self.revision) = (rules, form.revision.clone());
                Ok(())
            }
            Ok(Err(Failed::Refused(why))) => Err(why),
            Ok(Err(Failed::Gone(why))) => {
                self.stop().await;
                Err(why)
            }
            Err(_) => {
                self.stop().await;
                Err(format!("no answer within {} s; it is started again", COMMAND.as_secs()))
            }
        }
    }

    fn start(&self) -> Result<Running, String> {
        // workerd is started by way of this program, so that it ends with node, however that ends.
        let wrapper = self.folder.join("workerd");
        write_script(&wrapper).map_err(|error| format!("{} cannot be written: {error}", wrapper.display()))?;
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new("node");
        command.arg(self.dir.join("live.mjs")).arg(self.address.to_string()).arg(&self.folder);
        command.env("REPOMIND_RUN", program).env("MINIFLARE_WORKERD_PATH", wrapper);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child::start(&mut command)?;
        let (commands, said) = (child.stdin.take(), child.stdout.take());
        let (Some(commands), Some(said)) = (commands, said) else { return Err("no pipes to node".to_owned()) };
        Ok(Running { child, commands, said: BufReader::new(said).lines() })
    }

    /// Sends a command and reads what came of it.
    async fn order(&mut self, mut command: Value) -> Result<(), Failed> {
        self.id += 1;
        command["id"] = self.id.into();
        let gone = |error: std::io::Error| Failed::Gone(format!("node does not listen: {error}"));
        let Some(running) = &mut self.running else { return Err(Failed::Gone("it does not run".to_owned())) };
        running.commands.write_all(format!("{command}\n").as_bytes()).await.map_err(gone)?;
        running.commands.flush().await.map_err(gone)?;
        loop {
            let line = running.said.next_line().await.map_err(gone)?;
            let Some(line) = line else { return Err(Failed::Gone("node ended".to_owned())) };
            // What miniflare prints besides is no answer.
            let Ok(said) = serde_json::from_str::<Value>(&line) else { continue };
            let failed = said["failed"].as_str().map(str::to_owned);
            match (said["done"].as_u64(), failed) {
                (Some(id), Some(why)) if id == self.id => return Err(Failed::Refused(why)),
                (Some(id), None) if id == self.id => return Ok(()),
                (None, Some(why)) => return Err(Failed::Gone(why)),
                _ => {}
            }
        }
    }
}

enum Failed {
    /// It runs on as it was.
    Refused(String),
    /// It does not run any more.
    Gone(String),
}

fn write_script(path: &Path) -> std::io::Result<()> {
    use std::io::Write;
    let beside = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o700).open(&beside)?;
    file.write_all(b"#!/bin/sh\nexec \"$REPOMIND_RUN\" edge child \"$REPOMIND_WORKERD\" \"$@\"\n")?;
    drop(file);
    std::fs::rename(&beside, path)
}
