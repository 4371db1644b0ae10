//! Which region to add, and the smallest set of regions that is near enough.
//!
//! The search knows every place and takes each country to be served by the best
//! of a set: a bound. What it finds is then put to the policies, which choose
//! for other reasons too, and to the crowd; only what holds there is told.

use model::RegionId;
use model::region::{Region, Regions};
use world::{Access, Crowd, Outcome, Reach, Setting, places};

use super::LIMIT_MS;
use super::planner::{Planner, Table, imagined};
use super::report::{Next, Set};

/// How many of the best places to add are put to the policies.
const TRIED: usize = 6;
/// How many sets of one size are put to the policies.
const SETS: usize = 40;
/// Larger sets are not looked for.
const LARGEST: usize = 12;
/// The share of clients who are to be served within the limit.
const NEED: f64 = 0.95;

/// What was found, and what it means to the crowd.
pub struct Found {
    /// Regions to add, the best first.
    pub next: Vec<Next>,
    /// The smallest set of all places.
    pub smallest: Option<Set>,
    /// The smallest set with all regions of the tree in it.
    pub growing: Option<Set>,
    /// For the drawing.
    pub outcomes: Vec<(String, Outcome)>,
}

/// Everything that could be in a set: the tree's regions first, then every place where none of them is.
struct Choice {
    all: Vec<Region>,
    own: usize,
    reach: Reach,
}

/// Searches.
///
/// # Errors
/// Where the policies give no usable answer.
pub async fn run(planner: &Planner, table: &Table, crowd: &Crowd, access: Access) -> anyhow::Result<Found> {
    let own: Vec<Region> = table.regions.by_id.values().cloned().collect();
    let free = places().iter().filter(|place| own.iter().all(|region| region.name != place.name));
    let all: Vec<Region> = own.iter().cloned().chain(free.filter_map(imagined)).collect();
    let at: Vec<_> = all.iter().map(|region| region.coordinates).collect();
    let reach = Reach::new(Crowd::reach(&access, LIMIT_MS, &at));
    let choice = Choice { all, own: own.len(), reach };
    let mut outcomes = Vec::new();
    let next = add(planner, (&choice, &table.regions), crowd).await?;
    let fixed: Vec<usize> = (0..choice.own).collect();
    let growing = smallest(planner, (&choice, &table.regions), crowd, &fixed).await?;
    let smallest = best_routed(&choice, crowd);
    let mut told = |name: &str, found: Option<(Set, Outcome)>| {
        found.map(|(set, outcome)| {
            outcomes.push((format!("{name} {}", set.regions.len()), outcome));
            set
        })
    };
    let growing = told("grown to", growing);
    let smallest = told("the best", smallest);
    Ok(Found { next, smallest, growing, outcomes })
}

/// The regions of a choice as a tree would have them: with its primary, or the first.
fn regions(choice: &Choice, tree: &Regions, chosen: &[usize]) -> Regions {
    let by_id: std::collections::BTreeMap<RegionId, Region> =
        chosen.iter().map(|at| (choice.all[*at].id.clone(), choice.all[*at].clone())).collect();
    let primary = by_id.keys().find(|id| **id == tree.primary).or_else(|| by_id.keys().next()).cloned();
    let primary = primary.unwrap_or_else(|| tree.primary.clone());
    Regions { primary, by_id, operators: tree.operators.clone() }
}

async fn add(planner: &Planner, (choice, tree): (&Choice, &Regions), crowd: &Crowd) -> anyhow::Result<Vec<Next>> {
    let own: Vec<usize> = (0..choice.own).collect();
    let mut tried = Vec::new();
    for (place, bound) in choice.reach.next(&own).into_iter().take(TRIED) {
        let table = planner.table(regions(choice, tree, &[&own[..], &[place]].concat())).await?;
        let outcome = table.meet(crowd, &table.ready(), None);
        let region = &choice.all[place];
        tried.push(Next {
            region: region.id.clone(),
            name: region.name.clone(),
            best_gain: bound,
            below_100: outcome.below(LIMIT_MS),
            all: outcome.all.summary(),
        });
    }
    tried.sort_by(|one, other| other.below_100.total_cmp(&one.below_100));
    Ok(tried)
}

/// The smallest set of all places, where every country is sent to the region that is best for it: policies name the
/// regions of their tree, and cannot be asked about a world without them.
fn best_routed(choice: &Choice, crowd: &Crowd) -> Option<(Set, Outcome)> {
    let mut least = None;
    for size in 1..=LARGEST {
        for (chosen, bound) in choice.reach.sets(&[], size, NEED, SETS) {
            least = least.or(Some(size));
            let regions: Vec<_> = chosen.iter().map(|at| &choice.all[*at]).collect();
            let places: Vec<_> = regions.iter().map(|region| region.coordinates).collect();
            let best = choice.reach.best(&chosen).into_iter();
            let best = best.map(|best| chosen.iter().position(|at| Some(*at) == best));
            let serves: std::collections::BTreeMap<_, _> = world::users().keys().copied().zip(best).collect();
            let outcome =
                crowd.meet(&Setting { regions: &places, serves: &|country| serves.get(&country).copied().flatten() });
            if outcome.refused == 0 && outcome.all.quantile(NEED) < LIMIT_MS {
                let set = Set {
                    regions: regions.iter().map(|region| region.id.clone()).collect(),
                    names: regions.iter().map(|region| region.name.clone()).collect(),
                    best_below_100: bound,
                    no_smaller_set_can: least == Some(size),
                    all: outcome.all.summary(),
                };
                return Some((set, outcome));
            }
        }
    }
    None
}

/// The smallest set with all of `fixed` in it for which the policies, as they are, keep 95 of 100 clients of the crowd
/// within the limit; none of at most [`LARGEST`] regions where nothing comes back.
async fn smallest(
    planner: &Planner,
    (choice, tree): (&Choice, &Regions),
    crowd: &Crowd,
    fixed: &[usize],
) -> anyhow::Result<Option<(Set, Outcome)>> {
    let mut least = None;
    for size in fixed.len().max(1)..=LARGEST {
        for (chosen, bound) in choice.reach.sets(fixed, size, NEED, SETS) {
            least = least.or(Some(size));
            let table = planner.table(regions(choice, tree, &chosen)).await?;
            let outcome = table.meet(crowd, &table.ready(), None);
            if outcome.refused > 0 || outcome.all.quantile(NEED) >= LIMIT_MS {
                continue;
            }
            let set = Set {
                regions: table.ids.clone(),
                names: table.regions.by_id.values().map(|region| region.name.clone()).collect(),
                best_below_100: bound,
                // Smaller sets were ruled out for every routing by country where none of them came up at all.
                no_smaller_set_can: least == Some(size),
                all: outcome.all.summary(),
            };
            return Ok(Some((set, outcome)));
        }
    }
    Ok(None)
}
