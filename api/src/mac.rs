//! MAC addresses that follow from IP addresses.
//!
//! Any node knows the MAC of any Berth pod on its wire without asking, and a
//! neighbour's ARP entry stays true when a pod moves to another node. All of
//! these are unicast and locally administered (IEEE 802, the second bit of the
//! first octet), and the prefixes differ so that a pod, an IPv6-only pod and a
//! shim can never collide.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// First two octets of a pod with an IPv4 address; the address follows.
const POD_V4_PREFIX: [u8; 2] = [0x02, 0xbe];
/// First two octets of a pod with only an IPv6 address; a hash follows.
const POD_V6_PREFIX: [u8; 2] = [0x06, 0xbe];
/// First two octets of a node's shim; the node's IPv4 address follows.
const SHIM_PREFIX: [u8; 2] = [0x0a, 0xbe];
/// First two octets of a shim on a node with only an IPv6 address.
const SHIM_V6_PREFIX: [u8; 2] = [0x0e, 0xbe];

/// A 48-bit MAC address, written `02:be:0a:14:00:39`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

/// The MAC of a pod whose first address is `address`.
#[must_use]
pub fn pod_mac(address: IpAddr) -> MacAddr {
    match address {
        IpAddr::V4(v4) => from_v4(POD_V4_PREFIX, v4),
        IpAddr::V6(v6) => from_v6(POD_V6_PREFIX, v6),
    }
}

/// The MAC of the shim interface on the node whose address is `node`.
#[must_use]
pub fn shim_mac(node: IpAddr) -> MacAddr {
    match node {
        IpAddr::V4(v4) => from_v4(SHIM_PREFIX, v4),
        IpAddr::V6(v6) => from_v6(SHIM_V6_PREFIX, v6),
    }
}

fn from_v4(prefix: [u8; 2], address: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = address.octets();
    MacAddr([prefix[0], prefix[1], a, b, c, d])
}

/// 32 bits of FNV-1a over the 128 bits of the address: the whole address
/// counts, so neighbouring addresses in different subnets differ too.
fn from_v6(prefix: [u8; 2], address: Ipv6Addr) -> MacAddr {
    let hash = address
        .octets()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, octet| {
            (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193)
        });
    let [a, b, c, d] = hash.to_be_bytes();
    MacAddr([prefix[0], prefix[1], a, b, c, d])
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What was wrong with a written MAC address.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a MAC address; write six octets such as 02:be:0a:14:00:39")]
pub struct ParseMacError(String);

impl FromStr for MacAddr {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseMacError(text.to_owned());
        let mut octets = [0_u8; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(bad)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            Err(bad())
        } else {
            Ok(Self(octets))
        }
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_mac_carries_its_ipv4_address() {
        let mac = pod_mac("10.20.0.57".parse().unwrap());
        assert_eq!(mac.to_string(), "02:be:0a:14:00:39");
        assert_eq!("02:be:0a:14:00:39".parse::<MacAddr>().unwrap(), mac);
    }

    #[test]
    fn pod_shim_and_ipv6_macs_are_unicast_local_and_apart() {
        let v4: IpAddr = "10.20.0.57".parse().unwrap();
        let v6: IpAddr = "fd00::57".parse().unwrap();
        let all = [pod_mac(v4), pod_mac(v6), shim_mac(v4), shim_mac(v6)];
        for mac in all {
            assert_eq!(
                mac.0[0] & 0b11,
                0b10,
                "{mac} is unicast and locally administered"
            );
        }
        let apart: std::collections::HashSet<_> = all.iter().map(|mac| &mac.0[..2]).collect();
        assert_eq!(apart.len(), all.len());
    }

    #[test]
    fn refuses_what_is_not_a_mac() {
        for text in [
            "",
            "02:be",
            "02:be:0a:14:00:39:01",
            "02:be:0a:14:00:zz",
            "2:be:a:14:0:39",
        ] {
            let error = text.parse::<MacAddr>().unwrap_err().to_string();
            assert!(error.contains("six octets"), "{error}");
        }
    }
}
