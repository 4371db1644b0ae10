//! Names that were checked once and are never checked again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("a {what} must not be empty")]
    Empty {
        /// What kind of name it is, such as "region".
        what: &'static str,
    },
    /// The name is shorter than its kind allows.
    #[error("a {what} has more than {found} bytes")]
    TooShort {
        /// What kind of name it is.
        what: &'static str,
        /// The length found, in bytes.
        found: usize,
    },
    /// The name is longer than its kind allows.
    #[error("a {what} has at most {limit} bytes; this one has {found}")]
    TooLong {
        /// What kind of name it is.
        what: &'static str,
        /// The limit, in bytes.
        limit: usize,
        /// The length found, in bytes.
        found: usize,
    },
    /// A character that the kind does not allow.
    #[error("{found:?} cannot stand in a {what}; {allowed}")]
    Character {
        /// What kind of name it is.
        what: &'static str,
        /// The first character refused.
        found: char,
        /// What may be used instead.
        allowed: &'static str,
    },
}

fn check(
    what: &'static str,
    text: &str,
    limit: usize,
    allowed: &'static str,
    permits: impl Fn(usize, char) -> bool,
) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > limit {
        return Err(NameError::TooLong { what, limit, found: text.len() });
    }
    match text.char_indices().find(|&(at, c)| !permits(at, c)) {
        Some((_, found)) => Err(NameError::Character { what, found, allowed }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $limit:literal, $allowed:literal, $permits:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks `text` and keeps it. See [`NameError`] for what is refused.
            pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
                let text = text.as_ref();
                check($what, text, $limit, $allowed, $permits)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.into()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// The name of a region, such as `eu-west`: the stem of its YAML file.
    RegionId, "region name", 32, "use a-z, 0-9 and hyphens, beginning with a letter",
    |at, c| c.is_ascii_lowercase() || (at > 0 && (c.is_ascii_digit() || c == '-'))
);
name!(
    /// A group of keys that share a replication strategy, such as `answers`.
    Namespace, "namespace", 64, "use a-z, 0-9, hyphens and underscores, beginning with a letter",
    |at, c| c.is_ascii_lowercase() || (at > 0 && (c.is_ascii_digit() || c == '-' || c == '_'))
);
name!(
    /// The key of a record within its namespace; printable, without control characters.
    Key, "key", 1024, "control characters are refused",
    |_, c| !c.is_control()
);
name!(
    /// The name of the rule that decided something, as its policy file spells it.
    RuleId, "rule name", 128, "use letters, digits, and - _ . / : ? ! < > * + =",
    |_, c| c.is_ascii_alphanumeric() || "-_./:?!<>*+=".contains(c)
);
name!(
    /// The pseudonym of the person that a record is about. Never a name or an address.
    Subject, "subject pseudonym", 128, "use letters, digits, and - _ . :",
    |_, c| c.is_ascii_alphanumeric() || "-_.:".contains(c)
);
name!(
    /// A DNS name in lower case without the final dot, such as `api.repomind.io`.
    DnsName, "DNS name", 253, "use a-z, 0-9, hyphens, underscores and dots",
    |_, c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.*".contains(c)
);
name!(
    /// Something a region offers, such as `websockets`.
    Feature, "feature", 64, "use a-z, 0-9 and hyphens",
    |_, c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
);

/// A process that writes within a region. Today there is one a region, number 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u16);

/// Two capital letters of ISO 3166-1; `UK` and `EL` are taken as `GB` and `GR`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Country([u8; 2]);

impl Country {
    /// Reads a country code in either case, resolving the aliases that people type.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let what = "country code";
        check(what, text, 2, "use two letters of ISO 3166-1", |_, c| c.is_ascii_alphabetic())?;
        let upper = text.to_ascii_uppercase();
        match upper.as_bytes() {
            b"UK" => Ok(Self(*b"GB")),
            b"EL" => Ok(Self(*b"GR")),
            &[a, b] => Ok(Self([a, b])),
            _ => Err(NameError::TooShort { what, found: text.len() }),
        }
    }

    /// The code, two capital letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a country code is ASCII")
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Country {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl From<Country> for String {
    fn from(country: Country) -> String {
        country.as_str().to_owned()
    }
}

impl FromStr for Country {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_name_is_lower_case_and_says_what_is_wrong() {
        assert!(RegionId::new("eu-west").is_ok());
        let refused = RegionId::new("EU").unwrap_err().to_string();
        assert!(refused.contains("'E' cannot stand in a region name"), "{refused}");
        assert!(RegionId::new("").is_err());
        assert!(RegionId::new("1-region").is_err());
    }

    #[test]
    fn aliases_of_countries_are_resolved() {
        assert_eq!(Country::new("uk").unwrap().as_str(), "GB");
        assert_eq!(Country::new("EL").unwrap().as_str(), "GR");
        assert!(Country::new("DEU").is_err());
        assert!(Country::new("D").is_err() || Country::new("D").unwrap().as_str().len() == 2);
    }
}
