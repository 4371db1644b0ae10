//! Files of the key directory: private, whole or absent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::PkiError;

pub(super) fn file_error(path: &Path) -> impl Fn(io::Error) -> PkiError + '_ {
    move |source| PkiError::File { path: path.to_owned(), source }
}

/// What to do about a file that is not there.
fn remedy(path: &Path) -> &'static str {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("ca.key" | "token.key") => "it stays where the authority was made: do this there",
        _ => "make the keys of this region where the authority was made, and copy its files here",
    }
}

/// The text of a file.
///
/// # Errors
/// [`PkiError::Missing`] or [`PkiError::File`], naming it.
pub(crate) fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => PkiError::Missing { path: path.to_owned(), remedy: remedy(path) },
        _ => PkiError::File { path: path.to_owned(), source },
    })
}

/// Makes the directory if need be, readable by its owner alone, and holds it
/// against other processes until the lock is dropped.
pub(super) fn lock(dir: &Path) -> Result<File, PkiError> {
    fs::create_dir_all(dir).map_err(file_error(dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(file_error(dir))?;
    let path = dir.join(".lock");
    let lock = File::create(&path).map_err(file_error(&path))?;
    lock.lock().map_err(file_error(&path))?;
    Ok(lock)
}

pub(super) fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    stage(path, text, 0o600)?;
    publish(path)
}

pub(super) fn write_public(path: &Path, text: &str) -> Result<(), PkiError> {
    stage(path, text, 0o644)?;
    publish(path)
}

/// The name with `ending` behind it.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// Writes the text beside `path`, durably, under the ending `.new`.
pub(super) fn stage(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let new = beside(path, ".new");
    let _ = fs::remove_file(&new);
    let attempt = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    attempt().map_err(file_error(&new))
}

/// Puts what was staged in its place, so that a crash never leaves half a key.
pub(super) fn publish(path: &Path) -> Result<(), PkiError> {
    let attempt = || {
        fs::rename(beside(path, ".new"), path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    attempt().map_err(file_error(path))
}
