//! Packets that nobody sends on purpose.

use proptest::prelude::*;

use super::tests::{GERMAN, Seen, ask, send, table};
use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_packet_makes_the_server_panic_or_write_what_cannot_be_read(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        tcp in any::<bool>(),
    ) {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        if let Some((outcome, packet)) = send(&table(&[]), &bytes, GERMAN.parse().unwrap(), transport) {
            Seen::read(outcome, packet);
        }
    }

    #[test]
    fn no_damaged_query_makes_the_server_panic_or_write_what_cannot_be_read(
        kind in prop::sample::select(vec![1_u16, 2, 5, 6, 16, 28, 252, 255, 257]),
        text in prop::sample::select(vec!["api.repomind.io", "docs.repomind.io", "x.repomind.io", "repomind.io"]),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut packet = ask(text, kind).subnet(GERMAN, 24).option(10, &[5; 8]).option(3, b"").packet();
        for (at, byte) in damage {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        if cut.index(4) == 0 {
            packet.truncate(cut.index(packet.len()));
        }
        let most = 1232;
        if let Some((outcome, answered)) = send(&table(&[]), &packet, GERMAN.parse().unwrap(), Transport::Udp) {
            prop_assert!(answered.len() <= most);
            prop_assert_eq!(&answered[..2], &packet[..2]);
            Seen::read(outcome, answered);
        }
    }
}
