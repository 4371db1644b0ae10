//! Whether what is taken for the law still is: RES-05, FCT-01.

use model::{Country, RegionId};

use super::checks::Check;
use super::evidence::{Inputs, RawRow};
use super::raw::{Labels, Sibling, Value};
use super::report::Tally;
use super::rows::ABOUT_NOBODY;
use super::tree::Hash;
use crate::facts::Adequacy;

/// The countries of the EEA and the territories where the GDPR applies (EUR-Lex, EEA Agreement).
const GDPR: &str = "AT BE BG HR CY CZ DK EE FI FR DE GR HU IE IT LV LT LU MT NL PL PT RO SK SI ES SE IS LI NO RE GP MQ \
                    GF YT MF AX";

fn under_gdpr(country: &str) -> bool {
    GDPR.split(' ').any(|code| code == country)
}

fn country_of(inputs: &Inputs<'_>, region: &RegionId) -> Option<Country> {
    Some(inputs.plan.region_policies().get(region)?.jurisdiction)
}

fn fact_about<'i>(inputs: &'i Inputs<'_>, country: Country) -> Option<&'i Adequacy> {
    inputs.adequacy.iter().find(|fact| fact.country == country.as_str())
}

/// Why a decision does not hold at the time of the audit.
fn void(inputs: &Inputs<'_>, fact: &Adequacy) -> Option<String> {
    let expired = fact.until.filter(|until| until.end() <= inputs.now);
    match (fact.suspended, expired) {
        (true, _) => Some(format!("the adequacy decision about {} is suspended", fact.country)),
        (_, Some(until)) => Some(format!("the adequacy decision about {} held until {until}", fact.country)),
        _ => None,
    }
}

/// FCT-01: facts about the countries of the regions, by the day on which they were to be looked at again.
pub(super) fn reviewed(tally: &mut Tally, inputs: &Inputs<'_>) {
    for region in &inputs.regions {
        let Some(country) = country_of(inputs, &region.region) else { continue };
        tally.examined(Check::Fct01, 1);
        let Some(fact) = fact_about(inputs, country) else { continue };
        if fact.review_by.end() <= inputs.now {
            let rule = format!(
                "the adequacy of {country} was looked at on {} and was to be looked at again by {}",
                fact.verified_on, fact.review_by
            );
            let remedy = "see what the source says today, and change the fact with the date of the look";
            tally.find(Check::Fct01, &region.region, rule.clone().as_bytes(), rule, remedy);
        }
    }
}

/// RES-05 of a value: personal data of another law that lies in a country because that is adequate.
pub(super) fn relied_on(
    tally: &mut Tally,
    inputs: &Inputs<'_>,
    region: &RegionId,
    (row, record): (&RawRow, &Hash),
    (sibling, labels): (&Sibling<'_>, &Labels),
) {
    let Some(country) = country_of(inputs, region) else { return };
    let personal = labels.classes.iter().any(|class| !ABOUT_NOBODY.contains(class));
    let at_home = |law: &String| law == country.as_str() || under_gdpr(law) && under_gdpr(country.as_str());
    if sibling.value == Value::Gone
        || !personal
        || under_gdpr(country.as_str())
        || labels.jurisdictions.iter().all(at_home)
    {
        return;
    }
    tally.examined(Check::Res05, 1);
    let Some(fact) = fact_about(inputs, country) else { return tally.abroad(region) };
    if let Some(rule) = void(inputs, fact) {
        let remedy = "take the country out of what data-residency.scm calls adequate: the records leave by themselves";
        let generation = sibling.generation;
        tally.find_record(Check::Res05, region, Some(record), &row.envelope, generation, rule, remedy);
    }
}
