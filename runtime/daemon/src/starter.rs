//! Writes a tree to begin with: the regions, the policies and a Makefile, as
//! they were when this binary was built.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use include_dir::{Dir, include_dir};

use crate::cli::NewArgs;

static FOLDERS: &[(&str, &Dir<'_>)] = &[
    ("region-config", &REGIONS),
    ("data-replication", &REPLICATION),
    ("traffic-routing", &ROUTING),
    ("edge-deployment", &EDGE),
    ("compliance", &COMPLIANCE),
];
static REGIONS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../region-config");
static REPLICATION: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../data-replication");
static ROUTING: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../traffic-routing");
static EDGE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../edge-deployment");
static COMPLIANCE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../compliance");

const MAKEFILE: &str = "\
# What operators do with this tree. Override the program with REPOMIND=/path/to/repomind-run.
REPOMIND ?= repomind-run
RATE     ?= 200
SECONDS  ?= 10

.PHONY: deploy-multi-region destroy status test-failover verify-replication audit-compliance load-test

deploy-multi-region:
\t$(REPOMIND) deploy
destroy:
\t$(REPOMIND) destroy
status:
\t$(REPOMIND) status
test-failover:
\t$(REPOMIND) drill failover
verify-replication:
\t$(REPOMIND) verify replication
audit-compliance:
\t$(REPOMIND) audit
load-test:
\t$(REPOMIND) load-test --rate $(RATE) --seconds $(SECONDS)
";

/// `repomind-run new DIR`. Refuses a directory that holds anything.
pub fn run(args: &NewArgs) -> anyhow::Result<ExitCode> {
    let files = write(&args.dir)?;
    println!("{files} files written to {}; try:", args.dir.display());
    println!("  cd {} && repomind-run deploy", args.dir.display());
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
    for (name, text) in [("Makefile", MAKEFILE), (".gitignore", ".repomind/\n")] {
        put(&root.join(name), text.as_bytes())?;
        written += 1;
    }
    Ok(written)
}

fn extract(folder: &Dir<'_>, root: &Path) -> anyhow::Result<usize> {
    let mut written = 0;
    for file in folder.files() {
        put(&root.join(file.path()), file.contents())?;
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
    }
}
