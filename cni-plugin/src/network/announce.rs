//! Telling the wire where an address is now: ARP announcements (RFC 5227,
//! section 2.3) and unsolicited neighbour advertisements (RFC 4861, 7.2.6).
//!
//! An address keeps its MAC wherever it goes, so most neighbours need no news;
//! the switches do, and machines that knew the address under another MAC.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use berth_api::mac::MacAddr;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket};

use super::PodNetns;
use crate::error::{CniError, Code};

/// A socket on the pod's interface, and the frames to send.
#[derive(Debug)]
pub(crate) struct Announcer {
    socket: OwnedFd,
    frames: Vec<Vec<u8>>,
}

impl Announcer {
    /// Opens a packet socket in the pod. It stays there whatever thread uses it.
    pub(crate) fn open(
        pod: &PodNetns,
        ifname: &str,
        mac: MacAddr,
        addresses: &[IpAddr],
    ) -> Result<Self, CniError> {
        let socket = pod
            .netns
            .run(|| on_interface(ifname))?
            .map_err(|errno| failed(ifname, errno))?;
        let frames = addresses
            .iter()
            .map(|address| match address {
                IpAddr::V4(v4) => arp(mac, *v4),
                IpAddr::V6(v6) => advertisement(mac, *v6),
            })
            .collect();
        Ok(Self { socket, frames })
    }

    /// Sends one announcement for each address: 10 microseconds. ADD calls it
    /// three times, between its other work, so that it waits for none of them.
    /// The RFC's 2 s between them would need a process that outlives ADD and
    /// holds the pod's namespace open; nothing is lost without it, as the
    /// pod's first packet says the same to the switches.
    pub(crate) fn announce(&self) {
        for frame in &self.frames {
            // A frame that is lost here is as one that is lost on the wire.
            let _ = send(self.socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT);
        }
    }
}

fn failed(ifname: &str, errno: Errno) -> CniError {
    CniError::new(
        Code::Kernel,
        format!("cannot open a packet socket on {ifname}: {}", errno.desc()),
    )
}

/// `getifaddrs` gives the one kind of link-layer address that can be had
/// without unsafe code; its protocol is 0, so the socket receives nothing.
fn on_interface(ifname: &str) -> nix::Result<OwnedFd> {
    let address = getifaddrs()?
        .filter(|interface| interface.interface_name == ifname)
        .find_map(|interface| interface.address?.as_link_addr().copied())
        .ok_or(Errno::ENODEV)?;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    bind(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

/// An ARP request whose sender and target are both `address` (RFC 5227, 1.1).
fn arp(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend([0xff; 6]);
    frame.extend(mac.0);
    frame.extend([0x08, 0x06]); // ARP
    frame.extend([0, 1, 0x08, 0x00, 6, 4]); // Ethernet, IPv4, lengths
    frame.extend([0, 1]); // request
    frame.extend(mac.0);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// A neighbour advertisement to all nodes that overrides what they know.
fn advertisement(mac: MacAddr, address: Ipv6Addr) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut message = Vec::with_capacity(32);
    message.extend([136, 0, 0, 0]); // type, code, checksum to come
    message.extend([0x20, 0, 0, 0]); // override
    message.extend(address.octets());
    message.extend([2, 1]); // target link-layer address, 8 bytes
    message.extend(mac.0);
    let checksum = icmpv6_checksum(address, all_nodes, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = Vec::with_capacity(86);
    frame.extend([0x33, 0x33, 0, 0, 0, 1]);
    frame.extend(mac.0);
    frame.extend([0x86, 0xdd]); // IPv6
    frame.extend([0x60, 0, 0, 0]);
    frame.extend([0, 32]); // length of the message
    frame.extend([58, 255]); // ICMPv6, hop limit
    frame.extend(address.octets());
    frame.extend(all_nodes.octets());
    frame.extend(message);
    frame
}

/// RFC 4443, 2.3: over the pseudo-header and the message, its own field zero.
fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).expect("a message of 32 bytes");
    let mut sum: u32 = 58 + (length >> 16) + (length & 0xffff);
    for part in [&source.octets()[..], &destination.octets()[..], message] {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0xbe, 10, 20, 0, 57]);

    #[test]
    fn an_arp_announcement_names_its_sender_twice() {
        let frame = arp(MAC, Ipv4Addr::new(10, 20, 0, 57));
        assert_eq!(frame.len(), 42);
        assert_eq!(
            frame[..14],
            [255, 255, 255, 255, 255, 255, 2, 0xbe, 10, 20, 0, 57, 8, 6]
        );
        assert_eq!(frame[28..32], frame[38..42]);
    }

    #[test]
    fn an_advertisements_checksum_adds_up() {
        let address: Ipv6Addr = "fd00::57".parse().unwrap();
        let frame = advertisement(MAC, address);
        assert_eq!(frame.len(), 14 + 40 + 32);
        let all_nodes = "ff02::1".parse().unwrap();
        // Summing a message with its checksum in place gives zero.
        assert_eq!(icmpv6_checksum(address, all_nodes, &frame[54..]), 0);
    }
}
