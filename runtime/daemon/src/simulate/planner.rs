//! Asks the policies for regions that exist, and for such as could.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use model::names::Feature;
use model::record::{DataClass, Labels};
use model::region::{Addresses, Capacity, Coordinates, Region, Regions};
use model::residency::ResidencyPlan;
use model::routing::{ClientClass, RegionState, RoutingPlan};
use model::{Country, Finding, Micros, RegionId, UnixMillis};
use policy::{Generation, PolicyHost};
use world::{Crowd, Outcome, PathModel, Place, Setting};

use crate::start::gate;
use crate::start::generations::RefusedGeneration;

/// A tree of policies that was loaded.
pub struct Planner {
    host: PolicyHost,
    child: Generation,
    residency: ResidencyPlan,
    seen_from: Option<RegionId>,
    now: UnixMillis,
}

/// Regions, and where the policies send each country.
pub struct Table {
    /// The regions.
    pub regions: Regions,
    /// Their ids, in order.
    pub ids: Vec<RegionId>,
    /// Where they are, in the same order.
    pub places: Vec<Coordinates>,
    plan: RoutingPlan,
}

/// A region that could be at a place: it offers what the usual ones offer.
pub fn imagined(place: &Place) -> Option<Region> {
    let id = RegionId::new(place.id).ok()?;
    let nowhere = ([127, 0, 0, 1], 1).into();
    let features = ["full-api", "websockets"].iter().filter_map(|name| Feature::new(name).ok()).collect();
    Some(Region {
        name: place.name.to_owned(),
        primary: false,
        api: "http://127.0.0.1".to_owned(),
        storage: "file://nowhere".to_owned(),
        capacity: Capacity { min_instances: 5, max_instances: 50, per_instance_rps: 100 },
        features,
        coordinates: place.coordinates,
        country: place.country,
        jurisdiction: place.country,
        addresses: Addresses {
            gateway: nowhere,
            admin: nowhere,
            peer: nowhere,
            dns: nowhere,
            public: vec![nowhere.ip()],
        },
        data_dir: id.as_str().into(),
        peers: BTreeSet::new(),
        id,
    })
}

impl Planner {
    /// Loads the policies of a tree for these regions: all findings where they are not good.
    ///
    /// # Errors
    /// Where the policy host cannot be started or gives no usable rulings.
    pub async fn load(
        tree: &Path,
        regions: &Regions,
        seen_from: Option<RegionId>,
    ) -> anyhow::Result<Result<Self, Vec<Finding>>> {
        let tree = match crate::start::watch::read_tree(tree) {
            Ok(tree) => tree,
            Err(findings) => return Ok(Err(findings)),
        };
        let host = crate::aside::host(crate::aside::LOAD, crate::aside::QUESTION)?;
        let (child, declarations) = match host.load(tree, crate::aside::facts(regions)).await {
            Ok(loaded) => loaded,
            Err(findings) => return Ok(Err(findings)),
        };
        let residency = match gate::residency(&child, &declarations, regions).await {
            Ok(residency) => residency,
            Err(RefusedGeneration::Findings(findings)) => return Ok(Err(findings)),
            Err(error) => anyhow::bail!("{error}"),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = UnixMillis(u64::try_from(now).unwrap_or(u64::MAX));
        Ok(Ok(Self { host, child, residency, seen_from, now }))
    }

    /// Ends the children.
    pub fn shutdown(&self) {
        self.host.shutdown();
    }

    /// Asks the policies where each country goes. They are told that all regions are well, and the round trips that
    /// one of the regions would measure: to each other one, in a running deployment, it knows those and no others.
    ///
    /// # Errors
    /// Where they give no usable answer.
    pub async fn table(&self, regions: Regions) -> anyhow::Result<Table> {
        let here = self.seen_from.as_ref().filter(|id| regions.by_id.contains_key(*id)).unwrap_or(&regions.primary);
        let mut facts = crate::aside::facts(&regions);
        let me = regions.by_id[here].clone();
        for region in &mut facts.regions {
            region.state = RegionState::Ready;
            let trip = |other: &Region| {
                let ms = PathModel::bundled().between((&me.name, me.coordinates), (&other.name, other.coordinates));
                Micros((ms * 1000.0) as u64)
            };
            let others = regions.by_id.values().filter(|other| other.id != me.id);
            region.round_trips = match region.id == me.id {
                true => others.map(|other| (other.id.clone(), trip(other))).collect(),
                false => BTreeMap::from([(me.id.clone(), trip(&regions.by_id[&region.id]))]),
            };
        }
        let plan = gate::route(&self.child, &facts).await.map_err(|error| match error {
            RefusedGeneration::Findings(findings) => {
                anyhow::anyhow!("{}", findings.first().map(ToString::to_string).unwrap_or_default())
            }
            other => anyhow::anyhow!("{other}"),
        })?;
        let ids = regions.by_id.keys().cloned().collect();
        let places = regions.by_id.values().map(|region| region.coordinates).collect();
        Ok(Table { regions, ids, places, plan })
    }

    /// The share of all users who have no lawful region that serves for their personal data, and whose law it is,
    /// the largest first.
    pub fn refused_by_law(&self, table: &Table, states: &BTreeMap<RegionId, RegionState>) -> Vec<(Country, f64)> {
        let everybody: f64 = world::users().values().sum();
        let mut refused = Vec::new();
        for (country, users) in world::users() {
            let mut labels = Labels::of_class(DataClass::Personal, self.now);
            labels.jurisdictions.insert(*country);
            let may = |id: &&RegionId| self.residency.permit_in(&labels, id, self.now).is_ok();
            let lawful: BTreeSet<RegionId> = table.ids.iter().filter(may).cloned().collect();
            if table.serves(*country, states, Some(&lawful)).is_none() {
                refused.push((*country, users / everybody));
            }
        }
        refused.sort_by(|one, other| other.1.total_cmp(&one.1));
        refused
    }
}

impl Table {
    /// All regions well.
    pub fn ready(&self) -> BTreeMap<RegionId, RegionState> {
        self.ids.iter().map(|id| (id.clone(), RegionState::Ready)).collect()
    }

    /// The number of the region that serves a country.
    pub fn serves(
        &self,
        country: Country,
        states: &BTreeMap<RegionId, RegionState>,
        lawful: Option<&BTreeSet<RegionId>>,
    ) -> Option<usize> {
        let class = ClientClass { country: Some(country) };
        let chosen = routing::choose(&self.plan, class, states, &BTreeSet::new(), &self.regions, lawful);
        chosen.first().and_then(|id| self.ids.binary_search(id).ok())
    }

    /// Sends a crowd where the policies say.
    pub fn meet(
        &self,
        crowd: &Crowd,
        states: &BTreeMap<RegionId, RegionState>,
        lawful: Option<&BTreeSet<RegionId>>,
    ) -> Outcome {
        let served: BTreeMap<Country, Option<usize>> =
            world::users().keys().map(|country| (*country, self.serves(*country, states, lawful))).collect();
        crowd.meet(&Setting { regions: &self.places, serves: &|country| served.get(&country).copied().flatten() })
    }

    /// What is answered over DNS for each routed name: how many addresses, and for how many seconds at most while all
    /// is well, by most classes.
    pub fn dns(&self) -> Vec<(String, u16, u32)> {
        let shapes = self.plan.dns.shapes.iter();
        shapes.map(|(name, shapes)| (name.to_string(), shapes.default.count, shapes.default.ttl_max)).collect()
    }
}
