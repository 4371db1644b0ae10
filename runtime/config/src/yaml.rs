//! Reads YAML so that every mistake can be shown where it stands.
//!
//! A [`Source`] collects the findings of one file; a [`Table`] is a mapping
//! whose keys were checked against those that may stand in it.

use std::cell::RefCell;

use model::Finding;
use saphyr::{LoadableYamlNode, MarkedYaml, Marker, Scalar, YamlData};

/// Repeated keys looked for in one file; the first of them already refuses it.
const MOST_REPEATED_KEYS: u32 = 32;

/// Stands in for the first letter of a repeated key, so that reading goes on behind it.
const FIRST_MASK: u32 = 0xF_0000;

/// Where something stands: line and column from 1, width in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) width: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) at: Place,
}

/// One file, and what was found wrong in it.
pub(crate) struct Source<'a> {
    pub(crate) file: &'a str,
    text: &'a str,
    /// What the file is about: the key that it begins with.
    about: &'static str,
    findings: RefCell<Vec<Finding>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Self::about(file, text, "region")
    }

    /// A file that begins with another key.
    pub(crate) fn about(file: &'a str, text: &'a str, about: &'static str) -> Self {
        Self { file, text, about, findings: RefCell::default() }
    }

    /// Records an error at `at`.
    pub(crate) fn refuse(&self, at: Place, message: impl Into<String>, help: impl Into<String>) {
        let finding = Finding::error(self.file, self.text, (at.line, at.column), message, help);
        self.findings.borrow_mut().push(finding.spanning(at.width));
    }

    /// Records an error about the file as a whole.
    pub(crate) fn refuse_file(&self, message: impl Into<String>, help: impl Into<String>) {
        self.findings.borrow_mut().push(crate::nowhere(self.file, message, help));
    }

    pub(crate) fn into_findings(self) -> Vec<Finding> {
        self.findings.into_inner()
    }

    /// The file's name without folder and ending: the region's id.
    pub(crate) fn stem(&self) -> &'a str {
        let name = self.file.rsplit('/').next().unwrap_or(self.file);
        name.strip_suffix(".yml").unwrap_or(name)
    }

    /// The file's only document. A key that stands twice is reported and the second one is left out.
    pub(crate) fn document(&self) -> Option<MarkedYaml<'static>> {
        let mut text = self.text.to_owned();
        for mask in FIRST_MASK..=FIRST_MASK + MOST_REPEATED_KEYS {
            let error = match MarkedYaml::load_from_str(&text) {
                Ok(documents) => return self.only(documents),
                Err(error) => error,
            };
            let place = Place::from_marker(error.marker());
            let word = (error.info() == "duplicated key in mapping").then(|| word_at(&text, place)).flatten();
            let Some((at, word)) = word else {
                let message = format!("this is not YAML: {}", error.info());
                self.refuse(
                    self.within(place),
                    message,
                    "check indentation, quotes and colons on this line and the one above",
                );
                return None;
            };
            let quotes = if text[..at].ends_with(['"', '\'']) { 2 } else { 0 };
            let width = word.chars().count() as u32 + quotes;
            self.refuse(Place { width, ..place }, format!("`{word}` stands twice"), "keep one of the two");
            let first = word.chars().next().map_or(0, char::len_utf8);
            text.replace_range(at..at + first, char::from_u32(mask)?.encode_utf8(&mut [0; 4]));
        }
        None
    }

    /// Whether [`Source::document`] put this key in place of a repeated one.
    fn masked(&self, key: &str) -> bool {
        let masks = FIRST_MASK..=FIRST_MASK + MOST_REPEATED_KEYS;
        key.chars().next().is_some_and(|c| masks.contains(&u32::from(c)) && !self.text.contains(c))
    }

    fn only(&self, mut documents: Vec<MarkedYaml<'static>>) -> Option<MarkedYaml<'static>> {
        if let Some(second) = documents.get(1) {
            let help = match self.about {
                "region" => "write each region in a file of its own, named after the region",
                _ => "keep one of the two",
            };
            self.refuse(self.place(second), "a second document begins here", help);
            return None;
        }
        let document = documents.pop();
        if document.is_none() {
            let about = self.about;
            let help = format!("begin it with `{about}:`, or take the file away");
            self.refuse_file(format!("the file has no {about}"), help);
        }
        document
    }

    /// `place`, or the last letter before it if there is nothing at `place` to be shown.
    fn within(&self, place: Place) -> Place {
        let lines = || (1..).zip(self.text.lines()).take(place.line as usize);
        if lines().last().is_some_and(|(line, text)| line == place.line && !text.trim().is_empty()) {
            return place;
        }
        let last = lines().filter(|(_, text)| !text.trim().is_empty()).last();
        last.map_or(place, |(line, text)| Place { line, column: text.trim_end().chars().count() as u32, width: 1 })
    }

    /// Where a node stands; of a node over many lines, its first line.
    pub(crate) fn place(&self, node: &MarkedYaml<'_>) -> Place {
        let (start, end) = (node.span.start, node.span.end);
        let mut place = Place::from_marker(&start);
        let line = self.text.lines().nth(start.line().saturating_sub(1)).unwrap_or("");
        let end = if end.line() == start.line() { end.col() } else { line.chars().count() };
        let spanned: String = line.chars().skip(start.col()).take(end.saturating_sub(start.col())).collect();
        place.width = (spanned.trim_end().chars().count() as u32).max(1);
        place
    }
}

impl Place {
    fn from_marker(marker: &Marker) -> Self {
        Self { line: marker.line() as u32, column: marker.col() as u32 + 1, width: 1 }
    }

    /// The file's first character.
    pub(crate) const TOP: Self = Self { line: 1, column: 1, width: 1 };
}

/// The key that begins at `place`, without quotes, and its offset in bytes.
fn word_at(text: &str, place: Place) -> Option<(usize, String)> {
    let line = text.split_inclusive('\n').nth(place.line.checked_sub(1)? as usize)?;
    let before = line.as_ptr() as usize - text.as_ptr() as usize;
    let (column, _) = line.char_indices().nth(place.column.checked_sub(1)? as usize)?;
    let rest = &line[column..];
    let quoted = usize::from(rest.starts_with(['"', '\'']));
    let word: String = rest[quoted..].chars().take_while(|&c| c.is_alphanumeric() || "_-".contains(c)).collect();
    (!word.is_empty()).then_some((before + column + quoted, word))
}

/// What a value is, in words.
fn kind(node: &MarkedYaml<'_>) -> String {
    match &node.data {
        YamlData::Value(Scalar::Null) => "nothing".to_owned(),
        YamlData::Value(Scalar::Boolean(value)) => format!("the truth value `{value}`"),
        YamlData::Value(Scalar::Integer(value)) => format!("the number {value}"),
        YamlData::Value(Scalar::FloatingPoint(value)) => format!("the number {value}"),
        YamlData::Value(Scalar::String(value)) => format!("the text {:?}", value.chars().take(40).collect::<String>()),
        YamlData::Sequence(_) => "a list".to_owned(),
        YamlData::Mapping(_) => "a mapping".to_owned(),
        _ => "a value with a tag or alias".to_owned(),
    }
}

/// A key with its value.
pub(crate) struct Entry<'a> {
    pub(crate) source: &'a Source<'a>,
    pub(crate) key: &'a str,
    pub(crate) key_at: Place,
    node: &'a MarkedYaml<'static>,
}

impl<'a> Entry<'a> {
    /// Where the value stands; the key, if there is none.
    pub(crate) fn at(&self) -> Place {
        if matches!(self.node.data, YamlData::Value(Scalar::Null)) { self.key_at } else { self.source.place(self.node) }
    }

    fn wrong_type<T>(&self, wanted: &str, help: &str) -> Option<T> {
        let message = format!("`{}` must be {wanted}; this is {}", self.key, kind(self.node));
        self.source.refuse(self.at(), message, help);
        None
    }

    fn locate<T>(&self, value: T) -> Option<Located<T>> {
        Some(Located { value, at: self.at() })
    }

    /// The value as text.
    pub(crate) fn text(&self, example: &str) -> Option<Located<String>> {
        match &self.node.data {
            YamlData::Value(Scalar::String(text)) => self.locate(text.to_string()),
            _ => self.wrong_type("text", &format!("write it as `{}: {example}`, in quotes if need be", self.key)),
        }
    }

    /// The value as `true` or `false`.
    pub(crate) fn truth(&self) -> Option<Located<bool>> {
        match self.node.data {
            YamlData::Value(Scalar::Boolean(value)) => self.locate(value),
            _ => self.wrong_type("`true` or `false`", "write one of the two, without quotes"),
        }
    }

    /// The value as a whole number from `low` to `high`.
    pub(crate) fn whole(&self, low: u32, high: u32) -> Option<Located<u32>> {
        let help = format!("write a number from {low} to {high}");
        match self.node.data {
            YamlData::Value(Scalar::Integer(value)) => match u32::try_from(value) {
                Ok(value) if (low..=high).contains(&value) => self.locate(value),
                _ => {
                    self.source.refuse(self.at(), format!("`{}` cannot be {value}", self.key), help);
                    None
                }
            },
            _ => self.wrong_type("a whole number", &help),
        }
    }

    /// The value as a number of degrees within `limit` of zero.
    pub(crate) fn degrees(&self, limit: f64) -> Option<f64> {
        let help = format!("write degrees from -{limit} to {limit}, such as 53.35");
        let value = match self.node.data {
            YamlData::Value(Scalar::Integer(value)) => value as f64,
            YamlData::Value(Scalar::FloatingPoint(value)) => value.into_inner(),
            _ => return self.wrong_type("a number", &help),
        };
        if (-limit..=limit).contains(&value) {
            return Some(value);
        }
        self.source.refuse(self.at(), format!("`{}` cannot be {value}", self.key), help);
        None
    }

    /// Whether the value is a whole number.
    pub(crate) fn is_number(&self) -> bool {
        matches!(self.node.data, YamlData::Value(Scalar::Integer(_)))
    }

    /// The value as a list of texts; those that are none are reported and left out.
    pub(crate) fn texts(&self, example: &str) -> Option<Vec<Located<String>>> {
        let YamlData::Sequence(nodes) = &self.node.data else {
            return self.wrong_type("a list", &format!("write it as `{}: [{example}]`", self.key));
        };
        let item = |node| Entry { source: self.source, key: self.key, key_at: self.key_at, node };
        Some(nodes.iter().filter_map(|node| item(node).text(example)).collect())
    }

    /// The value as a mapping whose keys are names that the file gives; those that are no text are reported.
    pub(crate) fn named(&self, example: &str) -> Option<Vec<(Located<String>, Entry<'a>)>> {
        let YamlData::Mapping(mapping) = &self.node.data else {
            return self.wrong_type("a mapping", &format!("indent below it such as `{example}`"));
        };
        let mut entries = Vec::new();
        for (key, node) in mapping {
            let at = self.source.place(key);
            match &key.data {
                YamlData::Value(Scalar::String(text)) if self.source.masked(text) => {}
                YamlData::Value(Scalar::String(text)) => {
                    let entry = Entry { source: self.source, key: text, key_at: at, node };
                    entries.push((Located { value: text.to_string(), at }, entry));
                }
                _ => {
                    let help = format!("write such as `{example}`");
                    self.source.refuse(at, format!("a key must be text; this is {}", kind(key)), help);
                }
            }
        }
        Some(entries)
    }

    /// The value as a mapping in which only `known` keys may stand.
    pub(crate) fn table(&self, known: &'static [&'static str]) -> Option<Table<'a>> {
        match Table::new(self.source, self.key, self.key_at, self.node, known) {
            Some(table) => Some(table),
            None => self.wrong_type("a mapping", &format!("indent below it: {}", known.join(", "))),
        }
    }
}

/// A mapping whose keys are all known.
pub(crate) struct Table<'a> {
    pub(crate) source: &'a Source<'a>,
    /// Where the key that it belongs to stands.
    pub(crate) at: Place,
    name: &'a str,
    entries: Vec<(&'a str, Place, &'a MarkedYaml<'static>)>,
    /// Keys that an unknown key was probably meant to be; their absence needs no word of its own.
    meant: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// The mapping `node`, or nothing if it is none. Unknown keys are reported.
    pub(crate) fn new(
        source: &'a Source<'a>,
        name: &'a str,
        at: Place,
        node: &'a MarkedYaml<'static>,
        known: &'static [&'static str],
    ) -> Option<Self> {
        let YamlData::Mapping(mapping) = &node.data else { return None };
        let (mut entries, mut meant) = (Vec::new(), Vec::new());
        for (key, value) in mapping {
            let place = source.place(key);
            match &key.data {
                YamlData::Value(Scalar::String(text)) if known.contains(&text.as_ref()) => {
                    entries.push((text.as_ref(), place, value));
                }
                YamlData::Value(Scalar::String(text)) if source.masked(text) => {}
                YamlData::Value(Scalar::String(text)) => {
                    let help = match nearest(text, known.iter().copied()) {
                        Some(near) => {
                            meant.push(near);
                            format!("did you mean `{near}`?")
                        }
                        None => format!("here may stand: {}", known.join(", ")),
                    };
                    source.refuse(place, format!("unknown key `{text}`"), help);
                }
                _ => source.refuse(
                    place,
                    format!("a key must be text; this is {}", kind(key)),
                    format!("here may stand: {}", known.join(", ")),
                ),
            }
        }
        Some(Self { source, at, name, entries, meant })
    }

    /// The entry called `key`, if it is there.
    pub(crate) fn get(&self, key: &str) -> Option<Entry<'a>> {
        let &(key, key_at, node) = self.entries.iter().find(|(name, ..)| *name == key)?;
        Some(Entry { source: self.source, key, key_at, node })
    }

    /// The entry called `key`; its absence is reported.
    pub(crate) fn need(&self, key: &str, help: &str) -> Option<Entry<'a>> {
        let entry = self.get(key);
        if entry.is_none() && !self.meant.contains(&key) {
            let whose = if self.name.is_empty() { "the file".to_owned() } else { format!("`{}`", self.name) };
            self.source.refuse(self.at, format!("{whose} has no `{key}`"), help);
        }
        entry
    }
}

/// The candidate that `text` is probably meant to be: at most a third of its letters differ.
pub(crate) fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed: Vec<char> = text.chars().take(64).collect();
    let limit = (typed.len() / 3).max(1);
    candidates
        .map(|candidate| (distance(&typed, &candidate.chars().collect::<Vec<_>>()), candidate))
        .filter(|&(distance, candidate)| distance <= limit && distance < candidate.len())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Letters inserted, removed, changed or swapped with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
