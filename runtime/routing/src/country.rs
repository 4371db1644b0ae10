//! In which country an address is registered.
//!
//! The bundled table covers IPv4 exactly and IPv6 by /48. It says where the
//! holder of an address is registered, which is a guess at where a client is;
//! nothing that the law asks may rest on it. `data/README.md` says where it
//! comes from and how to make it anew.
//!
//! ```text
//! bytes 0..4  "RMCT"
//! byte 4      format version, 1
//! varint      number of country codes, then two capital letters each
//! varint      number of IPv4 spans, then for each: varint distance of its
//!             start from the start before, one byte country (0 is none)
//! varint      number of IPv6 spans, the same, in units of a /48
//! last 4      CRC-32 (ISO-HDLC) of all bytes before, little-endian
//! ```
//!
//! A span ends where the next one begins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::Country;

/// The table that is compiled in.
static BUNDLED: &[u8] = include_bytes!("../data/country.bin");

/// How many bits of an IPv6 address the bundled table does not look at.
const IPV6_SHIFT: u32 = 128 - 48;

/// Why a country table could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The bytes do not begin like a country table of a known version.
    #[error("these bytes are not a country table of format 1")]
    Format,
    /// Damaged bytes.
    #[error("the checksum of the country table does not match: the bytes are damaged")]
    Checksum,
    /// The bytes end too early, or go on too long.
    #[error("the country table does not have the length that it claims")]
    Length,
    /// A span names no country of the table, or the spans are out of order.
    #[error("the spans of the country table are out of order")]
    Order,
    /// Not a MaxMind DB file, or one of another version.
    #[error("these bytes are not a MaxMind DB file of version 2")]
    Mmdb,
    /// A MaxMind DB file about something else.
    #[error("the file names no country: its records have no `country.iso_code`, and no `country_code`")]
    NoCountry,
    /// Something that is not a country code.
    #[error("{0:?} is not a country code")]
    Code(String),
}

/// Spans of addresses with their countries, ready for binary search. About 3.2 MB.
#[derive(Clone, Debug)]
pub struct CountryTable {
    codes: Vec<Country>,
    v4: Spans<u32>,
    v6: Spans<u128>,
}

/// Starts in ascending order, and for each the country's number; 0 is none.
#[derive(Clone, Debug)]
struct Spans<T> {
    starts: Vec<T>,
    countries: Vec<u8>,
}

impl<T: Ord + Copy> Spans<T> {
    /// The country's number at a point, the last point before its span and the first one after it.
    fn around(&self, point: T) -> (u8, Option<T>, Option<T>) {
        let after = self.starts.partition_point(|&start| start <= point);
        let country = if after == 0 { 0 } else { self.countries[after - 1] };
        // Where the span before this one ends is where this one begins: the start serves for both.
        let begins = after.checked_sub(1).map(|at| self.starts[at]);
        (country, begins, self.starts.get(after).copied())
    }
}

/// What the table says of an address, and how far that reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matched {
    /// The country; none for private and unassigned addresses.
    pub country: Option<Country>,
    /// The length of the shortest prefix around the address in which every address has the same country: what
    /// RFC 7871 calls the scope. At most 32 for IPv4 and 128 for IPv6.
    pub prefix: u8,
}

/// IPv4 blocks that have no country whatever the source says, in ascending order (RFC 6890): first address and
/// length of the prefix.
const PRIVATE: [(Ipv4Addr, u8); 6] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(255, 255, 255, 255), 32),
];

impl Spans<u32> {
    /// The spans with no country in `block`.
    fn without(self, (first, length): (Ipv4Addr, u8)) -> Self {
        let first = first.to_bits();
        let last = first | u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        let (resumed, _, next) = self.around(last);
        let mut spans = Self { starts: Vec::with_capacity(self.starts.len() + 2), countries: Vec::new() };
        let mut add = |start: u32, country: u8| {
            // Neighbours of one country are one span, so that no boundary is reported where there is none.
            if spans.countries.last().copied().unwrap_or(0) != country {
                spans.starts.push(start);
                spans.countries.push(country);
            }
        };
        let all = self.starts.iter().copied().zip(self.countries.iter().copied());
        all.clone().filter(|&(start, _)| start < first).for_each(|(start, country)| add(start, country));
        add(first, 0);
        if let Some(after) = last.checked_add(1)
            && next != Some(after)
        {
            add(after, resumed);
        }
        all.filter(|&(start, _)| start > last).for_each(|(start, country)| add(start, country));
        spans
    }
}

/// How many leading bits two addresses of `width` bits share.
fn shared(a: u128, b: u128, width: u32) -> u32 {
    (a ^ b).leading_zeros().saturating_sub(128 - width).min(width)
}

/// The length of the shortest prefix around `point` that holds neither the point before its span nor the one after.
fn prefix_within(point: u128, begins: Option<u128>, next: Option<u128>, width: u32) -> u8 {
    let before = begins.and_then(|begins| begins.checked_sub(1));
    let longest = before.into_iter().chain(next).map(|outside| shared(point, outside, width) + 1).max();
    longest.unwrap_or(0) as u8
}

impl CountryTable {
    /// The table that is compiled into the program.
    ///
    /// # Panics
    /// If the program was built with a damaged table; a test makes sure that it is not.
    pub fn bundled() -> Self {
        Self::read(BUNDLED).expect("the bundled country table is whole")
    }

    /// Reads a table in the format above.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn read(bytes: &[u8]) -> Result<Self, TableError> {
        let (whole, checksum) = bytes.split_last_chunk::<4>().ok_or(TableError::Length)?;
        if !whole.starts_with(b"RMCT\x01") {
            return Err(TableError::Format);
        }
        if crc32fast::hash(whole).to_le_bytes() != *checksum {
            return Err(TableError::Checksum);
        }
        let mut reader = Reader { rest: &whole[5..] };
        let count = reader.varint()?;
        let mut codes = Vec::new();
        for _ in 0..count {
            let code = [reader.byte()?, reader.byte()?];
            let text = String::from_utf8_lossy(&code).into_owned();
            codes.push(Country::new(&text).map_err(|_| TableError::Code(text))?);
        }
        let v4 = reader.spans(codes.len(), |start| u32::try_from(start).map_err(|_| TableError::Order))?;
        // The source assigns some of these to countries.
        let v4 = PRIVATE.into_iter().fold(v4, Spans::without);
        let v6 = reader.spans(codes.len(), |start| {
            if start >> 48 == 0 { Ok(u128::from(start) << IPV6_SHIFT) } else { Err(TableError::Order) }
        })?;
        if reader.rest.is_empty() { Ok(Self { codes, v4, v6 }) } else { Err(TableError::Length) }
    }

    /// Reads a MaxMind DB file (MMDB) that names countries. It is flattened: nothing of the file is needed afterwards.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn read_mmdb(bytes: &[u8]) -> Result<Self, TableError> {
        crate::mmdb::read(bytes)
    }

    /// A table of spans: starts in ascending order, each with one past the number of its country, or 0.
    pub(crate) fn of(codes: Vec<Country>, v4: Vec<(u32, u8)>, v6: Vec<(u128, u8)>) -> Self {
        let (starts, countries) = v4.into_iter().unzip();
        let v4 = PRIVATE.into_iter().fold(Spans { starts, countries }, Spans::without);
        let (starts, countries) = v6.into_iter().unzip();
        Self { codes, v4, v6: Spans { starts, countries } }
    }

    /// How many spans there are, of IPv4 and IPv6.
    pub fn spans(&self) -> (usize, usize) {
        (self.v4.starts.len(), self.v6.starts.len())
    }

    /// The country of an address; none for private and unassigned ones.
    pub fn country(&self, address: IpAddr) -> Option<Country> {
        self.matched(address).country
    }

    /// The country of an address, and the prefix in which all addresses have it.
    pub fn matched(&self, address: IpAddr) -> Matched {
        match address {
            IpAddr::V4(address) => self.v4(address),
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(address) => {
                    let Matched { country, prefix } = self.v4(address);
                    Matched { country, prefix: prefix + 96 }
                }
                None => self.v6(address),
            },
        }
    }

    fn v4(&self, address: Ipv4Addr) -> Matched {
        let point = address.to_bits();
        let (number, begins, next) = self.v4.around(point);
        let prefix = prefix_within(point.into(), begins.map(Into::into), next.map(Into::into), 32);
        Matched { country: self.code(number), prefix }
    }

    fn v6(&self, address: Ipv6Addr) -> Matched {
        let point = address.to_bits();
        let (number, begins, next) = self.v6.around(point);
        let prefix = prefix_within(point, begins, next, 128);
        // IPv4-mapped addresses are looked up elsewhere: no prefix of another address may hold them.
        let mapped = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().to_bits();
        let apart = shared(address.to_bits(), mapped, 128) as u8 + 1;
        Matched { country: self.code(number), prefix: prefix.max(apart) }
    }

    fn code(&self, number: u8) -> Option<Country> {
        self.codes.get(usize::from(number.checked_sub(1)?)).copied()
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, TableError> {
        let (&first, rest) = self.rest.split_first().ok_or(TableError::Length)?;
        self.rest = rest;
        Ok(first)
    }

    fn varint(&mut self) -> Result<u64, TableError> {
        let mut value = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(TableError::Order)
    }

    fn spans<T>(
        &mut self,
        codes: usize,
        narrow: impl Fn(u64) -> Result<T, TableError>,
    ) -> Result<Spans<T>, TableError> {
        let count = usize::try_from(self.varint()?).map_err(|_| TableError::Length)?;
        // A span takes at least two bytes: a larger count is a lie, and must not reserve memory.
        if count > self.rest.len() / 2 {
            return Err(TableError::Length);
        }
        let mut spans = Spans { starts: Vec::with_capacity(count), countries: Vec::with_capacity(count) };
        let mut start = 0_u64;
        for at in 0..count {
            let step = self.varint()?;
            let country = self.byte()?;
            if (at > 0 && step == 0) || usize::from(country) > codes {
                return Err(TableError::Order);
            }
            start = start.checked_add(step).ok_or(TableError::Order)?;
            spans.starts.push(narrow(start)?);
            spans.countries.push(country);
        }
        Ok(spans)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn found(table: &CountryTable, address: &str) -> Option<String> {
        table.country(address.parse().unwrap()).map(|country| country.as_str().to_owned())
    }

    #[test]
    fn well_known_addresses_are_found_in_their_countries() {
        let table = CountryTable::bundled();
        for (address, country) in [
            ("141.20.1.1", "DE"),  // Humboldt-Universität zu Berlin
            ("129.104.1.1", "FR"), // École polytechnique
            ("18.7.22.69", "US"),  // MIT
            ("133.11.0.1", "JP"),  // University of Tokyo
            ("::ffff:141.20.1.1", "DE"),
            ("2001:638::1", "DE"), // DFN
            ("2001:660::1", "FR"), // RENATER
        ] {
            assert_eq!(found(&table, address).as_deref(), Some(country), "{address}");
        }
    }

    #[test]
    fn private_and_loopback_addresses_have_no_country() {
        let table = CountryTable::bundled();
        for address in ["127.0.0.1", "10.1.2.3", "192.168.1.1", "::1", "fd00::1", "0.0.0.0", "255.255.255.255"] {
            assert_eq!(found(&table, address), None, "{address}");
        }
    }

    /// The country of an address by reading all spans, and private blocks by the standard library's word.
    fn found_slowly(table: &CountryTable, address: Ipv4Addr) -> Option<Country> {
        if address.is_private() || address.is_loopback() || address.is_link_local() || address.is_broadcast() {
            return None;
        }
        let spans = table.v4.starts.iter().zip(&table.v4.countries);
        let (_, number) = spans.take_while(|(start, _)| **start <= address.to_bits()).last()?;
        table.codes.get(usize::from(number.checked_sub(1)?)).copied()
    }

    #[test]
    fn a_prefix_never_reaches_into_another_country_and_is_never_longer_than_it_must_be() {
        let table = CountryTable::bundled();
        let mut seen = BTreeSet::new();
        for number in 0..3000_u32 {
            // Fibonacci hashing spreads the addresses evenly; every third lies at the edge of a span.
            let spread = number.wrapping_mul(2_654_435_769);
            let edge = table.v4.starts[spread as usize % table.v4.starts.len()];
            let point = if number % 3 == 0 { edge.wrapping_sub(number % 2) } else { spread };
            let matched = table.matched(Ipv4Addr::from_bits(point).into());
            assert_eq!(matched.country, found_slowly(&table, point.into()), "{}", Ipv4Addr::from_bits(point));
            let size = 1_u64 << (32 - matched.prefix);
            let first = u64::from(point) & !(size - 1);
            let same = |at: u64| table.country(Ipv4Addr::from_bits(at as u32).into()) == matched.country;
            for step in 0..64 {
                assert!(same(first + (size - 1) * step / 63), "{} /{}", Ipv4Addr::from_bits(point), matched.prefix);
            }
            if matched.prefix > 0 {
                // Twice the block holds a boundary: some address in its other half is the first of a span.
                let twin = first ^ size;
                let edges = table.v4.starts.partition_point(|&start| u64::from(start) < twin.min(first) + 1);
                let inside = table.v4.starts.get(edges).is_some_and(|&start| u64::from(start) < twin.max(first) + size);
                assert!(inside, "{} could be known by /{}", Ipv4Addr::from_bits(point), matched.prefix - 1);
            }
            seen.insert(matched.prefix);
        }
        assert!(seen.len() > 15, "the addresses tried are all alike: {seen:?}");
    }

    #[test]
    fn an_ipv6_prefix_never_reaches_into_another_country() {
        let table = CountryTable::bundled();
        let starts: Vec<u64> = table.v6.starts.iter().map(|start| (start >> IPV6_SHIFT) as u64).collect();
        for (at, &start) in starts.iter().enumerate().step_by(97) {
            // ::/48 holds the IPv4-mapped addresses; it has its own test below.
            for point in [start, start.saturating_sub(1)].into_iter().filter(|&point| point > 0) {
                let address = Ipv6Addr::from_bits(u128::from(point) << IPV6_SHIFT);
                let matched = table.matched(address.into());
                assert!(matched.prefix <= 48, "{address}");
                let size = 1_u64 << (48 - u32::from(matched.prefix));
                let first = point & !(size - 1);
                for step in 0..16 {
                    let other = Ipv6Addr::from_bits(u128::from(first + (size - 1) / 15 * step) << IPV6_SHIFT);
                    assert_eq!(table.country(other.into()), matched.country, "span {at}: {address} and {other}");
                }
            }
        }
        let mapped = table.matched("::ffff:141.20.1.1".parse().unwrap());
        assert_eq!(mapped.prefix, 96 + table.matched("141.20.1.1".parse().unwrap()).prefix);
        assert!(table.matched("::1".parse().unwrap()).prefix > 80, "the prefix of ::1 holds mapped addresses");
    }

    #[test]
    fn a_damaged_table_is_refused() {
        let mut damaged = BUNDLED.to_vec();
        damaged[5000] ^= 1;
        assert_eq!(CountryTable::read(&damaged).unwrap_err(), TableError::Checksum);
        assert_eq!(CountryTable::read(&BUNDLED[..3]).unwrap_err(), TableError::Length);
        assert_eq!(CountryTable::read(b"something else").unwrap_err(), TableError::Format);
    }

    #[test]
    fn a_table_that_claims_more_spans_than_it_has_reserves_no_memory_for_them() {
        let mut bytes = b"RMCT\x01\x00\xFF\xFF\xFF\xFF\xFF\xFF\x7F".to_vec();
        let checksum = crc32fast::hash(&bytes);
        bytes.extend(checksum.to_le_bytes());
        assert_eq!(CountryTable::read(&bytes).unwrap_err(), TableError::Length);
    }
}
