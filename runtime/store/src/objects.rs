//! A region's object store: whole objects by name, each durable before [`ObjectStore::put`] returns.
//!
//! [`FileObjects`] keeps them in a folder, as `services.storage: file://…` names it. A name has a few plain parts
//! between slashes, so that every store can take it as it is; what an object means is not known here.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// The largest object that is read into memory: a chunk with its tag, a part of a backup, or the list of one.
pub const OBJECT_BYTES: u64 = 64 * 1024 * 1024;

/// Why an object store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The disk or the service.
    #[error("the object store failed at {name}: {source}")]
    Io {
        /// The object.
        name: String,
        /// What was said.
        source: io::Error,
    },
    /// A name that no object may have.
    #[error("{name:?} is no name of an object")]
    Name {
        /// The name.
        name: String,
    },
    /// More than is read into memory.
    #[error("the object {name} has {bytes} bytes, and at most {OBJECT_BYTES} are read")]
    TooLarge {
        /// The object.
        name: String,
        /// Its size.
        bytes: u64,
    },
}

/// What a listing says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// How long ago it was written, by the store's clock.
    pub age: Duration,
}

/// Keeps objects by name.
pub trait ObjectStore: Send + Sync {
    /// Writes an object, replacing one of that name. It is durable when this returns.
    ///
    /// # Errors
    /// [`ObjectError`]; the object of before stays then.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), ObjectError>;

    /// Reads an object; none where there is none.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ObjectError>;

    /// What a listing would say of an object; none where there is none.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn about(&self, name: &str) -> Result<Option<Listed>, ObjectError>;

    /// Takes an object away, and says whether there was one.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn delete(&self, name: &str) -> Result<bool, ObjectError>;

    /// Makes an object of that content under another name as well; `false` where there is none.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn copy(&self, from: &str, to: &str) -> Result<bool, ObjectError>;

    /// All objects whose names begin with `folder` and a slash, in no order.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn list(&self, folder: &str) -> Result<Vec<Listed>, ObjectError>;
}

/// Objects in the files of a folder.
pub struct FileObjects {
    root: PathBuf,
    /// Names files that are not whole yet.
    next: AtomicU64,
}

/// Where files lie until they are whole.
const UNFINISHED: &str = "unfinished";

impl FileObjects {
    /// The objects in `root`, which is made if need be. What an earlier process left unfinished goes.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn open(root: &Path) -> Result<Self, ObjectError> {
        let objects = Self { root: root.to_owned(), next: AtomicU64::new(0) };
        let unfinished = root.join(UNFINISHED);
        let failed = |source| ObjectError::Io { name: unfinished.display().to_string(), source };
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => fs::create_dir_all(&unfinished).map_err(failed)?,
        }
        Ok(objects)
    }

    /// The same, to read only: nothing is made and nothing goes.
    pub fn read_only(root: &Path) -> Self {
        Self { root: root.to_owned(), next: AtomicU64::new(0) }
    }

    fn path(&self, name: &str) -> Result<PathBuf, ObjectError> {
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
        let part = |part: &str| (1..=128).contains(&part.len()) && !part.starts_with('.') && part.bytes().all(plain);
        if name.len() > 512 || !name.split('/').all(part) {
            return Err(ObjectError::Name { name: name.chars().take(64).collect() });
        }
        Ok(self.root.join(name))
    }

    fn unfinished(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.root.join(UNFINISHED).join(format!("{}-{number}", std::process::id()))
    }

    /// Puts what `make` leaves at a path in the place of an object, durably.
    fn place(&self, name: &str, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), ObjectError> {
        let (path, unfinished) = (self.path(name)?, self.unfinished());
        let placed = || {
            let folder = path.parent().unwrap_or(&self.root);
            self.make_folder(folder)?;
            make(&unfinished)?;
            fs::rename(&unfinished, &path)?;
            File::open(folder)?.sync_all()
        };
        placed().map_err(|source| {
            let _ = fs::remove_file(&unfinished);
            ObjectError::Io { name: name.to_owned(), source }
        })
    }

    /// Makes a folder and those above it up to the root, each durable in the one above.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        if let Some(above) = folder.parent().filter(|_| folder != self.root) {
            self.make_folder(above)?;
        }
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        folder.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
    }
}

fn named<T>(name: &str, outcome: io::Result<T>) -> Result<Option<T>, ObjectError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ObjectError::Io { name: name.to_owned(), source }),
    }
}

impl ObjectStore for FileObjects {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), ObjectError> {
        self.place(name, |path| {
            let mut file = File::create_new(path)?;
            file.write_all(bytes)?;
            file.sync_all()
        })
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        let Some(file) = named(name, File::open(self.path(name)?))? else { return Ok(None) };
        let mut read = Vec::new();
        let bytes = named(name, file.metadata())?.map_or(0, |about| about.len());
        if bytes > OBJECT_BYTES {
            return Err(ObjectError::TooLarge { name: name.to_owned(), bytes });
        }
        read.reserve_exact(bytes as usize);
        named(name, file.take(OBJECT_BYTES).read_to_end(&mut read))?;
        Ok(Some(read))
    }

    fn about(&self, name: &str) -> Result<Option<Listed>, ObjectError> {
        let about = named(name, fs::metadata(self.path(name)?))?.filter(fs::Metadata::is_file);
        Ok(about.map(|about| listed(name.to_owned(), &about)))
    }

    fn delete(&self, name: &str) -> Result<bool, ObjectError> {
        Ok(named(name, fs::remove_file(self.path(name)?))?.is_some())
    }

    fn copy(&self, from: &str, to: &str) -> Result<bool, ObjectError> {
        let source = self.path(from)?;
        if self.about(from)?.is_none() {
            return Ok(false);
        }
        // Objects are never changed in place, so two names may share one file.
        self.place(to, |path| match fs::hard_link(&source, path) {
            Ok(()) => Ok(()),
            Err(_) => {
                fs::copy(&source, path)?;
                File::open(path)?.sync_all()
            }
        })?;
        Ok(true)
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, ObjectError> {
        let mut found = Vec::new();
        walk(&self.path(folder)?, folder, &mut found)?;
        Ok(found)
    }
}

fn walk(path: &Path, name: &str, found: &mut Vec<Listed>) -> Result<(), ObjectError> {
    let Some(entries) = named(name, fs::read_dir(path))? else { return Ok(()) };
    for entry in entries {
        let Some(entry) = named(name, entry)? else { continue };
        let Ok(part) = entry.file_name().into_string() else { continue };
        let inner = format!("{name}/{part}");
        // It may have gone since the folder was read.
        let Some(about) = named(&inner, entry.metadata())? else { continue };
        if about.is_dir() {
            walk(&entry.path(), &inner, found)?;
        } else if about.is_file() {
            found.push(listed(inner, &about));
        }
    }
    Ok(())
}

fn listed(name: String, about: &fs::Metadata) -> Listed {
    let written = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let age = SystemTime::now().duration_since(written).unwrap_or_default();
    Listed { name, bytes: about.len(), age }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_there_after_another_opening_and_what_was_deleted_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("deep/objects");
        let objects = FileObjects::open(&root).unwrap();
        objects.put("a/b/one", b"first").unwrap();
        objects.put("a/b/one", b"second").unwrap();
        assert!(objects.copy("a/b/one", "c/two").unwrap() && !objects.copy("a/none", "c/three").unwrap());
        fs::write(root.join("unfinished/left"), "half").unwrap();
        let objects = FileObjects::open(&root).unwrap();
        assert_eq!(objects.get("a/b/one").unwrap().as_deref(), Some(&b"second"[..]));
        assert!(objects.list("unfinished").unwrap().is_empty());
        assert!(objects.delete("a/b/one").unwrap() && !objects.delete("a/b/one").unwrap());
        assert_eq!(objects.get("a/b/one").unwrap(), None);
        let left = objects.list("c").unwrap();
        assert_eq!(left.iter().map(|one| (one.name.as_str(), one.bytes)).collect::<Vec<_>>(), [("c/two", 6)]);
        assert_eq!(objects.about("c/two").unwrap().map(|about| about.bytes), Some(6));
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let objects = FileObjects::open(dir.path()).unwrap();
        for bad in ["", "/etc/passwd", "../x", "a/../x", "a//b", "a/", ".x", "a b", "a\0", &"x".repeat(129)] {
            assert!(matches!(objects.put(bad, b"x"), Err(ObjectError::Name { .. })), "{bad:?}");
            assert!(matches!(objects.get(bad), Err(ObjectError::Name { .. })), "{bad:?}");
        }
    }
}
