//! Reading a query that anybody may have sent.

use super::{flag, rcode, read_u16};
use crate::name::{MAX_LABEL, MAX_NAME};
use crate::zone::rtype;

/// Octets of a header.
const HEADER: usize = 12;

/// A query whose every part has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Chosen by the client, echoed.
    pub id: u16,
    /// The header's flags as they came.
    pub flags: u16,
    /// The type asked for.
    pub rtype: u16,
    /// The class asked for.
    pub class: u16,
    /// The client's EDNS, if it speaks it.
    pub edns: Option<Edns>,
    name_len: u8,
    lower: [u8; MAX_NAME],
}

/// What an OPT record says (RFC 6891 section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// Largest UDP answer that the client takes.
    pub size: u16,
    /// The EDNS version.
    pub version: u8,
    /// DO: the client wants DNSSEC's records.
    pub dnssec_ok: bool,
}

/// Why there is no [`Query`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Not a query at all: answering could start a loop.
    Drop,
    /// Answer with this code and no question.
    Refuse {
        /// The ID to echo.
        id: u16,
        /// The flags that came.
        flags: u16,
        /// The response code.
        rcode: u16,
    },
}

impl Query {
    /// Reads a packet.
    ///
    /// # Errors
    /// If it is no query, or not one that can be answered.
    pub fn parse(packet: &[u8]) -> Result<Self, Unusable> {
        let (Some(id), Some(flags)) = (read_u16(packet, 0), read_u16(packet, 2)) else {
            return Err(Unusable::Drop);
        };
        if packet.len() < HEADER || flags & flag::QR != 0 {
            return Err(Unusable::Drop);
        }
        let refuse = |rcode| Unusable::Refuse { id, flags, rcode };
        if flags & flag::OPCODE != 0 {
            return Err(refuse(rcode::NOTIMP));
        }
        let malformed = refuse(rcode::FORMERR);
        let count = |at| read_u16(packet, at).ok_or(malformed);
        let (questions, others, additional) = (count(4)?, [count(6)?, count(8)?], count(10)?);
        if questions != 1 {
            return Err(malformed);
        }
        let mut lower = [0; MAX_NAME];
        let name_len = read_name(packet, &mut lower).ok_or(malformed)?;
        let at = HEADER + usize::from(name_len);
        let rtype = read_u16(packet, at).ok_or(malformed)?;
        let class = read_u16(packet, at + 2).ok_or(malformed)?;
        if rtype == rtype::OPT {
            return Err(malformed);
        }
        let mut rest = at + 4;
        // An IXFR query carries a SOA; nothing else has a use here.
        for _ in 0..u32::from(others[0]) + u32::from(others[1]) {
            rest = Record::read(packet, rest).ok_or(malformed)?.end;
        }
        let mut edns = None;
        for _ in 0..additional {
            let record = Record::read(packet, rest).ok_or(malformed)?;
            rest = record.end;
            if record.rtype == rtype::OPT {
                // Once, and owned by the root (RFC 6891 section 6.1.1).
                if edns.is_some() || !record.root {
                    return Err(malformed);
                }
                edns = Some(Edns {
                    size: record.class,
                    version: record.ttl.to_be_bytes()[1],
                    dnssec_ok: record.ttl & 0x8000 != 0,
                });
            }
        }
        if rest != packet.len() {
            return Err(malformed);
        }
        Ok(Self {
            id,
            flags,
            rtype,
            class,
            edns,
            name_len,
            lower,
        })
    }

    /// The name asked for, in wire form and lower case.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.lower[..usize::from(self.name_len)]
    }

    /// Where the question ends in the packet.
    #[must_use]
    pub fn question_end(&self) -> usize {
        HEADER + usize::from(self.name_len) + 4
    }

    /// RD: the client wants us to ask others.
    #[must_use]
    pub fn wants_recursion(&self) -> bool {
        self.flags & flag::RD != 0
    }
}

/// Reads the question's name into `lower`. It is the first name of the
/// message, so a compression pointer has nothing to point at.
fn read_name(packet: &[u8], lower: &mut [u8; MAX_NAME]) -> Option<u8> {
    let name = packet.get(HEADER..)?;
    let mut at = 0;
    loop {
        let len = usize::from(*name.get(at)?);
        if len > MAX_LABEL {
            return None;
        }
        at += 1 + len;
        if len == 0 {
            break;
        }
    }
    // A length octet is at most 63, below every letter, so that lowering the
    // whole name changes only its letters.
    let name = name.get(..at)?;
    let target = lower.get_mut(..at)?;
    target.copy_from_slice(name);
    target.make_ascii_lowercase();
    u8::try_from(at).ok()
}

/// A record's fixed part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) rtype: u16,
    pub(super) class: u16,
    pub(super) ttl: u32,
    pub(super) root: bool,
    pub(super) end: usize,
}

impl Record {
    pub(super) fn read(packet: &[u8], at: usize) -> Option<Self> {
        let fixed = skip_name(packet, at)?;
        let data = fixed + 10;
        let [high, low] = [read_u16(packet, fixed + 4)?, read_u16(packet, fixed + 6)?];
        let end = data + usize::from(read_u16(packet, fixed + 8)?);
        (end <= packet.len()).then_some(Self {
            rtype: read_u16(packet, fixed)?,
            class: read_u16(packet, fixed + 2)?,
            ttl: u32::from(high) << 16 | u32::from(low),
            root: packet.get(at) == Some(&0),
            end,
        })
    }
}

/// The end of a name that may be compressed. Pointers must lead backwards, so
/// that they can't make a loop for whoever follows them.
pub(super) fn skip_name(packet: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let len = *packet.get(at)?;
        match len {
            0 => return Some(at + 1),
            1..=63 => at += 1 + usize::from(len),
            0xc0.. => {
                let target = usize::from(read_u16(packet, at)? & 0x3fff);
                return (target < start).then_some(at + 2);
            }
            _ => return None,
        }
        if at - start > MAX_NAME {
            return None;
        }
    }
}
