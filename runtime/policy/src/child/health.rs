//! Asks `failover.scm`: whether a region is unwell, and what follows from those that serve.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::RegionId;
use model::judgement::FailoverPlan;
use model::routing::{Observation, RegionFacts};
use steel::rvals::SteelVal;

use super::declare::known_regions;
use super::interpreter::Interpreter;
use super::questions::Answered;
use super::values::{Alist, ObservationObject, RegionObject, Scheme, count, fault, list, name, region_id, wrap};

impl Interpreter {
    /// Whether a region should be taken as unwell.
    pub fn unwell(&mut self, observations: &[Observation]) -> Answered<bool> {
        let seen = list(observations.iter().map(|&observation| wrap(ObservationObject(observation))));
        let answer = self.call("region-verdict", vec![seen]).map_err(|finding| vec![finding])?;
        let verdict = name(&answer).and_then(|word| match word {
            "steady" => Ok(false),
            "unwell" => Ok(true),
            _ => Err(fault("this is no verdict")),
        });
        verdict.map_err(|error| vec![self.misshapen("region-verdict", &answer, &error, "return 'steady or 'unwell")])
    }

    /// Who should leave, how traffic moves, and who is promoted.
    pub fn failover_plan(&mut self, regions: Vec<RegionFacts>) -> Answered<FailoverPlan> {
        let known: BTreeSet<RegionId> = regions.iter().map(|region| region.id.clone()).collect();
        let seen = list(regions.into_iter().map(|region| wrap(RegionObject(Arc::new(region)))));
        let answer = self.call("failover-plan", vec![seen]).map_err(|finding| vec![finding])?;
        plan(&answer, &known).map_err(|error| {
            let known = known_regions(&known);
            let help = format!("return ((drain . ids) (shift . 1 to 100) (promote . id or #f)); {known}");
            vec![self.misshapen("failover-plan", &answer, &error, &help)]
        })
    }
}

fn plan(answer: &SteelVal, known: &BTreeSet<RegionId>) -> Scheme<FailoverPlan> {
    let keys = Alist::read(answer, &["drain", "shift", "promote"])?;
    let missing = |key: &str| fault(format!("`{key}` is missing"));
    let drain = keys.many("drain", region_id)?.ok_or_else(|| missing("drain"))?;
    let shift = keys.one("shift", count)?.ok_or_else(|| missing("shift"))?;
    let promote = keys.one("promote", |value| match value {
        SteelVal::BoolV(false) => Ok(None),
        other => region_id(other).map(Some),
    })?;
    let promote = promote.ok_or_else(|| missing("promote"))?;
    if let Some(stranger) = drain.iter().chain(&promote).find(|id| !known.contains(*id)) {
        return Err(fault(format!("there is no region `{stranger}`")));
    }
    let shift = u8::try_from(shift).ok().filter(|shift| (1..=100).contains(shift));
    Ok(FailoverPlan { drain, shift: shift.ok_or_else(|| fault("`shift` is a per cent, 1 to 100"))?, promote })
}

#[cfg(test)]
mod tests {
    use super::super::values::{integer, symbol};
    use super::*;

    fn answer(drain: &[&str], shift: u64, promote: SteelVal) -> SteelVal {
        let drain = std::iter::once("drain").chain(drain.iter().copied()).map(symbol);
        list([list(drain), list([symbol("shift"), integer(shift)]), list([symbol("promote"), promote])])
    }

    fn known() -> BTreeSet<RegionId> {
        ["us-east", "eu-west"].into_iter().map(|name| RegionId::new(name).unwrap()).collect()
    }

    #[test]
    fn a_plan_that_names_a_stranger_or_moves_nothing_or_too_much_is_refused() {
        let nobody = SteelVal::BoolV(false);
        let good = plan(&answer(&["eu-west"], 25, symbol("us-east")), &known()).unwrap();
        assert_eq!(good.drain, [RegionId::new("eu-west").unwrap()]);
        assert_eq!((good.shift, good.promote), (25, RegionId::new("us-east").ok()));
        assert_eq!(plan(&answer(&[], 100, nobody.clone()), &known()).unwrap().promote, None);
        for (bad, says) in [
            (answer(&["sa-east"], 25, nobody.clone()), "no region `sa-east`"),
            (answer(&[], 25, symbol("sa-east")), "no region `sa-east`"),
            (answer(&[], 0, nobody.clone()), "1 to 100"),
            (answer(&[], 101, nobody.clone()), "1 to 100"),
            (list([list([symbol("drain")]), list([symbol("promote"), nobody])]), "`shift` is missing"),
            (symbol("eu-west"), "expected a list"),
        ] {
            let refused = plan(&bad, &known()).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
