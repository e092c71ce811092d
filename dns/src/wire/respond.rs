//! The answer to a query, from the table alone.

use std::net::IpAddr;

use super::query::{Query, Unusable};
use super::{OPT_LEN, Transport, flag, opt_record, rcode};
use crate::zone::{Answer, Found, Node, Records, Set, Table, ZoneSerial, rtype};

/// Class Internet, and any class.
const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;
/// Refresh, retry and expire of our SOA records, in seconds: for secondaries.
const SOA_TIMES: [u32; 3] = [7200, 1800, 86_400];

/// What became of a packet.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// Say nothing.
    Drop,
    /// The answer is in the buffer.
    Reply,
    /// The name is not ours: ask an upstream.
    Forward(Query),
    /// The name is an alias, and its target is yet to be found. The buffer
    /// holds the alias alone, which is a true answer too.
    Chase(Query),
}

/// Answers `packet` into `out`, which is emptied first.
///
/// Room for 65,535 octets in `out` makes this free of allocation.
pub fn respond(
    packet: &[u8],
    transport: Transport,
    client: IpAddr,
    table: &Table,
    recursion: bool,
    out: &mut Vec<u8>,
) -> Outcome {
    out.clear();
    let query = match Query::parse(packet) {
        Ok(query) => query,
        Err(Unusable::Drop) => return Outcome::Drop,
        Err(Unusable::Refuse { id, flags, rcode }) => {
            header(
                out,
                id,
                flag::QR | flags & (flag::OPCODE | flag::RD) | rcode,
            );
            return Outcome::Reply;
        }
    };
    let mut reply = Reply::start(packet, &query, transport, recursion, out);
    if query.edns.is_some_and(|edns| edns.version != 0) {
        reply.finish(rcode::BADVERS);
        return Outcome::Reply;
    }
    let ours = matches!(query.class, CLASS_IN | CLASS_ANY);
    if !ours || matches!(query.rtype, rtype::AXFR | rtype::IXFR) {
        reply.finish(rcode::REFUSED);
        return Outcome::Reply;
    }
    match table.find(query.name()) {
        Found::Node(node, serial) => {
            let records = node.records(table.view(client));
            if reply.node(node, records, serial, table.ttl) == Alias::Open
                && query.wants_recursion()
            {
                return Outcome::Chase(query);
            }
        }
        Found::Missing { apex_len, serial } => {
            reply.authoritative();
            reply.negative(apex_len, serial, table.ttl, rcode::NXDOMAIN);
        }
        Found::Unknown => reply.finish(rcode::SERVFAIL),
        Found::Elsewhere if recursion && query.wants_recursion() => {
            return Outcome::Forward(query);
        }
        Found::Elsewhere => reply.finish(rcode::REFUSED),
    }
    Outcome::Reply
}

/// An answer without records: `rcode` for `query`.
pub fn failure(packet: &[u8], query: &Query, rcode: u16, out: &mut Vec<u8>) {
    out.clear();
    Reply::start(packet, query, Transport::Udp, true, out).finish(rcode);
}

fn header(out: &mut Vec<u8>, id: u16, flags: u16) {
    out.extend(id.to_be_bytes());
    out.extend(flags.to_be_bytes());
    out.extend([0; 8]);
}

#[derive(PartialEq, Eq)]
enum Alias {
    /// There was no alias, or it was the alias that was asked for.
    None,
    /// The question was for another type, and the alias leads to it.
    Open,
}

/// An answer in the making: header and question stand, records follow.
struct Reply<'a> {
    query: &'a Query,
    out: &'a mut Vec<u8>,
    flags: u16,
    /// Octets that records may take up to, room for OPT kept.
    limit: usize,
    /// Records in answer, authority and additional.
    counts: [u16; 3],
}

impl<'a> Reply<'a> {
    fn start(
        packet: &[u8],
        query: &'a Query,
        transport: Transport,
        recursion: bool,
        out: &'a mut Vec<u8>,
    ) -> Self {
        let available = if recursion { flag::RA } else { 0 };
        // CD is copied (RFC 4035 section 3.2.2); AD is not ours to say.
        let flags = flag::QR | available | query.flags & (flag::RD | flag::CD);
        header(out, query.id, flags);
        // The question as it came: its case is echoed.
        out.extend(packet.get(12..query.question_end()).unwrap_or_default());
        out[5] = 1;
        let opt = if query.edns.is_some() { OPT_LEN } else { 0 };
        Self {
            query,
            flags,
            limit: transport.limit(query.edns.as_ref()) - opt,
            counts: [0; 3],
            out,
        }
    }

    fn authoritative(&mut self) {
        self.flags |= flag::AA;
    }

    fn node(&mut self, node: &Node, records: &Records, serial: ZoneSerial, ttl: u32) -> Alias {
        self.authoritative();
        let asked = self.query.rtype;
        let (answer, alias) = match asked {
            rtype::ANY => (records.first(), Alias::None),
            rtype::CNAME => (records.get(asked), Alias::None),
            _ => match records.get(rtype::CNAME) {
                Some(cname) => (Some(cname), Alias::Open),
                None => (records.get(asked), Alias::None),
            },
        };
        if asked == rtype::SOA && node.is_apex() {
            self.counts[0] += 1;
            self.soa(node.apex_len, serial, ttl);
            self.finish(rcode::NOERROR);
        } else if let Some(answer) = answer {
            self.answer(answer);
            self.finish(rcode::NOERROR);
        } else {
            self.negative(node.apex_len, serial, ttl, rcode::NOERROR);
        }
        alias
    }

    /// Copies an answer: whole, or none of it and TC (RFC 2181 section 9).
    /// Additional sets that have no room are left out without a word.
    fn answer(&mut self, answer: &Answer) {
        let Set { end, count } = answer.answer;
        let end = usize::from(end);
        if self.out.len() + end > self.limit {
            self.flags |= flag::TC;
            return;
        }
        // Turned by the query's ID, so that clients that take the first
        // address spread over all.
        let stride = usize::from(answer.stride);
        let turn = match count {
            0 | 1 => 0,
            count => usize::from(self.query.id % count) * stride,
        };
        self.out.extend_from_slice(&answer.bytes[turn..end]);
        self.out.extend_from_slice(&answer.bytes[..turn]);
        self.counts[0] += count;
        let mut from = end;
        for set in &answer.additional {
            let end = usize::from(set.end);
            if self.out.len() + (end - from) > self.limit {
                break;
            }
            self.out.extend_from_slice(&answer.bytes[from..end]);
            self.counts[2] += set.count;
            from = end;
        }
    }

    /// No data, or no name, with the SOA that says for how long (RFC 2308).
    fn negative(&mut self, apex_len: u8, serial: ZoneSerial, ttl: u32, rcode: u16) {
        self.counts[1] += 1;
        self.soa(apex_len, serial, ttl);
        self.finish(rcode);
    }

    /// The SOA record of the zone whose apex is the last `apex_len` octets of
    /// the question's name. With the longest name a message with
    /// it has 336 octets, so it fits into the smallest limit.
    fn soa(&mut self, apex_len: u8, serial: ZoneSerial, ttl: u32) {
        let apex = 12 + self.query.name().len() - usize::from(apex_len);
        let apex = (0xc000 | u16::try_from(apex).unwrap_or(12)).to_be_bytes();
        const SERVER: &[u8] = b"\x02ns\x03dns";
        const MAILBOX: &[u8] = b"\x0ahostmaster";
        let length = SERVER.len() + 2 + MAILBOX.len() + 2 + 20;
        self.out.extend(apex);
        self.out.extend(rtype::SOA.to_be_bytes());
        self.out.extend(CLASS_IN.to_be_bytes());
        self.out.extend(ttl.to_be_bytes());
        self.out.extend([0, length as u8]);
        self.out.extend_from_slice(SERVER);
        self.out.extend(apex);
        self.out.extend_from_slice(MAILBOX);
        self.out.extend(apex);
        self.out.extend(serial.0.to_be_bytes());
        for seconds in SOA_TIMES {
            self.out.extend(seconds.to_be_bytes());
        }
        self.out.extend(ttl.to_be_bytes());
    }

    fn finish(&mut self, rcode: u16) {
        if let Some(edns) = &self.query.edns {
            self.counts[2] += 1;
            self.out.extend(opt_record(rcode, edns));
        }
        let flags = self.flags | rcode & flag::RCODE;
        self.out[2..4].copy_from_slice(&flags.to_be_bytes());
        for (at, count) in [6, 8, 10].into_iter().zip(self.counts) {
            self.out[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
    }
}
