//! The intermediate form: everything that an edge has to know, and nothing that it would have to work out.

use std::collections::BTreeMap;

use model::edge::{CacheRule, EdgeAuth, EdgeRoute, RateLimit};
use model::record::DataClass;
use model::{Country, RegionId, RuleId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of the form that this runtime writes. An edge refuses any other.
pub const VERSION: u32 = 1;

/// The edge policy of one generation, compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// [`VERSION`].
    pub version: u32,
    /// The hash of everything else, 32 hexadecimal digits. Equal forms have equal revisions.
    pub revision: String,
    /// The cache rules, in order.
    pub rules: Vec<Rule>,
    /// The rate limits; all that match count.
    pub limits: Vec<RateLimit>,
    /// The guards; the first that matches decides.
    pub auth: Vec<EdgeAuth>,
    /// The routes; the first that matches decides. The last one matches everything.
    pub routes: Vec<EdgeRoute>,
    /// Which regions a country is sent to.
    pub ranking: Rankings,
    /// The base URL of each region's gateway, without a final slash.
    #[schemars(with = "BTreeMap<String, String>")]
    pub origins: BTreeMap<RegionId, String>,
    /// Where answers of each class may be kept. A class that is absent may be kept nowhere.
    pub residency: Residency,
    /// Headers that every answer gets unless it has them.
    pub answer_headers: Vec<(String, String)>,
}

/// A cache rule, and what its stored answers stand for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rule {
    /// As declared.
    pub rule: CacheRule,
    /// The hash of all that decides about answers under this rule, 16 hexadecimal digits. An answer that was stored
    /// under another revision is not given any more.
    pub revision: String,
}

/// Orders of regions, best first, with those that are down left in: the edge masks them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rankings {
    /// For clients of no known country, and of countries that are not listed.
    #[schemars(with = "Vec<String>")]
    pub default: Vec<RegionId>,
    /// The other orders, each once.
    #[schemars(with = "Vec<Vec<String>>")]
    pub orders: Vec<Vec<RegionId>>,
    /// Which of them a country has.
    #[schemars(with = "BTreeMap<String, u16>")]
    pub countries: BTreeMap<Country, u16>,
}

/// Where answers that carry data may be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Residency {
    /// The countries of each law; a country in none of them is under `other`, an answer that names none under `none`.
    #[schemars(with = "BTreeMap<String, Vec<String>>")]
    pub laws: BTreeMap<String, Vec<Country>>,
    /// What may be kept where.
    pub holdings: Vec<Holding>,
    /// What whoever keeps anything in a region must do, besides.
    #[schemars(with = "BTreeMap<String, Vec<String>>")]
    pub region_duties: BTreeMap<RegionId, Vec<RuleId>>,
}

/// Answers of one class under these laws may be kept in these regions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Holding {
    /// The class.
    #[serde(with = "model::edge::by_name")]
    #[schemars(with = "String")]
    pub class: DataClass,
    /// The laws, by name; `none` for answers that name no country.
    pub laws: Vec<String>,
    /// The regions.
    #[schemars(with = "Vec<String>")]
    pub regions: Vec<RegionId>,
    /// What whoever keeps them must do, in whatever region.
    #[schemars(with = "Vec<String>")]
    pub duties: Vec<RuleId>,
    /// Until when, in unix milliseconds, exclusive; none for no end.
    pub until: Option<u64>,
}

impl Form {
    /// The form as the JSON that edges read: two spaces, a final line feed, equal bytes for equal forms.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a form is plain data");
        text.push('\n');
        text
    }

    /// The form with its revision worked out.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.revision.clear();
        self.revision = digest("repomind edge form v1", &self, 16);
        self
    }

    /// The order of regions for a country.
    pub fn order(&self, country: Option<Country>) -> &[RegionId] {
        let order = country.and_then(|country| self.ranking.countries.get(&country));
        order.and_then(|&at| self.ranking.orders.get(usize::from(at))).unwrap_or(&self.ranking.default)
    }

    /// The JSON Schema of the form.
    pub fn schema() -> String {
        let mut text = serde_json::to_string_pretty(&schemars::schema_for!(Form)).expect("a schema is plain data");
        text.push('\n');
        text
    }
}

/// The first `bytes` bytes of a hash of `value`, in hexadecimal.
pub(crate) fn digest(context: &str, value: &impl Serialize, bytes: usize) -> String {
    let text = serde_json::to_vec(value).expect("plain data");
    let hash = blake3::derive_key(context, &text);
    hash[..bytes].iter().map(|byte| format!("{byte:02x}")).collect()
}
