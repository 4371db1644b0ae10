//! Residency, labels, encryption and retention, of every stored row and of what lost against it: RES-01, RES-07, LBL-01,
//! LBL-02, LBL-03, KEY-02, RET-01.

use std::borrow::Cow;
use std::collections::BTreeSet;

use model::record::{Basis, DataClass, Purpose};
use model::residency::{Law, ResidencyCase, ResidencyPlan, Verdict};
use model::{RegionId, RuleId, UnixMillis};

use super::checks::Check;
use super::detect::{Detector, detect};
use super::evidence::{Evidence, Inputs, KeyEvidence, RETENTION_GRACE, RawRow};
use super::keys::{Barred, Opened, Opener};
use super::petitions::Orders;
use super::processing::Activities;
use super::raw::{self, Labels, Sibling, Value};
use super::report::Tally;
use super::told::Names;
use super::travel::Journeys;
use super::tree::Hash;

/// The classes that are about nobody; all others are about somebody.
pub(super) const ABOUT_NOBODY: [&str; 4] = ["public", "operational", "source-code", "credentials"];
/// So many bytes of a value are searched for personal data.
pub(super) const SEARCH_LIMIT: usize = 1 << 20;

/// What could not be seen.
#[derive(Default)]
struct Unseen {
    sealed: u64,
    long: u64,
}

/// What is collected over the rows of all regions.
pub(super) struct Seen<'c> {
    pub(super) barred: &'c mut Barred,
    pub(super) orders: &'c mut Orders,
    pub(super) names: &'c mut Names,
    pub(super) journeys: &'c mut Journeys,
    pub(super) activities: &'c mut Activities,
}

/// What the rows of a region are judged by, and what is collected meanwhile.
struct Court<'c, 'p> {
    inputs: &'c Inputs<'p>,
    region: &'c RegionId,
    opener: Opener,
    unseen: Unseen,
    keys: Option<&'c KeyEvidence>,
    barred: &'c mut Barred,
    orders: &'c mut Orders,
    names: &'c mut Names,
    journeys: &'c mut Journeys,
    activities: &'c mut Activities,
}

pub(super) fn judge(tally: &mut Tally, inputs: &Inputs, region: &RegionId, evidence: &Evidence, seen: Seen<'_>) {
    let opener = Opener::of(region, evidence.keys.as_ref());
    let keys = evidence.keys.as_ref();
    let Seen { barred, orders, names, journeys, activities } = seen;
    let unseen = Unseen::default();
    let mut court = Court { inputs, region, opener, unseen, keys, barred, orders, names, journeys, activities };
    for row in &evidence.rows {
        judge_row(tally, &mut court, row);
    }
    for entry in &evidence.losses {
        judge_loss(tally, &mut court, entry);
    }
    let unseen = court.unseen;
    tally.summary(region).records = evidence.rows.len() as u64;
    tally.examined(Check::Lbl03, evidence.rows.len());
    let Unseen { sealed, long } = unseen;
    if sealed > 0 {
        let text = format!(
            "{region}: {sealed} encrypted values: its keys are not on this machine, so that their labels are bound to them was not seen"
        );
        tally.limit(Check::Lbl03, text);
        tally.limit(Check::Lbl02, format!("{region}: {sealed} encrypted values could not be searched"));
    }
    if long > 0 {
        tally.limit(
            Check::Lbl02,
            format!("{region}: of {long} values only the first {SEARCH_LIMIT} bytes were searched"),
        );
    }
    if let Some(policy) = evidence.policy.as_ref().filter(|policy| policy.generation != inputs.revision.generation) {
        let (theirs, ours) = (policy.generation, inputs.revision.generation);
        tally.limit(Check::Res01, format!("{region} follows generation {theirs}; its records were judged by {ours}"));
    }
}

fn judge_row(tally: &mut Tally, court: &mut Court<'_, '_>, row: &RawRow) {
    let (inputs, region) = (court.inputs, court.region);
    let record = tally.record(&row.key);
    let siblings = match raw::row(&row.envelope) {
        Ok(siblings) => siblings,
        Err(reason) => {
            let remedy = "restore the record from a region that holds it whole";
            let rule = format!("unreadable: {reason}");
            tally.find_record(Check::Lbl03, region, Some(&record), &row.envelope, None, rule, remedy);
            return;
        }
    };
    let mut detected = BTreeSet::new();
    for sibling in &siblings {
        let Some(labels) = &sibling.labels else {
            court.orders.moved(region, &record);
            continue;
        };
        tally.examined(Check::Lbl01, 1);
        let find = |tally: &mut Tally, check, rule: String, remedy| {
            tally.find_record(check, region, Some(&record), &row.envelope, sibling.generation, rule, remedy);
        };
        match cases_of(labels) {
            Err(reason) => find(tally, Check::Lbl01, reason, "label the record anew, or erase it"),
            Ok(cases) => {
                match plan_allows(inputs.plan, inputs.now, region, labels, &cases) {
                    Ok(()) => {
                        let value = (sibling, labels);
                        court.journeys.arrived(tally, inputs, region, (row, &record), value, &cases);
                    }
                    Err(rule) => {
                        let remedy = "evict the record from this region, and find out which path let it in";
                        find(tally, Check::Res01, rule, remedy);
                    }
                }
                tally.examined(Check::Res01, 1);
                court.journeys.note(tally, inputs, region, &record, (sibling, labels));
                court.activities.note(inputs, region, &row.key, (sibling, labels));
                encryption(tally, court, (row, &record), sibling, labels, &cases);
            }
        }
        retention(tally, court, (row, &record), sibling, labels);
        if labels.classes.iter().any(|class| !ABOUT_NOBODY.contains(class)) {
            let key = row.key.iter().position(|byte| *byte == 0).map_or(&[][..], |zero| &row.key[zero + 1..]);
            court.names.note(key);
            court.names.note(labels.subject.as_deref().unwrap_or_default().as_bytes());
        }
        super::facts::relied_on(tally, inputs, region, (row, &record), (sibling, labels));
        court.orders.value(tally, (region, court.keys), (row, &record), (sibling, labels));
        let opened = open(tally, court, (row, &record), sibling);
        search(tally, labels, (sibling, opened.as_deref()), row, &mut court.unseen, &mut detected);
    }
    report_detected(tally, region, &record, row, &detected);
}

/// RES-07, and ERA-03 of what lost.
fn judge_loss(tally: &mut Tally, court: &mut Court<'_, '_>, entry: &RawRow) {
    let (inputs, region) = (court.inputs, court.region);
    tally.examined(Check::Res07, 1);
    let (key, mut sibling, kept) = match raw::loss(&entry.envelope) {
        Ok(read) => read,
        Err(reason) => {
            let rule = format!("an entry of the conflict log is unreadable: {reason}");
            let remedy = "nothing is served from it; look at the disk, and at what the record's other regions have";
            return tally.find_record(Check::Res07, region, None, &entry.envelope, None, rule, remedy);
        }
    };
    let record = tally.record(&key);
    let Some(labels) = sibling.labels.take() else { return };
    if !kept {
        sibling.value = Value::Gone;
    }
    let row = RawRow { key, envelope: entry.envelope.clone() };
    let mut find = |rule: String| {
        let remedy = "erase the entry with the record's owner, or the region's conflict log; find out what let it in";
        let generation = sibling.generation;
        tally.find_record(Check::Res07, region, Some(&record), &entry.envelope, generation, rule, remedy);
    };
    match cases_of(&labels) {
        Err(reason) => find(format!("what lost has a label that is wrong: {reason}")),
        Ok(cases) => {
            if let Err(rule) = plan_allows(inputs.plan, inputs.now, region, &labels, &cases) {
                find(rule);
            }
            let personal = labels.classes.iter().any(|class| !ABOUT_NOBODY.contains(class));
            let plain = matches!(sibling.value, Value::Plain(_));
            if plain && (personal || demanded(inputs.plan, region, &cases)) {
                find("a value that lost lies in plain text, and has to be encrypted".to_owned());
            }
            if let Value::Sealed(sealed) = &sibling.value {
                let all = inputs.plan.region_policies().keys();
                let barred =
                    all.filter(|region| plan_allows(inputs.plan, inputs.now, region, &labels, &cases).is_err());
                court.barred.note(sealed.key, barred.cloned());
            }
        }
    }
    court.orders.lost(tally, (region, court.keys), (&row, &record), (&sibling, &labels));
}

/// RET-01 of a value.
fn retention(
    tally: &mut Tally,
    court: &mut Court<'_, '_>,
    (row, record): (&RawRow, &Hash),
    sibling: &Sibling<'_>,
    labels: &Labels,
) {
    if sibling.value == Value::Gone {
        return;
    }
    // A stored key is the namespace, a zero byte, and the key's own name.
    let namespace = row.key.split(|byte| *byte == 0).next().and_then(|name| std::str::from_utf8(name).ok());
    let namespace = namespace.and_then(|name| model::Namespace::new(name).ok());
    let keeps =
        court.inputs.keeps.as_ref().zip(namespace.as_ref()).map(|(plan, name)| &plan.strategy(name).labels.retention);
    let mut ends: Vec<(u64, String)> = labels
        .retain_until
        .map(|until| (until, "it states itself when it must be gone".to_owned()))
        .into_iter()
        .collect();
    for (class, kept) in keeps.into_iter().flatten().filter(|(class, _)| labels.classes.contains(&class.as_str())) {
        let days = kept.0 / (24 * 3600 * 1000);
        ends.push((labels.collected_at.saturating_add(kept.0), format!("its namespace keeps {class} for {days} days")));
    }
    let Some((end, rule)) = ends.into_iter().min() else { return };
    tally.examined(Check::Ret01, 1);
    let late = court.inputs.now.0.saturating_sub(end);
    if late > RETENTION_GRACE.0 && labels.holds.is_empty() && !court.orders.keeps(record) {
        let rule = format!("{rule}; that was {} hours ago", late / 3_600_000);
        let remedy =
            "see in the region's log why it deletes nothing whose time is over, and whether its clock is right";
        let generation = sibling.generation;
        tally.find_record(Check::Ret01, court.region, Some(record), &row.envelope, generation, rule, remedy);
    }
}

/// KEY-02, and which regions may not have the key of the value.
fn encryption(
    tally: &mut Tally,
    court: &mut Court<'_, '_>,
    (row, record): (&RawRow, &Hash),
    sibling: &Sibling<'_>,
    labels: &Labels,
    cases: &[ResidencyCase],
) {
    let (inputs, region) = (court.inputs, court.region);
    match &sibling.value {
        Value::Gone => {}
        Value::Sealed(sealed) => {
            tally.examined(Check::Key02, 1);
            let all = inputs.plan.region_policies().keys();
            let barred = all.filter(|region| plan_allows(inputs.plan, inputs.now, region, labels, cases).is_err());
            court.barred.note(sealed.key, barred.cloned());
        }
        Value::Plain(_) => {
            let personal = labels.classes.iter().any(|class| !ABOUT_NOBODY.contains(class));
            tally.examined(Check::Key02, 1);
            let rule = match (personal, demanded(inputs.plan, region, cases)) {
                (true, _) => "a value about a person lies in plain text",
                (_, true) => "a value lies in plain text, and the policies demand that it be encrypted",
                _ => return,
            };
            let remedy = "write the record again, so that it is encrypted; find out which path stored it";
            let generation = sibling.generation;
            tally.find_record(Check::Key02, region, Some(record), &row.envelope, generation, rule, remedy);
        }
    }
}

/// Whether the policies demand that what falls under these cases be encrypted where it lies.
fn demanded(plan: &ResidencyPlan, region: &RegionId, cases: &[ResidencyCase]) -> bool {
    let of_region = plan.region_policies().get(region).map(|policy| &policy.requires);
    let of_case = |case: &ResidencyCase| match plan.cases().get(case)?.hold.get(region)? {
        Verdict::Allow { obligations, .. } => Some(obligations),
        Verdict::Deny { .. } => None,
    };
    of_region
        .into_iter()
        .chain(cases.iter().filter_map(of_case))
        .flatten()
        .any(|duty| duty.as_str() == "encrypt-at-rest")
}

/// The value in plain text, where it can be seen. LBL-03 where it is not bound to what is said of it.
fn open<'b>(
    tally: &mut Tally,
    court: &mut Court<'_, '_>,
    (row, record): (&RawRow, &Hash),
    sibling: &Sibling<'b>,
) -> Option<Cow<'b, [u8]>> {
    let sealed = match sibling.value {
        Value::Gone => return None,
        Value::Plain(bytes) => return Some(Cow::Borrowed(bytes)),
        Value::Sealed(sealed) => sealed,
    };
    let (rule, remedy) = match court.opener.open(&row.key, &sealed) {
        Opened::Value(bytes) => return Some(Cow::Owned(bytes)),
        Opened::Closed => {
            court.unseen.sealed += 1;
            return None;
        }
        Opened::NoKey => {
            ("its key is not in the region: it cannot be opened", "evict the record, and have it given again")
        }
        Opened::NotBound => (
            "its labels, its place or its bytes are not those that were encrypted",
            "restore the record from another region, and find out what changed it",
        ),
    };
    let generation = sibling.generation;
    tally.find_record(Check::Lbl03, court.region, Some(record), &row.envelope, generation, rule, remedy);
    None
}

/// Searches a value that is labelled as about nobody, and its key.
fn search(
    tally: &mut Tally,
    labels: &Labels,
    (sibling, value): (&Sibling<'_>, Option<&[u8]>),
    row: &RawRow,
    unseen: &mut Unseen,
    detected: &mut BTreeSet<(&'static str, Detector, Option<u64>)>,
) {
    if labels.classes.is_empty() || !labels.classes.iter().all(|class| matches!(*class, "public" | "operational")) {
        return;
    }
    tally.examined(Check::Lbl02, 1);
    // A stored key is the namespace, a zero byte, and the key's own name.
    let name = row.key.iter().position(|byte| *byte == 0).map_or(row.key.as_slice(), |zero| &row.key[zero + 1..]);
    detected.extend(detect(name).into_iter().map(|found| ("key", found, sibling.generation)));
    if let Some(bytes) = value {
        unseen.long += u64::from(bytes.len() > SEARCH_LIMIT);
        let searched = &bytes[..bytes.len().min(SEARCH_LIMIT)];
        detected.extend(detect(searched).into_iter().map(|found| ("value", found, sibling.generation)));
    }
}

fn report_detected(
    tally: &mut Tally,
    region: &RegionId,
    record: &Hash,
    row: &RawRow,
    detected: &BTreeSet<(&'static str, Detector, Option<u64>)>,
) {
    for (place, detector, generation) in detected {
        let rule = format!("its {place} looks like {}, but it is labelled as about nobody", detector.name());
        let remedy = "label the record as personal, or take the personal data out of it; a key name needs a new key";
        tally.find_record(Check::Lbl02, region, Some(record), &row.envelope, *generation, rule, remedy);
    }
}

/// Whether `region` may hold a record of these cases; if not, by which rule.
pub(super) fn plan_allows(
    plan: &ResidencyPlan,
    now: UnixMillis,
    region: &RegionId,
    labels: &Labels,
    cases: &[ResidencyCase],
) -> Result<(), String> {
    let Some(policy) = plan.region_policies().get(region) else {
        return Err("the region has no define-region-policy".into());
    };
    for class in &labels.classes {
        if !policy.accepts.iter().any(|accepted| accepted.as_str() == *class) {
            return Err(format!("the region does not accept {class}"));
        }
    }
    for case in cases {
        let ruling = plan.cases().get(case).and_then(|ruling| ruling.hold.get(region));
        match ruling {
            Some(verdict) if verdict.allows(now) => {}
            Some(verdict) => return Err(RuleId::as_str(verdict.rule()).to_owned()),
            None => return Err("nothing was ruled on this case".into()),
        }
    }
    Ok(())
}

/// The cases that raw labels fall under, or what is wrong with them.
fn cases_of(labels: &Labels) -> Result<Vec<ResidencyCase>, String> {
    let known = |what: &str, found: &str| format!("unknown {what} {found}");
    let basis: Basis = labels.basis.parse().map_err(|_| known("basis", labels.basis))?;
    let purpose: Purpose = labels.purpose.parse().map_err(|_| known("purpose", labels.purpose))?;
    let mut laws = BTreeSet::new();
    for country in &labels.jurisdictions {
        // Aliases (UK, EL) and lower case are resolved before a record is stored; on the disk they are an error.
        let parsed = model::Country::new(country).ok().filter(|parsed| parsed.as_str() == country);
        let short = country.len() <= 3 && country.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let shown = if short { country.clone() } else { format!("of {} bytes", country.len()) };
        laws.insert(Law::of(parsed.ok_or_else(|| known("jurisdiction", &shown))?));
    }
    if laws.is_empty() {
        laws.insert(Law::None);
    }
    if labels.classes.is_empty() {
        return Err("no class".into());
    }
    let mut cases = Vec::new();
    for class in &labels.classes {
        let class: DataClass = class.parse().map_err(|_| known("class", class))?;
        cases.extend(laws.iter().map(|&law| ResidencyCase { class, law, basis, purpose }));
    }
    Ok(cases)
}
