//! Secrets: read when they are needed, kept in memory alone, and taken out of everything that is printed or kept.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use config::cloudflare::{Cloudflare, SecretPlace};

use crate::deploy::BadConfiguration;

/// The variable with the API token.
const TOKEN: &str = "CLOUDFLARE_API_TOKEN";
/// What stands in the place of a secret.
const HIDDEN: &str = "[secret]";
/// Shorter texts are not looked for: they stand in words that are no secrets.
const SHORTEST: usize = 6;

/// The token and, where something is uploaded, the values of the worker's secrets.
#[derive(Clone, Default)]
pub struct Secrets {
    token: String,
    values: BTreeMap<String, String>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("names", &self.values.keys()).finish_non_exhaustive()
    }
}

impl Secrets {
    /// With the token alone: from `file`, or else from the environment.
    ///
    /// # Errors
    /// There is none, or it is no token.
    pub fn token_from(file: Option<&Path>) -> anyhow::Result<Self> {
        let token = match file {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("the token in {} cannot be read", path.display()))?,
            None => std::env::var(TOKEN).unwrap_or_default(),
        };
        let token = token.trim().to_owned();
        if token.is_empty() {
            bail!("there is no API token: put it into {TOKEN}, or into a file that `--token-file` names");
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("what was given as API token is none: it has spaces or other characters that no token has");
        }
        Ok(Self { token, values: BTreeMap::new() })
    }

    /// The API token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The values of the worker's secrets, by name.
    pub const fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// Reads the values of the worker's secrets from where the settings say.
    ///
    /// # Errors
    /// [`BadConfiguration`] with all that are missing, empty or too long.
    pub fn read(&mut self, settings: &Cloudflare, tree: &Path) -> anyhow::Result<()> {
        let mut findings = Vec::new();
        for (name, source) in &settings.secrets {
            let (place, found) = match &source.from {
                SecretPlace::Env(variable) => {
                    (format!("the variable {variable}"), std::env::var(variable).map_err(|error| error.to_string()))
                }
                SecretPlace::File(path) => {
                    let path = tree.join(path);
                    let read = std::fs::read_to_string(&path).map_err(|error| error.to_string());
                    (path.display().to_string(), read.map(|text| text.trim().to_owned()))
                }
            };
            let found = found.and_then(|value| match value.len() {
                0 => Err("it is empty".to_owned()),
                long if long > cloud::cloudflare::limits::SECRET => {
                    Err(format!("it has {long} bytes, and 5 KiB are the most"))
                }
                _ => Ok(value),
            });
            match found {
                Ok(value) => drop(self.values.insert(name.clone(), value)),
                Err(why) => findings.push(model::Finding::error(
                    config::cloudflare::FILE,
                    "",
                    (0, 0),
                    format!("the secret {name} cannot be read from {place}: {why}"),
                    "set it for this command, or name another place in the file",
                )),
            }
        }
        if findings.is_empty() { Ok(()) } else { Err(BadConfiguration(findings).into()) }
    }

    /// The text without any secret.
    pub fn hide(&self, text: &str) -> String {
        let all = self.values.values().chain([&self.token]).filter(|secret| secret.len() >= SHORTEST);
        all.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), HIDDEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_neither_shown_nor_kept() {
        let values = BTreeMap::from([("OPERATOR_TOKEN".to_owned(), "opensesame".to_owned())]);
        let secrets = Secrets { token: "token-4711".to_owned(), values };
        assert_eq!(secrets.hide("bad value \"opensesame\" of token-4711"), "bad value \"[secret]\" of [secret]");
        let shown = format!("{secrets:?}");
        assert!(
            !shown.contains("opensesame") && !shown.contains("4711") && shown.contains("OPERATOR_TOKEN"),
            "{shown}"
        );
    }
}
