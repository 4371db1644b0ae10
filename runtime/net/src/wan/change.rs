//! How operators change a link: `PUT /wan`.

use model::RegionId;
use model::status::Cut;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest delay and the largest jitter, in milliseconds: a minute.
pub const LONGEST_MS: f64 = 60_000.0;

/// How a link to one peer behaves. The default passes everything at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkShape {
    /// Added to every byte, one way, in milliseconds, from 0 to [`LONGEST_MS`].
    pub delay_ms: f64,
    /// By how much the delay varies to either side, uniformly, in milliseconds, from 0
    /// to [`LONGEST_MS`]. No byte arrives before it was sent: a delay below the jitter
    /// is often 0.
    pub jitter_ms: f64,
    /// The share of pieces that are lost and sent again, from 0 to 1.
    pub loss: f64,
    /// In which direction nothing passes.
    pub cut: Cut,
}

/// What `PUT /wan` asks for: `{"peer": R, "delay_ms"?, "jitter_ms"?, "loss"?, "cut"?}`.
#[derive(Clone, Debug, PartialEq)]
pub struct WanChange {
    /// The peer whose link changes.
    pub peer: RegionId,
    /// Its new one-way delay; like the others, the old one stays where it is absent.
    pub delay_ms: Option<f64>,
    /// By how much the delay varies.
    pub jitter_ms: Option<f64>,
    /// The share of pieces that are lost.
    pub loss: Option<f64>,
    /// In which direction nothing passes; in JSON a word, or `true` for `both` and `false` for `none`.
    pub cut: Option<Cut>,
}

/// Why a link was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WanError {
    /// The process was started without emulation.
    #[error("this process emulates no distances; start it with `--wan realistic`")]
    Off,
    /// The body is not a JSON object.
    #[error("the body is no JSON object: {0}")]
    Body(String),
    /// A member that nothing is known about.
    #[error("`{0}` is no property of a link; use `peer`, `delay_ms`, `jitter_ms`, `loss`, `cut`")]
    Unknown(String),
    /// No peer, or none that can be a region.
    #[error("`peer` must name a region: {0}")]
    Peer(String),
    /// The delay is out of bounds.
    #[error("`delay_ms` must be a number from 0 to {LONGEST_MS}")]
    Delay,
    /// The jitter is out of bounds.
    #[error("`jitter_ms` must be a number from 0 to {LONGEST_MS}")]
    Jitter,
    /// The loss is no share.
    #[error("`loss` must be a share from 0 to 1, such as 0.02")]
    Loss,
    /// No such direction.
    #[error("`cut` must be \"none\", \"out\", \"in\" or \"both\", or true or false")]
    Cut,
}

impl WanError {
    /// The member of the body that is wrong.
    pub fn field(&self) -> &str {
        match self {
            Self::Off => "wan",
            Self::Body(_) => "body",
            Self::Unknown(field) => field,
            Self::Peer(_) => "peer",
            Self::Delay => "delay_ms",
            Self::Jitter => "jitter_ms",
            Self::Loss => "loss",
            Self::Cut => "cut",
        }
    }
}

impl WanChange {
    /// A change that changes nothing about the link to `peer`.
    pub fn to(peer: RegionId) -> Self {
        Self { peer, delay_ms: None, jitter_ms: None, loss: None, cut: None }
    }

    /// Reads the body of `PUT /wan`. Members that are `null` change nothing.
    ///
    /// # Errors
    /// [`WanError`], for the first member that is wrong.
    pub fn from_json(body: &[u8]) -> Result<Self, WanError> {
        let members: Map<String, Value> =
            serde_json::from_slice(body).map_err(|error| WanError::Body(error.to_string()))?;
        let peer = members.get("peer").cloned().ok_or_else(|| WanError::Peer("it is missing".into()))?;
        let peer = serde_json::from_value(peer).map_err(|error| WanError::Peer(error.to_string()))?;
        let mut change = Self::to(peer);
        for (name, value) in members.into_iter().filter(|(_, value)| !value.is_null()) {
            match name.as_str() {
                "peer" => {}
                "delay_ms" => change.delay_ms = Some(value.as_f64().ok_or(WanError::Delay)?),
                "jitter_ms" => change.jitter_ms = Some(value.as_f64().ok_or(WanError::Jitter)?),
                "loss" => change.loss = Some(value.as_f64().ok_or(WanError::Loss)?),
                "cut" => change.cut = Some(serde_json::from_value(value).map_err(|_| WanError::Cut)?),
                _ => return Err(WanError::Unknown(name)),
            }
        }
        change.check()?;
        Ok(change)
    }

    /// Whether every value is within its bounds.
    ///
    /// # Errors
    /// [`WanError`], for the first that is not.
    pub fn check(&self) -> Result<(), WanError> {
        let within = |value: Option<f64>, most: f64| value.is_none_or(|value| (0.0..=most).contains(&value));
        match () {
            () if !within(self.delay_ms, LONGEST_MS) => Err(WanError::Delay),
            () if !within(self.jitter_ms, LONGEST_MS) => Err(WanError::Jitter),
            () if !within(self.loss, 1.0) => Err(WanError::Loss),
            () => Ok(()),
        }
    }

    /// The shape after this change.
    pub(super) fn after(&self, shape: LinkShape) -> LinkShape {
        LinkShape {
            delay_ms: self.delay_ms.unwrap_or(shape.delay_ms),
            jitter_ms: self.jitter_ms.unwrap_or(shape.jitter_ms),
            loss: self.loss.unwrap_or(shape.loss),
            cut: self.cut.unwrap_or(shape.cut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_value_is_refused_by_the_name_of_its_field() {
        let refused = |members: &str| {
            let body = format!(r#"{{"peer": "eu-west", {members}}}"#);
            WanChange::from_json(body.as_bytes()).unwrap_err().field().to_owned()
        };
        for (members, field) in [
            (r#""delay_ms": -1"#, "delay_ms"),
            (r#""delay_ms": 60001"#, "delay_ms"),
            (r#""delay_ms": "35""#, "delay_ms"),
            (r#""jitter_ms": -0.1"#, "jitter_ms"),
            (r#""jitter_ms": []"#, "jitter_ms"),
            (r#""loss": 1.01"#, "loss"),
            (r#""loss": true"#, "loss"),
            (r#""cut": "sideways""#, "cut"),
            (r#""cut": 1"#, "cut"),
            (r#""los": 0.1"#, "los"),
        ] {
            assert_eq!(refused(members), field, "{members}");
        }
        assert_eq!(WanChange::from_json(b"[]").unwrap_err().field(), "body");
        assert_eq!(WanChange::from_json(b"{}").unwrap_err().field(), "peer");
        assert_eq!(WanChange::from_json(br#"{"peer": "EU WEST"}"#).unwrap_err().field(), "peer");
    }

    #[test]
    fn a_cut_is_read_as_a_word_or_as_a_truth_value() {
        let cut = |text: &str| {
            let body = format!(r#"{{"peer": "eu-west", "cut": {text}}}"#);
            WanChange::from_json(body.as_bytes()).unwrap().cut
        };
        assert_eq!(cut("true"), Some(Cut::Both));
        assert_eq!(cut("false"), Some(Cut::None));
        assert_eq!(cut(r#""out""#), Some(Cut::Out));
        assert_eq!(cut(r#""in""#), Some(Cut::In));
        assert_eq!(cut("null"), None);
    }
}
