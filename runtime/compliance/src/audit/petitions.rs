//! Whether orders about people were carried out: ERA-01, ERA-02, ERA-03, RET-02, DSR-02.
//!
//! What regions keep of them is read here a second time:
//!
//! ```text
//! 22 01 | signed order, list of (region text, signed acknowledgement) | CRC-32
//! signed  = bytes, signature                Ed25519 by the region's ledger key over a line that says what it is, and the bytes
//! order   = name, 16 | owner, 16 | demand | region text, at
//! demand  = 0 erase | 1 name text: hold | 2 and 16 bytes: that hold ends | 3 export
//! done    = order, 16 | region text, at, keys, list of 8 bytes that name a record
//! owner   = BLAKE3 keyed, of "s", the length of the subject (u64, little-endian) and the subject; its first 16 bytes
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use model::RegionId;
use model::petition::DEADLINE;

use super::checks::Check;
use super::evidence::{Evidence, Inputs, KeyEvidence, RawRow};
use super::raw::{Labels, Read, Reader, Sibling, Value, opened};
use super::report::Tally;
use super::tree::{Hash, hex};

type Name = [u8; 16];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Demand {
    Erase,
    Hold,
    Release(Name),
    Export,
}

struct Order {
    owner: Name,
    demand: Demand,
    at: u64,
    /// By region: the records that it concerned there.
    done: BTreeMap<RegionId, Vec<[u8; 8]>>,
}

/// All orders whose signatures hold.
pub(super) struct Orders {
    orders: BTreeMap<Name, Order>,
    /// The erasures of each owner.
    erased: HashMap<Name, Vec<Name>>,
    owner_key: Hash,
    /// Records that a hold keeps.
    kept: HashSet<[u8; 8]>,
    /// Those of them that are alive, by region.
    alive: HashSet<(RegionId, [u8; 8])>,
    /// Those of which a region has a marker that they live elsewhere.
    moved: HashSet<(RegionId, [u8; 8])>,
}

struct Signed<'b> {
    bytes: &'b [u8],
    signature: &'b [u8],
}

fn signed<'b>(reader: &mut Reader<'b>) -> Read<Signed<'b>> {
    Ok(Signed { bytes: reader.blob()?, signature: reader.blob()? })
}

fn good(inputs: &Inputs<'_>, region: &str, what: &str, signed: &Signed<'_>) -> bool {
    let Some((_, keys)) = inputs.keys.iter().find(|(id, _)| id.as_str() == region) else { return false };
    let message = [format!("repomind {what} 1\n").as_bytes(), signed.bytes].concat();
    UnparsedPublicKey::new(&ED25519, &keys.ledger).verify(&message, signed.signature).is_ok()
}

fn order(inputs: &Inputs<'_>, signed: &Signed<'_>) -> Read<(Name, Order)> {
    let mut reader = Reader(signed.bytes);
    let (name, owner) = (reader.order()?, reader.order()?);
    let demand = match reader.integer()? {
        0 => Demand::Erase,
        1 => reader.text().map(|_| Demand::Hold)?,
        2 => Demand::Release(reader.order()?),
        3 => Demand::Export,
        other => return Err(format!("demand {other} is not known")),
    };
    let (by, at) = (reader.text()?, reader.integer()?);
    reader.end()?;
    match good(inputs, by, "order about a person", signed) {
        true => Ok((name, Order { owner, demand, at, done: BTreeMap::new() })),
        false => Err("the signature of an order does not hold".into()),
    }
}

fn done(inputs: &Inputs<'_>, of: Name, signed: &Signed<'_>) -> Read<(RegionId, Vec<[u8; 8]>)> {
    let mut reader = Reader(signed.bytes);
    let (name, region) = (reader.order()?, reader.text()?);
    reader.integer()?;
    reader.integer()?;
    let records = reader.list(Reader::eight)?;
    reader.end()?;
    if name != of || !good(inputs, region, "order carried out", signed) {
        return Err("the signature of an acknowledgement does not hold".into());
    }
    Ok((RegionId::new(region).map_err(|error| error.to_string())?, records))
}

impl Orders {
    /// Reads what every region keeps, and joins it.
    pub(super) fn read(tally: &mut Tally, inputs: &Inputs<'_>) -> Self {
        let mut orders = BTreeMap::<Name, Order>::new();
        for region in &inputs.regions {
            let Ok(evidence) = &region.evidence else { continue };
            for bytes in &evidence.petitions {
                let mut read = || -> Read<()> {
                    let mut reader = Reader(opened(bytes, [0x22, 1], "petition")?);
                    let (name, fresh) = order(inputs, &signed(&mut reader)?)?;
                    let acknowledged = reader.list(|reader| {
                        reader.text()?;
                        signed(reader)
                    })?;
                    reader.end()?;
                    let known = orders.entry(name).or_insert(fresh);
                    for signed in &acknowledged {
                        let (region, records) = done(inputs, name, signed)?;
                        known.done.insert(region, records);
                    }
                    Ok(())
                };
                if let Err(reason) = read() {
                    let remedy = "compare it with the other regions', and find out what changed it";
                    tally.find(
                        Check::Era02,
                        &region.region,
                        bytes,
                        format!("an order cannot be believed: {reason}"),
                        remedy,
                    );
                }
            }
        }
        let mut erased = HashMap::<Name, Vec<Name>>::new();
        for (name, order) in orders.iter().filter(|(_, order)| order.demand == Demand::Erase) {
            erased.entry(order.owner).or_default().push(*name);
        }
        let released: BTreeSet<Name> = orders
            .values()
            .filter_map(|order| if let Demand::Release(hold) = order.demand { Some(hold) } else { None })
            .collect();
        let standing = |(name, order): &(&Name, &Order)| order.demand == Demand::Hold && !released.contains(*name);
        let kept =
            orders.iter().filter(standing).flat_map(|(_, order)| order.done.values().flatten().copied()).collect();
        let owner_key = blake3::derive_key("repomind owners of data keys v1", &inputs.record_secret);
        Self { orders, erased, owner_key, kept, alive: HashSet::new(), moved: HashSet::new() }
    }

    fn owner(&self, subject: &str) -> Name {
        let length = (subject.len() as u64).to_le_bytes();
        let hash = blake3::keyed_hash(&self.owner_key, &[b"s", length.as_slice(), subject.as_bytes()].concat());
        hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes")
    }

    /// Whether a hold keeps a record.
    pub(super) fn keeps(&self, record: &Hash) -> bool {
        record.first_chunk::<8>().is_some_and(|id| self.kept.contains(id))
    }

    /// Notes a record of which a region has but a marker.
    pub(super) fn moved(&mut self, region: &RegionId, record: &Hash) {
        let id: [u8; 8] = record[..8].try_into().expect("a hash has 32 bytes");
        if self.kept.contains(&id) {
            self.moved.insert((region.clone(), id));
        }
    }

    /// ERA-03 of a value, and which held records are alive.
    pub(super) fn value(
        &mut self,
        tally: &mut Tally,
        (region, keys): (&RegionId, Option<&KeyEvidence>),
        (row, record): (&RawRow, &Hash),
        (sibling, labels): (&Sibling<'_>, &Labels),
    ) {
        if sibling.value == Value::Gone || self.orders.is_empty() {
            return;
        }
        let id: [u8; 8] = record[..8].try_into().expect("a hash has 32 bytes");
        if self.kept.contains(&id) {
            self.alive.insert((region.clone(), id));
        }
        self.lost(tally, (region, keys), (row, record), (sibling, labels));
    }

    /// ERA-03 of a value that may have lost against another one: it keeps no record alive.
    pub(super) fn lost(
        &self,
        tally: &mut Tally,
        (region, keys): (&RegionId, Option<&KeyEvidence>),
        (row, record): (&RawRow, &Hash),
        (sibling, labels): (&Sibling<'_>, &Labels),
    ) {
        if sibling.value == Value::Gone || self.orders.is_empty() {
            return;
        }
        let Some(subject) = &labels.subject else { return };
        let Some(orders) = self.erased.get(&self.owner(subject)) else { return };
        tally.examined(Check::Era03, 1);
        let carried_out = orders.iter().filter(|name| self.orders[*name].done.contains_key(region));
        let after = |order: &Name| match &sibling.value {
            Value::Sealed(sealed) => keys
                .into_iter()
                .flat_map(|keys| &keys.held)
                .any(|key| hex(&key.name) == sealed.key && key.after.contains(order)),
            _ => false,
        };
        if carried_out.into_iter().any(|order| !after(order)) {
            let rule = "a value about a person lies here whose erasure this region has acknowledged";
            let remedy =
                "restart the region, which carries erasures out again, and find out what brought the value back";
            tally.find_record(Check::Era03, region, Some(record), &row.envelope, sibling.generation, rule, remedy);
        }
    }

    /// The checks that are about orders and keys.
    pub(super) fn judge(&self, tally: &mut Tally, inputs: &Inputs<'_>) {
        for region in &inputs.regions {
            if let Ok(evidence) = &region.evidence {
                self.keys(tally, &region.region, evidence);
                self.holds(tally, &region.region);
            }
            self.deadlines(tally, inputs, &region.region);
        }
    }

    fn keys(&self, tally: &mut Tally, region: &RegionId, evidence: &Evidence) {
        let Some(keys) = &evidence.keys else {
            return tally.not_run_once(Check::Era01, region, "it did not say which keys it has");
        };
        for (name, order) in self.orders.iter().filter(|(_, order)| order.demand == Demand::Erase) {
            if !order.done.contains_key(region) {
                continue;
            }
            tally.examined(Check::Era01, 1);
            for key in keys.held.iter().filter(|key| key.owner == order.owner && !key.after.contains(name)) {
                let rule = format!(
                    "it has the data key {} of a person whose erasure it has acknowledged",
                    hex(&key.name[..6])
                );
                let remedy = "restart the region, which destroys the key again, and find out what brought it back";
                tally.find(Check::Era01, region, &key.name, rule, remedy);
            }
        }
    }

    fn deadlines(&self, tally: &mut Tally, inputs: &Inputs<'_>, region: &RegionId) {
        for (name, order) in &self.orders {
            let (check, what) = match order.demand {
                Demand::Erase => (Check::Era02, "erasure"),
                Demand::Export => (Check::Dsr02, "export"),
                Demand::Hold | Demand::Release(_) => continue,
            };
            tally.examined(check, 1);
            if !order.done.contains_key(region) && inputs.now.0 > order.at + DEADLINE.0 {
                let days = (inputs.now.0 - order.at) / 86_400_000;
                let rule = format!("it has not carried out the {what} {} of {days} days ago", hex(&name[..6]));
                tally.find(
                    check,
                    region,
                    name,
                    rule,
                    "bring the region back, or give the person what is missing by hand",
                );
            }
        }
    }

    fn holds(&self, tally: &mut Tally, region: &RegionId) {
        for (name, order) in self.orders.iter().filter(|(_, order)| order.demand == Demand::Hold) {
            for record in order.done.get(region).into_iter().flatten().filter(|id| self.kept.contains(*id)) {
                tally.examined(Check::Ret02, 1);
                // What policies let a region hold no more is kept where it lives.
                let elsewhere = self.moved.contains(&(region.clone(), *record))
                    && self.alive.iter().any(|(_, alive)| alive == record);
                if !elsewhere && !self.alive.contains(&(region.clone(), *record)) {
                    let rule = format!("the record {} is gone, which the hold {} keeps", hex(record), hex(&name[..6]));
                    let remedy = "restore it from another region or a backup, and find out what deleted it";
                    tally.find(Check::Ret02, region, record, rule, remedy);
                }
            }
        }
    }
}
