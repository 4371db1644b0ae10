//! Between Scheme values and ours. Written out, because the interpreter's own
//! bridge turns integers into floats.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use model::residency::{Law, ResidencyCase};
use model::routing::{ClientFacts, Observation, RegionFacts};
use model::{Millis, RegionId, RuleId};
use steel::SteelVal;
use steel::gc::ShareableMut;
use steel::rerrs::{ErrorKind, SteelErr};
use steel::rvals::{Custom, IntoSteelVal};

/// The longest list, and the longest text in bytes, that a policy may hand over.
const LONGEST_LIST: usize = 10_000;
const LONGEST_TEXT: usize = 1 << 20;
/// The deepest nesting of what a policy hands over.
const DEEPEST: usize = 32;

/// What Scheme functions of ours and theirs give.
pub type Scheme<T> = Result<T, SteelErr>;

/// An error raised where the native was called.
pub fn fault(message: impl Into<String>) -> SteelErr {
    SteelErr::new(ErrorKind::Generic, message.into())
}

/// A region as policies see it.
#[derive(Clone)]
pub struct RegionObject(pub Arc<RegionFacts>);
/// A client class as policies see it; it notes whether anything of it was read.
#[derive(Clone)]
pub struct ClientObject {
    pub facts: Arc<ClientFacts>,
    pub read: Arc<AtomicBool>,
}
/// A residency case as policies see it; it notes which of its fields were read.
#[derive(Clone)]
pub struct RecordObject {
    pub case: ResidencyCase,
    pub read: Arc<AtomicU8>,
}
/// A replication link as policies see it.
#[derive(Clone)]
pub struct LinkObject(pub Millis);
/// Probe results as policies see them.
#[derive(Clone)]
pub struct ObservationObject(pub Observation);
/// One of several concurrent writes as resolvers see it.
#[derive(Clone)]
pub struct SiblingObject {
    pub region: String,
    pub time: u64,
    pub value: Arc<str>,
    pub deleted: bool,
    pub index: u32,
}

macro_rules! object {
    ($type:ty, $what:literal, |$self:ident| $shown:expr) => {
        impl Custom for $type {
            fn fmt(&self) -> Option<Result<String, std::fmt::Error>> {
                let $self = self;
                Some(Ok(format!("#<{}{}>", $what, $shown)))
            }
        }
        impl Object for $type {
            const WHAT: &'static str = $what;
        }
    };
}

/// A Rust object behind a Scheme value.
pub trait Object: Clone + Custom + Send + Sync + 'static {
    /// What to call it in an error.
    const WHAT: &'static str;
}

object!(RegionObject, "region", |r| format!(" {}", r.0.id));
object!(ClientObject, "client", |_c| "");
object!(RecordObject, "record", |_r| "");
object!(LinkObject, "link", |_l| "");
object!(ObservationObject, "observation", |_o| "");
object!(SiblingObject, "sibling", |s| format!(" {}", s.index));

impl ClientObject {
    /// A client that has not been looked at.
    pub fn new(facts: ClientFacts) -> Self {
        Self { facts: Arc::new(facts), read: Arc::default() }
    }
    /// Its facts, noted as read.
    pub fn look(&self) -> &ClientFacts {
        self.read.store(true, Ordering::Relaxed);
        &self.facts
    }
    /// Whether it was looked at.
    pub fn was_read(&self) -> bool {
        self.read.load(Ordering::Relaxed)
    }
}

impl RecordObject {
    /// A record that has not been looked at.
    pub fn new(case: ResidencyCase) -> Self {
        Self { case, read: Arc::default() }
    }
    /// Notes that the field of this bit was read.
    pub fn note(&self, bit: u8) {
        self.read.fetch_or(bit, Ordering::Relaxed);
    }
    /// The bits noted.
    pub fn noted(&self) -> u8 {
        self.read.load(Ordering::Relaxed)
    }
}

/// The object in `value`, or what was found instead.
pub fn object<T: Object>(value: &SteelVal) -> Scheme<T> {
    let found = match value {
        SteelVal::Custom(inner) => inner.read().as_any_ref().downcast_ref::<T>().cloned(),
        _ => None,
    };
    found.ok_or_else(|| fault(format!("expected a {}, found {}", T::WHAT, shown(value))))
}

/// Wraps an object for Scheme.
pub fn wrap<T: Object>(object: T) -> SteelVal {
    object.into_steelval().expect("an object always becomes a value")
}

/// A symbol.
pub fn symbol(name: &str) -> SteelVal {
    SteelVal::SymbolV(name.into())
}

/// A text.
pub fn text(value: &str) -> SteelVal {
    SteelVal::StringV(value.into())
}

/// An integer.
pub fn integer(value: u64) -> SteelVal {
    SteelVal::IntV(isize::try_from(value).unwrap_or(isize::MAX))
}

/// A list.
pub fn list(items: impl IntoIterator<Item = SteelVal>) -> SteelVal {
    SteelVal::ListV(items.into_iter().collect())
}

/// The value as Scheme writes it, shortened to fit into a message.
pub fn shown(value: &SteelVal) -> String {
    shown_within(value, 200)
}

/// The value as Scheme writes it, as an answer of its own: up to 65536 characters.
pub fn answered(value: &SteelVal) -> String {
    shown_within(value, 64 << 10)
}

fn shown_within(value: &SteelVal, longest: usize) -> String {
    if depth_exceeds(value, DEEPEST) {
        return "a deeply nested value".to_owned();
    }
    let whole = value.to_string();
    if whole.chars().count() <= longest {
        return whole;
    }
    whole.chars().take(longest).chain(['…']).collect()
}

/// Whether printing or comparing the value could exhaust the stack.
fn depth_exceeds(value: &SteelVal, left: usize) -> bool {
    let Some(left) = left.checked_sub(1) else { return true };
    match value {
        SteelVal::ListV(items) => items.iter().any(|item| depth_exceeds(item, left)),
        SteelVal::Pair(pair) => depth_exceeds(pair.car_ref(), left) || depth_exceeds(pair.cdr_ref(), left),
        SteelVal::VectorV(items) => items.iter().any(|item| depth_exceeds(item, left)),
        _ => false,
    }
}

/// A name: a symbol, or a text used as one.
pub fn name(value: &SteelVal) -> Scheme<&str> {
    match value {
        SteelVal::SymbolV(name) | SteelVal::StringV(name) if name.len() <= LONGEST_TEXT => Ok(name.as_str()),
        other => Err(fault(format!("expected a symbol, found {}", shown(other)))),
    }
}

/// A whole number that is not negative.
pub fn count(value: &SteelVal) -> Scheme<u64> {
    match value {
        SteelVal::IntV(number) if *number >= 0 => Ok(*number as u64),
        SteelVal::NumV(number) if *number >= 0.0 && number.fract() == 0.0 && *number < 9e15 => Ok(*number as u64),
        other => Err(fault(format!("expected a whole number from 0, found {}", shown(other)))),
    }
}

/// A number.
pub fn number(value: &SteelVal) -> Scheme<f64> {
    match value {
        SteelVal::IntV(number) => Ok(*number as f64),
        SteelVal::NumV(number) if number.is_finite() => Ok(*number),
        SteelVal::Rational(ratio) => Ok(f64::from(*ratio.numer()) / f64::from(*ratio.denom())),
        other => Err(fault(format!("expected a number, found {}", shown(other)))),
    }
}

/// The items of a list.
pub fn items(value: &SteelVal) -> Scheme<Vec<SteelVal>> {
    match value {
        SteelVal::ListV(items) if items.len() <= LONGEST_LIST => Ok(items.iter().cloned().collect()),
        SteelVal::ListV(items) => {
            Err(fault(format!("a list of {} items; at most {LONGEST_LIST} are taken", items.len())))
        }
        other => Err(fault(format!("expected a list, found {}", shown(other)))),
    }
}

/// The items of a list that a native works on and gives back: as many as fit into the memory of a child.
pub fn all_items(value: &SteelVal) -> Scheme<Vec<SteelVal>> {
    match value {
        SteelVal::ListV(items) => Ok(items.iter().cloned().collect()),
        other => Err(fault(format!("expected a list, found {}", shown(other)))),
    }
}

/// A list of region names.
pub fn region_ids(value: &SteelVal) -> Scheme<Vec<RegionId>> {
    items(value)?.iter().map(region_id).collect()
}

/// A region's name, or the region itself.
pub fn region_id(value: &SteelVal) -> Scheme<RegionId> {
    if let Ok(region) = object::<RegionObject>(value) {
        return Ok(region.0.id.clone());
    }
    RegionId::new(name(value)?).map_err(|error| fault(error.to_string()))
}

/// A rule's name.
pub fn rule(value: &SteelVal) -> Scheme<RuleId> {
    RuleId::new(name(value)?).map_err(|error| fault(error.to_string()))
}

/// A list of duties; `#f` is none.
pub fn duties(value: &SteelVal) -> Scheme<BTreeSet<RuleId>> {
    match value {
        SteelVal::BoolV(false) => Ok(BTreeSet::new()),
        other => items(other)?.iter().map(rule).collect(),
    }
}

/// A law as its name has it.
pub fn law(name: &str) -> Scheme<Law> {
    let laws = Law::all();
    laws.iter().copied().find(|law| law.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
        let known = laws.iter().map(Law::name).collect::<Vec<_>>().join(", ");
        fault(format!("\"{name}\" is not a law; the known ones are {known}"))
    })
}

/// An association list, looked up by key. Both `(key . (a b))` and `(key (a b))` give a list.
pub struct Alist(Vec<(String, Vec<SteelVal>, Option<SteelVal>)>);

impl Alist {
    /// Reads an association list whose keys are among `known`.
    pub fn read(value: &SteelVal, known: &[&str]) -> Scheme<Self> {
        let mut entries: Vec<(String, Vec<SteelVal>, Option<SteelVal>)> = Vec::new();
        for entry in items(value)? {
            let (key, rest, tail) = match &entry {
                SteelVal::ListV(parts) if !parts.is_empty() => {
                    let mut parts = items(&entry)?.into_iter();
                    let key = parts.next().ok_or_else(|| fault("an empty entry"))?;
                    (key, parts.collect(), None)
                }
                SteelVal::Pair(pair) => (pair.car(), Vec::new(), Some(pair.cdr())),
                other => return Err(fault(format!("expected (key . value), found {}", shown(other)))),
            };
            let key = name(&key)?.to_owned();
            if !known.contains(&key.as_str()) {
                return Err(fault(format!("unknown key `{key}`; the keys are {}", known.join(", "))));
            }
            if entries.iter().any(|(other, ..)| *other == key) {
                return Err(fault(format!("`{key}` is given twice")));
            }
            entries.push((key, rest, tail));
        }
        Ok(Self(entries))
    }

    /// The single value of `key`, read by `read`.
    pub fn one<T>(&self, key: &str, read: impl FnOnce(&SteelVal) -> Scheme<T>) -> Scheme<Option<T>> {
        let Some((_, rest, tail)) = self.0.iter().find(|(name, ..)| name == key) else { return Ok(None) };
        let value = match (rest.as_slice(), tail) {
            (_, Some(tail)) => tail,
            ([only], None) => only,
            (many, None) => return Err(fault(format!("`{key}` has {} values; give one", many.len()))),
        };
        read(value).map(Some).map_err(|error| within(key, &error))
    }

    /// The list of `key`, each item read by `read`.
    pub fn many<T>(&self, key: &str, read: impl Fn(&SteelVal) -> Scheme<T>) -> Scheme<Option<Vec<T>>> {
        let Some((_, rest, tail)) = self.0.iter().find(|(name, ..)| name == key) else { return Ok(None) };
        let values = match (rest.as_slice(), tail) {
            ([SteelVal::ListV(_)], None) => items(&rest[0])?,
            (values, None) => values.to_vec(),
            (_, Some(tail)) => return Err(fault(format!("`{key}` wants a list, found {}", shown(tail)))),
        };
        values.iter().map(read).collect::<Scheme<Vec<T>>>().map(Some).map_err(|error| within(key, &error))
    }

    /// Whether `key` is given.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, ..)| name == key)
    }

    /// Like [`Alist::many`], where one value may stand without a list.
    pub fn some<T>(&self, key: &str, read: impl Fn(&SteelVal) -> Scheme<T>) -> Scheme<Option<Vec<T>>> {
        match self.0.iter().find(|(name, ..)| name == key) {
            Some((_, _, Some(tail))) => read(tail).map(|one| Some(vec![one])).map_err(|error| within(key, &error)),
            _ => self.many(key, read),
        }
    }

    /// Like [`Alist::many`] for items that are lists themselves: `(key . ((a b)))` has one item, `(a b)`, and so has
    /// `(key (a b))`; only a list with lists in it is taken for the items.
    pub fn entries<T>(&self, key: &str, read: impl Fn(&SteelVal) -> Scheme<T>) -> Scheme<Option<Vec<T>>> {
        let Some((_, rest, tail)) = self.0.iter().find(|(name, ..)| name == key) else { return Ok(None) };
        let nested = |value: &SteelVal| matches!(value, SteelVal::ListV(_) | SteelVal::Pair(_));
        let values = match (rest.as_slice(), tail) {
            ([SteelVal::ListV(inner)], None) if inner.iter().any(nested) => items(&rest[0])?,
            (values, None) => values.to_vec(),
            (_, Some(tail)) => return Err(fault(format!("`{key}` wants a list, found {}", shown(tail)))),
        };
        values.iter().map(read).collect::<Scheme<Vec<T>>>().map(Some).map_err(|error| within(key, &error))
    }
}

/// An error in the value of a key.
pub fn within(key: &str, error: &SteelErr) -> SteelErr {
    fault(format!("`{key}`: {}", bare(&error.to_string())))
}

/// An error's message without the interpreter's preamble.
pub fn bare(message: &str) -> &str {
    let rest = message.strip_prefix("Error: ").unwrap_or(message);
    match rest.split_once(": ") {
        Some((kind, rest)) if kind.chars().all(char::is_alphanumeric) && kind.starts_with(char::is_uppercase) => rest,
        _ => rest,
    }
}
