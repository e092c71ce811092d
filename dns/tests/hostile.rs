//! Whatever a packet holds, the hot path says nothing or something that is
//! well-formed and within the client's limit; and an upstream's message, too,
//! is cut to size or refused.

mod common;

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use berth_dns::wire::{Outcome, Query, Transport, fit, respond};
use berth_dns::zone::Table;
use common::{INSIDE, query, table, with_edns};
use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::RecordType;
use proptest::prelude::*;

/// A zone with small, large and empty answers.
static TABLE: LazyLock<Arc<Table>> = LazyLock::new(|| {
    let mut yaml = String::from(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.1, \
         ports: [{name: http, port: 80}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: \
         alias}\nspec: {type: ExternalName, externalName: web.default.svc.cluster.local}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: many}\nspec: {clusterIP: None}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: many, labels: \
         {kubernetes.io/service-name: many}}\nports: [{name: p, port: 1}]\nendpoints:\n",
    );
    for i in 0..200 {
        yaml.push_str(&format!("- {{addresses: [10.20.1.{i}]}}\n"));
    }
    let (table, told) = table(&yaml, &["apps.corp.example={service}-{namespace}"]);
    assert_eq!(told, Vec::<String>::new());
    table
});

const NAMES: [&str; 9] = [
    "web.default.svc.cluster.local",
    "_http._tcp.web.default.svc.cluster.local",
    "_p._tcp.many.default.svc.cluster.local",
    "many.default.svc.cluster.local",
    "many-default.apps.corp.example",
    "alias.default.svc.cluster.local",
    "cluster.local",
    "none.default.svc.cluster.local",
    "1.0.96.10.in-addr.arpa",
];

fn any_query() -> impl Strategy<Value = Vec<u8>> {
    let types = prop::sample::select(vec![
        RecordType::A,
        RecordType::AAAA,
        RecordType::SRV,
        RecordType::PTR,
        RecordType::SOA,
        RecordType::ANY,
        RecordType::NS,
    ]);
    (0..NAMES.len(), types, prop::option::of(any::<u16>())).prop_map(|(name, rtype, edns)| {
        let message = query(NAMES[name], rtype);
        let message = match edns {
            Some(size) => with_edns(message, size),
            None => message,
        };
        message.to_vec().unwrap()
    })
}

/// A query, with some octets changed and perhaps an end cut off or put on.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let tail = prop::collection::vec(any::<u8>(), 0..8);
    (
        any_query(),
        changes,
        any::<prop::sample::Index>(),
        tail,
        0..4_u8,
    )
        .prop_map(|(mut packet, changes, cut, tail, what)| {
            for (at, octet) in changes {
                let at = at.index(packet.len());
                packet[at] = octet;
            }
            match what {
                0 => packet.truncate(cut.index(packet.len())),
                1 => packet.extend(tail),
                _ => {}
            }
            packet
        })
}

fn check(packet: &[u8], transport: Transport) -> Result<(), TestCaseError> {
    let client: IpAddr = INSIDE.parse().unwrap();
    let mut out = Vec::new();
    let outcome = respond(packet, transport, client, &TABLE, true, &mut out);
    if let Outcome::Drop | Outcome::Forward(_) = outcome {
        return Ok(());
    }
    let answer = Message::from_vec(&out);
    prop_assert!(answer.is_ok(), "{answer:?} of {packet:02x?}");
    let answer = answer.unwrap();
    prop_assert_eq!(&out[..2], &packet[..2], "the ID is echoed");
    prop_assert_eq!(answer.metadata.message_type, MessageType::Response);
    match Query::parse(packet) {
        Ok(query) => {
            let limit = transport.limit(query.edns.as_ref());
            prop_assert!(out.len() <= limit, "{} octets, limit {}", out.len(), limit);
            let end = query.question_end();
            prop_assert_eq!(&out[12..end], &packet[12..end], "the question is echoed");
            prop_assert_eq!(answer.edns.is_some(), query.edns.is_some());
            if answer.metadata.truncation {
                prop_assert!(answer.answers.is_empty(), "a cut set is no set");
            }
        }
        Err(_) => prop_assert_eq!(out.len(), 12, "what cannot be read is not echoed"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn random_octets_never_panic(packet in prop::collection::vec(any::<u8>(), 0..600)) {
        check(&packet, Transport::Udp)?;
        check(&packet, Transport::Tcp)?;
    }

    #[test]
    fn queries_and_near_queries_get_well_formed_answers(packet in mutated()) {
        check(&packet, Transport::Udp)?;
        check(&packet, Transport::Tcp)?;
    }

    #[test]
    fn an_upstreams_message_is_cut_to_size_or_refused(
        packet in any_query(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        // Our own answer over TCP stands for an upstream's.
        let mut message = Vec::new();
        let client = INSIDE.parse().unwrap();
        respond(&packet, Transport::Tcp, client, &TABLE, true, &mut message);
        let untouched = changes.is_empty() && cut.is_none();
        for (at, octet) in changes {
            let at = at.index(message.len());
            message[at] = octet;
        }
        if let Some(cut) = cut {
            message.truncate(cut.index(message.len()));
        }
        let query = Query::parse(&packet).unwrap();
        let mut out = Vec::new();
        let fitted = fit(&message, &packet, &query, Transport::Udp, &mut out);
        prop_assert!(fitted.is_ok() || !untouched);
        if fitted.is_ok() {
            prop_assert!(out.len() <= Transport::Udp.limit(query.edns.as_ref()));
            prop_assert_eq!(&out[12..query.question_end()], &packet[12..query.question_end()]);
        }
        if untouched {
            let answer = Message::from_vec(&out);
            prop_assert!(answer.is_ok(), "{answer:?}");
            prop_assert_eq!(answer.unwrap().edns.is_some(), query.edns.is_some());
        }
    }
}
