//! What the tests of this crate share: a table from YAML, queries, and answers
//! as text.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(
    clippy::allow_attributes,
    reason = "an expectation would fail in some files"
)]
#![allow(
    unreachable_pub,
    reason = "the files that use this are crates of their own"
)]

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use berth_dns::model::{Dirty, Model, Source};
use berth_dns::name::Name;
use berth_dns::reflector::{Decoded, decode};
use berth_dns::wire::{Outcome, Transport, respond};
use berth_dns::zone::{Config, Table, Zones};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name as HickoryName, RecordType};

pub const INSIDE: &str = "10.20.0.50";
pub const OUTSIDE: &str = "10.20.0.5";

pub fn config(company: &[&str]) -> Config {
    let company = company.iter().map(|zone| zone.parse().unwrap()).collect();
    let mut config = Config::new(Name::parse("cluster.local").unwrap(), company, 5).unwrap();
    config.server_addresses = vec!["10.20.0.11".parse().unwrap()];
    config
}

/// The model that a text of YAML makes, and what was refused in it.
pub fn model(yaml: &str) -> (Model, Vec<String>) {
    let mut model = Model::default();
    let parsed = berth_api::folder::parse(Path::new("objects.yaml"), yaml);
    let mut told: Vec<String> = parsed.rejected.iter().map(ToString::to_string).collect();
    for object in &parsed.objects {
        match decode(object) {
            Ok(Decoded::Change(change)) => model.apply(change, &mut Dirty::default()),
            Ok(Decoded::Nothing) => {}
            Err(rejected) => told.push(rejected.to_string()),
        }
    }
    for source in Source::ALL {
        model.finish_first_list(source);
    }
    (model, told)
}

/// The table of a text of YAML, and every warning.
pub fn table(yaml: &str, company: &[&str]) -> (Arc<Table>, Vec<String>) {
    let (model, mut told) = model(yaml);
    let (table, warnings) = Zones::new(config(company)).update(&model, &model.all_dirty(), 1);
    told.extend(warnings);
    (table, told)
}

pub fn query(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(0x4242, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(HickoryName::from_ascii(name).unwrap(), rtype));
    message
}

pub fn with_edns(mut message: Message, size: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    message.set_edns(edns);
    message
}

/// Asks the table; panics unless there is an answer that can be read back.
pub fn ask(table: &Table, client: &str, query: &Message) -> Message {
    let client: IpAddr = client.parse().unwrap();
    let packet = query.to_vec().unwrap();
    let mut out = Vec::new();
    let outcome = respond(&packet, Transport::Udp, client, table, false, &mut out);
    assert!(
        matches!(outcome, Outcome::Reply | Outcome::Chase(_)),
        "{outcome:?}"
    );
    Message::from_vec(&out).unwrap()
}

/// `NOERROR aa: A 10.0.0.1, A 10.0.0.2; authority SOA; additional ...`, with
/// each section sorted.
pub fn render(message: &Message) -> String {
    let mut text = format!("{:?}", message.metadata.response_code).to_uppercase();
    for (set, word) in [
        (message.metadata.authoritative, " aa"),
        (message.metadata.truncation, " tc"),
    ] {
        if set {
            text.push_str(word);
        }
    }
    let owner = message
        .queries
        .first()
        .map(|q| q.name().to_string().to_lowercase());
    for (word, section) in [
        (":", &message.answers),
        ("; authority", &message.authorities),
        ("; additional", &message.additionals),
    ] {
        let mut lines: Vec<String> = section
            .iter()
            .map(|record| {
                let name = record.name.to_string().to_lowercase();
                let name = if Some(&name) == owner.as_ref() {
                    String::new()
                } else {
                    format!("{name} ")
                };
                match record.record_type() {
                    // The serial is a time.
                    RecordType::SOA => format!("{name}SOA"),
                    rtype => format!("{name}{rtype} {}", record.data),
                }
            })
            .collect();
        lines.sort();
        if !lines.is_empty() {
            text.push_str(&format!("{word} {}", lines.join(", ")));
        }
    }
    text
}
