//! Why a decision came out as it did, in a form that says the same to a person and to a program.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::names::{DnsName, RegionId, RuleId};
use crate::record::Labels;
use crate::routing::AnswerShape;
use crate::units::UnixMillis;

/// What is to be explained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum About {
    /// Where a client is sent.
    Route {
        /// Its address.
        client: IpAddr,
        /// The name that it asks for over DNS, if that matters.
        name: Option<DnsName>,
    },
    /// Where a record may be.
    Residency {
        /// What is known of it.
        labels: Box<Labels>,
        /// The region that takes it in, if that matters: then also where it may travel from there.
        region: Option<RegionId>,
    },
}

/// One step of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The policy file; empty for what the runtime does itself.
    pub file: String,
    /// The line in it, from 1; 0 where there is none.
    pub line: u32,
    /// What was asked or looked at.
    pub asked: String,
    /// What came of it.
    pub gave: String,
}

/// A region that could have been chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The region.
    pub region: RegionId,
    /// Whether it is: the region that serves, or one that may hold the record.
    pub taken: bool,
    /// Why, or why not.
    pub why: String,
    /// The rule that decided, where one did.
    pub rule: Option<RuleId>,
    /// Where that rule stands; empty and 0 where it is the runtime's own.
    pub file: String,
    /// See `file`.
    pub line: u32,
}

/// A decision, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The region that decided.
    pub by: RegionId,
    /// When, by its clock.
    pub at: UnixMillis,
    /// The policy generation in force there.
    pub generation: u64,
    /// The hash of its files.
    pub policy_hash: String,
    /// The hash of the facts that policies were told: with the files, it gives the same decision again.
    pub facts: String,
    /// What was asked, with personal data reduced to classes and prefixes.
    pub about: String,
    /// In order.
    pub steps: Vec<Step>,
    /// Every region of the deployment.
    pub candidates: Vec<Candidate>,
    /// What was decided.
    pub outcome: String,
}

/// The answers that led to a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTrace {
    /// `region-candidates`.
    pub candidates: Vec<RegionId>,
    /// The line of its definition; 0 where that is not known.
    pub candidates_line: u32,
    /// `rank-regions`.
    pub ranked: Vec<RegionId>,
    /// The line of its definition.
    pub ranked_line: u32,
    /// `dns-answer`, where a name was asked about.
    pub shape: Option<AnswerShape>,
    /// The line of its definition.
    pub shape_line: u32,
}
