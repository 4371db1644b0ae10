//! What must never happen, checked for everything that can be.
//!
//! `define-invariant` names dimensions of the facts; each has finitely many
//! values, and the sentence must be true for every combination. Nothing is
//! sampled: a space that is too large is refused when the tree is loaded, with the
//! dimension that makes it so. Records are told apart only by what was read of
//! them, as in [`super::memo`], because a policy is a pure function.
//!
//! Health stands for itself in `world` and `outage`; round trips, which have no
//! finite number of values, are left out of the facts. A proof is asked for piece
//! by piece ([`Interpreter::prove`]), so that no question takes long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use model::bundle::PolicyTree;
use model::question::{Invariant, ProofStep};
use model::record::{Basis, DataClass, Purpose};
use model::residency::{Law, ResidencyCase};
use model::routing::{ClientClass, ClientFacts, Facts, RegionFacts, RegionState};
use model::{Finding, Millis, RegionId};
use steel::RootedSteelVal;
use steel::rvals::SteelVal;

use super::cage;
use super::declare::{Ledger, Misfit, is_function, lock};
use super::faults;
use super::interpreter::Interpreter;
use super::memo::Memo;
use super::natives::Natives;
use super::questions::Answered;
use super::samples::form;
use super::values::{ClientObject, RecordObject, RegionObject, fault, items, list, name, symbol, wrap};

/// The most cases of one invariant.
const MOST_CASES: u64 = 2_000_000;
/// The most invariants of a tree.
const MOST: usize = 200;

/// One dimension of the facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dimension {
    Record,
    Kind,
    Class,
    Law,
    Basis,
    Purpose,
    Region,
    From,
    To,
    Client,
    Continent,
    World,
    Outage,
    State,
}

/// Each with its name and what to take instead where it is too large.
const DIMENSIONS: &[(Dimension, &str, &str)] = &[
    (Dimension::Record, "record", "`kind`: one record a class and law"),
    (Dimension::Kind, "kind", "`class` or `law` alone"),
    (Dimension::Class, "class", "a class that stands in the sentence"),
    (Dimension::Law, "law", "a law that stands in the sentence"),
    (Dimension::Basis, "basis", "a basis that stands in the sentence"),
    (Dimension::Purpose, "purpose", "a purpose that stands in the sentence"),
    (Dimension::Region, "region", "a region that stands in the sentence"),
    (Dimension::From, "from", "a region that stands in the sentence"),
    (Dimension::To, "to", "a region that stands in the sentence"),
    (Dimension::Client, "client", "`continent`: one client a continent"),
    (Dimension::Continent, "continent", "a client that stands in the sentence"),
    (Dimension::World, "world", "`outage`: regions up or down, not drained"),
    (Dimension::Outage, "outage", "`state` and `region`: one region in each state"),
    (Dimension::State, "state", "a state that stands in the sentence"),
];

const CONTINENTS: &[&str] = &["AF", "AN", "AS", "EU", "NA", "OC", "SA"];
/// Up, down, drained.
const HEALTH: [RegionState; 3] = [RegionState::Ready, RegionState::Down, RegionState::Degraded];

/// An invariant as declared.
pub struct Declared {
    file: String,
    sentence: String,
    dimensions: Vec<Dimension>,
    holds: RootedSteelVal,
}

/// Defines the native behind `define-invariant`.
pub fn define(module: &mut Natives, ledger: &Arc<Mutex<Ledger>>) {
    let ledger = ledger.clone();
    module.define("declare-invariant", 3..=3, move |given| {
        let ledger = &mut *lock(&ledger);
        let sentence = name(&given[0])?.to_owned();
        let mut dimensions = Vec::new();
        for dimension in items(&given[1])? {
            let called = name(&dimension)?;
            let Some((found, ..)) = DIMENSIONS.iter().find(|(_, name, _)| *name == called) else {
                let known = DIMENSIONS.iter().map(|(_, name, _)| *name).collect::<Vec<_>>().join(", ");
                return Err(fault(format!("there is no dimension `{called}`; the dimensions are {known}")));
            };
            if dimensions.contains(found) {
                return Err(fault(format!("`{called}` stands twice in the dimensions; name it once")));
            }
            dimensions.push(*found);
        }
        if !is_function(&given[2]) || dimensions.is_empty() {
            return Err(fault("write it as (define-invariant \"sentence\" (for-all (dimension …) test …))"));
        }
        if ledger.invariants.len() == MOST || ledger.invariants.iter().any(|other| other.sentence == sentence) {
            return Err(fault(format!("the invariant \"{sentence}\" is already defined; say something else")));
        }
        let (file, holds) = (ledger.file.clone(), given[2].as_rooted());
        ledger.invariants.push(Declared { file, sentence, dimensions, holds });
        Ok(SteelVal::Void)
    });
}

impl Dimension {
    fn name(self) -> &'static str {
        DIMENSIONS.iter().find(|(other, ..)| *other == self).map_or("", |(_, name, _)| name)
    }

    fn coarser(self) -> &'static str {
        DIMENSIONS.iter().find(|(other, ..)| *other == self).map_or("", |(.., coarser)| coarser)
    }

    /// How many values it has; at most `u64::MAX`.
    fn size(self, facts: &Facts) -> u64 {
        let states =
            |of: u64| u32::try_from(facts.regions.len()).map_or(u64::MAX, |regions| of.saturating_pow(regions));
        match self {
            Self::Record => (DataClass::ALL.len() * Law::all().len() * Basis::ALL.len() * Purpose::ALL.len()) as u64,
            Self::Kind => (DataClass::ALL.len() * Law::all().len()) as u64,
            Self::Class => DataClass::ALL.len() as u64,
            Self::Law => Law::all().len() as u64,
            Self::Basis => Basis::ALL.len() as u64,
            Self::Purpose => Purpose::ALL.len() as u64,
            Self::Region | Self::From | Self::To => facts.regions.len() as u64,
            Self::Client => facts.clients.len() as u64 + 1,
            Self::Continent => CONTINENTS.len() as u64 + 1,
            Self::World => states(HEALTH.len() as u64),
            Self::Outage => states(2),
            Self::State => RegionState::ALL.len() as u64,
        }
    }

    /// The value at `at`, which is below the size. Records are made elsewhere.
    fn value(self, at: u64, facts: &Facts) -> SteelVal {
        let index = at as usize;
        match self {
            Self::Record | Self::Kind => {
                let (laws, case) = (Law::all(), index);
                let (class, law) = (DataClass::ALL[case / laws.len()], laws[case % laws.len()]);
                let (basis, purpose) = (Basis::Unstated, Purpose::Service);
                wrap(RecordObject::new(ResidencyCase { class, law, basis, purpose }))
            }
            Self::Class => symbol(DataClass::ALL[index].as_str()),
            Self::Law => symbol(Law::all()[index].name()),
            Self::Basis => symbol(Basis::ALL[index].as_str()),
            Self::Purpose => symbol(Purpose::ALL[index].as_str()),
            Self::Region | Self::From | Self::To => region(facts.regions[index].clone()),
            Self::Client => wrap(ClientObject::new(match index.checked_sub(1) {
                Some(known) => facts.clients[known].clone(),
                None => nobody(None),
            })),
            Self::Continent => wrap(ClientObject::new(nobody(index.checked_sub(1).map(|known| CONTINENTS[known])))),
            Self::World | Self::Outage => {
                let base = if self == Self::World { HEALTH.len() as u64 } else { 2 };
                let mut rest = at;
                list(facts.regions.iter().map(|facts| {
                    let state = HEALTH[(rest % base) as usize];
                    rest /= base;
                    region(RegionFacts { state, ..facts.clone() })
                }))
            }
            Self::State => symbol(RegionState::ALL[index].name()),
        }
    }
}

fn region(facts: RegionFacts) -> SteelVal {
    wrap(RegionObject(Arc::new(facts)))
}

fn nobody(continent: Option<&str>) -> ClientFacts {
    let class = ClientClass { country: None };
    ClientFacts { class, continent: continent.map(str::to_owned), coordinates: None }
}

/// The facts without what is enumerated or has no finite number of values.
fn classed(facts: &Facts) -> Facts {
    let plain = |region: &RegionFacts| RegionFacts {
        state: RegionState::Ready,
        round_trips: BTreeMap::<RegionId, _>::new(),
        ..region.clone()
    };
    Facts { regions: facts.regions.iter().map(plain).collect(), clients: facts.clients.clone() }
}

impl Declared {
    fn cases(&self, facts: &Facts) -> u64 {
        self.dimensions.iter().fold(1, |product, dimension| dimension.size(facts).saturating_mul(product))
    }

    /// The dimensions with their sizes, as in `client 251 × outage 8`.
    fn space(&self, facts: &Facts) -> String {
        let sizes = self.dimensions.iter().map(|one| match one.size(facts) {
            u64::MAX => format!("{} more than can be counted", one.name()),
            size => format!("{} {size}", one.name()),
        });
        sizes.collect::<Vec<_>>().join(" × ")
    }

    /// The values of the dimensions apart from records, of which there are so many combinations.
    fn others(&self) -> impl Iterator<Item = Dimension> {
        self.dimensions.iter().copied().filter(|dimension| *dimension != Dimension::Record)
    }
}

impl Interpreter {
    /// What is to be proved, or which spaces are too large.
    pub(super) fn invariants(&self, facts: &Facts) -> Result<Vec<Invariant>, Vec<Misfit>> {
        let facts = classed(facts);
        let ledger = lock(&self.ledger);
        let (mut invariants, mut misfits) = (Vec::new(), Vec::new());
        for declared in &ledger.invariants {
            let cases = declared.cases(&facts);
            if cases > MOST_CASES {
                misfits.push(too_large(declared, &facts));
            }
            let (file, sentence) = (declared.file.clone(), declared.sentence.clone());
            let line = faults::test_place(&self.files, &file, &sentence).0;
            let depends_on = self.depends_on(&file, &sentence, &facts);
            invariants.push(Invariant { file, line, sentence, space: declared.space(&facts), cases, depends_on });
        }
        if misfits.is_empty() { Ok(invariants) } else { Err(misfits) }
    }

    /// Names everything that the outcome follows from: the sentence, the file and all that it requires, the facts.
    fn depends_on(&self, file: &str, sentence: &str, facts: &Facts) -> String {
        let mut tree = PolicyTree::default();
        let mut open = vec![file.to_owned()];
        while let Some(file) = open.pop() {
            if let Some(text) = self.files.get(&file)
                && tree.0.insert(file.clone(), text.clone()).is_none()
            {
                open.extend(self.requires.get(&file).into_iter().flatten().cloned());
            }
        }
        tree.0.insert("the sentence".to_owned(), sentence.to_owned());
        // Regions and clients are ordered, so that equal facts are equal texts.
        tree.0.insert("the facts".to_owned(), format!("{facts:?}"));
        // In full: what was proved is kept on disk, for long.
        let hash = model::codec::plain(&tree.hash()).unwrap_or_default();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Checks an invariant from a place in its space on, until `budget` is used up or the end is reached. Between two
    /// looks at the clock there is one combination of all dimensions but records.
    pub fn prove(&mut self, invariant: u32, from: u64, budget: Millis, facts: &Facts) -> Answered<ProofStep> {
        let facts = classed(facts);
        let before = self.exchange_facts(&facts);
        let step = self.step(invariant as usize, from, budget, &facts);
        self.restore_facts(before);
        step
    }

    fn step(&mut self, at: usize, from: u64, budget: Millis, facts: &Facts) -> Answered<ProofStep> {
        let found = lock(&self.ledger).invariants.get(at).map(|declared| {
            let others: Vec<Dimension> = declared.others().collect();
            let (file, sentence) = (declared.file.clone(), declared.sentence.clone());
            (file, sentence, declared.dimensions.clone(), others, declared.holds.value().clone())
        });
        let Some((file, sentence, dimensions, others, holds)) = found else {
            return Err(vec![Finding::error("", "", (0, 0), format!("there is no invariant number {at}"), "")]);
        };
        self.at(&file);
        let (begun, limit) = (Instant::now(), budget.duration());
        let total = others.iter().fold(1, |product: u64, one| product.saturating_mul(one.size(facts)));
        let records = if dimensions.contains(&Dimension::Record) { Dimension::Record.size(facts) } else { 1 };
        for place in from..total {
            let mut rest = place;
            let values: Vec<(Dimension, SteelVal)> = others
                .iter()
                .map(|one| {
                    let value = one.value(rest % one.size(facts), facts);
                    rest /= one.size(facts);
                    (*one, value)
                })
                .collect();
            let refuted = self.everywhere(&file, &holds, &dimensions, &values)?;
            if let Some(example) = refuted {
                let finding = self.counterexample(&file, &sentence, &dimensions, example);
                return Ok(ProofStep { checked: 0, next: None, counterexample: Some(finding) });
            }
            if begun.elapsed() >= limit && place + 1 < total {
                let checked = (place + 1 - from).saturating_mul(records);
                return Ok(ProofStep { checked, next: Some(place + 1), counterexample: None });
            }
        }
        let checked = total.saturating_sub(from).saturating_mul(records);
        Ok(ProofStep { checked, next: None, counterexample: None })
    }

    /// Checks one combination, with every record where records are a dimension: the values that refute it, and how.
    fn everywhere(
        &mut self,
        file: &str,
        holds: &SteelVal,
        dimensions: &[Dimension],
        values: &[(Dimension, SteelVal)],
    ) -> Answered<Option<(Vec<SteelVal>, String)>> {
        let with = |record: Option<&RecordObject>| -> Vec<SteelVal> {
            let value = |dimension: &Dimension| match record {
                Some(record) if *dimension == Dimension::Record => wrap(record.clone()),
                _ => values
                    .iter()
                    .find(|(other, _)| other == dimension)
                    .map_or(SteelVal::Void, |(_, value)| value.clone()),
            };
            dimensions.iter().map(value).collect()
        };
        if !dimensions.contains(&Dimension::Record) {
            let values = with(None);
            return Ok(self.refuted(file, holds, &values)?.map(|how| (values, how)));
        }
        let mut known: Memo<()> = Memo::default();
        for case in cases() {
            if known.recall(&case).is_some() {
                continue;
            }
            let record = RecordObject::new(case);
            let values = with(Some(&record));
            if let Some(how) = self.refuted(file, holds, &values)? {
                return Ok(Some((values, how)));
            }
            known.keep(&case, record.noted(), ());
        }
        Ok(None)
    }

    /// How the sentence fails for these values, if it does.
    fn refuted(&mut self, file: &str, holds: &SteelVal, values: &[SteelVal]) -> Answered<Option<String>> {
        match self.apply(holds.clone(), vec![list(values.iter().cloned())]) {
            Ok(SteelVal::BoolV(false)) => Ok(Some("it is false".to_owned())),
            Ok(_) => Ok(None),
            Err(error) => {
                let finding = self.fault(file, &error);
                if cage::interrupted() {
                    Err(vec![finding])
                } else {
                    Ok(Some(format!("it ends in an error ({})", finding.message)))
                }
            }
        }
    }

    fn counterexample(
        &self,
        file: &str,
        sentence: &str,
        dimensions: &[Dimension],
        (values, how): (Vec<SteelVal>, String),
    ) -> Finding {
        let shown: Vec<String> = dimensions
            .iter()
            .zip(&values)
            .map(|(one, value)| format!("(define {} {})", one.name(), form(value)))
            .collect();
        let message = format!("an invariant does not hold: {sentence}: {how}");
        let help = format!("with these facts, which can be pasted into `repomind-run repl`:\n{}", shown.join("\n"));
        let text = self.files.get(file).map_or("", String::as_str);
        let at = faults::test_place(&self.files, file, sentence);
        Finding::error(file, text, at, message, help).spanning(sentence.chars().count() as u32 + 2)
    }
}

fn cases() -> impl Iterator<Item = ResidencyCase> {
    let laws = Law::all();
    DataClass::ALL.iter().flat_map(move |&class| {
        let laws = laws.clone();
        laws.into_iter().flat_map(move |law| {
            Basis::ALL.iter().flat_map(move |&basis| {
                Purpose::ALL.iter().map(move |&purpose| ResidencyCase { class, law, basis, purpose })
            })
        })
    })
}

fn too_large(declared: &Declared, facts: &Facts) -> Misfit {
    let cases = match declared.cases(facts) {
        u64::MAX => "more cases than can be counted".to_owned(),
        cases => format!("{cases} cases"),
    };
    let widest = declared.dimensions.iter().copied().max_by_key(|one| one.size(facts)).unwrap_or(Dimension::State);
    Misfit {
        file: declared.file.clone(),
        form: "define-invariant",
        message: format!(
            "the space of `{}` has {cases} ({}); all of at most {MOST_CASES} are checked",
            declared.sentence,
            declared.space(facts)
        ),
        help: format!("class `{}` more coarsely: use {}, or split the sentence", widest.name(), widest.coarser()),
    }
}

#[cfg(test)]
mod tests {
    use model::Country;
    use model::region::Coordinates;

    use super::*;

    fn facts_of_three() -> Facts {
        let country = Country::new("IE").unwrap();
        let region = |id: &str| RegionFacts {
            id: RegionId::new(id).unwrap(),
            country,
            jurisdiction: country,
            coordinates: Coordinates { latitude: 0.0, longitude: 0.0 },
            features: Default::default(),
            primary: false,
            max_instances: 1,
            state: RegionState::Ready,
            round_trips: BTreeMap::new(),
        };
        Facts { regions: ["a", "b", "c"].map(region).into(), clients: Vec::new() }
    }

    #[test]
    fn every_case_of_the_residency_space_is_tried_once() {
        let all: std::collections::BTreeSet<ResidencyCase> = cases().collect();
        assert_eq!(all.len() as u64, Dimension::Record.size(&Facts::default()));
    }

    #[test]
    fn every_set_of_regions_is_down_once() {
        let facts = facts_of_three();
        let downs: std::collections::BTreeSet<String> =
            (0..Dimension::Outage.size(&facts)).map(|at| form(&Dimension::Outage.value(at, &facts))).collect();
        assert_eq!(downs.len(), 8);
        assert_eq!(Dimension::World.size(&facts), 27);
    }

    #[test]
    fn a_deployment_of_254_regions_makes_a_space_too_large_and_no_panic() {
        let mut facts = facts_of_three();
        facts.regions = vec![facts.regions[0].clone(); 254];
        assert_eq!(Dimension::World.size(&facts), u64::MAX);
        let holds = SteelVal::Void.as_rooted();
        let (file, sentence) = ("f.scm".to_owned(), "nothing fails".to_owned());
        let declared = Declared { file, sentence, dimensions: vec![Dimension::Client, Dimension::World], holds };
        let misfit = too_large(&declared, &facts);
        assert!(misfit.message.contains("more cases than can be counted"), "{}", misfit.message);
        assert!(misfit.help.contains("class `world` more coarsely: use `outage`"), "{}", misfit.help);
    }
}
