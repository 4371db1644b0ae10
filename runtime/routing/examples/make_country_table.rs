//! Makes `data/country.bin` out of two CSV files of number ranges.
//!
//! ```text
//! cargo run -p routing --example make_country_table -- IPV4.csv IPV6.csv OUT
//! ```
//!
//! A line is `first,last,CC` with decimal addresses, in ascending order. Where
//! ranges overlap the earlier line keeps what it has. Neighbours of the same
//! country are merged; an IPv6 /48 belongs to the first range that reaches it.

use std::io::Error;

const IPV6_SHIFT: u32 = 128 - 48;

struct Range {
    first: u128,
    last: u128,
    code: String,
}

fn read(path: &str) -> Result<Vec<Range>, Error> {
    let text = std::fs::read_to_string(path)?;
    let bad = |at: usize| Error::other(format!("{path}:{}: expected `first,last,CC`", at + 1));
    let mut ranges = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let mut parts = line.split(',');
        let (Some(first), Some(last), Some(code)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(bad(at));
        };
        let (Ok(first), Ok(last)) = (first.parse(), last.parse()) else { return Err(bad(at)) };
        if first > last || code.len() != 2 || !code.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(bad(at));
        }
        ranges.push(Range { first, last, code: code.to_owned() });
    }
    ranges.sort_by_key(|range| range.first);
    Ok(ranges)
}

/// Where each span begins and the number of its country, 0 for none.
fn spans(ranges: &[Range], shift: u32, number: impl Fn(&str) -> u8) -> Vec<(u64, u8)> {
    let mut spans: Vec<(u64, u8)> = Vec::new();
    let mut push = |start: u64, country: u8| {
        if spans.last().is_none_or(|&(_, before)| before != country) {
            spans.push((start, country));
        }
    };
    let mut free = 0_u64;
    for range in ranges {
        let first = u64::try_from(range.first >> shift).expect("48 bits fit").max(free);
        let last = u64::try_from(range.last >> shift).expect("48 bits fit");
        if first > last {
            continue;
        }
        if first > free {
            push(free, 0);
        }
        push(first, number(&range.code));
        free = last + 1;
    }
    let end = if shift == 0 { 1 << 32 } else { 1 << 48 };
    if free < end {
        push(free, 0);
    }
    spans
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn write_spans(out: &mut Vec<u8>, spans: &[(u64, u8)]) {
    varint(out, spans.len() as u64);
    let mut before = 0;
    for &(start, country) in spans {
        varint(out, start - before);
        out.push(country);
        before = start;
    }
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [v4, v6, target] = arguments.as_slice() else {
        return Err(Error::other("usage: make_country_table IPV4.csv IPV6.csv OUT"));
    };
    let (v4, v6) = (read(v4)?, read(v6)?);
    let mut codes: Vec<&str> = v4.iter().chain(&v6).map(|range| range.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    if codes.len() > 255 {
        return Err(Error::other("more than 255 countries do not fit the format"));
    }
    let number = |code: &str| codes.binary_search(&code).map(|at| at as u8 + 1).expect("collected above");
    let mut out = b"RMCT\x01".to_vec();
    varint(&mut out, codes.len() as u64);
    codes.iter().for_each(|code| out.extend_from_slice(code.as_bytes()));
    write_spans(&mut out, &spans(&v4, 0, number));
    write_spans(&mut out, &spans(&v6, IPV6_SHIFT, number));
    let checksum = crc32fast::hash(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    println!("{} countries, {} bytes", codes.len(), out.len());
    std::fs::write(target, out)
}
