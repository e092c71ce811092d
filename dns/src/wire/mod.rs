//! One packet in, one packet out: the hot path.
//!
//! A hit copies the finished bytes behind the echoed question. It allocates
//! nothing and never panics, whatever the packet holds: every read is checked.
//! Knows nothing of Kubernetes and nothing of sockets.

mod message;
mod query;
mod respond;

pub use message::{MessageError, Sections, fit, question, same_question, walk};
pub use query::{Edns, Query, Unusable};
pub use respond::{Outcome, failure, respond};

/// Response codes (IANA "DNS RCODEs"); those above 15 need EDNS.
pub mod rcode {
    /// All is well.
    pub const NOERROR: u16 = 0;
    /// The query cannot be read.
    pub const FORMERR: u16 = 1;
    /// We cannot answer now.
    pub const SERVFAIL: u16 = 2;
    /// There is no such name.
    pub const NXDOMAIN: u16 = 3;
    /// We do not do that.
    pub const NOTIMP: u16 = 4;
    /// We do not do that for you.
    pub const REFUSED: u16 = 5;
    /// An EDNS version that we do not speak.
    pub const BADVERS: u16 = 16;
}

/// Bits of the second 16-bit word of a header.
pub(crate) mod flag {
    pub(crate) const QR: u16 = 0x8000;
    pub(crate) const OPCODE: u16 = 0x7800;
    pub(crate) const AA: u16 = 0x0400;
    pub(crate) const TC: u16 = 0x0200;
    pub(crate) const RD: u16 = 0x0100;
    pub(crate) const RA: u16 = 0x0080;
    pub(crate) const AD: u16 = 0x0020;
    pub(crate) const CD: u16 = 0x0010;
    pub(crate) const RCODE: u16 = 0x000f;
}

/// How a message travels, which decides how large it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A length and up to 65,535 octets.
    Tcp,
}

/// Largest UDP answer that we send, and say that we take: no fragments on any
/// common path (DNS flag day 2020, RFC 9715).
pub const UDP_LIMIT: u16 = 1232;
/// Largest UDP answer for a client without EDNS (RFC 1035 section 2.3.4).
const PLAIN_UDP_LIMIT: u16 = 512;
/// Octets of an OPT record without options.
pub(crate) const OPT_LEN: usize = 11;

impl Transport {
    /// Largest answer to a query, in octets.
    #[must_use]
    pub fn limit(self, edns: Option<&Edns>) -> usize {
        usize::from(match (self, edns) {
            (Self::Tcp, _) => u16::MAX,
            (Self::Udp, None) => PLAIN_UDP_LIMIT,
            (Self::Udp, Some(edns)) => edns.size.clamp(PLAIN_UDP_LIMIT, UDP_LIMIT),
        })
    }
}

/// The OPT record of an answer (RFC 6891 section 6.1.2): our size, the upper
/// bits of the response code, version 0, and DO as it was asked (RFC 3225).
pub(crate) fn opt_record(rcode: u16, edns: &Edns) -> [u8; OPT_LEN] {
    let [size_high, size_low] = UDP_LIMIT.to_be_bytes();
    let upper = u8::try_from(rcode >> 4).unwrap_or(0);
    let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
    [0, 0, 41, size_high, size_low, upper, 0, dnssec_ok, 0, 0, 0]
}

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}
