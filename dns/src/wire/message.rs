//! Whole messages that others wrote: checked, and cut to a client's size.

use std::ops::Range;

use super::query::{Query, Record, skip_name};
use super::{OPT_LEN, Transport, flag, opt_record, read_u16};
use crate::zone::rtype;

/// Where the parts of a message are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sections {
    /// The one question, name and all.
    pub question: Range<usize>,
    /// Ends of answer, authority and additional; the last without OPT.
    pub ends: [usize; 3],
    /// How many records each of them has.
    pub counts: [u16; 3],
    /// The response code, with the upper bits from OPT.
    pub rcode: u16,
}

/// Why a message is not to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It ends too soon, or is no answer with one question.
    #[error("malformed")]
    Malformed,
}

/// Checks a message's structure and finds its parts. What follows an OPT
/// record (a signature, which we could not pass on) is left out.
///
/// # Errors
/// If a record does not fit into the message.
pub fn walk(message: &[u8]) -> Result<Sections, MessageError> {
    walked(message).ok_or(MessageError::Malformed)
}

fn walked(message: &[u8]) -> Option<Sections> {
    let flags = read_u16(message, 2)?;
    if flags & flag::QR == 0 || read_u16(message, 4)? != 1 {
        return None;
    }
    let question = 12..skip_name(message, 12)? + 4;
    let mut at = question.end;
    if at > message.len() {
        return None;
    }
    let mut sections = Sections {
        question,
        ends: [at; 3],
        counts: [0; 3],
        rcode: flags & flag::RCODE,
    };
    'all: for section in 0..3 {
        for _ in 0..read_u16(message, 6 + 2 * section)? {
            let record = Record::read(message, at)?;
            if section == 2 && record.rtype == rtype::OPT {
                sections.rcode |= u16::from(record.ttl.to_be_bytes()[0]) << 4;
                break 'all;
            }
            at = record.end;
            sections.counts[section] += 1;
            sections.ends[section] = at;
        }
        for later in section + 1..3 {
            sections.ends[later] = at;
        }
    }
    Some(sections)
}

/// The question of a message, name, type and class, as it stands there.
#[must_use]
pub fn question(message: &[u8]) -> Option<&[u8]> {
    let end = skip_name(message, 12)? + 4;
    message.get(12..end)
}

/// Whether two questions ask the same: names without case, type and class
/// octet by octet.
#[must_use]
pub fn same_question(one: &[u8], other: &[u8]) -> bool {
    let split = |question: &[u8]| question.len().checked_sub(4);
    match (split(one), split(other)) {
        (Some(a), Some(b)) => one[a..] == other[b..] && one[..a].eq_ignore_ascii_case(&other[..b]),
        _ => false,
    }
}

/// Turns an upstream's message into the answer to `query`, which came as
/// `packet`: its ID, the case of its question, OPT if it had one, and no more
/// octets than it takes. Sections go whole: additional and then authority
/// records are left out; if the answer itself has no room, TC is set.
///
/// # Errors
/// If the message is malformed, or answers another question.
pub fn fit(
    message: &[u8],
    packet: &[u8],
    query: &Query,
    transport: Transport,
    out: &mut Vec<u8>,
) -> Result<(), MessageError> {
    let sections = walk(message)?;
    let asked = packet.get(12..query.question_end()).unwrap_or_default();
    if !same_question(&message[sections.question.clone()], asked) {
        return Err(MessageError::Malformed);
    }
    let opt = if query.edns.is_some() { OPT_LEN } else { 0 };
    let limit = transport.limit(query.edns.as_ref()) - opt;
    let upstream = read_u16(message, 2).ok_or(MessageError::Malformed)?;
    let mut flags = flag::QR | flag::RA | query.flags & (flag::RD | flag::CD);
    // AD is for those who ask for it (RFC 6840 section 5.8).
    let wants_ad = query.flags & flag::AD != 0 || query.edns.is_some_and(|e| e.dnssec_ok);
    flags |= upstream & (flag::AA | flag::TC | flag::RCODE);
    if wants_ad {
        flags |= upstream & flag::AD;
    }
    let positive = sections.counts[0] > 0;
    let keep = if sections.ends[2] <= limit {
        3
    } else if sections.ends[1] <= limit {
        2
    } else if sections.ends[0] <= limit && positive {
        1
    } else {
        flags |= flag::TC;
        0
    };
    let end = match keep {
        0 => sections.question.end,
        sections_kept => sections.ends[sections_kept - 1],
    };
    out.clear();
    out.extend(query.id.to_be_bytes());
    out.extend(flags.to_be_bytes());
    out.extend([0, 1]);
    for (section, count) in sections.counts.into_iter().enumerate() {
        let mut count = if section < keep { count } else { 0 };
        if section == 2 && query.edns.is_some() {
            count += 1;
        }
        out.extend(count.to_be_bytes());
    }
    out.extend_from_slice(asked);
    out.extend_from_slice(&message[sections.question.end..end]);
    if let Some(edns) = &query.edns {
        out.extend(opt_record(sections.rcode, edns));
    }
    Ok(())
}
