//! Answers DNS queries from the routing plan, as the authority for the zones in it.
//!
//! A [`Table`] is made whenever the plan or the health of a region changes: it
//! holds every answer that can be given, ready for the wire, so that a query
//! costs two look-ups and a copy. [`answer`] is a pure function from a packet,
//! where it came from and the time to a packet, or to silence.
//!
//! Which region a client is sent to follows from its country alone: that of the
//! client subnet (RFC 7871) where the resolver sends one, else that of the
//! resolver. Regions that are down are left out; where all are, the ranking
//! stands, for the shortest time: an answer is never empty because of health,
//! and no region that the policy left out is ever put in.
//!
//! Offered: EDNS(0) with BADVERS, client subnet, cookies (RFC 7873, 9018), NSID
//! (RFC 5001), minimal ANY (RFC 8482), negative answers with SOA (RFC 2308),
//! aliases followed across our zones (RFC 6604), DNSSEC with NSEC for zones that
//! have keys. Refused or absent: recursion, zone transfers, updates, wildcards,
//! delegation to other servers.
//!
//! Start with [`Table::new`], [`Signing::at`] and [`answer()`].

mod answer;
mod cookie;
mod denial;
mod keys;
mod sign;
mod table;
mod wire;

pub use answer::{Client, Outcome, Server, Transport, UDP_PAYLOAD, answer, shorten};
pub use cookie::CookieKey;
pub use keys::{KeyTimes, SignBytes, ZoneKey};
pub use sign::{LEAST_DAYS, Signatures, Signing};
pub use table::Table;
pub use wire::Rcode;

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod tests;
