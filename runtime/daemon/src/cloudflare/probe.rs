//! Asks a version whether it is well, before everybody gets it.
//!
//! Every round asks the version who it is, with a header that leads to it whatever its share is, and then one of the
//! paths that users ask for. So many good rounds in a row are wanted within so many seconds. A deployment reaches all of
//! the network within seconds, not at once: an answer of another version only means that it is not there yet.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cloud::cloudflare::bundle::OPERATOR;
use config::cloudflare::Canary;
use http::{HeaderName, HeaderValue, Method, Uri, header};
use serde_json::Value;

use super::secrets::Secrets;
use crate::https::{Https, NoAnswer, check};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The pause after a round that was not good.
const PAUSE: Duration = Duration::from_millis(250);
/// Leads a request to one version of a worker, where that takes part in the deployment that serves.
const OVERRIDE: HeaderName = HeaderName::from_static("cloudflare-workers-version-overrides");

/// What is asked for.
pub struct Probe<'a> {
    /// How requests are made.
    pub https: &'a Https,
    /// Where the worker is reached, without a final slash.
    pub url: &'a str,
    /// The worker's name.
    pub worker: &'a str,
    /// The version's identifier.
    pub version: &'a str,
    /// The revision of its policy.
    pub revision: &'a str,
    /// How often and how long.
    pub canary: &'a Canary,
    /// Has the operator's token.
    pub secrets: &'a Secrets,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// So many good rounds in a row.
    Well(u32),
    /// Not well, and what was seen last.
    Unwell(String),
}

enum Round {
    Good,
    NotYet(String),
    Bad(String),
}

impl Probe<'_> {
    /// Asks until it is clear.
    pub async fn run(&self) -> Verdict {
        let begun = Instant::now();
        let limit = Duration::from_secs(self.canary.seconds.into());
        let (mut good, mut bad, mut last) = (0_u32, 0_u32, "nothing was asked".to_owned());
        for at in 0.. {
            match self.round(at).await {
                Round::Good => good += 1,
                Round::NotYet(what) => (good, last) = (0, what),
                Round::Bad(what) => {
                    (good, last) = (0, what);
                    bad += 1;
                }
            }
            if good >= self.canary.probes {
                return Verdict::Well(good);
            }
            if bad > self.canary.probes {
                return Verdict::Unwell(format!("{bad} answers were not good; the last: {last}"));
            }
            if begun.elapsed() > limit {
                return Verdict::Unwell(format!("not well within {} s; the last answer: {last}", limit.as_secs()));
            }
            if good == 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
        unreachable!("rounds end by a verdict")
    }

    async fn round(&self, at: usize) -> Round {
        let token = self.secrets.values().get(OPERATOR).map_or("", String::as_str);
        let operator = [(header::AUTHORIZATION, format!("Bearer {token}"))];
        match self.ask("/.repomind/revision", &operator).await {
            Err(why) => return Round::Bad(why),
            Ok((200, body)) => {
                let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
                if answer["version"] != self.version {
                    return Round::NotYet(format!("another version answers: {}", answer["version"]));
                }
                if answer["revision"] != self.revision {
                    return Round::Bad(format!("the version has policy revision {}", answer["revision"]));
                }
            }
            Ok((status, _)) => return Round::Bad(format!("/.repomind/revision answered {status}")),
        }
        let Some(path) = self.canary.paths.get(at % self.canary.paths.len().max(1)) else { return Round::Good };
        match self.ask(path, &[]).await {
            Err(why) => Round::Bad(why),
            Ok((status, _)) if status >= 500 => Round::Bad(format!("{path} answered {status}")),
            Ok(_) => Round::Good,
        }
    }

    async fn ask(&self, path: &str, more: &[(HeaderName, String)]) -> Result<(u16, Bytes), String> {
        let url: Uri = format!("{}{path}", self.url).parse().map_err(|error| format!("{}{path}: {error}", self.url))?;
        check(&url).map_err(|error| error.to_string())?;
        // A dictionary of RFC 8941, section 3.2.
        let mut headers = vec![(OVERRIDE, format!("{}=\"{}\"", self.worker, self.version))];
        headers.extend(more.iter().cloned());
        let mut sent = Vec::new();
        for (name, text) in headers {
            let mut value = HeaderValue::try_from(text).map_err(|_| format!("{name} cannot be sent"))?;
            value.set_sensitive(name == header::AUTHORIZATION);
            sent.push((name, value));
        }
        match self.https.send(Method::GET, &url, &sent, Bytes::new(), ANSWER).await {
            Ok(reply) => Ok((reply.status.as_u16(), reply.body)),
            Err(NoAnswer::Unsent(why) | NoAnswer::Unclear(why)) => Err(format!("{path}: {why}")),
        }
    }
}
