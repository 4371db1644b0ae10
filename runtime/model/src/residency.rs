//! Where a record may be, as a type.
//!
//! Policies rule on *cases* (class × law × basis × purpose). A
//! [`ResidencyPlan`] holds the rulings; [`ResidencyPlan::permit`] combines those
//! that apply to a record's labels, the strictest winning, into
//! [`PermittedRegions`]. That type has no other maker and cannot be
//! deserialised, so code that takes it cannot be reached by a record that
//! the plan has not passed.

mod arrival;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{Country, RegionId, RuleId};
use crate::record::{Basis, DataClass, Labels, Purpose};
use crate::units::UnixMillis;

/// Which body of law applies. Countries that share one (the EEA) share a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Law {
    /// No country's law was claimed.
    None,
    /// GDPR: the 27 member states, IS, LI, NO, and the territories where it applies.
    Eea,
    /// A country that the default rules know by name.
    Of(Country),
    /// Any other country.
    Other,
}

/// EU and EEA countries, and the territories that count as EU (status: unverified for the territories).
pub const EEA: &[&str] = &[
    "AT", "BE", "BG", "HR", "CY", "CZ", "DK", "EE", "FI", "FR", "DE", "GR", "HU", "IE", "IT", "LV", "LT", "LU", "MT",
    "NL", "PL", "PT", "RO", "SK", "SI", "ES", "SE", "IS", "LI", "NO", "RE", "GP", "MQ", "GF", "YT", "MF", "AX",
];

/// Countries outside the EEA whose law the rules distinguish.
pub const NAMED_LAWS: &[&str] =
    &["GB", "CH", "US", "CN", "RU", "IN", "BR", "SG", "AU", "CA", "JP", "KR", "SA", "VN", "ID"];

impl Law {
    /// The law of a country.
    pub fn of(country: Country) -> Self {
        if EEA.contains(&country.as_str()) {
            Self::Eea
        } else if NAMED_LAWS.contains(&country.as_str()) {
            Self::Of(country)
        } else {
            Self::Other
        }
    }

    /// Every law that the rules distinguish.
    pub fn all() -> Vec<Self> {
        let named = NAMED_LAWS.iter().map(|code| Self::Of(Country::new(code).expect("a known code")));
        [Self::None, Self::Eea].into_iter().chain(named).chain([Self::Other]).collect()
    }

    /// The name in policies and reports: `none`, `eea`, `other`, or a country code.
    pub fn name(&self) -> &str {
        match self {
            Self::None => "none",
            Self::Eea => "eea",
            Self::Of(country) => country.as_str(),
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is asked of the residency policies: one point of the finite space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResidencyCase {
    /// The kind of data.
    pub class: DataClass,
    /// The law that applies.
    pub law: Law,
    /// The legal basis.
    pub basis: Basis,
    /// The purpose.
    pub purpose: Purpose,
}

/// A duty that comes with an `allow`, such as `encrypt-at-rest`.
pub type Obligation = RuleId;

/// What a policy ruled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Yes, with duties, while it is valid.
    Allow {
        /// The rule that decided.
        rule: RuleId,
        /// What must be done.
        obligations: BTreeSet<Obligation>,
        /// Valid from here on.
        valid_from: UnixMillis,
        /// And until here, exclusive; [`UnixMillis::MAX`] for no end.
        valid_until: UnixMillis,
    },
    /// No.
    Deny {
        /// The rule that decided.
        rule: RuleId,
    },
}

impl Verdict {
    /// The rule that decided.
    pub fn rule(&self) -> &RuleId {
        match self {
            Self::Allow { rule, .. } | Self::Deny { rule } => rule,
        }
    }

    /// Whether it allows at `now`.
    pub fn allows(&self, now: UnixMillis) -> bool {
        match self {
            Self::Allow { valid_from, valid_until, .. } => *valid_from <= now && now < *valid_until,
            Self::Deny { .. } => false,
        }
    }
}

/// All that was ruled on one case. What is absent is denied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseRuling {
    /// May this region hold it?
    pub hold: BTreeMap<RegionId, Verdict>,
    /// May it be copied from the first region to the second?
    pub transfer: BTreeMap<(RegionId, RegionId), Verdict>,
}

/// What a region takes in, by `define-region-policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionPolicy {
    /// The region.
    pub region: RegionId,
    /// The law where its machines stand.
    pub jurisdiction: Country,
    /// The classes that it accepts.
    pub accepts: BTreeSet<DataClass>,
    /// Duties that it adds to everything it holds.
    pub requires: BTreeSet<Obligation>,
}

/// Names a residency partition: regions and duties, hashed. Equal inputs give equal scopes in every region.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ScopeId([u8; 16]);

impl ScopeId {
    pub(crate) fn of(regions: &BTreeSet<RegionId>, obligations: &BTreeSet<Obligation>) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("repomind scope v1");
        for (tag, name) in regions
            .iter()
            .map(|region| (b'r', region.as_str()))
            .chain(obligations.iter().map(|duty| (b'o', duty.as_str())))
        {
            hash.update(&[tag]);
            hash.update(&(name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        Self(id)
    }

    /// The sixteen bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The regions that a plan has permitted for one record. Only [`ResidencyPlan::permit`] makes it.
///
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermittedRegions {
    regions: BTreeSet<RegionId>,
    obligations: BTreeSet<Obligation>,
    scope: ScopeId,
    rules: BTreeSet<RuleId>,
}

impl PermittedRegions {
    /// Whether `region` may hold the record.
    pub fn contains(&self, region: &RegionId) -> bool {
        self.regions.contains(region)
    }
    /// The regions that may hold it; never empty.
    pub fn regions(&self) -> &BTreeSet<RegionId> {
        &self.regions
    }
    /// The duties that come with it.
    pub fn obligations(&self) -> &BTreeSet<Obligation> {
        &self.obligations
    }
    /// The residency partition.
    pub fn scope(&self) -> ScopeId {
        self.scope
    }
    /// The rules that decided.
    pub fn rules(&self) -> &BTreeSet<RuleId> {
        &self.rules
    }
}

/// A record may not be, or not go, where it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{region} may not hold this record, by rule {rule}")]
pub struct Barred {
    /// The region asked about.
    pub region: RegionId,
    /// The rule that barred it.
    pub rule: RuleId,
    /// Regions that may hold it; empty where none may.
    pub elsewhere: BTreeSet<RegionId>,
}

/// The rulings of one generation, ready to be looked up without asking Scheme.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResidencyPlan {
    cases: BTreeMap<ResidencyCase, std::sync::Arc<CaseRuling>>,
    regions: BTreeMap<RegionId, RegionPolicy>,
    digest: PlanDigest,
}

/// A hash over all rulings of a plan: equal in every region that follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlanDigest(pub [u8; 16]);

fn digest(
    cases: &BTreeMap<ResidencyCase, std::sync::Arc<CaseRuling>>,
    regions: &BTreeMap<RegionId, RegionPolicy>,
) -> PlanDigest {
    let bytes = |value: &dyn Fn() -> Result<Vec<u8>, postcard::Error>| value().expect("plain data always encodes");
    let mut hash = blake3::Hasher::new_derive_key("repomind residency plan v1");
    // Cases share their rulings: each is read once.
    let mut known = std::collections::HashMap::new();
    for (case, ruling) in cases {
        let ruled = known
            .entry(std::sync::Arc::as_ptr(ruling))
            .or_insert_with(|| *blake3::hash(&bytes(&|| postcard::to_stdvec(&**ruling))).as_bytes());
        hash.update(&bytes(&|| postcard::to_stdvec(case)));
        hash.update(ruled);
    }
    hash.update(&bytes(&|| postcard::to_stdvec(regions)));
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    PlanDigest(digest)
}

fn fixed_rule(name: &str) -> RuleId {
    RuleId::new(name).expect("a fixed rule name")
}

/// The answer of the cases that apply to a record, before the origin is considered.
struct Holding {
    regions: BTreeSet<RegionId>,
    obligations: BTreeSet<Obligation>,
    rules: BTreeSet<RuleId>,
    /// Why each other region is left out.
    barred: BTreeMap<RegionId, RuleId>,
}

impl ResidencyPlan {
    /// A plan of what was ruled. Cases and regions that are absent are denied.
    pub fn new(
        cases: BTreeMap<ResidencyCase, std::sync::Arc<CaseRuling>>,
        regions: BTreeMap<RegionId, RegionPolicy>,
    ) -> Self {
        let digest = digest(&cases, &regions);
        Self { cases, regions, digest }
    }

    /// Names its rulings.
    pub fn digest(&self) -> PlanDigest {
        self.digest
    }

    /// The rulings, for reports.
    pub fn cases(&self) -> &BTreeMap<ResidencyCase, std::sync::Arc<CaseRuling>> {
        &self.cases
    }

    /// What each region takes in.
    pub fn region_policies(&self) -> &BTreeMap<RegionId, RegionPolicy> {
        &self.regions
    }

    /// The cases that apply to these labels.
    pub fn cases_of(labels: &Labels) -> Vec<ResidencyCase> {
        let laws: BTreeSet<Law> = if labels.jurisdictions.is_empty() {
            BTreeSet::from([Law::None])
        } else {
            labels.jurisdictions.iter().map(|&country| Law::of(country)).collect()
        };
        let (basis, purpose) = (labels.basis, labels.purpose);
        labels
            .classes
            .iter()
            .flat_map(|&class| laws.iter().map(move |&law| ResidencyCase { class, law, basis, purpose }))
            .collect()
    }

    /// What was ruled on each of these cases: looked up once, and not for every region.
    fn rulings(&self, cases: &[ResidencyCase]) -> Vec<Option<&CaseRuling>> {
        cases.iter().map(|case| self.cases.get(case).map(AsRef::as_ref)).collect()
    }

    fn holding(&self, labels: &Labels, rulings: &[Option<&CaseRuling>], now: UnixMillis) -> Holding {
        let mut holding = Holding {
            regions: BTreeSet::new(),
            obligations: BTreeSet::new(),
            rules: BTreeSet::new(),
            barred: BTreeMap::new(),
        };
        for (region, policy) in &self.regions {
            match self.rule_on(region, policy, labels, rulings, now) {
                Ok((obligations, rules)) => {
                    holding.regions.insert(region.clone());
                    holding.obligations.extend(obligations);
                    holding.rules.extend(rules);
                }
                Err(rule) => {
                    holding.barred.insert(region.clone(), rule);
                }
            }
        }
        holding
    }

    fn rule_on(
        &self,
        region: &RegionId,
        policy: &RegionPolicy,
        labels: &Labels,
        rulings: &[Option<&CaseRuling>],
        now: UnixMillis,
    ) -> Result<(BTreeSet<Obligation>, BTreeSet<RuleId>), RuleId> {
        if rulings.is_empty() {
            return Err(fixed_rule("no-class-stated"));
        }
        if !labels.classes.is_subset(&policy.accepts) {
            return Err(fixed_rule("region-does-not-accept-class"));
        }
        let (mut duties, mut rules) = (policy.requires.clone(), BTreeSet::new());
        for ruling in rulings {
            match ruling.and_then(|ruling| ruling.hold.get(region)) {
                Some(Verdict::Allow { rule, obligations, valid_from, valid_until })
                    if *valid_from <= now && now < *valid_until =>
                {
                    duties.extend(obligations.iter().cloned());
                    rules.insert(rule.clone());
                }
                Some(Verdict::Allow { .. }) => return Err(fixed_rule("rule-not-valid-now")),
                Some(Verdict::Deny { rule }) => return Err(rule.clone()),
                None => return Err(fixed_rule("no-ruling")),
            }
        }
        Ok((duties, rules))
    }

    fn may_travel(
        &self,
        rulings: &[Option<&CaseRuling>],
        from: &RegionId,
        to: &RegionId,
        now: UnixMillis,
    ) -> Result<(), RuleId> {
        if from == to {
            return Ok(());
        }
        let pair = (from.clone(), to.clone());
        for ruling in rulings {
            match ruling.and_then(|ruling| ruling.transfer.get(&pair)) {
                Some(verdict) if verdict.allows(now) => {}
                Some(Verdict::Deny { rule }) => return Err(rule.clone()),
                Some(Verdict::Allow { .. }) => return Err(fixed_rule("rule-not-valid-now")),
                None => return Err(fixed_rule("no-ruling")),
            }
        }
        Ok(())
    }

    /// The regions that may hold a record with these labels when `origin` takes it in.
    ///
    /// # Errors
    /// [`Barred`], naming the rule, when `origin` itself may not hold it.
    pub fn permit(&self, labels: &Labels, origin: &RegionId, now: UnixMillis) -> Result<PermittedRegions, Barred> {
        let rulings = self.rulings(&Self::cases_of(labels));
        let holding = self.holding(labels, &rulings, now);
        if !holding.regions.contains(origin) {
            let rule = holding.barred.get(origin).cloned().unwrap_or_else(|| fixed_rule("unknown-region"));
            return Err(Barred { region: origin.clone(), rule, elsewhere: holding.regions });
        }
        let regions: BTreeSet<RegionId> =
            holding.regions.into_iter().filter(|to| self.may_travel(&rulings, origin, to, now).is_ok()).collect();
        let scope = ScopeId::of(&regions, &holding.obligations);
        Ok(PermittedRegions { regions, obligations: holding.obligations, scope, rules: holding.rules })
    }

    /// Whether `region` may hold a record with these labels now, wherever it was written.
    ///
    /// # Errors
    /// [`Barred`], naming the rule that stops it and the regions that may.
    pub fn permit_in(&self, labels: &Labels, region: &RegionId, now: UnixMillis) -> Result<(), Barred> {
        let rulings = self.rulings(&Self::cases_of(labels));
        let ruled =
            self.regions.get(region).map(|policy| self.rule_on(region, policy, labels, &rulings, now).map(|_| ()));
        let rule = match ruled {
            Some(Ok(())) => return Ok(()),
            Some(Err(rule)) => rule,
            None => fixed_rule("unknown-region"),
        };
        Err(Barred { region: region.clone(), rule, elsewhere: self.holding(labels, &rulings, now).regions })
    }

    /// Whether a request or record with these labels may pass from `from` to `to`,
    /// where `to` may hold it. Used to forward without storing.
    ///
    /// # Errors
    /// [`Barred`], naming the rule that stops it.
    pub fn permit_transfer(
        &self,
        labels: &Labels,
        from: &RegionId,
        to: &RegionId,
        now: UnixMillis,
    ) -> Result<(), Barred> {
        let rulings = self.rulings(&Self::cases_of(labels));
        let holding = self.holding(labels, &rulings, now);
        let barred = |rule| Barred { region: to.clone(), rule, elsewhere: holding.regions.clone() };
        if !holding.regions.contains(to) {
            let rule = holding.barred.get(to).cloned().unwrap_or_else(|| fixed_rule("unknown-region"));
            return Err(barred(rule));
        }
        self.may_travel(&rulings, from, to, now).map_err(barred)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(id: &str) -> RegionId {
        RegionId::new(id).unwrap()
    }

    fn allow(rule: &str, until: u64) -> Verdict {
        Verdict::Allow {
            rule: fixed_rule(rule),
            obligations: BTreeSet::new(),
            valid_from: UnixMillis(0),
            valid_until: UnixMillis(until),
        }
    }

    /// Two regions; German personal data may be in `eu-west` until 100, public data anywhere.
    fn plan() -> ResidencyPlan {
        let mut cases = BTreeMap::new();
        for case in [Law::None, Law::Eea].into_iter().flat_map(|law| {
            [DataClass::Public, DataClass::Personal].map(|class| ResidencyCase {
                class,
                law,
                basis: Basis::Unstated,
                purpose: Purpose::Service,
            })
        }) {
            let mut ruling = CaseRuling::default();
            ruling.hold.insert(region("eu-west"), allow("held-in-the-eea", 100));
            let abroad = match case.class {
                DataClass::Public => allow("public-anywhere", 100),
                _ => Verdict::Deny { rule: fixed_rule("stays-in-the-eea") },
            };
            ruling.hold.insert(region("us-east"), abroad);
            for (from, to) in [("eu-west", "us-east"), ("us-east", "eu-west")] {
                ruling.transfer.insert((region(from), region(to)), allow("may-travel", 100));
            }
            cases.insert(case, std::sync::Arc::new(ruling));
        }
        let policy = |id: &str| RegionPolicy {
            region: region(id),
            jurisdiction: Country::new("IE").unwrap(),
            accepts: DataClass::ALL.iter().copied().collect(),
            requires: BTreeSet::new(),
        };
        let regions = ["eu-west", "us-east"].map(|id| (region(id), policy(id)));
        ResidencyPlan::new(cases, BTreeMap::from(regions))
    }

    fn labels(classes: &[DataClass]) -> Labels {
        let mut labels = Labels::of_class(classes[0], UnixMillis(0));
        labels.classes.extend(classes);
        labels.jurisdictions.insert(Country::new("DE").unwrap());
        labels
    }

    #[test]
    fn the_strictest_class_decides() {
        let both = labels(&[DataClass::Public, DataClass::Personal]);
        let permitted = plan().permit(&both, &region("eu-west"), UnixMillis(50)).unwrap();
        assert_eq!(permitted.regions(), &BTreeSet::from([region("eu-west")]));
        let barred = plan().permit(&both, &region("us-east"), UnixMillis(50)).unwrap_err();
        assert_eq!(barred.rule.as_str(), "stays-in-the-eea");
        assert_eq!(barred.elsewhere, BTreeSet::from([region("eu-west")]));
    }

    #[test]
    fn what_was_not_ruled_or_has_expired_is_denied() {
        let public = labels(&[DataClass::Public]);
        assert!(plan().permit(&public, &region("us-east"), UnixMillis(50)).is_ok());
        assert!(plan().permit(&public, &region("us-east"), UnixMillis(100)).is_err());
        assert!(plan().permit(&labels(&[DataClass::Health]), &region("eu-west"), UnixMillis(50)).is_err());
        assert!(plan().permit(&public, &region("ap-southeast"), UnixMillis(50)).is_err());
        let mut none = public;
        none.classes.clear();
        assert!(plan().permit(&none, &region("eu-west"), UnixMillis(50)).is_err());
        assert!(ResidencyPlan::default().permit(&none, &region("eu-west"), UnixMillis(50)).is_err());
    }

    #[test]
    fn the_scope_follows_regions_and_duties_alone() {
        let (plan, at) = (plan(), UnixMillis(50));
        let scope = |class, origin| plan.permit(&labels(&[class]), &region(origin), at).unwrap().scope();
        assert_eq!(scope(DataClass::Public, "eu-west"), scope(DataClass::Public, "us-east"));
        assert_ne!(scope(DataClass::Public, "eu-west"), scope(DataClass::Personal, "eu-west"));
    }
}
