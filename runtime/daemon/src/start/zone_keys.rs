//! The keys that sign DNS zones, as they lie in `STATE/pki`.
//!
//! They are looked at once a second, so that a roll needs no restart. Files that
//! are not good leave the keys in force: a zone that the parent names a key of
//! must not be without signatures.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use net::DnsAnswers;
use net::pki::dns;
use tokio_util::sync::CancellationToken;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Signs by the keys in `dir`.
///
/// # Errors
/// A key that cannot be read: the region does not start, for it would answer without signatures.
pub fn take(dns: &DnsAnswers, dir: &std::path::Path) -> Result<(), net::pki::PkiError> {
    let keys = dns::load(dir)?;
    for key in &keys {
        tracing::info!(zone = %key.zone, tag = key.tag(), "a key for a DNS zone");
    }
    dns.keys_changed(keys);
    Ok(())
}

/// Follows the files in `dir` until `stop`.
pub async fn follow(answers: Arc<DnsAnswers>, dir: PathBuf, stop: CancellationToken) {
    let mut read = dns::stamp(&dir);
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let now = dns::stamp(&dir);
        if now == read {
            continue;
        }
        read = now;
        let taken = take(&answers, &dir);
        metrics::gauge!("repomind_dns_keys_refused").set(if taken.is_err() { 1.0 } else { 0.0 });
        if let Err(error) = taken {
            tracing::error!(%error, "the keys of DNS zones were changed and are not good; the last ones stay in force");
        }
    }
}
