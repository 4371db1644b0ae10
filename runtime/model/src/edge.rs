//! What may be cached, as `define-cache-rule` declares it.

use serde::{Deserialize, Serialize};

use crate::names::RuleId;

/// One cache rule. The first that matches a request decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRule {
    /// Its name.
    pub name: RuleId,
    /// Matches paths that begin so.
    pub path_prefix: String,
    /// How long the edge may keep an answer, in seconds; 0 is "never".
    pub edge_ttl_seconds: u32,
    /// How long a browser may, in seconds.
    pub browser_ttl_seconds: u32,
}

/// The cache rules of a generation, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgePlan {
    /// The rules.
    pub rules: Vec<CacheRule>,
}

impl EdgePlan {
    /// The rule for a path, if any matches.
    pub fn rule_for(&self, path: &str) -> Option<&CacheRule> {
        self.rules.iter().find(|rule| path.starts_with(&rule.path_prefix))
    }
}
