//! Where the queries of a log would go under two trees of policies.
//!
//! A line is a client's address and the name that it asked for, with white space in between: the first two columns of
//! what a server of DNS or HTTP writes about queries. A port behind the address and a dot behind the name are passed
//! over, and so are empty lines and those that begin with `#`. Addresses are not kept: they are counted by country.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, bail};
use model::RegionId;
use model::names::DnsName;
use model::routing::{AnswerShape, ClientClass, RoutingPlan};
use routing::CountryTable;
use serde::Serialize;

use super::super::words;

/// Lines that are not understood are told up to this many; all are counted.
const MOST_TOLD: usize = 10;
/// A file whose first lines, this many, are all no queries is no log of any.
const MOST_STRAY: u64 = 100_000;
/// Client classes and names are told apart up to this many pairs.
const MOST_PAIRS: usize = 1_000_000;
/// The longest line.
const LONGEST: usize = 4096;

/// Queries of one class for one name.
#[derive(Debug, Default)]
pub struct Queries {
    counted: BTreeMap<(ClientClass, DnsName), u64>,
    /// How many lines were queries.
    pub queries: u64,
    /// How many were not, and the first of them.
    pub not_understood: (u64, Vec<String>),
}

/// Queries that would go elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// The region that is first today, where every region serves.
    pub from: String,
    /// The one that would be.
    pub to: String,
    /// How many queries.
    pub queries: u64,
    /// From where and for what, the most frequent first.
    pub clients: Vec<String>,
}

/// What differs for the queries of a log.
#[derive(Debug, Default, Serialize)]
pub struct Traffic {
    /// How many queries there are.
    pub queries: u64,
    /// How many would be answered with another region first.
    pub moved: u64,
    /// How many would be answered with the same region first, and otherwise in other regions or times.
    pub answered_otherwise: u64,
    /// How many are for names that neither routes by region, or for those that only one does.
    pub not_routed: u64,
    /// From where to where.
    pub moves: Vec<Moved>,
    /// How many lines were no queries.
    pub not_understood: u64,
    /// The first of them.
    pub first_not_understood: Vec<String>,
}

impl Queries {
    /// Reads a log.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn read(path: &Path, countries: &CountryTable) -> anyhow::Result<Self> {
        let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let (mut queries, mut lines, mut line) = (Self::default(), BufReader::new(file), Vec::new());
        for number in 1_u64.. {
            line.clear();
            // A line without an end is cut: what comes behind is read as another one, and counts as not understood.
            let read = std::io::Read::take(&mut lines, LONGEST as u64).read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            queries.take(number, &String::from_utf8_lossy(&line), countries);
            if queries.queries == 0 && queries.not_understood.0 >= MOST_STRAY {
                break;
            }
            if queries.counted.len() > MOST_PAIRS {
                bail!("{}, line {number}: more than {MOST_PAIRS} countries and names; cut the file", path.display());
            }
        }
        Ok(queries)
    }

    fn take(&mut self, number: u64, line: &str, countries: &CountryTable) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        match query(line) {
            Ok((address, name)) => {
                let class = ClientClass { country: countries.country(address) };
                *self.counted.entry((class, name)).or_default() += 1;
                self.queries += 1;
            }
            Err(why) => {
                self.not_understood.0 += 1;
                if self.not_understood.1.len() < MOST_TOLD {
                    self.not_understood.1.push(format!("line {number}: {why}"));
                }
            }
        }
    }

    /// Where they would go under one table and under another.
    pub fn compare(&self, before: &RoutingPlan, after: &RoutingPlan) -> Traffic {
        let mut traffic = Traffic {
            queries: self.queries,
            not_understood: self.not_understood.0,
            first_not_understood: self.not_understood.1.clone(),
            ..Traffic::default()
        };
        let mut moves: BTreeMap<(String, String), BTreeMap<String, u64>> = BTreeMap::new();
        for ((class, name), count) in &self.counted {
            let (was, now) = (answer(before, *class, name), answer(after, *class, name));
            let (Some(was), Some(now)) = (was, now) else {
                traffic.not_routed += count;
                continue;
            };
            if was.0.first() != now.0.first() {
                traffic.moved += count;
                let first = |side: &[RegionId]| side.first().map_or_else(|| "nowhere".into(), ToString::to_string);
                let who = format!("{} for {name}", words::country(*class));
                *moves.entry((first(was.0), first(now.0))).or_default().entry(who).or_default() += count;
            } else if was != now {
                traffic.answered_otherwise += count;
            }
        }
        traffic.moves = moves
            .into_iter()
            .map(|((from, to), who)| {
                let mut clients: Vec<(u64, String)> = who.into_iter().map(|(who, count)| (count, who)).collect();
                clients.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
                let queries = clients.iter().map(|(count, _)| count).sum();
                let clients = clients.into_iter().take(MOST_TOLD).map(|(count, who)| format!("{count} in {who}"));
                Moved { from, to, queries, clients: clients.collect() }
            })
            .collect();
        traffic.moves.sort_by_key(|one| std::cmp::Reverse(one.queries));
        traffic
    }
}

/// The regions that a class is answered with for a name, where every region serves, and the shape of the answer.
fn answer<'p>(plan: &'p RoutingPlan, class: ClientClass, name: &DnsName) -> Option<(&'p [RegionId], &'p AnswerShape)> {
    let shape = plan.dns.shapes.get(name)?.shape(class);
    let regions = &plan.ranking(class).regions;
    Some((&regions[..regions.len().min(usize::from(shape.count))], shape))
}

fn query(line: &str) -> Result<(IpAddr, DnsName), String> {
    let mut words = line.split_whitespace();
    let (Some(address), Some(name)) = (words.next(), words.next()) else {
        return Err("it has no name behind the address".to_owned());
    };
    // `192.0.2.1#53211` as BIND writes it, `192.0.2.1:53211`, `[2001:db8::1]:53211`.
    let host = address.split_once('#').map_or(address, |(host, _)| host);
    let ip = host.parse::<IpAddr>().or_else(|_| host.parse::<SocketAddr>().map(|address| address.ip()));
    let ip = ip.map_err(|_| "it does not begin with an IP address".to_owned())?;
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let name = name.parse::<DnsName>().map_err(|error| format!("{error}"))?;
    Ok((ip.to_canonical(), name))
}

#[cfg(test)]
mod tests {
    use model::routing::{DnsPlan, NameShapes, Ranking};

    use super::*;

    fn plan(first: &str, other: &str, count: u16) -> RoutingPlan {
        let regions = [first, other].map(|id| RegionId::new(id).unwrap()).to_vec();
        let shape = AnswerShape::new(count, 5, 60);
        let shapes = NameShapes { default: shape, by_class: BTreeMap::new() };
        let dns =
            DnsPlan { shapes: BTreeMap::from([("api.repomind.io".parse().unwrap(), shapes)]), ..DnsPlan::default() };
        RoutingPlan { default: Ranking { regions }, by_class: BTreeMap::new(), dns }
    }

    #[test]
    fn queries_are_counted_by_country_and_what_is_none_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("queries");
        let text = "# address name\n217.0.0.1 api.repomind.io\n217.0.0.2#5353 API.repomind.io. A\n\n[2001:db8::1]:99 \
                    api.repomind.io\nnobody api.repomind.io\n217.0.0.1\n192.0.2.1 other.example\n";
        std::fs::write(&file, text).unwrap();
        let queries = Queries::read(&file, &CountryTable::bundled()).unwrap();
        assert_eq!((queries.queries, queries.not_understood.0), (4, 2));
        assert!(queries.not_understood.1[0].starts_with("line 6: it does not begin with an IP address"));

        let (here, there) = (plan("us-east", "eu-west", 1), plan("eu-west", "us-east", 1));
        let traffic = queries.compare(&here, &there);
        assert_eq!((traffic.moved, traffic.not_routed, traffic.answered_otherwise), (3, 1, 0));
        let [one] = traffic.moves.as_slice() else { panic!("{traffic:?}") };
        assert_eq!((one.from.as_str(), one.to.as_str(), one.queries), ("us-east", "eu-west", 3));
        assert_eq!(one.clients[0], "2 in DE for api.repomind.io");
        assert!(!format!("{traffic:?}").contains("217.0.0.1"), "an address was kept");
        assert_eq!(queries.compare(&here, &plan("us-east", "eu-west", 2)).answered_otherwise, 3);
        assert_eq!(queries.compare(&here, &here).moved, 0);
    }
}
