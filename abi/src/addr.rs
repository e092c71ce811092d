//! IP addresses as the maps hold them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first half of the low eight octets of an IPv4-mapped IPv6 address,
/// `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2).
const V4_MAPPED: [u8; 4] = [0, 0, 0xff, 0xff];

/// An IPv6 address, or an IPv4 address in its IPv4-mapped form, so that one
/// layout serves both and an IPv4-mapped socket needs no special case.
///
/// # Invariants
/// In memory the sixteen octets stand in network order. Two words, because
/// the kernel lets a program read and write `user_ip6` in words of eight, and
/// because two comparisons are fewer than four.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Addr {
    /// Octets 0 to 7.
    pub high: u64,
    /// Octets 8 to 15.
    pub low: u64,
}

impl Addr {
    /// From an IPv4 address in network byte order, as `user_ip4` is.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4_be(address_be: u32) -> Self {
        let [a, b, c, d] = address_be.to_ne_bytes();
        let [e, f, g, h] = V4_MAPPED;
        Self {
            high: 0,
            low: u64::from_ne_bytes([e, f, g, h, a, b, c, d]),
        }
    }

    /// The IPv4 address in network byte order, if this is one.
    #[inline(always)]
    #[must_use]
    pub const fn v4_be(&self) -> Option<u32> {
        let [e, f, g, h, a, b, c, d] = self.low.to_ne_bytes();
        let is_mapped =
            self.high == 0 && u32::from_ne_bytes([e, f, g, h]) == u32::from_ne_bytes(V4_MAPPED);
        if is_mapped {
            Some(u32::from_ne_bytes([a, b, c, d]))
        } else {
            None
        }
    }

    fn octets(self) -> [u8; 16] {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&self.high.to_ne_bytes());
        octets[8..].copy_from_slice(&self.low.to_ne_bytes());
        octets
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(address: Ipv6Addr) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.octets();
        Self {
            high: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            low: u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
        }
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4_be(u32::from_ne_bytes(v4.octets())),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(address: Addr) -> Self {
        match address.v4_be() {
            Some(v4) => Self::V4(Ipv4Addr::from(v4.to_ne_bytes())),
            None => Self::V6(Ipv6Addr::from(address.octets())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_both_families() {
        for text in [
            "10.96.0.10",
            "0.0.0.0",
            "255.255.255.255",
            "fd00::1",
            "::1",
            "::",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Addr::from(address)), address);
        }
    }

    #[test]
    fn holds_ipv4_as_the_kernel_shows_a_mapped_socket() {
        let mapped: Ipv6Addr = "::ffff:10.96.0.10".parse().unwrap();
        let plain: IpAddr = "10.96.0.10".parse().unwrap();
        assert_eq!(Addr::from(IpAddr::V6(mapped)), Addr::from(plain));
        assert_eq!(
            Addr::from(plain).v4_be(),
            Some(u32::from_ne_bytes([10, 96, 0, 10]))
        );
    }
}
