//! A Varnish on this machine: a program is compiled beside the one in use and takes its place in one step.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use edge::backend::varnish::{Options, program, symbol};
use edge::{Backend, Form};
use model::RegionId;
use model::status::EdgeOrder;
use tokio::process::{Child, Command};

use super::child;

/// Memory for answers.
const MEMORY: &str = "malloc,64m";
/// What the program needs, and a log of a size for a machine that does other things.
const PARAMETERS: [&str; 4] = ["max_retries=8", "http_gzip_support=off", "http_range_support=off", "vsl_space=16M"];
/// Compiles a program in half the time of the usual flags: a save is to arrive soon, and the program calls functions of
/// Varnish, which are compiled as they are.
const COMPILER: &str = "cc_command=exec gcc -std=gnu99 -O1 -fpic -shared -w -o %o %s";
/// How long it may take to come up, with the first program compiled.
const START: Duration = Duration::from_secs(30);
/// How long a command may take: most of it is the C compiler.
const COMMAND: Duration = Duration::from_secs(30);
/// How long it may take to end.
const END: Duration = Duration::from_secs(5);

/// A varnishd, started with the first order.
pub struct Varnish {
    /// Where it listens.
    pub address: SocketAddr,
    region: RegionId,
    folder: PathBuf,
    child: Option<Child>,
    /// The program in use, and the one before, to which an operator can go back.
    current: Option<Loaded>,
    before: Option<String>,
    serial: u32,
}

struct Loaded {
    name: String,
    text: String,
    revisions: BTreeSet<String>,
    down: Vec<RegionId>,
}

impl Varnish {
    /// One that is not started yet.
    ///
    /// # Errors
    /// Where varnishd is not there.
    pub fn new(address: SocketAddr, region: RegionId, folder: &Path) -> anyhow::Result<Self> {
        let mut asked = std::process::Command::new("varnishd");
        let there = asked.arg("-V").stderr(Stdio::null()).stdout(Stdio::null()).status();
        anyhow::ensure!(
            there.is_ok_and(|status| status.success()),
            "varnishd is not installed: on Debian, `apt-get install varnish varnish-modules`"
        );
        let folder = folder.join("varnish");
        std::fs::create_dir_all(&folder)?;
        Ok(Self { address, region, folder, child: None, current: None, before: None, serial: 0 })
    }

    /// Whether it runs with some program.
    pub const fn is_up(&self) -> bool {
        self.child.is_some() && self.current.is_some()
    }

    /// Returns when it has ended.
    pub async fn ended(&mut self) {
        match &mut self.child {
            Some(child) => {
                let _ = child.wait().await;
                (self.child, self.current, self.before) = (None, None, None);
            }
            None => std::future::pending().await,
        }
    }

    /// Ends it.
    pub async fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child::end(&mut child, END).await;
        }
        self.current = None;
    }

    /// Takes an order: a program that does not compile leaves the one in use.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn take(&mut self, order: &EdgeOrder, form: &Form) -> Result<(), String> {
        let complaints = edge::complaints(Backend::Varnish, form);
        if let Some(complaint) = complaints.first() {
            return Err(format!("{} {}: {}", complaint.form, complaint.name, complaint.message));
        }
        let operators = super::super::OPERATORS.map(str::to_owned).to_vec();
        let text = program(form, &Options { region: self.region.clone(), operators, observe: false });
        if self.child.is_none() {
            self.start(&text, order, form).await?;
        }
        if self.current.as_ref().is_none_or(|current| current.text != text) {
            self.switch(text, order, form).await?;
        }
        self.mask(&order.down).await
    }

    async fn start(&mut self, text: &str, order: &EdgeOrder, form: &Form) -> Result<(), String> {
        let name = self.name(order.generation);
        let file = self.write(&name, text)?;
        let mut command = Command::new("varnishd");
        command.arg("-F").args(["-j", "none", "-i", "repomind-edge", "-s", MEMORY]);
        command.arg("-a").arg(self.address.to_string()).arg("-n").arg(self.folder.join("work"));
        command.arg("-f").arg(&file);
        for parameter in PARAMETERS.into_iter().chain([COMPILER]) {
            command.args(["-p", parameter]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = child::start(&mut command)?;
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = child.try_wait().ok().flatten();
            if let Some(status) = ended {
                return Err(format!("varnishd ended at once ({status}); its own words stand above in the log"));
            }
            if began.elapsed() > START {
                child::end(&mut child, END).await;
                return Err(format!("varnishd does not listen on {} after {} s", self.address, START.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.child = Some(child);
        // The program given at the start is called so.
        self.current = Some(Loaded {
            name: "boot".to_owned(),
            text: text.to_owned(),
            revisions: revisions(form),
            down: Vec::new(),
        });
        Ok(())
    }

    /// Compiles a program, takes it into use, and gives up what rules that are gone have stored.
    async fn switch(&mut self, text: String, order: &EdgeOrder, form: &Form) -> Result<(), String> {
        let name = self.name(order.generation);
        let file = self.write(&name, &text)?;
        self.admin(&["vcl.load", &name, &file.to_string_lossy()]).await?;
        for region in &order.down {
            self.admin(&["backend.set_health", &format!("{name}.{}", symbol(region)), "sick"]).await?;
        }
        self.admin(&["vcl.use", &name]).await?;
        let loaded = Loaded { name, text, revisions: revisions(form), down: order.down.clone() };
        let Some(old) = self.current.replace(loaded) else { return Ok(()) };
        let now = &self.current.as_ref().expect("it was just put there").revisions;
        let gone: Vec<String> = old.revisions.difference(now).cloned().collect();
        // They are not given any more since the program changed; here they are taken out of memory, too.
        for revision in gone {
            self.admin(&["ban", &format!("obj.http.xkey ~ revision:{revision}")]).await?;
        }
        if let Some(older) = self.before.replace(old.name) {
            // One that is still in use by a request goes later, by itself.
            let _ = self.admin(&["vcl.discard", &older]).await;
            let _ = std::fs::remove_file(self.folder.join(format!("{older}.vcl")));
        }
        Ok(())
    }

    /// Has regions passed over that are down, without another program.
    async fn mask(&mut self, down: &[RegionId]) -> Result<(), String> {
        let Some(current) = &self.current else { return Ok(()) };
        let (name, was) = (current.name.clone(), current.down.clone());
        let changed = |a: &[RegionId], b: &[RegionId]| -> Vec<RegionId> {
            a.iter().filter(|region| !b.contains(region)).cloned().collect()
        };
        for (regions, health) in [(changed(down, &was), "sick"), (changed(&was, down), "auto")] {
            for region in regions {
                self.admin(&["backend.set_health", &format!("{name}.{}", symbol(&region)), health]).await?;
            }
        }
        if let Some(current) = &mut self.current {
            current.down = down.to_vec();
        }
        Ok(())
    }

    fn name(&mut self, generation: u64) -> String {
        self.serial += 1;
        format!("generation-{generation}-{}", self.serial)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let file = self.folder.join(format!("{name}.vcl"));
        std::fs::write(&file, text).map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
        Ok(file)
    }

    /// Runs one command of varnishadm.
    async fn admin(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new("varnishadm");
        command.args(["-t", &COMMAND.as_secs().to_string(), "-n"]).arg(self.folder.join("work")).args(words);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(COMMAND, command.output()).await;
        let output = output.map_err(|_| format!("varnishadm {}: no answer", words.join(" ")))?;
        let output = output.map_err(|error| format!("varnishadm cannot be run: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(said) } else { Err(format!("{}: {}", words.join(" "), said.trim())) }
    }
}

/// What answers are stored under by the rules of a form.
fn revisions(form: &Form) -> BTreeSet<String> {
    form.rules.iter().map(|rule| rule.revision.clone()).collect()
}
