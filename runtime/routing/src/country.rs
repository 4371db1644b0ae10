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

/// How many bits of an IPv6 address the table does not look at.
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
    /// Something that is not a country code.
    #[error("{0:?} is not a country code")]
    Code(String),
}

/// Spans of addresses with their countries, ready for binary search. About 3.2 MB.
#[derive(Clone, Debug)]
pub struct CountryTable {
    codes: Vec<Country>,
    v4: Spans<u32>,
    v6: Spans<u64>,
}

/// Starts in ascending order, and for each the country's number; 0 is none.
#[derive(Clone, Debug)]
struct Spans<T> {
    starts: Vec<T>,
    countries: Vec<u8>,
}

impl<T: Ord + Copy> Spans<T> {
    fn at(&self, point: T) -> u8 {
        match self.starts.partition_point(|&start| start <= point) {
            0 => 0,
            after => self.countries[after - 1],
        }
    }
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
        let v6 = reader.spans(codes.len(), Ok)?;
        if reader.rest.is_empty() { Ok(Self { codes, v4, v6 }) } else { Err(TableError::Length) }
    }

    /// The country of an address; none for private and unassigned ones.
    pub fn country(&self, address: IpAddr) -> Option<Country> {
        let number = match address {
            IpAddr::V4(address) => self.v4(address),
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(address) => self.v4(address),
                None => self.v6(address),
            },
        };
        self.codes.get(usize::from(number.checked_sub(1)?)).copied()
    }

    fn v4(&self, address: Ipv4Addr) -> u8 {
        // The source assigns some of these to countries.
        if address.is_private() || address.is_loopback() || address.is_link_local() || address.is_broadcast() {
            return 0;
        }
        self.v4.at(address.to_bits())
    }

    fn v6(&self, address: Ipv6Addr) -> u8 {
        // 48 bits are left, so nothing is cut off.
        self.v6.at((address.to_bits() >> IPV6_SHIFT) as u64)
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
