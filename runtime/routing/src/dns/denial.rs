//! Proofs that something is not there: the NSEC chain of a signed zone (RFC 4034,
//! section 4, and RFC 4035, section 3.1.3).
//!
//! The chain lists the names that have records, in canonical order, each with
//! the types that it has and the name after it. A name that is routed may have
//! addresses of a family for some clients alone; for those who get none, there
//! is a link of its own that says so.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::sign::Signing;
use super::table::{Addresses, Entry, RecordSet};
use super::wire::{LONGEST_NAME, parent, rtype};

/// The link of one name.
#[derive(Clone, Debug)]
struct Link {
    owner: Box<[u8]>,
    /// With every type that anybody is answered.
    set: RecordSet,
    /// For clients that get IPv4 and IPv6 addresses, or not.
    apart: Vec<([bool; 2], RecordSet)>,
}

/// What a zone has because it is signed.
#[derive(Clone, Debug)]
pub(super) struct SignedZone {
    apex: Box<[u8]>,
    signing: Arc<Signing>,
    /// In canonical order; the first is the apex.
    links: Vec<Link>,
}

/// A record of the chain, with its owner.
pub(super) type Proof<'z> = (&'z [u8], &'z RecordSet);

impl SignedZone {
    /// Makes the chain of a zone whose `names` are complete. `ttl` is that of negative answers (RFC 9077).
    pub(super) fn new(apex: &[u8], signing: Arc<Signing>, names: &BTreeMap<Box<[u8]>, Entry>, ttl: u32) -> Self {
        let is_cut = |name: &[u8]| names.get(name).is_some_and(|entry| entry.is_cut);
        let hidden = |name: &[u8]| {
            let mut above = parent(name);
            while let Some(at) = above.filter(|at| at.len() > apex.len()) {
                if is_cut(at) {
                    return true;
                }
                above = parent(at);
            }
            false
        };
        let mut owners: Vec<(&[u8], &Entry)> = names
            .iter()
            .map(|(name, entry)| (&**name, entry))
            .filter(|(name, entry)| !entry.is_empty() && !hidden(name))
            .collect();
        owners.sort_by(|(a, _), (b, _)| canonical(a, b));
        let next = owners.iter().map(|(name, _)| *name).cycle().skip(1);
        let links = owners.iter().zip(next).map(|((owner, entry), next)| {
            let link = |families: [bool; 2]| {
                let mut data = next.to_vec();
                data.extend(bitmap(&types(entry, families)));
                RecordSet::one(rtype::NSEC, ttl, &data)
            };
            let has = |addresses: &Addresses| [addresses.v4.count > 0, addresses.v6.count > 0];
            let all: BTreeSet<[bool; 2]> = entry.steering.iter().flat_map(|steering| steering.all().map(has)).collect();
            let any = all.iter().fold([false; 2], |any, one| [any[0] || one[0], any[1] || one[1]]);
            let apart = all.into_iter().filter(|one| *one != any).map(|one| (one, link(one))).collect();
            Link { owner: (*owner).into(), set: link(any), apart }
        });
        let links = links.collect();
        Self { apex: apex.into(), signing, links }
    }

    /// The signatures over the records of `owner`.
    pub(super) fn signatures<'s>(&self, owner: &[u8], set: &'s RecordSet) -> Option<&'s RecordSet> {
        self.signing.signatures(&self.apex, owner, set)
    }

    /// The link of a name, if it has records.
    pub(super) fn link(&self, name: &[u8]) -> Option<Proof<'_>> {
        let at = self.find(name).ok()?;
        Some((&self.links[at].owner, &self.links[at].set))
    }

    /// The proof that a name that exists has no records of a type. `given` is what the client would be answered by
    /// family, where the name is routed and the type an address.
    pub(super) fn no_type(&self, name: &[u8], given: Option<&Addresses>) -> Option<Proof<'_>> {
        let link = match self.find(name) {
            Ok(at) => &self.links[at],
            // It only has others below it: the link that spans it ends there, which proves both.
            Err(at) => self.links.get(at.checked_sub(1)?)?,
        };
        let families = given.map(|given| [given.v4.count > 0, given.v6.count > 0]);
        let apart = link.apart.iter().find(|(one, _)| families.is_some_and(|families| families == *one));
        Some((&link.owner, apart.map_or(&link.set, |(_, set)| set)))
    }

    /// The proof that there is no such name and no wildcard that would stand for it. `encloser` is the deepest name
    /// above it that exists.
    pub(super) fn no_name(&self, name: &[u8], encloser: &[u8]) -> impl Iterator<Item = Proof<'_>> {
        let mut wildcard = vec![1, b'*'];
        wildcard.extend_from_slice(encloser);
        let spanning = |name: &[u8]| match self.find(name) {
            Ok(at) => Some(at),
            Err(at) => at.checked_sub(1),
        };
        let (first, second) = (spanning(name), spanning(&wildcard));
        let both = [first, second.filter(|second| Some(*second) != first)];
        both.into_iter().flatten().map(|at| (&*self.links[at].owner, &self.links[at].set))
    }

    /// Every set of the chain, with its owner.
    pub(super) fn all(&self) -> impl Iterator<Item = Proof<'_>> {
        self.links.iter().flat_map(|link| {
            let apart = link.apart.iter().map(|(_, set)| set);
            std::iter::once(&link.set).chain(apart).map(|set| (&*link.owner, set))
        })
    }

    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        self.links.binary_search_by(|link| canonical(&link.owner, name))
    }
}

/// The types that a name has, of the addresses those of the given families.
fn types(entry: &Entry, [v4, v6]: [bool; 2]) -> BTreeSet<u16> {
    let mut types: BTreeSet<u16> = entry.sets.iter().map(|(rtype, _)| *rtype).collect();
    types.extend(entry.alias.iter().map(|_| rtype::CNAME));
    types.extend([(v4, rtype::A), (v6, rtype::AAAA)].into_iter().filter_map(|(has, rtype)| has.then_some(rtype)));
    types.extend([rtype::RRSIG, rtype::NSEC]);
    types
}

/// RFC 4034, section 4.1.2: a window of 256 types after the other, each as long as its last type needs.
fn bitmap(types: &BTreeSet<u16>) -> Vec<u8> {
    let mut windows: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    for rtype in types {
        let [window, low] = rtype.to_be_bytes();
        let bits = windows.entry(window).or_default();
        let at = usize::from(low / 8);
        bits.resize(bits.len().max(at + 1), 0);
        bits[at] |= 0x80 >> (low % 8);
    }
    windows.into_iter().flat_map(|(window, bits)| [vec![window, bits.len() as u8], bits].concat()).collect()
}

/// RFC 4034, section 6.1: names by their labels from the root, each as bytes. Both names are in lower case.
fn canonical(a: &[u8], b: &[u8]) -> Ordering {
    let (mut starts, mut others) = ([0_u8; LONGEST_NAME / 2 + 1], [0_u8; LONGEST_NAME / 2 + 1]);
    let (depth, other) = (label_starts(a, &mut starts), label_starts(b, &mut others));
    let label = |name: &[u8], start: u8| -> std::ops::Range<usize> {
        let start = usize::from(start);
        start + 1..start + 1 + usize::from(name[start])
    };
    for back in 1..=depth.min(other) {
        let (x, y) = (&a[label(a, starts[depth - back])], &b[label(b, others[other - back])]);
        match x.cmp(y) {
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
    depth.cmp(&other)
}

/// Where the labels of a name begin, without the root; how many there are.
fn label_starts(name: &[u8], starts: &mut [u8; LONGEST_NAME / 2 + 1]) -> usize {
    let (mut at, mut count) = (0, 0);
    while let Some(&length) = name.get(at).filter(|length| **length > 0) {
        starts[count] = at as u8;
        count += 1;
        at += usize::from(length) + 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::super::wire::encode_name;
    use super::*;

    #[test]
    fn names_are_never_in_another_order_than_the_standard_s() {
        // RFC 4034, section 6.1, without the escaped ones.
        let order = ["example", "a.example", "yljkjljk.a.example", "z.a.example", "zabc.a.example", "z.example"];
        for (at, name) in order.iter().enumerate() {
            for (other, second) in order.iter().enumerate() {
                assert_eq!(canonical(&encode_name(name), &encode_name(second)), at.cmp(&other), "{name} {second}");
            }
        }
        let bytes = |label: &[u8]| [&[label.len() as u8], label, b"\x07example\0"].concat();
        assert_eq!(canonical(&bytes(&[1]), &bytes(b"*")), Ordering::Less);
        assert_eq!(canonical(&bytes(b"*"), &bytes(&[200])), Ordering::Less);
        let longest: Vec<u8> = [1, b'a'].repeat(127).into_iter().chain([0]).collect();
        assert_eq!(canonical(&longest, &longest), Ordering::Equal);
    }

    #[test]
    fn a_bitmap_is_never_otherwise_than_in_the_standard_s_example() {
        // RFC 4034, section 4.3: A MX RRSIG NSEC TYPE1234.
        let mut expected = vec![0, 6, 0x40, 0x01, 0, 0, 0, 0x03, 4, 0x1b];
        expected.extend([0; 26]);
        expected.push(0x20);
        assert_eq!(bitmap(&BTreeSet::from([1, 15, 46, 47, 1234])), expected);
    }
}
