//! In which country an address is: the bundled table, or a file that an operator names.
//!
//! The file is looked at once a second. One that was replaced is read and put in
//! force in one swap; one that cannot be read, or names no country, leaves the
//! table in force, and `/status` and the log say why.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use model::status::CountrySource;
use routing::CountryTable;
use tokio_util::sync::CancellationToken;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// City databases have 150 MiB; what is much larger is no such file.
const LARGEST: u64 = 1 << 30;

/// Countries by address, and where they come from.
pub struct Countries {
    /// The table in force.
    pub table: Arc<ArcSwap<CountryTable>>,
    source: ArcSwap<CountrySource>,
    file: Option<PathBuf>,
}

/// By what a file is told from the one before it.
type Stamp = (SystemTime, u64);

impl Countries {
    /// The file's table, or the bundled one where no file is named.
    ///
    /// # Errors
    /// The file cannot be read: a region that was told to use it does not start without.
    pub fn open(file: Option<&Path>) -> Result<Self, String> {
        let (table, source) = match file {
            Some(file) => load(file)?,
            None => {
                let table = CountryTable::bundled();
                let source = described("the bundled table".to_owned(), &table);
                tracing::info!("countries by the bundled table of registrations; --geoip names a file of your own");
                (table, source)
            }
        };
        let file = file.map(Path::to_owned);
        Ok(Self { table: Arc::new(ArcSwap::from_pointee(table)), source: ArcSwap::from_pointee(source), file })
    }

    /// Where the table comes from.
    pub fn source(&self) -> CountrySource {
        CountrySource::clone(&self.source.load())
    }

    /// Follows the file until `stop`.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let Some(file) = self.file.clone() else { return };
        let mut read = stamp(&file);
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            let now = stamp(&file);
            if now == read {
                continue;
            }
            read = now;
            let path = file.clone();
            // Reading takes a second of processor time for the largest files: not on the threads that serve sockets.
            let Ok(loaded) = tokio::task::spawn_blocking(move || load(&path)).await else { continue };
            self.take(loaded);
        }
    }

    fn take(&self, loaded: Result<(CountryTable, CountrySource), String>) {
        match loaded {
            Ok((table, source)) => {
                tracing::info!(source = source.from, v4 = source.v4_spans, v6 = source.v6_spans, "other countries");
                self.table.store(Arc::new(table));
                self.source.store(Arc::new(source));
            }
            Err(error) => {
                tracing::warn!(error, "the file of countries was replaced by one that is not good; the last one stays");
                self.source.store(Arc::new(CountrySource { error: Some(error), ..self.source() }));
            }
        }
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn described(from: String, table: &CountryTable) -> CountrySource {
    let (v4_spans, v6_spans) = table.spans();
    CountrySource { from, v4_spans, v6_spans, error: None }
}

fn load(file: &Path) -> Result<(CountryTable, CountrySource), String> {
    let shown = file.display();
    let size = std::fs::metadata(file).map_err(|error| format!("{shown} cannot be read: {error}"))?.len();
    if size > LARGEST {
        return Err(format!("{shown} has {size} bytes; at most {LARGEST} are read"));
    }
    let bytes = std::fs::read(file).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let table = CountryTable::read_mmdb(&bytes).map_err(|error| format!("{shown}: {error}"))?;
    let source = described(shown.to_string(), &table);
    Ok((table, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_never_takes_the_place_of_a_good_table() {
        let countries = Countries::open(None).unwrap();
        let (before, german) = (countries.table.load_full().spans(), "141.20.1.1".parse().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bad.mmdb");
        std::fs::write(&file, b"not a database").unwrap();
        countries.take(load(&file));
        assert_eq!(countries.table.load().spans(), before);
        assert_eq!(countries.table.load().country(german).map(|code| code.to_string()).as_deref(), Some("DE"));
        let source = countries.source();
        assert!(source.error.unwrap().contains("bad.mmdb: these bytes are not a MaxMind DB file"), "{}", source.from);
        assert!(Countries::open(Some(&file)).is_err(), "a region began with a file that names no country");
        assert!(Countries::open(Some(&folder.path().join("none"))).is_err());
    }
}
