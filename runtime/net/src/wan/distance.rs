//! How far apart two regions are, in milliseconds.
//!
//! Measured round trips come from the bundled table, by the provider's names;
//! a pair that it lacks is estimated from the great circle between the two.
//! The answer says which it is. Begin with [`one_way`].

use std::collections::BTreeMap;
use std::sync::LazyLock;

use model::region::Region;
use model::status::DelayOrigin;

const FILE: &str = "runtime/world/data/rtt-aws.csv";
const TEXT: &str = world::ROUND_TRIPS;
const HEAD: &str = "from,to,rtt_ms";

/// No path on the globe takes longer; a larger number is a damaged row.
const RTT_MOST_MS: u32 = 2000;

/// Light in glass, refractive index 1.47.
const FIBRE_KM_PER_MS: f64 = 204.0;
/// How much longer cables are than the great circle, about: 5,450 km from
/// Virginia to Dublin come to a round trip of 75 ms; the table has 70.
const DETOUR: f64 = 1.4;

/// Round trips in milliseconds by the provider's names, from and to.
type Table<'a> = BTreeMap<(&'a str, &'a str), u32>;

static TABLE: LazyLock<Table<'static>> = LazyLock::new(|| match parse(TEXT) {
    Ok(table) => table,
    // The file is part of the program, and a test reads it.
    Err(error) => panic!("{FILE}, {error}"),
});

/// Why the table cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum TableError {
    #[error("line 1: the head is not `{HEAD}`")]
    Head,
    #[error("line {line}: `{row}` is not `from,to,milliseconds` with 1 to {RTT_MOST_MS} milliseconds")]
    Row { line: usize, row: String },
    #[error("line {line}: {from} to {to} is listed twice")]
    Twice { line: usize, from: String, to: String },
}

fn parse(text: &str) -> Result<Table<'_>, TableError> {
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) {
        return Err(TableError::Head);
    }
    let mut table = Table::new();
    for (line, row) in (2..).zip(lines) {
        let read = || {
            let mut fields = row.split(',');
            let (from, to) = (fields.next()?, fields.next()?);
            let rtt: u32 = fields.next()?.parse().ok()?;
            let sound = !from.is_empty() && !to.is_empty() && (1..=RTT_MOST_MS).contains(&rtt);
            (sound && fields.next().is_none()).then_some((from, to, rtt))
        };
        let (from, to, rtt) = read().ok_or_else(|| TableError::Row { line, row: row.to_owned() })?;
        if table.insert((from, to), rtt).is_some() {
            return Err(TableError::Twice { line, from: from.to_owned(), to: to.to_owned() });
        }
    }
    Ok(table)
}

/// The one-way delay between two regions in milliseconds, to a tenth, and where it comes from.
pub(super) fn one_way(here: &Region, there: &Region) -> (f64, DelayOrigin) {
    let (from, to) = (here.name.as_str(), there.name.as_str());
    let measured = if from == to { None } else { TABLE.get(&(from, to)).or_else(|| TABLE.get(&(to, from))) };
    match measured {
        Some(rtt) => (f64::from(*rtt) / 2.0, DelayOrigin::Measured),
        None => {
            let kilometres = here.coordinates.kilometres_to(there.coordinates);
            ((kilometres * DETOUR / FIBRE_KM_PER_MS * 10.0).round() / 10.0, DelayOrigin::Estimated)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_bundled_table_has_every_ordered_pair_of_its_regions() {
        let table = parse(TEXT).unwrap_or_else(|error| panic!("{FILE}, {error}"));
        let names: std::collections::BTreeSet<_> = table.keys().map(|(from, _)| from).collect();
        assert_eq!(names.len(), 21);
        assert_eq!(table.len(), names.len() * names.len());
        assert_eq!(table[&("us-east-1", "ap-southeast-1")], 211);
    }

    #[test]
    fn a_damaged_table_is_refused_with_the_line() {
        let refused = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(refused("a,b,1\n"), "line 1: the head is not `from,to,rtt_ms`");
        for bad in ["a,b", "a,b,", "a,b,x", "a,b,0", "a,b,2001", "a,b,1,2", ",b,1", ""] {
            let said = refused(&format!("{HEAD}\na,b,1\n{bad}\n"));
            assert!(said.starts_with("line 3: "), "{bad}: {said}");
        }
        assert_eq!(refused(&format!("{HEAD}\na,b,1\nb,a,2\na,b,3\n")), "line 4: a to b is listed twice");
    }

    /// Every region file of the tree, those that are kept available too.
    fn all_regions() -> Vec<Region> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../region-config");
        let mut files = BTreeMap::new();
        for folder in [folder.join("available"), folder] {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|ending| ending == "yml") {
                    let name = format!("region-config/{}", path.file_name().unwrap().to_str().unwrap());
                    files.insert(name, std::fs::read_to_string(&path).unwrap());
                }
            }
        }
        config::load_from(&files).expect("the region files are sound together").by_id.into_values().collect()
    }

    #[test]
    fn every_pair_of_our_region_files_has_a_plausible_distance() {
        let regions = all_regions();
        assert!(regions.len() >= 8, "only {} region files were found", regions.len());
        for here in &regions {
            for there in regions.iter().filter(|there| there.id != here.id) {
                let (delay, origin) = one_way(here, there);
                assert!((2.0..=250.0).contains(&delay), "{} to {}: {delay} ms", here.id, there.id);
                let listed = TABLE.contains_key(&(here.name.as_str(), there.name.as_str()));
                let expected = if listed { DelayOrigin::Measured } else { DelayOrigin::Estimated };
                assert_eq!(origin, expected, "{} to {}", here.id, there.id);
            }
        }
    }

    #[test]
    fn a_region_that_the_table_lacks_is_as_far_as_its_coordinates_say() {
        let regions = all_regions();
        let by_name = |name: &str| regions.iter().find(|region| region.name == name).unwrap().clone();
        let (east, mut west) = (by_name("us-east-1"), by_name("eu-west-1"));
        assert_eq!(one_way(&east, &west), (35.0, DelayOrigin::Measured));
        west.name = "cellar".into();
        let (delay, origin) = one_way(&east, &west);
        assert_eq!(origin, DelayOrigin::Estimated);
        assert!((35.0..40.0).contains(&delay), "{delay}");
    }
}
