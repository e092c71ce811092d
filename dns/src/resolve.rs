//! The slow path: what the table alone cannot answer.
//!
//! Forwarding, and aliases whose targets lie elsewhere or elsewhere in the
//! table. Knows nothing of sockets of clients.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use tracing::debug;

use crate::forward::{ForwardError, Forwarder, Question};
use crate::name::MAX_NAME;
use crate::wire::{Outcome, Query, Transport, failure, fit, rcode, respond};
use crate::zone::Table;

/// Aliases followed for one question.
const MAX_ALIASES: usize = 8;

/// Answers from the table, and from upstreams where it must.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// The table that is valid now.
    pub tables: Arc<ArcSwap<Table>>,
    /// The upstreams.
    pub forwarder: Arc<Forwarder>,
}

/// One query on its way through the slow path.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The packet as it came.
    pub packet: &'a [u8],
    /// What it asks.
    pub query: &'a Query,
    /// How the answer travels.
    pub transport: Transport,
    /// Who asks.
    pub client: IpAddr,
}

impl Resolver {
    /// Whether queries for others' names can be answered.
    #[must_use]
    pub fn recursion(&self) -> bool {
        self.forwarder.has_upstreams()
    }

    /// Answers a query for somebody else's name.
    pub async fn forward(&self, asked: Asked<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        let reply = self.forwarder.ask(Question::of(asked.query)).await;
        match reply {
            Ok(message) if self.fits(&message, asked, &mut out) => {}
            Ok(_) => failure(asked.packet, asked.query, rcode::SERVFAIL, &mut out),
            Err(error) => {
                debug!(client = %asked.client, %error, "cannot forward");
                let code = match error {
                    ForwardError::NoUpstream => rcode::REFUSED,
                    _ => rcode::SERVFAIL,
                };
                failure(asked.packet, asked.query, code, &mut out);
            }
        }
        out
    }

    fn fits(&self, message: &[u8], asked: Asked<'_>, out: &mut Vec<u8>) -> bool {
        fit(message, asked.packet, asked.query, asked.transport, out).is_ok()
    }

    /// Answers a query for a name of ours that is an alias: the alias, and
    /// what its target has.
    pub async fn chase(&self, asked: Asked<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        let whole = match self.follow(asked).await {
            Ok(message) => message.to_vec().ok(),
            Err(error) => {
                debug!(client = %asked.client, error, "cannot follow an alias");
                None
            }
        };
        if !whole.is_some_and(|message| self.fits(&message, asked, &mut out)) {
            failure(asked.packet, asked.query, rcode::SERVFAIL, &mut out);
        }
        out
    }

    async fn follow(&self, asked: Asked<'_>) -> Result<Message, &'static str> {
        let table = self.tables.load_full();
        let local = |packet: &[u8], buffer: &mut Vec<u8>| {
            respond(
                packet,
                Transport::Tcp,
                asked.client,
                &table,
                self.recursion(),
                buffer,
            )
        };
        let parse = |bytes: &[u8]| Message::from_vec(bytes).map_err(|_| "malformed answer");
        let mut buffer = Vec::new();
        local(asked.packet, &mut buffer);
        let mut whole = parse(&buffer)?;
        whole.edns = None;
        whole.additionals.clear();
        let wanted = RecordType::from(asked.query.rtype);
        let mut seen = HashSet::new();
        for _ in 0..MAX_ALIASES {
            let Some(target) = open_alias(&whole.answers, wanted) else {
                return Ok(whole);
            };
            let Some(packet) = query_for(&target, asked.query) else {
                return Err("an alias to a name that is too long");
            };
            if !seen.insert(target) {
                return Err("aliases that lead in a circle");
            }
            let next = match local(&packet, &mut buffer) {
                Outcome::Drop => return Err("an alias that makes no query"),
                Outcome::Reply | Outcome::Chase(_) => parse(&buffer)?,
                Outcome::Forward(query) => {
                    let reply = self.forwarder.ask(Question::of(&query)).await;
                    parse(&reply.map_err(|_| "no answer from upstreams")?)?
                }
            };
            if next.metadata.response_code == ResponseCode::Refused {
                return Ok(whole); // Not ours and nobody to ask: the alias alone.
            }
            let went_on = !next.answers.is_empty();
            whole.answers.extend(next.answers);
            whole.authorities = next.authorities;
            whole.metadata.response_code = next.metadata.response_code;
            if !went_on {
                return Ok(whole);
            }
        }
        Err("too many aliases in a row")
    }
}

/// The target of the last alias, unless what was wanted has been found.
fn open_alias(answers: &[Record], wanted: RecordType) -> Option<Vec<u8>> {
    if answers.iter().any(|record| record.record_type() == wanted) {
        return None;
    }
    match &answers.last()?.data {
        RData::CNAME(target) => Some(wire_name(&target.0)),
        _ => None,
    }
}

fn wire_name(name: &hickory_proto::rr::Name) -> Vec<u8> {
    let mut wire = Vec::with_capacity(MAX_NAME);
    for label in name.iter() {
        wire.push(u8::try_from(label.len()).unwrap_or(0));
        wire.extend(label.to_ascii_lowercase());
    }
    wire.push(0);
    wire
}

/// A query for the alias's target that asks what `query` asked.
fn query_for(name: &[u8], query: &Query) -> Option<Vec<u8>> {
    if name.len() > MAX_NAME {
        return None;
    }
    let mut packet = vec![0; 12];
    packet[2..4].copy_from_slice(&query.flags.to_be_bytes());
    packet[5] = 1;
    packet.extend(name);
    packet.extend(query.rtype.to_be_bytes());
    packet.extend(query.class.to_be_bytes());
    if let Some(edns) = &query.edns {
        packet[11] = 1;
        packet.extend(crate::wire::opt_record(0, edns));
    }
    Some(packet)
}
