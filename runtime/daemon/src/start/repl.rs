//! The socket that `repomind-run repl` talks to.
//!
//! One JSON line asks, one answers: `{"source": "(regions)"}` gives
//! `{"value": "…"}` or `{"errors": ["…"]}`. Forms run in a scratch child on a
//! snapshot of the facts, so that nothing typed here can stop the region. The
//! socket file has mode 0600: whoever may open it runs as the daemon's user.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::running::RunningRegion;

/// Longest line taken, in bytes.
const LONGEST: u64 = 256 * 1024;
/// Sessions at once; each may hold a scratch child.
const SESSIONS: usize = 4;
/// A session that says nothing for this long is closed.
const IDLE: Duration = Duration::from_secs(3600);

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ask {
    /// Definitions of earlier inputs that the forms may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<String>,
    /// Scheme forms.
    pub source: String,
    /// Definitions that the forms may use: a file of the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<String>,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// What was printed, then the value of the last form.
    Value(String),
    /// What was wrong, drawn with line and caret.
    Errors(Vec<String>),
}

/// Listens on `path` until `stop`, replacing a socket that a dead daemon left behind.
pub async fn serve(region: Arc<RunningRegion>, path: &Path, stop: CancellationToken) -> std::io::Result<()> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let sessions = Arc::new(Semaphore::new(SESSIONS));
    loop {
        let (stream, _) = tokio::select! {
            () = stop.cancelled() => return std::fs::remove_file(path),
            accepted = listener.accept() => accepted?,
        };
        let Ok(place) = sessions.clone().try_acquire_owned() else { continue };
        let (region, stop) = (region.clone(), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = stop.cancelled() => {}
                ended = converse(&region, stream) => if let Err(error) = ended {
                    tracing::debug!(%error, "a REPL session ended");
                }
            }
        });
    }
}

async fn converse(region: &RunningRegion, stream: UnixStream) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    loop {
        let mut line = String::new();
        let taken = tokio::time::timeout(IDLE, (&mut lines).take(LONGEST).read_line(&mut line)).await??;
        if taken == 0 {
            return Ok(());
        }
        let reply = match serde_json::from_str::<Ask>(&line) {
            Ok(ask) => {
                let mut beside = vec![(super::snapshot::FILE, super::snapshot::module(region, &ask.source))];
                beside.extend(ask.loaded.map(|text| (super::snapshot::LOADED, super::snapshot::loaded(&text))));
                let evaluation = region.generations.evaluate((ask.earlier, ask.source), beside, region.facts());
                let Some(result) = unless_gone(evaluation, &mut lines).await else { return Ok(()) };
                match result {
                    Ok(value) => Reply::Value(value),
                    Err(findings) => Reply::Errors(findings.iter().map(|finding| finding.render(false)).collect()),
                }
            }
            Err(error) => {
                Reply::Errors(vec![format!("one JSON object a line, as {{\"source\": \"(all-regions)\"}}: {error}")])
            }
        };
        let mut answer = serde_json::to_vec(&reply)?;
        answer.push(b'\n');
        write.write_all(&answer).await?;
    }
}

/// What `work` comes to; nothing, and `work` is dropped, once whoever asked has hung up.
async fn unless_gone<T>(work: impl Future<Output = T>, lines: &mut BufReader<OwnedReadHalf>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        result = &mut work => Some(result),
        more = lines.fill_buf() => match more {
            // The next question can wait.
            Ok(bytes) if !bytes.is_empty() => Some(work.await),
            _ => None,
        }
    }
}
