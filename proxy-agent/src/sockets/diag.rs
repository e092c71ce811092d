//! The messages of sock_diag(7): requests as octets, answers as values. Pure;
//! what the kernel says is read with every length checked.
//!
//! Layouts: linux/netlink.h, linux/inet_diag.h, linux/sock_diag.h.

use std::net::Ipv6Addr;

use berth_abi::Addr;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;

const IPPROTO_UDP: u8 = 17;
/// A UDP socket is in state ESTABLISHED (1) while it is connected.
const CONNECTED_STATES: u32 = 1 << 1;

/// The family of sockets: a dump lists one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// AF_INET.
    V4 = 2,
    /// AF_INET6; IPv4-mapped sockets are here.
    V6 = 10,
}

/// `struct nlmsghdr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct inet_diag_sockid`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(super) struct SocketId {
    source_port_be: u16,
    peer_port_be: u16,
    /// An IPv4 address is in the first four octets.
    source: [u8; 16],
    peer: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Request {
    family: u8,
    protocol: u8,
    extensions: u8,
    reserved: u8,
    states: u32,
    id: SocketId,
}

/// `struct inet_diag_msg`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Answer {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: SocketId,
    expires: u32,
    receive_queue: u32,
    send_queue: u32,
    uid: u32,
    inode: u32,
}

const _: () = {
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<SocketId>() == 48);
    assert!(size_of::<Request>() == 56);
    assert!(size_of::<Answer>() == 72);
};

/// A connected UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    family: u8,
    id: SocketId,
}

impl Listed {
    /// What tells it from every other socket since the machine was started.
    pub(super) fn cookie(&self) -> u64 {
        let [low, high] = self.id.cookie;
        u64::from(high) << 32 | u64::from(low)
    }

    /// Where it is connected to: address, and port in network byte order.
    pub(super) fn peer(&self) -> (Addr, u16) {
        let [a, b, c, d, ..] = self.id.peer;
        let address = if self.family == Family::V4 as u8 {
            Addr::from_v4_be(u32::from_ne_bytes([a, b, c, d]))
        } else {
            Addr::from(Ipv6Addr::from(self.id.peer))
        };
        (address, self.id.peer_port_be)
    }
}

/// One message of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A socket in a list.
    Socket(Listed),
    /// The end of a list.
    Done,
    /// The answer to a command: 0 or an errno.
    Result(i32),
}

/// What a datagram that cannot be read looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's answer is shorter than it says")]
pub(super) struct Malformed;

/// Asks for every connected UDP socket of one family.
pub(super) fn dump(family: Family, sequence: u32) -> Vec<u8> {
    let request = Request {
        family: family as u8,
        protocol: IPPROTO_UDP,
        extensions: 0,
        reserved: 0,
        states: CONNECTED_STATES,
        id: SocketId::new_zeroed(),
    };
    let flags = NLM_F_REQUEST | NLM_F_DUMP;
    message(SOCK_DIAG_BY_FAMILY, flags, sequence, request)
}

/// Asks for the end of one socket. The kernel answers with a [`Message::Result`].
pub(super) fn destroy(socket: &Listed, sequence: u32) -> Vec<u8> {
    let request = Request {
        family: socket.family,
        protocol: IPPROTO_UDP,
        extensions: 0,
        reserved: 0,
        states: u32::MAX,
        id: socket.id,
    };
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    message(SOCK_DESTROY, flags, sequence, request)
}

/// Reads one datagram of the kernel. What belongs to another request than
/// `sequence` is left out.
pub(super) fn parse(datagram: &[u8], sequence: u32) -> Result<Vec<Message>, Malformed> {
    let mut messages = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let (header, _) = Header::read_from_prefix(rest).map_err(|_| Malformed)?;
        let length = usize::try_from(header.length).map_err(|_| Malformed)?;
        let body = rest.get(size_of::<Header>()..length).ok_or(Malformed)?;
        // The last message need not be padded.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        if header.sequence != sequence {
            continue;
        }
        match header.kind {
            // A list that ends early says why in its last message.
            NLMSG_DONE | NLMSG_ERROR => {
                let (code, _) = i32::read_from_prefix(body).map_err(|_| Malformed)?;
                messages.push(if header.kind == NLMSG_DONE && code >= 0 {
                    Message::Done
                } else {
                    Message::Result(code.saturating_neg())
                });
            }
            SOCK_DIAG_BY_FAMILY => {
                let (answer, _) = Answer::read_from_prefix(body).map_err(|_| Malformed)?;
                messages.push(Message::Socket(Listed {
                    family: answer.family,
                    id: answer.id,
                }));
            }
            _ => {}
        }
    }
    Ok(messages)
}

fn message(kind: u16, flags: u16, sequence: u32, request: Request) -> Vec<u8> {
    let length = size_of::<Header>() + size_of::<Request>();
    let header = Header {
        length: u32::try_from(length).expect("a request is a few octets"),
        kind,
        flags,
        sequence,
        port: 0,
    };
    [header.as_bytes(), request.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn addr(text: &str) -> Addr {
        Addr::from(text.parse::<IpAddr>().unwrap())
    }

    fn id(peer: &str) -> SocketId {
        let mut octets = [0; 16];
        match peer.parse().unwrap() {
            IpAddr::V4(v4) => octets[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => octets = v6.octets(),
        }
        SocketId {
            source_port_be: 40_000_u16.to_be(),
            peer_port_be: 5_353_u16.to_be(),
            source: [0; 16],
            peer: octets,
            interface: 0,
            cookie: [7, 8],
        }
    }

    /// As the kernel lists a socket, with an attribute behind it.
    fn listed(family: Family, peer: &str) -> Vec<u8> {
        let mut answer = Answer::new_zeroed();
        answer.family = family as u8;
        answer.id = id(peer);
        let attribute = [5, 0, 8, 0, 0, 0, 0, 0];
        let length = size_of::<Header>() + size_of::<Answer>() + attribute.len();
        let header = Header {
            length: u32::try_from(length).unwrap(),
            kind: SOCK_DIAG_BY_FAMILY,
            flags: 2,
            sequence: 9,
            port: 0,
        };
        [header.as_bytes(), answer.as_bytes(), &attribute].concat()
    }

    fn end(kind: u16, code: i32) -> Vec<u8> {
        let header = Header {
            length: 20,
            kind,
            flags: 2,
            sequence: 9,
            port: 0,
        };
        [header.as_bytes(), code.as_bytes()].concat()
    }

    #[test]
    fn reads_sockets_of_each_family_and_names_them_again() {
        for (family, peer, address) in [
            (Family::V4, "10.20.0.57", "10.20.0.57"),
            (Family::V6, "fd00::57", "fd00::57"),
            (Family::V6, "::ffff:10.20.0.57", "10.20.0.57"),
        ] {
            let datagram = [listed(family, peer), end(NLMSG_DONE, 0)].concat();
            let messages = parse(&datagram, 9).unwrap();
            let [Message::Socket(socket), Message::Done] = messages[..] else {
                panic!("{messages:?}");
            };
            assert_eq!(socket.peer(), (addr(address), 5_353_u16.to_be()));
            assert_eq!(socket.cookie(), 8 << 32 | 7);
            let request = destroy(&socket, 10);
            assert_eq!(&request[24..], id(peer).as_bytes());
            assert_eq!(&request[16..18], &[family as u8, IPPROTO_UDP]);
        }
    }

    #[test]
    fn reads_results_and_skips_other_requests() {
        assert_eq!(parse(&end(NLMSG_ERROR, 0), 9), Ok(vec![Message::Result(0)]));
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            assert_eq!(
                parse(&end(kind, -libc::ENOENT), 9),
                Ok(vec![Message::Result(libc::ENOENT)])
            );
        }
        assert_eq!(parse(&end(NLMSG_ERROR, i32::MIN), 8), Ok(vec![]));
    }

    #[test]
    fn no_datagram_is_read_past_its_end() {
        let whole = [listed(Family::V4, "10.20.0.57"), end(NLMSG_ERROR, -1)].concat();
        for length in 0..whole.len() {
            // Whatever it makes of it, it does not panic.
            let _ = parse(&whole[..length], 9);
        }
        for position in 0..whole.len() {
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut hostile = whole.clone();
                hostile[position] = value;
                let _ = parse(&hostile, 9);
            }
        }
        assert_eq!(parse(&whole[..10], 9), Err(Malformed));
    }

    #[test]
    fn the_dump_asks_for_connected_sockets() {
        let request = dump(Family::V6, 5);
        let (header, body) = Header::read_from_prefix(&request).unwrap();
        assert_eq!((header.length, header.sequence), (72, 5));
        assert_eq!(body[..8], [10, 17, 0, 0, 2, 0, 0, 0]);
    }
}
