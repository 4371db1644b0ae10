//! Asks `dns-answer` for each name that a zone routes, once for each ranking.
//!
//! A policy is a pure function of the name, the client and the ranking. The
//! client notes whether it was looked at; where it was not, clients with the
//! same ranking share the answer, so that hundreds of names take thousands of
//! calls and not hundreds of thousands.

use std::collections::{BTreeMap, HashMap};

use model::routing::{AnswerShape, ClientFacts, DnsPlan, LONGEST_ANSWER_TTL, NameShapes, Ranking, Share};
use model::{Finding, RegionId};
use steel::rvals::SteelVal;

use super::declare::lock;
use super::interpreter::Interpreter;
use super::values::{Alist, ClientObject, Scheme, count, fault, list, name, symbol, text, wrap};

/// The name asked about when a tree that declares no zone is tried.
const SAMPLE: &str = "api.example.org";

impl Interpreter {
    /// A name to try `dns-answer` with.
    pub(super) fn sample_name(&self) -> String {
        let ledger = lock(&self.ledger);
        let declared = ledger.zones.values().find_map(|(_, zone)| zone.routed.first());
        declared.map_or(SAMPLE, |name| name.as_str()).to_owned()
    }

    /// What is answered over DNS, by these rankings: one for each client, the one of no known country first.
    pub(super) fn dns_plan(&mut self, clients: &[ClientFacts], rankings: &[Ranking]) -> Result<DnsPlan, Vec<Finding>> {
        let zones = lock(&self.ledger).zones(&self.region_ids());
        let zones = zones.map_err(|misfits| {
            misfits.into_iter().map(|misfit| super::faults::misfit(&self.files, misfit)).collect::<Vec<_>>()
        })?;
        let mut shapes = BTreeMap::new();
        for name in zones.values().flat_map(|zone| &zone.routed) {
            let shape = self.shapes(name.as_str(), clients, rankings).map_err(|finding| vec![finding])?;
            shapes.insert(name.clone(), shape);
        }
        Ok(DnsPlan { zones, shapes })
    }

    fn shapes(&mut self, name: &str, clients: &[ClientFacts], rankings: &[Ranking]) -> Result<NameShapes, Finding> {
        let mut memo: HashMap<&Ranking, AnswerShape> = HashMap::new();
        let mut found: Option<NameShapes> = None;
        for (client, ranking) in clients.iter().zip(rankings) {
            let shape = match memo.get(ranking) {
                Some(shape) => shape.clone(),
                None => {
                    let (shape, looked) = self.dns_answer(name, client, ranking)?;
                    if !looked {
                        memo.insert(ranking, shape.clone());
                    }
                    shape
                }
            };
            match &mut found {
                None => found = Some(NameShapes { default: shape, by_class: BTreeMap::new() }),
                Some(shapes) if shapes.default != shape => drop(shapes.by_class.insert(client.class, shape)),
                Some(_) => {}
            }
        }
        Ok(found.expect("the clients of no known country are always among those asked for"))
    }

    /// The shape of one answer, and whether the policy looked at the client for it.
    pub(super) fn dns_answer(
        &mut self,
        name: &str,
        client: &ClientFacts,
        ranking: &Ranking,
    ) -> Result<(AnswerShape, bool), Finding> {
        let ranked = list(ranking.regions.iter().map(|id| symbol(id.as_str())));
        let client = ClientObject::new(client.clone());
        let answer = self.call("dns-answer", vec![text(name), wrap(client.clone()), ranked])?;
        let help = "return ((count . 2) (ttl-min . 20) (ttl-max . 300)), times in seconds";
        match shape(&answer, ranking) {
            Ok(shape) => Ok((shape, client.was_read())),
            Err(error) => Err(self.misshapen("dns-answer", &answer, &error, help)),
        }
    }
}

fn shape(answer: &SteelVal, ranking: &Ranking) -> Scheme<AnswerShape> {
    let bounds = || fault(format!("count and ttl-min from 1, ttl-max from ttl-min to {LONGEST_ANSWER_TTL}"));
    let keys = Alist::read(answer, &["count", "ttl-min", "ttl-max", "shares"])?;
    let key = |called| keys.one(called, count)?.ok_or_else(|| fault(format!("`{called}` is missing")));
    let seconds = |called| u32::try_from(key(called)?).map_err(|_| bounds());
    let shape = AnswerShape {
        count: u16::try_from(key("count")?).map_err(|_| bounds())?,
        ttl_min: seconds("ttl-min")?,
        ttl_max: seconds("ttl-max")?,
        shares: keys.many("shares", |entry| share(entry, ranking))?.unwrap_or_default(),
    };
    let regions: std::collections::BTreeSet<&RegionId> = shape.shares.iter().map(|share| &share.region).collect();
    if regions.len() < shape.shares.len() {
        return Err(fault("`shares` names a region twice"));
    }
    if !shape.shares.is_empty() && shape.shares.iter().all(|share| share.weight == 0) {
        return Err(fault("every weight of `shares` is 0; give one region a weight, or leave `shares` out"));
    }
    if shape.is_sound() { Ok(shape) } else { Err(bounds()) }
}

/// `(eu-west . 10)`: a ranked region and its weight.
fn share(entry: &SteelVal, ranking: &Ranking) -> Scheme<Share> {
    let SteelVal::Pair(pair) = entry else { return Err(fault("write each share as (eu-west . 10)")) };
    let region = name(&pair.car())?.to_owned();
    let Some(region) = ranking.regions.iter().find(|id| id.as_str() == region) else {
        return Err(fault(format!("`{region}` has a share and is not among the ranked regions")));
    };
    let weight = count(&pair.cdr())?;
    let weight = u16::try_from(weight).map_err(|_| fault("a weight is a whole number from 0 to 65535"))?;
    Ok(Share { region: region.clone(), weight })
}
