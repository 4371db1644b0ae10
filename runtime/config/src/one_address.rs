//! Moves all regions to 127.0.0.1, for systems that have no other loopback address.
//!
//! Linux answers on all of 127.0.0.0/8, so regions get 127.0.1.1, 127.0.2.1 and
//! so on with the same ports everywhere. macOS has 127.0.0.1 alone unless an
//! administrator adds the others; there, each region gets a block of ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use model::RegionId;
use model::region::{Addresses, Region, Regions};

/// The first port of the first region where nothing else is asked for.
pub const FIRST_PORT: u16 = 8080;

/// Ports of one region's block.
pub const BLOCK: u16 = 100;

/// Where in its block a door is: gateway, admin, peer, dns. The ports between the
/// gateway and the next door are left to the services behind it (8081 by default).
const DOORS: [u16; 4] = [0, 10, 20, 30];

/// Why the regions do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// How many regions there are.
    pub regions: usize,
    /// The first port that was asked for.
    pub first_port: u16,
}

impl std::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { regions, first_port } = self;
        write!(
            f,
            "{regions} regions of {BLOCK} ports each do not fit between port {first_port} and {}; \
             begin at a lower port, above 0",
            u16::MAX
        )
    }
}

impl std::error::Error for NoRoom {}

/// The same regions, all on 127.0.0.1, whatever their files say.
///
/// The primary comes first and then the others by id, as for hosts by turn. The
/// region at place i, from 0, gets the block that begins at `first_port + 100·i`:
/// gateway there, admin 10 further, peer 20 and dns 30. From 8080 on, the primary
/// has 8080, 8090, 8100 and 8110, the next region 8180, 8190, 8200 and 8210. No two
/// doors get the same port, and `services.api` stays as it is. An answer over DNS has no ports, so that all regions
/// look alike there.
///
/// # Errors
/// [`NoRoom`] when the last block would end past port 65535, or `first_port` is 0.
pub fn on_one_address(regions: &Regions, first_port: u16) -> Result<Regions, NoRoom> {
    let no_room = NoRoom { regions: regions.by_id.len(), first_port };
    if first_port == 0 {
        return Err(no_room);
    }
    let mut moved = regions.clone();
    let mut order: Vec<(&RegionId, &mut Region)> = moved.by_id.iter_mut().collect();
    order.sort_by_key(|(id, _)| (**id != regions.primary, *id));
    for (place, (_, region)) in order.into_iter().enumerate() {
        region.addresses = block(first_port, place).ok_or(no_room)?;
    }
    Ok(moved)
}

fn block(first_port: u16, place: usize) -> Option<Addresses> {
    let first = u16::try_from(place).ok()?.checked_mul(BLOCK)?.checked_add(first_port)?;
    first.checked_add(BLOCK - 1)?;
    let [gateway, admin, peer, dns] = DOORS.map(|door| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), first + door));
    Some(Addresses { gateway, admin, peer, dns, public: vec![gateway.ip()] })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn regions(count: usize) -> Regions {
        let file = |i: usize| {
            let text = format!(
                "region:\n  name: place-{i}\n  primary: {}\n  services: {{api: https://x.example, storage: s3://x}}\n  \
                 capacity: {{min_instances: 1, max_instances: 1}}\n  country: IE\n  \
                 coordinates: {{latitude: 1, longitude: 1}}\n",
                i == 1
            );
            (format!("region-config/region-{i:03}.yml"), text)
        };
        let files: BTreeMap<_, _> = (0..count.max(2)).map(file).collect();
        crate::load_from(&files).unwrap()
    }

    fn doors(region: &Region) -> [SocketAddr; 4] {
        let Addresses { gateway, admin, peer, dns, .. } = region.addresses;
        [gateway, admin, peer, dns]
    }

    #[test]
    fn no_two_doors_are_on_one_port_and_all_are_on_loopback() {
        for count in [2, 3, 254] {
            let moved = on_one_address(&regions(count), FIRST_PORT).unwrap();
            let all: BTreeSet<_> = moved.by_id.values().flat_map(doors).collect();
            assert_eq!(all.len(), 4 * count);
            assert!(all.iter().all(|door| door.ip() == Ipv4Addr::LOCALHOST));
            let ports: BTreeSet<_> = all.iter().map(SocketAddr::port).collect();
            assert_eq!(ports.len(), 4 * count);
        }
    }

    #[test]
    fn the_primary_has_the_first_block_and_nothing_else_about_a_region_changes() {
        let before = regions(3);
        let mut moved = on_one_address(&before, 9000).unwrap();
        let ports = |moved: &Regions, id: &str| doors(&moved.by_id[id]).map(|door| door.port());
        assert_eq!(ports(&moved, "region-001"), [9000, 9010, 9020, 9030]);
        assert_eq!(ports(&moved, "region-000"), [9100, 9110, 9120, 9130]);
        assert_eq!(ports(&moved, "region-002"), [9200, 9210, 9220, 9230]);
        for (id, region) in &mut moved.by_id {
            region.addresses = before.by_id[id].addresses.clone();
        }
        assert_eq!(moved, before);
    }

    #[test]
    fn blocks_that_would_end_past_the_last_port_are_refused() {
        let three = regions(3);
        assert!(on_one_address(&three, 65535 - 299).is_ok());
        assert_eq!(on_one_address(&three, 65535 - 298), Err(NoRoom { regions: 3, first_port: 65237 }));
        let said = on_one_address(&three, 0).unwrap_err().to_string();
        assert!(said.contains("3 regions") && said.contains("begin at a lower port, above 0"), "{said}");
    }
}
