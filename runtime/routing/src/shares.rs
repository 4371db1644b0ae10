//! Which region a client is sent to first, where several share a name's clients by weight.
//!
//! Weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted
//! distributed hash tables", SPAA 2005, logarithmic method): each region draws a
//! lot for the client, the larger its weight the better, and the best one wins.
//! A client's lots never change, so it stays where it is for as long as the
//! weights do; where they change, only clients of the share that moves move, and
//! where a region is lost, only its own.
//!
//! A client is its network: a /24 of IPv4, a /56 of IPv6, which is what resolvers
//! tell of it (RFC 7871, section 11.1), so that DNS and the gateway agree.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::RegionId;
use model::routing::{ClientClass, RegionState, RoutingPlan, Share};

/// Bits of an address that name a client, by family.
const V4_BITS: u8 = 24;
const V6_BITS: u8 = 56;

/// The network that lots are drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientNet {
    number: u64,
    /// How many bits of the address it depends on.
    pub(crate) bits: u8,
}

impl ClientNet {
    /// The network of an address of which the first `known` bits are known.
    pub(crate) fn of(address: IpAddr, known: u8) -> Self {
        match address {
            IpAddr::V4(address) => Self { number: u64::from(address.to_bits() >> 8) << 8, bits: known.min(V4_BITS) },
            // Never an IPv4 one: those have zeros above.
            IpAddr::V6(address) => {
                let number = (address.to_bits() >> 64) as u64 & !0xFF;
                Self { number: number ^ 1 << 63, bits: known.min(V6_BITS) }
            }
        }
    }
}

/// What is kept of a share, to draw quickly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lot {
    seed: u64,
    weight: f64,
}

impl Lot {
    pub(crate) fn new(share: &Share) -> Self {
        let hash = blake3::hash(share.region.as_str().as_bytes());
        let mut seed = [0; 8];
        seed.copy_from_slice(&hash.as_bytes()[..8]);
        Self { seed: u64::from_le_bytes(seed), weight: f64::from(share.weight) }
    }

    /// The smaller, the better: an exponential variable whose rate is the weight.
    fn draw(&self, net: ClientNet) -> f64 {
        // 53 bits, above zero and at most one.
        let uniform = ((mix(self.seed ^ mix(net.number)) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -uniform.ln() / self.weight
    }
}

/// The place of the lot that a network draws; none of none.
pub(crate) fn draw<'l>(net: ClientNet, lots: impl Iterator<Item = &'l Lot>) -> Option<usize> {
    let drawn = lots.enumerate().map(|(at, lot)| (lot.draw(net), at));
    drawn.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, at)| at)
}

/// The finaliser of SplitMix64 (Steele and others, OOPSLA 2014): every bit of the result depends on every bit given.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Puts the region first that a client of `host` has by its share, as the answer over DNS does. `order` are the regions
/// that may take the request, best first: none is ever added. A host that no policy speaks of leaves the order as it is.
pub fn lean(
    plan: &RoutingPlan,
    (class, client): (ClientClass, IpAddr),
    host: &str,
    up: &BTreeMap<RegionId, RegionState>,
    order: &mut [RegionId],
) {
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name).to_ascii_lowercase();
    let Some(shapes) = plan.dns.shapes.get(name.as_str()) else { return };
    let serves = |id: &RegionId| up.get(id).is_some_and(|state| state.serves());
    let shares = &shapes.shape(class).shares;
    let shares: Vec<&Share> = shares
        .iter()
        .filter(|share| share.weight > 0 && serves(&share.region) && order.contains(&share.region))
        .collect();
    let lots: Vec<Lot> = shares.iter().map(|share| Lot::new(share)).collect();
    let Some(drawn) = draw(ClientNet::of(client.to_canonical(), u8::MAX), lots.iter()) else { return };
    if let Some(at) = order.iter().position(|id| *id == shares[drawn].region) {
        order[..=at].rotate_right(1);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn shares(weights: &[(&str, u16)]) -> Vec<(RegionId, Lot)> {
        let share = |(region, weight): &(&str, u16)| Share { region: RegionId::new(region).unwrap(), weight: *weight };
        weights.iter().map(share).map(|share| (share.region.clone(), Lot::new(&share))).collect()
    }

    fn nets(count: u32) -> impl Iterator<Item = ClientNet> {
        // Neighbours on purpose: providers have blocks of thousands, and a weak hash would give a whole one to one region.
        (0..count).map(|at| ClientNet::of(Ipv4Addr::from_bits(0x2D00_0000 + (at << 8)).into(), 32))
    }

    fn given(net: ClientNet, shares: &[(RegionId, Lot)]) -> &RegionId {
        &shares[draw(net, shares.iter().map(|(_, lot)| lot)).unwrap()].0
    }

    #[test]
    fn a_share_never_differs_from_its_weight_by_one_per_cent_of_the_clients() {
        for weights in [[90, 10, 0], [50, 50, 0], [1, 1, 1], [60, 30, 10], [9999, 1, 5000]] {
            let all = shares(&[("us-east", weights[0]), ("eu-west", weights[1]), ("ap-southeast", weights[2])]);
            let all: Vec<_> = all.into_iter().filter(|(_, lot)| lot.weight > 0.0).collect();
            let mut counts = BTreeMap::<&RegionId, u32>::new();
            for net in nets(60_000) {
                *counts.entry(given(net, &all)).or_default() += 1;
            }
            let total: f64 = all.iter().map(|(_, lot)| lot.weight).sum();
            for (region, lot) in &all {
                let share = f64::from(counts.get(region).copied().unwrap_or(0)) / 60_000.0;
                assert!((share - lot.weight / total).abs() < 0.01, "{region} has {share} of {weights:?}");
            }
        }
    }

    #[test]
    fn only_the_clients_of_the_share_that_moves_are_moved() {
        let before = shares(&[("us-east", 90), ("eu-west", 10), ("ap-southeast", 50)]);
        let after = shares(&[("us-east", 70), ("eu-west", 10), ("ap-southeast", 50)]);
        let mut moved = 0;
        for net in nets(60_000) {
            let (was, becomes) = (given(net, &before), given(net, &after));
            if was != becomes {
                assert_eq!(was.as_str(), "us-east", "a client moved away from a region that kept its weight");
                moved += 1;
            }
        }
        // From 90 of 150 to 70 of 130 of the clients.
        let expected = 60_000.0 * (90.0 / 150.0 - 70.0 / 130.0);
        assert!((f64::from(moved) - expected).abs() < 600.0, "{moved} clients moved, not {expected}");
        let lost: Vec<_> = before.iter().filter(|(id, _)| id.as_str() != "eu-west").cloned().collect();
        for net in nets(20_000) {
            let was = given(net, &before);
            assert!(was.as_str() == "eu-west" || given(net, &lost) == was, "the loss of another region moved a client");
        }
    }

    #[test]
    fn a_client_is_its_network_and_nothing_beyond_it() {
        let of = |text: &str| ClientNet::of(text.parse().unwrap(), u8::MAX);
        assert_eq!(of("192.0.2.1"), of("192.0.2.200"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8:0:aa01::1"), of("2001:db8:0:aaff::2"));
        assert_ne!(of("2001:db8:0:aa01::1"), of("2001:db8:0:ab01::1"));
        assert_eq!((of("192.0.2.1").bits, of("2001:db8::").bits), (24, 56));
        assert_eq!(ClientNet::of("192.0.0.0".parse().unwrap(), 16).bits, 16);
    }
}
