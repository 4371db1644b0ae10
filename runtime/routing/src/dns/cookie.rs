//! Cookies that show that a client receives what is sent to its address.
//!
//! The form is that of RFC 9018: version 1, three bytes of zero, the time in
//! seconds, and eight bytes of a keyed hash over the client's cookie, those
//! bytes and its address. The hash is BLAKE3 in place of SipHash-2-4, so that
//! this crate needs no second keyed hash: nobody but regions with the same key
//! ever checks it, and they all run this code.

use std::net::IpAddr;

use model::UnixMillis;

use super::wire::Cookie;

/// A cookie is good for an hour (RFC 9018, section 4.3).
const LONGEST_AGE: u32 = 3600;
/// Clocks of regions may differ by this many seconds.
const SKEW: u32 = 300;

/// The secret of all regions that answer for one deployment.
#[derive(Clone)]
pub struct CookieKey([u8; 32]);

impl CookieKey {
    /// A key that follows from another secret of the deployment, so that every region has the same.
    pub fn derived_from(secret: &[u8; 32]) -> Self {
        Self(blake3::derive_key("repomind dns cookie v1", secret))
    }

    fn hash(&self, client: [u8; 8], head: [u8; 8], address: IpAddr) -> [u8; 8] {
        let mut hash = blake3::Hasher::new_keyed(&self.0);
        hash.update(&client).update(&head);
        match address {
            IpAddr::V4(address) => hash.update(&address.octets()),
            IpAddr::V6(address) => hash.update(&address.octets()),
        };
        let mut short = [0; 8];
        short.copy_from_slice(&hash.finalize().as_bytes()[..8]);
        short
    }

    /// The server's half for a client at `address`.
    pub(super) fn server_half(&self, client: [u8; 8], address: IpAddr, now: UnixMillis) -> [u8; 16] {
        let mut half = [0; 16];
        half[0] = 1;
        half[4..8].copy_from_slice(&seconds(now).to_be_bytes());
        let mut head = [0; 8];
        head.copy_from_slice(&half[..8]);
        half[8..].copy_from_slice(&self.hash(client, head, address));
        half
    }

    /// Whether the server's half was given to a client at `address` within the hour.
    pub(super) fn knows(&self, cookie: &Cookie, address: IpAddr, now: UnixMillis) -> bool {
        let Some(half) = cookie.server else { return false };
        let [.., a, b, c, d, _, _, _, _, _, _, _, _] = half;
        let age = seconds(now).wrapping_sub(u32::from_be_bytes([a, b, c, d])).cast_signed();
        let fresh = (-SKEW.cast_signed()..=LONGEST_AGE.cast_signed()).contains(&age);
        let mut head = [0; 8];
        head.copy_from_slice(&half[..8]);
        let right = self.hash(cookie.client, head, address);
        // Every byte is compared, so that the time taken says nothing about the place of the first difference.
        let differs = right.iter().zip(&half[8..]).fold(0, |differs, (a, b)| differs | (a ^ b));
        half[0] == 1 && fresh && differs == 0
    }
}

impl std::fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieKey")
    }
}

/// Whole seconds since 1970, which wrap in 2106 as serial numbers do (RFC 1982).
fn seconds(now: UnixMillis) -> u32 {
    (now.0 / 1000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_worth_nothing_elsewhere_later_or_to_another_client() {
        let key = CookieKey::derived_from(&[7; 32]);
        let (here, elsewhere): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let now = UnixMillis(1_767_225_600_000);
        let half = key.server_half([1; 8], here, now);
        let server = Some(half);
        let cookie = Cookie { client: [1; 8], server };
        assert!(key.knows(&cookie, here, now));
        assert!(key.knows(&cookie, here, UnixMillis(now.0 + 3_600_000)));
        assert!(!key.knows(&cookie, here, UnixMillis(now.0 + 3_602_000)), "an hour is over");
        assert!(!key.knows(&cookie, here, UnixMillis(now.0 - 302_000)), "it comes from the future");
        assert!(!key.knows(&cookie, elsewhere, now));
        assert!(!key.knows(&Cookie { client: [2; 8], server }, here, now));
        assert!(!key.knows(&Cookie { client: [1; 8], server: None }, here, now));
        assert!(!CookieKey::derived_from(&[8; 32]).knows(&cookie, here, now));
        for byte in 0..16 {
            let mut forged = half;
            forged[byte] ^= 1;
            assert!(!key.knows(&Cookie { client: [1; 8], server: Some(forged) }, here, now), "byte {byte}");
        }
    }
}
