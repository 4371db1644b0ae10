//! What is told of a simulation, as JSON and to a person.

use std::fmt::Write;

use comfy_table::{Cell, Table as Drawn, presets};
use model::region::Regions;
use model::{Country, RegionId};
use serde::Serialize;
use world::{Access, FitError, Outcome, Pair, PairVerdict, PathModel, Summary, judge_pairs};

use super::planner::Table;
use super::{LIMIT_MS, loads, tree_pairs};
use crate::args::SimulateArgs;

/// Countries that are shown to a person; JSON has all.
const SHOWN: usize = 20;

/// One line about a country or region.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its code or id.
    pub name: String,
    /// Its share of all users.
    pub share: f64,
    /// Who serves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served_by: Option<RegionId>,
    /// Instances that its load takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Instances that it can grow to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_instances: Option<u32>,
    /// Its load by what it can take; more than 1 is too much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// Round trips.
    #[serde(flatten)]
    pub trips: Summary,
}

/// What the loss of a region means.
#[derive(Clone, Debug, Serialize)]
pub struct Lost {
    /// The region.
    pub region: RegionId,
    /// The share of all users who are served elsewhere.
    pub moved: f64,
    /// The share who are served nowhere.
    pub refused: f64,
    /// Countries whose people have no lawful region left for their personal data, with their share of all users.
    pub personal_refused: Vec<(Country, f64)>,
    /// Everybody who is served.
    pub all: Summary,
    /// The other regions, with their loads.
    pub regions: Vec<Row>,
}

/// A region to add.
#[derive(Clone, Debug, Serialize)]
pub struct Next {
    /// What it would be called.
    pub region: RegionId,
    /// The provider's name.
    pub name: String,
    /// What the share within 100 ms could grow by, if every country were sent to its best region.
    pub best_gain: f64,
    /// The share within 100 ms by the policies as they are.
    pub below_100: f64,
    /// Everybody.
    pub all: Summary,
}

/// A set of regions.
#[derive(Clone, Debug, Serialize)]
pub struct Set {
    /// Their ids.
    pub regions: Vec<RegionId>,
    /// The provider's names.
    pub names: Vec<String>,
    /// The share within 100 ms, if every country were sent to its best region.
    pub best_below_100: f64,
    /// Whether no smaller set would do as the model expects it, however countries were sent to its regions.
    pub no_smaller_set_can: bool,
    /// Everybody.
    pub all: Summary,
}

/// Two regions of the tree.
#[derive(Clone, Debug, Serialize)]
pub struct TreePair {
    /// One.
    pub one: RegionId,
    /// The other.
    pub other: RegionId,
    /// The least that light in glass takes.
    pub light_ms: f64,
    /// The round trip.
    pub round_trip_ms: f64,
    /// Whether it was measured; modelled otherwise.
    pub measured: bool,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What it was drawn from.
    pub seed: u64,
    /// How many clients.
    pub clients: u32,
    /// Requests a second of all of them.
    pub rate: u32,
    /// The last mile that was assumed.
    pub access: Access,
    /// How wrong the model of the paths is.
    pub model: FitError,
    /// Round trip over no distance, and over a thousand kilometres, in ms.
    pub line: (f64, f64),
    /// Everybody who is served.
    pub all: Summary,
    /// By region.
    pub regions: Vec<Row>,
    /// By country, the most users first.
    pub countries: Vec<Row>,
    /// Countries whose people have no lawful region for their personal data.
    pub personal_refused: Vec<(Country, f64)>,
    /// What is answered over DNS: name, addresses, seconds.
    pub dns: Vec<(String, u16, u32)>,
    /// If a region is lost.
    pub if_lost: Vec<Lost>,
    /// Regions to add.
    pub add_next: Vec<Next>,
    /// The smallest set of all places within 100 ms at the 95th percentile, each country sent to its best region.
    pub smallest: Option<Set>,
    /// The smallest that keeps the regions of the tree.
    pub growing: Option<Set>,
    /// The pairs of the tree.
    pub tree_pairs: Vec<TreePair>,
    /// All measured pairs.
    pub pairs: Vec<Pair>,
}

/// The rows of the regions of a table.
pub fn regions(table: &Table, outcome: &Outcome, clients: usize) -> Vec<Row> {
    let row = |(id, spread): (&RegionId, &world::Spread)| Row {
        name: id.to_string(),
        share: spread.count() as f64 / clients as f64,
        served_by: None,
        instances: None,
        max_instances: None,
        load: None,
        trips: spread.summary(),
    };
    table.ids.iter().zip(&outcome.regions).map(row).collect()
}

impl Report {
    /// The figures that need no search.
    pub fn of(args: &SimulateArgs, access: Access, tree: &Regions, (table, now): (&Table, &Outcome)) -> Self {
        let clients = args.clients as usize;
        let mut rows = regions(table, now, clients);
        loads(tree, &mut rows, args.rate);
        let mut countries: Vec<Row> = now
            .countries
            .iter()
            .map(|(country, (region, spread))| Row {
                name: country.to_string(),
                share: spread.count() as f64 / clients as f64,
                served_by: region.map(|at| table.ids[at].clone()),
                instances: None,
                max_instances: None,
                load: None,
                trips: spread.summary(),
            })
            .collect();
        countries.sort_by(|one, other| other.share.total_cmp(&one.share));
        let model = PathModel::bundled();
        Self {
            seed: args.seed,
            clients: args.clients,
            rate: args.rate,
            access,
            model: PathModel::check(),
            line: (model.fixed_ms, model.per_1000_km_ms),
            all: now.all.summary(),
            regions: rows,
            countries,
            personal_refused: Vec::new(),
            dns: table.dns(),
            if_lost: Vec::new(),
            add_next: Vec::new(),
            smallest: None,
            growing: None,
            tree_pairs: tree_pairs(table),
            pairs: judge_pairs(LIMIT_MS),
        }
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{} clients of the whole world (seed {}), sent where the policies say\n",
            self.clients, self.seed
        );
        self.now(&mut text);
        self.lost(&mut text);
        self.more(&mut text);
        self.region_to_region(&mut text);
        let FitError { mean_ms, median_share, p90_share, .. } = self.model;
        let _ = writeln!(
            text,
            "\nModelled, not measured: round trips of places that were left out are predicted to {mean_ms:.0} ms on \
             average\n(half within {:.0} %, nine of ten within {:.0} %); docs/simulate.md says more.",
            median_share * 100.0,
            p90_share * 100.0
        );
        text
    }

    fn now(&self, text: &mut String) {
        let mut drawn = table(["", "users", "p50 ms", "p95 ms", "p99 ms", "below 100 ms", "instances", "load"]);
        for row in &self.regions {
            let instances = row.instances.zip(row.max_instances).map(|(need, most)| format!("{need} of {most}"));
            let load = row.load.map(|load| format!("{}{}", percent(load), if load > 1.0 { " !" } else { "" }));
            drawn.add_row(cells(&row.name, row.share, &row.trips, [instances, load]));
        }
        let all = format!("{}/s", self.rate);
        drawn.add_row(cells("all", 1.0, &self.all, [Some(all), None]));
        let _ = writeln!(text, "{drawn}");
        let mut drawn = table(["country", "users", "p50 ms", "p95 ms", "p99 ms", "below 100 ms", "served by", ""]);
        for row in self.countries.iter().take(SHOWN) {
            let by = row.served_by.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
            drawn.add_row(cells(&row.name, row.share, &row.trips, [Some(by), None]));
        }
        let _ = writeln!(text, "{drawn}");
        let _ = writeln!(text, "{} countries more in --json", self.countries.len().saturating_sub(SHOWN));
        refused(text, "no lawful region for personal data", &self.personal_refused);
        for (name, addresses, seconds) in &self.dns {
            let _ = writeln!(text, "DNS: {name} gives {addresses} addresses, for {seconds} s while all is well");
        }
    }

    fn lost(&self, text: &mut String) {
        if self.if_lost.is_empty() {
            return;
        }
        let mut drawn =
            table(["without", "move", "p50 ms", "p95 ms", "p99 ms", "below 100 ms", "not served", "fullest"]);
        for lost in &self.if_lost {
            let mut rows = lost.regions.clone();
            let most = |row: &Row| self.regions.iter().find(|other| other.name == row.name).cloned();
            for row in &mut rows {
                let now = most(row).filter(|now| now.share > 0.0);
                row.load = now.and_then(|now| Some(now.load? * row.share / now.share));
            }
            let fullest = rows.iter().max_by(|a, b| a.load.unwrap_or(0.0).total_cmp(&b.load.unwrap_or(0.0)));
            let fullest = fullest.and_then(|row| Some(format!("{} {}", row.name, percent(row.load?))));
            let cells = cells(lost.region.as_str(), lost.moved, &lost.all, [Some(percent(lost.refused)), fullest]);
            drawn.add_row(cells);
        }
        let _ = writeln!(text, "\n{drawn}");
        for lost in &self.if_lost {
            let before = |country: &Country| self.personal_refused.iter().any(|(other, _)| other == country);
            let new: Vec<_> = lost.personal_refused.iter().filter(|(country, _)| !before(country)).copied().collect();
            refused(text, &format!("without {}, no lawful region for personal data", lost.region), &new);
        }
    }

    fn more(&self, text: &mut String) {
        if !self.add_next.is_empty() {
            let heads = ["add", "could gain", "p50 ms", "p95 ms", "p99 ms", "below 100 ms", "place", ""];
            let mut drawn = table(heads);
            for next in &self.add_next {
                let cells = cells(next.region.as_str(), next.best_gain, &next.all, [Some(next.name.clone()), None]);
                drawn.add_row(cells);
            }
            let _ = writeln!(text, "\n{drawn}");
        }
        let sets = [
            ("that keeps these regions, by these policies", &self.growing),
            ("of all places, each country sent to its best", &self.smallest),
        ];
        for (what, set) in sets {
            let Some(set) = set else { continue };
            let ids: Vec<_> = set.regions.iter().map(RegionId::as_str).collect();
            let proof = match set.no_smaller_set_can {
                true => "no smaller set can, however it is routed",
                false => "smaller sets could at best, and none of the 40 best of each size did",
            };
            let _ = writeln!(
                text,
                "95 of 100 users within 100 ms, the smallest set {what}: {} ({})\n  p95 {:.1} ms, {} below 100 ms; {proof}",
                set.regions.len(),
                ids.join(", "),
                set.all.p95,
                percent(set.all.below_100)
            );
        }
    }

    fn region_to_region(&self, text: &mut String) {
        let _ = writeln!(text, "\nRegion to region, 100 ms asked for:");
        for pair in &self.tree_pairs {
            let TreePair { one, other, light_ms, round_trip_ms, measured } = pair;
            let verdict = match () {
                () if *round_trip_ms < LIMIT_MS => "meets it",
                () if *light_ms < LIMIT_MS => "misses it by its cables",
                () => "misses it by physics",
            };
            let source = if *measured { "measured" } else { "modelled" };
            let _ = writeln!(
                text,
                "  {one} – {other}: {round_trip_ms:.0} ms {source}, light in glass {light_ms:.0} ms: {verdict}"
            );
        }
        let count = |verdict| self.pairs.iter().filter(|pair| pair.verdict == verdict).count();
        let _ = writeln!(
            text,
            "  of {} pairs measured between 21 places, {} meet it, {} miss it by their cables, {} by physics",
            self.pairs.len(),
            count(PairVerdict::Meets),
            count(PairVerdict::CablesMiss),
            count(PairVerdict::PhysicsForbids)
        );
    }
}

fn table(heads: [&str; 8]) -> Drawn {
    let mut drawn = Drawn::new();
    drawn.load_style(presets::UTF8_HORIZONTAL_ONLY);
    drawn.set_header(heads);
    drawn
}

fn cells(name: &str, share: f64, trips: &Summary, more: [Option<String>; 2]) -> Vec<Cell> {
    let ms = |ms: f64| if trips.clients == 0 { "–".to_owned() } else { format!("{ms:.1}") };
    let mut cells = vec![name.to_owned(), percent(share), ms(trips.p50), ms(trips.p95), ms(trips.p99)];
    cells.push(percent(trips.below_100));
    cells.extend(more.map(Option::unwrap_or_default));
    cells.into_iter().map(Cell::new).collect()
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn refused(text: &mut String, what: &str, countries: &[(Country, f64)]) {
    if countries.is_empty() {
        return;
    }
    let all: f64 = countries.iter().map(|(_, share)| share).sum();
    let names: Vec<_> = countries.iter().take(12).map(|(country, _)| country.as_str()).collect();
    let more = countries.len().saturating_sub(12);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let _ = writeln!(text, "{what}: {} of all users ({}{more})", percent(all), names.join(" "));
}
