//! What travels inside the binary: the Scheme library.

use std::collections::BTreeMap;

use include_dir::{Dir, include_dir};

static LIBRARY: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../scm");

/// The modules that policies may require, `repomind/regions.scm` to its text.
pub fn library() -> BTreeMap<String, String> {
    let mut modules = BTreeMap::new();
    collect(&LIBRARY, &mut modules);
    modules
}

fn collect(folder: &Dir<'_>, modules: &mut BTreeMap<String, String>) {
    for file in folder.files() {
        if file.path().extension().is_some_and(|ending| ending == "scm")
            && let (Some(path), Some(text)) = (file.path().to_str(), file.contents_utf8())
        {
            modules.insert(path.to_owned(), text.to_owned());
        }
    }
    for inner in folder.dirs() {
        collect(inner, modules);
    }
}
