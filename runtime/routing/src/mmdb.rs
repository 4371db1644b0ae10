//! Reads a MaxMind DB file into spans of addresses with their countries.
//!
//! The format is MaxMind's, version 2.0 (<https://maxmind.github.io/MaxMind-DB/>):
//! a binary tree over the bits of an address, and a section of data that its
//! leaves point into. The whole tree is walked once, when the file is loaded:
//! what is left are sorted spans, so that an address costs a binary search.
//!
//! A country is taken from `country.iso_code`, else `registered_country.iso_code`,
//! else a flat `country_code`. Whatever the bytes are, reading them ends: the
//! tree is no deeper than an address has bits, and every count has a limit.

use std::cell::Cell;
use std::collections::HashMap;

use model::Country;

use crate::country::{CountryTable, TableError};

/// What stands before the metadata.
const MARKER: &[u8] = b"\xAB\xCD\xEFMaxMind.com";
/// The metadata lies within so many bytes of the end.
const METADATA_WITHIN: usize = 128 << 10;
/// Between tree and data.
const GAP: usize = 16;
/// Values within values; those of real files are four deep.
const DEEPEST: u32 = 16;
/// Values of one leaf; those of real files have a few hundred.
const MOST_VALUES: u32 = 100_000;
/// More leaves than there are networks on the internet; a tree of more is none.
const MOST_LEAVES: usize = 32 << 20;

/// A value of the data section, as far as it matters here.
enum Value<'a> {
    Text(&'a [u8]),
    Number(u64),
    Map(Vec<(&'a [u8], Value<'a>)>),
    Other,
}

impl<'a> Value<'a> {
    fn get(&self, key: &str) -> Option<&Value<'a>> {
        match self {
            Self::Map(pairs) => pairs.iter().find(|(name, _)| *name == key.as_bytes()).map(|(_, value)| value),
            _ => None,
        }
    }

    fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn text(&self) -> Option<&'a str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

/// Reads values of a section, whose pointers count from its beginning.
struct Data<'a> {
    bytes: &'a [u8],
    /// Values that may still be read: pointers to pointers would multiply without end.
    left: Cell<u32>,
}

impl<'a> Data<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, left: Cell::new(0) }
    }

    /// The value at a place.
    fn read(&self, mut at: usize) -> Option<Value<'a>> {
        self.left.set(MOST_VALUES);
        self.value(&mut at, 0)
    }

    fn take(&self, at: &mut usize, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(*at..at.checked_add(count)?)?;
        *at += count;
        Some(taken)
    }

    fn number(&self, at: &mut usize, count: usize) -> Option<u64> {
        let bytes = self.take(at, count)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The value at a place; afterwards the place is one past it.
    fn value(&self, at: &mut usize, depth: u32) -> Option<Value<'a>> {
        if depth > DEEPEST {
            return None;
        }
        self.left.set(self.left.get().checked_sub(1)?);
        let control = self.number(at, 1)?;
        if control >> 5 == 1 {
            let mut target = self.pointer(at, control)?;
            return self.value(&mut target, depth + 1);
        }
        let kind = if control >> 5 == 0 { self.number(at, 1)?.checked_add(7)? } else { control >> 5 };
        let size = match control & 31 {
            29 => 29 + self.number(at, 1)?,
            30 => 285 + self.number(at, 2)?,
            31 => 65_821 + self.number(at, 3)?,
            short => short,
        };
        let size = usize::try_from(size).ok()?;
        Some(match kind {
            2 => Value::Text(self.take(at, size)?),
            5 | 6 | 9 if size <= 8 => Value::Number(self.number(at, size)?),
            7 => {
                // A pair takes two bytes or more: a larger count is a lie, and must not reserve memory.
                if size > self.bytes.len() / 2 {
                    return None;
                }
                let mut pairs = Vec::new();
                for _ in 0..size {
                    let Value::Text(key) = self.value(at, depth + 1)? else { return None };
                    pairs.push((key, self.value(at, depth + 1)?));
                }
                Value::Map(pairs)
            }
            11 => {
                for _ in 0..size {
                    self.value(at, depth + 1)?;
                }
                Value::Other
            }
            // A truth value is its size.
            14 => Value::Other,
            _ => {
                self.take(at, size)?;
                Value::Other
            }
        })
    }

    fn pointer(&self, at: &mut usize, control: u64) -> Option<usize> {
        let high = control & 7;
        let target = match (control >> 3) & 3 {
            0 => high << 8 | self.number(at, 1)?,
            1 => 2048 + (high << 16 | self.number(at, 2)?),
            2 => 526_336 + (high << 24 | self.number(at, 3)?),
            _ => self.number(at, 4)?,
        };
        usize::try_from(target).ok()
    }
}

/// The search tree.
struct Tree<'a> {
    bytes: &'a [u8],
    nodes: u64,
    /// Bits of one of a node's two records: 24, 28 or 32.
    record: u64,
    data: Data<'a>,
    /// By place in the data section: one past the number of its country; 0 for none.
    seen: HashMap<u64, u8>,
    codes: Vec<Country>,
    leaves: usize,
}

impl Tree<'_> {
    fn child(&self, node: u64, right: bool) -> Option<u64> {
        let at = usize::try_from(node * self.record / 4).ok()?;
        let bytes = self.bytes.get(at..at + (self.record / 4) as usize)?;
        let big = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        Some(match (self.record, right) {
            (24, false) => big(&bytes[..3]),
            (24, true) => big(&bytes[3..]),
            // The middle byte has the highest bits of both.
            (28, false) => u64::from(bytes[3] >> 4) << 24 | big(&bytes[..3]),
            (28, true) => u64::from(bytes[3] & 15) << 24 | big(&bytes[4..]),
            (_, false) => big(&bytes[..4]),
            (_, true) => big(&bytes[4..]),
        })
    }

    /// The number of the country that a leaf points to.
    fn country(&mut self, leaf: u64) -> Option<u8> {
        if let Some(number) = self.seen.get(&leaf) {
            return Some(*number);
        }
        let at = usize::try_from(leaf.checked_sub(self.nodes + GAP as u64)?).ok()?;
        let value = self.data.read(at)?;
        let nested = |name| value.get(name).and_then(|country| country.get("iso_code"));
        let found = nested("country").or_else(|| nested("registered_country")).or_else(|| value.get("country_code"));
        let country = found.and_then(Value::text).and_then(|code| Country::new(code).ok());
        let number = match country {
            None => 0,
            Some(country) => match self.codes.iter().position(|known| *known == country) {
                Some(at) => at as u8 + 1,
                None if self.codes.len() < usize::from(u8::MAX) => {
                    self.codes.push(country);
                    self.codes.len() as u8
                }
                None => return None,
            },
        };
        self.seen.insert(leaf, number);
        Some(number)
    }

    /// Adds what lies below a node, whose addresses begin with `prefix` (in the upper bits of `width`), to `spans`.
    /// Nothing below `skip` is looked at: there the tree of IPv4 is hung up again for addresses that embed them.
    fn walk(
        &mut self,
        node: u64,
        (prefix, depth, width): (u128, u32, u32),
        skip: Option<u64>,
        spans: &mut Vec<(u128, u8)>,
    ) -> Option<()> {
        let country = match node {
            _ if Some(node) == skip => 0,
            inner if inner < self.nodes => {
                for right in [false, true] {
                    let bit = width.checked_sub(depth + 1)?;
                    let below = self.child(inner, right)?;
                    self.walk(below, (prefix | u128::from(right) << bit, depth + 1, width), skip, spans)?;
                }
                return Some(());
            }
            nothing if nothing == self.nodes => 0,
            leaf => self.country(leaf)?,
        };
        self.leaves += 1;
        if self.leaves > MOST_LEAVES {
            return None;
        }
        if spans.last().map_or(0, |(_, before)| *before) != country {
            spans.push((prefix, country));
        }
        Some(())
    }
}

/// Reads the bytes of a file.
///
/// # Errors
/// The bytes are no such file, of another version, damaged, or name no country at all.
pub(crate) fn read(bytes: &[u8]) -> Result<CountryTable, TableError> {
    let tail = bytes.len().saturating_sub(METADATA_WITHIN);
    let at = bytes[tail..].windows(MARKER.len()).rposition(|window| window == MARKER).ok_or(TableError::Mmdb)?;
    let metadata = Data::new(&bytes[tail + at + MARKER.len()..]);
    let metadata = metadata.read(0).ok_or(TableError::Mmdb)?;
    let number = |key| metadata.get(key).and_then(Value::number).ok_or(TableError::Mmdb);
    let (nodes, record, version) = (number("node_count")?, number("record_size")?, number("ip_version")?);
    if number("binary_format_major_version")? != 2 || ![24, 28, 32].contains(&record) || nodes == 0 {
        return Err(TableError::Mmdb);
    }
    let size = usize::try_from(nodes.saturating_mul(record / 4)).map_err(|_| TableError::Length)?;
    let tree = bytes.get(..size).ok_or(TableError::Length)?;
    let data = bytes.get(size.saturating_add(GAP)..tail + at).ok_or(TableError::Length)?;
    let (seen, codes) = (HashMap::new(), Vec::new());
    let mut tree = Tree { bytes: tree, nodes, record, data: Data::new(data), seen, codes, leaves: 0 };
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    let ipv4_root = match version {
        4 => Some(0),
        6 => (0..96).try_fold(0, |node, _| if node < nodes { tree.child(node, false) } else { Some(node) }),
        _ => return Err(TableError::Mmdb),
    };
    let root = ipv4_root.ok_or(TableError::Length)?;
    tree.walk(root, (0, 0, 32), None, &mut v4).ok_or(TableError::Order)?;
    if version == 6 {
        tree.walk(0, (0, 0, 128), Some(root).filter(|root| *root < nodes), &mut v6).ok_or(TableError::Order)?;
    }
    if tree.codes.is_empty() {
        return Err(TableError::NoCountry);
    }
    let v4 = v4.into_iter().map(|(start, country)| (start as u32, country)).collect();
    Ok(CountryTable::of(tree.codes, v4, v6))
}

#[cfg(test)]
#[path = "mmdb_tests.rs"]
mod tests;
