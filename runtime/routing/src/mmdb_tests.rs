//! Files are made by hand here, so that every shape of node and data is read.

use std::net::IpAddr;

use super::*;

/// A file of IPv6 addresses: `FR` in 16.0.0.0 to 127.255.255.255 and `DE` in the upper half of IPv4, `US` in
/// 2000::/3, with records of so many bits.
fn file(record: u64) -> Vec<u8> {
    let mut nodes: Vec<[u64; 2]> = Vec::new();
    let (nothing, de, fr, us) = (u64::MAX, u64::MAX - 1, u64::MAX - 2, u64::MAX - 3);
    // 0 to 95: the way of zeroes down to IPv4; 96: the root of IPv4.
    nodes.extend((0..96).map(|at| [at + 1, nothing]));
    // The upper half of IPv4 is German; of the lower, all but the first eighth is French.
    nodes.push([97, de]);
    nodes.push([98, fr]);
    nodes.push([99, fr]);
    nodes.push([nothing, fr]);
    // 2000::/3 begins with 001.
    nodes[0][1] = nothing;
    nodes[1][1] = nothing;
    nodes[2][1] = us;
    let count = nodes.len() as u64;
    let mut data = Vec::new();
    let mut place: Vec<(u64, u64)> = Vec::new();
    for (leaf, shape) in [(de, 0), (fr, 1), (us, 2)] {
        place.push((leaf, data.len() as u64));
        match shape {
            0 => {
                // A map with a map: {"country": {"iso_code": "DE"}}.
                data.extend(map(&[("country", map(&[("iso_code", text("DE"))]))]));
            }
            1 => data.extend(map(&[("names", array(&[text("France")])), ("country_code", text("FR"))])),
            _ => {
                // The value is a pointer to a text that stands behind.
                let value = map(&[("registered_country", map(&[("iso_code", vec![0x20, data.len() as u8 + 32])]))]);
                let length = value.len();
                data.extend(value);
                assert_eq!(length, 32);
                data.extend(text("US"));
            }
        }
    }
    let at = |child: u64| match child {
        inner if inner < count => inner,
        child if child == nothing => count,
        leaf => count + 16 + place.iter().find(|(known, _)| *known == leaf).unwrap().1,
    };
    let mut bytes: Vec<u8> = nodes.iter().flat_map(|[left, right]| node(record, at(*left), at(*right))).collect();
    bytes.extend([0; 16]);
    bytes.extend(data);
    bytes.extend(MARKER);
    bytes.extend(map(&[
        ("node_count", number(count)),
        ("record_size", number(record)),
        ("ip_version", number(6)),
        ("binary_format_major_version", number(2)),
    ]));
    bytes
}

fn node(record: u64, left: u64, right: u64) -> Vec<u8> {
    let (left, right) = (left as u32, right as u32);
    match record {
        24 => [&left.to_be_bytes()[1..], &right.to_be_bytes()[1..]].concat(),
        28 => {
            let middle = (left >> 24 << 4 | right >> 24) as u8;
            [&left.to_be_bytes()[1..], &[middle], &right.to_be_bytes()[1..]].concat()
        }
        _ => [left.to_be_bytes(), right.to_be_bytes()].concat(),
    }
}

fn text(words: &str) -> Vec<u8> {
    [&[2 << 5 | words.len() as u8], words.as_bytes()].concat()
}

fn number(value: u64) -> Vec<u8> {
    [&[6 << 5 | 4], &(value as u32).to_be_bytes()[..]].concat()
}

fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let body = pairs.iter().flat_map(|(key, value)| [text(key), value.clone()].concat());
    [vec![7 << 5 | pairs.len() as u8], body.collect()].concat()
}

fn array(values: &[Vec<u8>]) -> Vec<u8> {
    [vec![values.len() as u8, 4], values.concat()].concat()
}

fn found(table: &CountryTable, address: &str) -> Option<String> {
    table.country(address.parse::<IpAddr>().unwrap()).map(|country| country.as_str().to_owned())
}

#[test]
fn every_width_of_record_and_every_shape_of_country_is_read() {
    for record in [24, 28, 32] {
        let table = CountryTable::read_mmdb(&file(record)).unwrap();
        for (address, country) in [
            ("200.1.2.3", Some("DE")),
            ("100.1.2.3", Some("FR")),
            ("16.0.0.1", Some("FR")),
            ("15.255.255.255", None),
            ("127.0.0.1", None),
            ("::ffff:200.1.2.3", Some("DE")),
            ("2a00::1", Some("US")),
            ("fe80::1", None),
            // In the file this is where IPv4 hangs; as an address of IPv6 it belongs to nobody.
            ("::c801:203", None),
        ] {
            assert_eq!(found(&table, address).as_deref(), country, "{address}, records of {record} bits");
        }
        assert_eq!(table.matched("200.1.2.3".parse().unwrap()).prefix, 5, "192.168.0.0/16 is near");
        assert_eq!(table.matched("2a00::1".parse().unwrap()).prefix, 3);
    }
}

#[test]
fn damaged_bytes_never_hang_panic_or_pass_for_a_file_about_nothing() {
    let whole = file(28);
    for cut in 0..whole.len() {
        assert!(CountryTable::read_mmdb(&whole[..cut]).is_err(), "{cut} bytes were enough");
    }
    let mut changed = 0;
    for at in 0..whole.len() {
        for bit in [0x01, 0x80, 0xFF] {
            let mut damaged = whole.clone();
            damaged[at] ^= bit;
            changed += usize::from(CountryTable::read_mmdb(&damaged).is_err());
        }
    }
    assert!(changed > 100, "damage is never seen");
    assert_eq!(CountryTable::read_mmdb(b"").unwrap_err(), TableError::Mmdb);
}

#[test]
fn a_tree_that_leads_back_to_its_root_ends() {
    let mut circle = file(24);
    circle[..6].copy_from_slice(&[0; 6]);
    assert!(CountryTable::read_mmdb(&circle).is_err());
}

/// The file that `make geoip-test-data` fetches, compared with the table that is bundled: another source, so that most
/// addresses agree and not all.
#[test]
fn a_real_file_agrees_with_the_bundled_table_for_most_addresses() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/geoip/iptoasn-country.mmdb");
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{path}: {error}; `make geoip-test-data` fetches it");
            eprintln!("{path} is not there, so no real file was read: `make geoip-test-data` fetches it");
            return;
        }
    };
    let (table, bundled) = (CountryTable::read_mmdb(&bytes).unwrap(), CountryTable::bundled());
    let (mut same, mut both) = (0, 0);
    for number in 0..20_000_u32 {
        let v4 = IpAddr::from(number.wrapping_mul(2_654_435_769).to_be_bytes());
        let v6 =
            std::net::Ipv6Addr::from_bits((0x2a00_u128 << 112) | u128::from(number.wrapping_mul(2_654_435_769)) << 80)
                .into();
        for address in [v4, v6] {
            if let Some((one, other)) = table.country(address).zip(bundled.country(address)) {
                both += 1;
                same += u32::from(one == other);
            }
        }
    }
    assert!(both > 10_000 && same * 100 > both * 90, "{same} of {both} agree");
}
