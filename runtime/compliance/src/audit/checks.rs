//! The checks by name, and those that this audit does not perform.

use std::fmt;

use serde::{Serialize, Serializer};

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// To be mended.
    Medium,
    /// To be mended soon.
    High,
    /// A breach.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        })
    }
}

/// A check that this audit performs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// A record lies in a region that may not hold it.
    Res01,
    /// A record that a law wants at home has no copy there.
    Res02,
    /// A region is not the one that its certificate attests.
    Res03,
    /// A record came to a region from one that no rule lets it come from.
    Res04,
    /// A record is where it is by an adequacy decision that does not hold.
    Res05,
    /// A region's conflict log holds what the region may not hold.
    Res07,
    /// A label is missing or unknown.
    Lbl01,
    /// A value or key labelled as being about nobody holds personal data.
    Lbl02,
    /// A stored row is damaged, or an encrypted value is not bound to its labels.
    Lbl03,
    /// A region has a key to what it may not hold.
    Key01,
    /// A value lies in plain text that must not.
    Key02,
    /// A region key was not replaced in time.
    Key03,
    /// An erased person can be decrypted.
    Era01,
    /// An erasure was not carried out in time.
    Era02,
    /// A value about an erased person is there.
    Era03,
    /// A record is kept though its time is over.
    Ret01,
    /// A record under a hold is gone.
    Ret02,
    /// An export lacks a region.
    Dsr02,
    /// Regions follow different policies.
    Pol01,
    /// A policy bundle is not signed by the deployment.
    Pol02,
    /// A decision of the policies comes out otherwise when it is asked again.
    Pol04,
    /// A write that cannot be decided on was taken.
    Pol05,
    /// A ledger was changed, truncated or forked.
    Aud01,
    /// A checkpoint has too few witnesses.
    Aud02,
    /// Stored data has no leaf in the ledger.
    Aud03,
    /// An answer about a person may be kept by a cache that others share.
    Cac01,
    /// A log or a metric holds personal data.
    Log01,
    /// The record of processing activities lacks one that was observed.
    Rop01,
    /// A legal fact is past its review.
    Fct01,
}

impl Check {
    /// Every check, in order.
    pub const ALL: [Self; 29] = [
        Self::Res01,
        Self::Res02,
        Self::Res03,
        Self::Res04,
        Self::Res05,
        Self::Res07,
        Self::Lbl01,
        Self::Lbl02,
        Self::Lbl03,
        Self::Key01,
        Self::Key02,
        Self::Key03,
        Self::Era01,
        Self::Era02,
        Self::Era03,
        Self::Ret01,
        Self::Ret02,
        Self::Dsr02,
        Self::Pol01,
        Self::Pol02,
        Self::Pol04,
        Self::Pol05,
        Self::Aud01,
        Self::Aud02,
        Self::Aud03,
        Self::Cac01,
        Self::Log01,
        Self::Rop01,
        Self::Fct01,
    ];

    /// Its name, such as `RES-01`.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Res01 => "RES-01",
            Self::Res02 => "RES-02",
            Self::Res03 => "RES-03",
            Self::Res04 => "RES-04",
            Self::Res05 => "RES-05",
            Self::Res07 => "RES-07",
            Self::Lbl01 => "LBL-01",
            Self::Lbl02 => "LBL-02",
            Self::Lbl03 => "LBL-03",
            Self::Key01 => "KEY-01",
            Self::Key02 => "KEY-02",
            Self::Key03 => "KEY-03",
            Self::Era01 => "ERA-01",
            Self::Era02 => "ERA-02",
            Self::Era03 => "ERA-03",
            Self::Ret01 => "RET-01",
            Self::Ret02 => "RET-02",
            Self::Dsr02 => "DSR-02",
            Self::Pol01 => "POL-01",
            Self::Pol02 => "POL-02",
            Self::Pol04 => "POL-04",
            Self::Pol05 => "POL-05",
            Self::Aud01 => "AUD-01",
            Self::Aud02 => "AUD-02",
            Self::Aud03 => "AUD-03",
            Self::Cac01 => "CAC-01",
            Self::Log01 => "LOG-01",
            Self::Rop01 => "ROP-01",
            Self::Fct01 => "FCT-01",
        }
    }

    /// What it makes sure of, in one sentence.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Res01 => "every record lies in a region that may hold it",
            Self::Res02 => "what a law wants at home has a copy there",
            Self::Res03 => "every region is the one that its certificate attests",
            Self::Res04 => "every value came from a region from which a rule lets it come",
            Self::Res05 => "no personal data is abroad by an adequacy decision that is expired or suspended",
            Self::Res07 => {
                "no conflict log holds what its region may not hold, or in plain text what must be encrypted"
            }
            Self::Lbl01 => "every record has labels, and known ones",
            Self::Lbl02 => {
                "no e-mail address, IBAN, card, telephone or identity number stands in data labelled as about nobody"
            }
            Self::Lbl03 => "every stored row is whole, and every encrypted value opens with the labels that it has",
            Self::Key01 => "no region has a key to what it may not hold",
            Self::Key02 => "no value about a person, or that policies want encrypted, lies in plain text",
            Self::Key03 => "every region key was replaced within a year",
            Self::Era01 => "no region has a key of a person whose erasure it has acknowledged",
            Self::Era02 => "every erasure is acknowledged by every region within a month",
            Self::Era03 => "no value about a person is left whose erasure was acknowledged",
            Self::Ret01 => "nothing is kept past its time, unless a hold keeps it",
            Self::Ret02 => "every record under a legal hold is still there",
            Self::Dsr02 => "every export has what every region holds, within a month",
            Self::Pol01 => "all regions follow the same policies",
            Self::Pol02 => "every region's policies are signed",
            Self::Pol04 => "every decision that was written down comes out the same when it is asked again",
            Self::Pol05 => "what has no token, or labels that nobody knows, is refused",
            Self::Aud01 => "no ledger was changed, truncated or forked",
            Self::Aud02 => "every checkpoint is cosigned by other regions",
            Self::Cac01 => "no answer about a person may be kept by a cache that others share",
            Self::Log01 => "no log and no metric names a person, or a record about one, or holds an address or account",
            Self::Rop01 => "the record of processing activities has every one that was observed",
            Self::Fct01 => "no fact about the law of a region's country is past its review",
            Self::Aud03 => "every stored row is in the ledger, as last committed",
        }
    }

    /// How grave its findings are.
    pub const fn severity(self) -> Severity {
        match self {
            Self::Key03 | Self::Rop01 | Self::Fct01 => Severity::Medium,
            Self::Lbl02 | Self::Ret01 | Self::Era02 | Self::Era03 | Self::Dsr02 | Self::Pol01 | Self::Aud02 => {
                Severity::High
            }
            _ => Severity::Critical,
        }
    }

    /// What it counts.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Res01 | Self::Lbl01 => "labelled values",
            Self::Lbl02 => "values labelled public or operational",
            Self::Lbl03 | Self::Aud03 => "rows",
            Self::Key01 => "keys",
            Self::Key02 => "values",
            Self::Key03 => "region keys",
            Self::Era01 => "acknowledged erasures",
            Self::Era02 | Self::Dsr02 => "orders",
            Self::Era03 => "values about erased persons",
            Self::Ret01 => "values whose time is stated",
            Self::Ret02 => "held records",
            Self::Res07 => "entries of conflict logs",
            Self::Pol04 => "decisions",
            Self::Res02 => "values that a law wants at home",
            Self::Res04 => "values from another region",
            Self::Res05 => "values abroad",
            Self::Rop01 => "activities",
            Self::Res03 | Self::Pol01 | Self::Pol02 | Self::Fct01 => "regions",
            Self::Pol05 => "writes tried",
            Self::Cac01 => "answers about persons",
            Self::Log01 => "lines",
            Self::Aud01 => "leaves",
            Self::Aud02 => "checkpoints",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

/// What nobody should think was checked: checks of the catalogue that this audit does not perform.
pub const NOT_PERFORMED: &[(&str, &str)] = &[
    ("RES-06", "threshold counters are kept"),
    ("RES-08", "routing and failover decisions were lawful"),
    ("ERA-04", "a restore does not bring erased data back"),
    ("PUR-01", "purposes and consents match"),
    ("DSR-01", "requests of data subjects are answered in time"),
    ("BRC-01", "the clock of breach notices is kept"),
    ("BAK-01", "backups are in the right place under the right key"),
    ("POL-03", "the policies pass their own tests"),
];
