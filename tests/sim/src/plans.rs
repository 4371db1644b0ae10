//! The plan of every run: public records anywhere, source code in `eu-west` and `ap-southeast`, personal data at home.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use data::plans::Plans;
use data::{LabelClaims, Resolver};
use model::question::Resolution;
use model::record::{Address, Basis, DataClass, Purpose, Sibling};
use model::replication::ConflictResolution;
use model::residency::{CaseRuling, Law, RegionPolicy, ResidencyCase, ResidencyPlan, Verdict};
use model::{Country, Namespace, RegionId, RuleId, UnixMillis};

/// The regions.
pub const REGIONS: [&str; 3] = ["eu-west", "us-east", "ap-southeast"];
/// The namespaces: one in which the last write wins, one that keeps siblings.
pub const NAMESPACES: [&str; 2] = ["notes", "carts"];

/// How many records of the second a region takes, in runs that have a quota.
pub const QUOTA: u64 = 3;

/// The namespace whose conflicts a resolver settles, in runs that have it.
pub const RESOLVED: &str = "lists";
/// The name of that resolver: it puts all values behind each other, in their own order.
pub const RESOLVER: &str = "all-of-them";

/// Who a record is about, and so where it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody: anywhere.
    Public,
    /// Customers' code: not in `us-east`.
    Code,
    /// Somebody in Germany: `eu-west`.
    German,
    /// Somebody in the United States: `us-east`.
    American,
}

impl Kind {
    /// All of them; public ones thrice, since those conflict everywhere.
    pub const ALL: [Self; 6] = [Self::Public, Self::Public, Self::Public, Self::Code, Self::German, Self::American];

    /// Whether a region may hold it.
    pub fn may_be_in(self, region: usize) -> bool {
        match self {
            Self::Public => true,
            Self::Code => region != 1,
            Self::German => region == 0,
            Self::American => region == 1,
        }
    }

    /// What a client states.
    pub fn labels(self) -> LabelClaims {
        let (class, country) = match self {
            Self::Public => (DataClass::Public, None),
            Self::Code => (DataClass::SourceCode, None),
            Self::German => (DataClass::Personal, Some("DE")),
            Self::American => (DataClass::Personal, Some("US")),
        };
        LabelClaims {
            classes: Some(BTreeSet::from([class])),
            jurisdictions: country.map(|country| BTreeSet::from([Country::new(country).expect("a country")])),
            ..LabelClaims::default()
        }
    }
}

/// The id of a region by its number.
pub fn region(number: usize) -> RegionId {
    RegionId::new(REGIONS[number]).expect("a fixed name")
}

fn verdict(allowed: bool) -> Verdict {
    let rule = |name: &str| RuleId::new(name).expect("a fixed name");
    if !allowed {
        return Verdict::Deny { rule: rule("stays-home") };
    }
    Verdict::Allow {
        rule: rule("may-be-here"),
        obligations: BTreeSet::new(),
        valid_from: UnixMillis(0),
        valid_until: UnixMillis::MAX,
    }
}

fn may_hold(class: DataClass, law: Law, region: usize) -> bool {
    let american = law == Law::of(Country::new("US").expect("a country"));
    let kind = match class {
        DataClass::SourceCode => Kind::Code,
        DataClass::Personal if american => Kind::American,
        DataClass::Personal => Kind::German,
        _ => Kind::Public,
    };
    kind.may_be_in(region)
}

/// The plans that every region follows.
pub fn plans() -> Plans {
    let mut cases = BTreeMap::new();
    let classes = [DataClass::Public, DataClass::SourceCode, DataClass::Personal, DataClass::Operational];
    for (class, law) in classes.into_iter().flat_map(|class| Law::all().into_iter().map(move |law| (class, law))) {
        let mut ruling = CaseRuling::default();
        for from in 0..REGIONS.len() {
            ruling.hold.insert(region(from), verdict(may_hold(class, law, from)));
            for to in (0..REGIONS.len()).filter(|to| *to != from) {
                ruling.transfer.insert((region(from), region(to)), verdict(true));
            }
        }
        let case = ResidencyCase { class, law, basis: Basis::Unstated, purpose: Purpose::Service };
        cases.insert(case, Arc::new(ruling));
    }
    let policy = |number: usize| RegionPolicy {
        region: region(number),
        jurisdiction: Country::new("IE").expect("a country"),
        accepts: DataClass::ALL.iter().copied().collect(),
        requires: BTreeSet::new(),
    };
    let regions = (0..REGIONS.len()).map(|number| (region(number), policy(number))).collect();
    let mut plans = Plans { generation: 1, residency: ResidencyPlan::new(cases, regions), ..Plans::deny_all() };
    let mut siblings = plans.replication.default.clone();
    siblings.conflict_resolution = ConflictResolution::KeepSiblings;
    let mut resolved = siblings.clone();
    resolved.conflict_resolution = ConflictResolution::Custom(RESOLVER.into());
    plans.replication.namespaces.insert(Namespace::new(NAMESPACES[1]).expect("a fixed name"), siblings);
    plans.replication.namespaces.insert(Namespace::new(RESOLVED).expect("a fixed name"), resolved);
    plans
}

/// The same, with at most [`QUOTA`] records of the second namespace.
pub fn plans_with_a_quota() -> Plans {
    let mut plans = plans();
    for (namespace, strategy) in &mut plans.replication.namespaces {
        if namespace.as_str() == NAMESPACES[1] {
            strategy.quota.records = Some(QUOTA);
        }
    }
    plans
}

/// The values of which [`RESOLVER`] made one.
pub fn parts(merged: &str) -> Vec<String> {
    merged.split_inclusive(';').map(str::to_owned).collect()
}

/// Answers for the policies: [`RESOLVER`], and any other one, which puts the values behind each other as they come.
pub struct Resolvers;

impl Resolver for Resolvers {
    fn resolve(
        &self,
        resolver: &str,
        _: &Address,
        siblings: &[Sibling],
    ) -> std::pin::Pin<Box<dyn Future<Output = Option<Resolution>> + Send + 'static>> {
        let records = siblings.iter().filter_map(|sibling| sibling.content.record());
        let mut values: Vec<Vec<u8>> = records.map(|record| record.payload.bytes().to_vec()).collect();
        if resolver == RESOLVER {
            values.sort_unstable();
        } else {
            values.reverse();
        }
        Box::pin(std::future::ready((!values.is_empty()).then(|| Resolution::Merged(values.concat()))))
    }
}
