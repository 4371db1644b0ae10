//! Writes a tree to begin with: the regions, the policies and a Makefile, as
//! they were when this binary was built.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use include_dir::{Dir, include_dir};

use crate::args::NewArgs;

static FOLDERS: &[(&str, &Dir<'_>)] = &[
    ("region-config", &REGIONS),
    ("data-replication", &REPLICATION),
    ("traffic-routing", &ROUTING),
    ("compliance", &COMPLIANCE),
];
static REGIONS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../region-config");
static REPLICATION: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../data-replication");
static ROUTING: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../traffic-routing");
/// The policy alone: beside it lie the worker, its dependencies, and what is generated.
const EDGE: &str = include_str!("../../../edge-deployment/edge-cache.scm");
static COMPLIANCE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../compliance");

const MAKEFILE: &str = "\
# What operators do with this tree.

# The program, and further flags for the command behind a target: `make status FLAGS=--json`.
REPOMIND ?= {program}
FLAGS    ?=
# For load-test: requests a second, and for how long.
RATE     ?= 200
SECONDS  ?= 10

.PHONY: deploy-multi-region destroy status check test repl test-failover verify-replication audit-compliance load-test

deploy-multi-region:
\t@$(REPOMIND) deploy $(FLAGS)
destroy:
\t@$(REPOMIND) destroy $(FLAGS)
status:
\t@$(REPOMIND) status $(FLAGS)
check:
\t@$(REPOMIND) check $(FLAGS)
test:
\t@$(REPOMIND) test $(FLAGS)
repl:
\t@$(REPOMIND) repl $(FLAGS)
test-failover:
\t@$(REPOMIND) drill failover $(FLAGS)
verify-replication:
\t@$(REPOMIND) verify replication $(FLAGS)
audit-compliance:
\t@$(REPOMIND) audit $(FLAGS)
load-test:
\t@$(REPOMIND) load-test --rate $(RATE) --seconds $(SECONDS) $(FLAGS)
";

/// Region files with a word on every key. The policies come as they are, with names of ours replaced.
const REGION: &str = "\
# One region of your service. The file's name is the region's id: policies and commands call it {id}.
version: 1
region:
  # The provider's name for the place. A known one (us-east-1, eu-west-1 and 19 more) also gives the country and
  # the coordinates; for any other, state `country: DE` and `coordinates: {latitude: 50.1, longitude: 8.7}` below.
  name: {name}
  # Exactly one region is the primary: it watches these files and hands saved policies to the others.
  primary: {primary}
  services:
    # Your service behind this region's gateway. On one machine, `deploy` puts a sample service in its place.
    api: https://api-{id}.example.org
    # Where this region keeps backups and large objects.
    storage: file:///var/lib/repomind/{id}/objects
  capacity:
    min_instances: 2
    max_instances: 20
  # What this region offers. A WebSocket goes only to regions with websockets, /batch only to batch-processing;
  # any other word can be asked for with the header Repomind-Needs.
  features: {features}
  # Where it listens: gateway 8080, admin 9090, peers 7443, DNS 5300. On a machine of its own, its address there.
  addresses:
    host: {host}
";
/// Id, provider's name, whether it is the primary, features, address on one machine.
const STARTERS: &[[&str; 5]] = &[
    ["us-east", "us-east-1", "true", "[full-api, websockets, batch-processing]", "127.0.1.1"],
    ["eu-west", "eu-west-1", "false", "[full-api, websockets]", "127.0.2.1"],
    ["ap-southeast", "ap-southeast-1", "false", "[full-api, websockets]", "127.0.3.1"],
];

const README: &str = "\
# Regions and policies of this service

`make deploy-multi-region` starts all regions on this machine, with a sample service behind each gateway. Then edit a
`.scm` file and save it: every region follows within a second, or the file is refused with the line and the remedy.

- `region-config/*.yml`: one file a region. Put the address of your service under `services.api`.
- `region-config/available/`: ready files for more regions; copy one up to `region-config/` to add it.
- `region-config/region-mapping.scm`, `traffic-routing/*.scm`: which region serves whom.
- `data-replication/*.scm`: how data is copied and conflicts are settled.
- `compliance/*.scm`: where which data may lie. These are encoded rules, not legal advice.
- `edge-deployment/edge-cache.scm`: what may be cached.

`repomind-run check` reads everything and starts nothing. `repomind-run --help` lists the rest.
";

/// `repomind-run new DIR`. Refuses a directory that holds anything.
pub fn run(args: &NewArgs) -> anyhow::Result<ExitCode> {
    let files = write(&args.dir)?;
    println!("{files} files written to {}; try:", args.dir.display());
    println!("  cd {} && {} deploy", args.dir.display(), program());
    Ok(ExitCode::SUCCESS)
}

fn write(root: &Path) -> anyhow::Result<usize> {
    if root.exists()
        && std::fs::read_dir(root).with_context(|| format!("cannot read {}", root.display()))?.next().is_some()
    {
        bail!("{} is not empty; name a directory that is, or that does not exist yet", root.display());
    }
    let mut written = 0;
    for (name, folder) in FOLDERS {
        written += extract(folder, &root.join(name))?;
    }
    put(&root.join("edge-deployment/edge-cache.scm"), EDGE.replace("repomind.io", "example.org").as_bytes())?;
    written += 1;
    for [id, name, primary, features, host] in STARTERS {
        let words =
            [("{id}", id), ("{name}", name), ("{primary}", primary), ("{features}", features), ("{host}", host)];
        let text = words.iter().fold(REGION.to_owned(), |text, (word, value)| text.replace(word, value));
        put(&root.join("region-config").join(format!("{id}.yml")), text.as_bytes())?;
    }
    let makefile = MAKEFILE.replace("{program}", &program());
    for (name, text) in [("README.md", README), ("Makefile", &makefile), (".gitignore", ".repomind/\n")] {
        put(&root.join(name), text.as_bytes())?;
        written += 1;
    }
    Ok(written)
}

/// How this program is called: by its name where the shell finds it under that, else by its path.
fn program() -> String {
    let name = "repomind-run";
    let Ok(ours) = std::env::current_exe() else { return name.to_owned() };
    let same =
        |folder: PathBuf| folder.join(name).canonicalize().is_ok_and(|found| Some(found) == ours.canonicalize().ok());
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(same);
    let path = ours.display().to_string();
    // What make or a shell would take apart is left to whoever reads the file.
    if found || path.contains(|c: char| c.is_whitespace() || "$#'\"\\:=".contains(c)) { name.to_owned() } else { path }
}

fn extract(folder: &Dir<'_>, root: &Path) -> anyhow::Result<usize> {
    let mut written = 0;
    for file in folder.files() {
        let text = file.contents_utf8().with_context(|| format!("{} is not text", file.path().display()))?;
        put(&root.join(file.path()), text.replace("repomind.io", "example.org").as_bytes())?;
        written += 1;
    }
    for inner in folder.dirs() {
        written += extract(inner, root)?;
    }
    Ok(written)
}

fn put(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starter_tree_has_every_policy_and_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        write(&root).unwrap();
        for file in model::bundle::POLICY_FILES {
            assert!(root.join(file).is_file(), "{file}");
        }
        assert!(write(&root).is_err());
        let makefile = std::fs::read_to_string(root.join("Makefile")).unwrap();
        let recipes: Vec<&str> = makefile.lines().filter(|line| line.starts_with('\t')).collect();
        assert!(
            recipes.iter().all(|line| line.starts_with("\t@$(REPOMIND) ") && line.ends_with(" $(FLAGS)")),
            "{makefile}"
        );
        let named = makefile.lines().find_map(|line| line.strip_prefix("REPOMIND ?= ")).unwrap();
        assert!(recipes.len() > 9 && Path::new(named).exists(), "{makefile}");
        let regions = config::load(&root).expect("the starter's regions are good");
        let ids: Vec<_> = STARTERS.iter().map(|[id, ..]| *id).collect();
        assert!(ids.iter().all(|id| regions.by_id.contains_key(*id)) && regions.by_id.len() == ids.len());
    }
}
