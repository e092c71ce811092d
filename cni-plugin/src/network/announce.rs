//! Telling the wire where an address is now: ARP announcements (RFC 5227,
//! section 2.3) and unsolicited neighbour advertisements (RFC 4861, 7.2.6).
//!
//! An address keeps its MAC wherever it goes, so most neighbours need no news;
//! the switches do, and machines that knew the address under another MAC.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};

use berth_api::mac::MacAddr;
use berth_netlink::Link;
use socket2::{Domain, Protocol, Socket, Type};

use super::PodNetns;
use crate::error::{CniError, Code};

/// Announces the addresses of an interface that is up.
///
/// IPv4: the kernel is told to look for the pod's own address on the link. It
/// asks for it as the pod, so sender and target are the same: an announcement.
/// It asks three times, at once and after one and two seconds (`mcast_solicit`,
/// `retrans_time`), while ADD has long gone: one netlink message, 20
/// microseconds. A packet socket of our own would send the same frames, but
/// closing it waits for a grace period of the kernel: 9 ms of 13 (6.18,
/// `packet_release`), and it would have to live for two seconds.
///
/// IPv6: three advertisements at once; the kernel has no such trick for them.
pub(crate) fn announce(
    pod: &PodNetns,
    link: &Link,
    mac: MacAddr,
    addresses: &[IpAddr],
) -> Result<(), CniError> {
    for address in addresses {
        match address {
            IpAddr::V4(_) => pod.handle.probe_neighbour(link.index, *address)?,
            IpAddr::V6(v6) => {
                pod.netns
                    .run(|| advertise(link.index, mac, *v6))?
                    .map_err(|error| {
                        CniError::new(
                            Code::Kernel,
                            format!("cannot advertise {v6} on {}: {error}", link.name),
                        )
                    })?
            }
        }
    }
    Ok(())
}

fn advertise(index: u32, mac: MacAddr, address: Ipv6Addr) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    // Receivers drop what may have come through a router (RFC 4861, 7.1.2).
    socket.set_multicast_hops_v6(255)?;
    socket.bind(&SocketAddrV6::new(address, 0, 0, 0).into())?;
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let message = advertisement(mac, address);
    for _ in 0..3 {
        socket.send_to(&message, &SocketAddrV6::new(all_nodes, 0, 0, index).into())?;
    }
    Ok(())
}

/// A neighbour advertisement that overrides what its readers know. The kernel
/// fills the checksum in.
fn advertisement(mac: MacAddr, address: Ipv6Addr) -> Vec<u8> {
    let mut message = Vec::with_capacity(32);
    message.extend([136, 0, 0, 0]); // type, code, checksum
    message.extend([0x20, 0, 0, 0]); // override
    message.extend(address.octets());
    message.extend([2, 1]); // target link-layer address, 8 bytes
    message.extend(mac.0);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_overrides_and_names_target_and_mac() {
        let mac = MacAddr([2, 0xbe, 10, 20, 0, 57]);
        let address: Ipv6Addr = "fd00::57".parse().unwrap();
        let message = advertisement(mac, address);
        assert_eq!(message.len(), 32);
        assert_eq!(message[..8], [136, 0, 0, 0, 0x20, 0, 0, 0]);
        assert_eq!(message[8..24], address.octets());
        assert_eq!(message[24..], [2, 1, 2, 0xbe, 10, 20, 0, 57]);
    }
}
