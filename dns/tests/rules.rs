//! Rules of the wire that no golden file can say: flags, sizes, EDNS.

mod common;

use berth_dns::wire::{Outcome, Transport, respond};
use berth_dns::zone::{Table, Zones};
use common::{INSIDE, OUTSIDE, ask, config, query, render, table, with_edns};
use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};

const WEB: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: \
                   10.96.0.1, ports: [{port: 80}]}\n";
const WEB_NAME: &str = "web.default.svc.cluster.local";

fn many(count: usize) -> String {
    let mut yaml = String::from(
        "apiVersion: v1\nkind: Service\nmetadata: {name: many}\nspec: {clusterIP: None}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: many, labels: \
         {kubernetes.io/service-name: many}}\nports: [{name: p, port: 1}]\nendpoints:\n",
    );
    for i in 0..count {
        yaml.push_str(&format!(
            "- {{addresses: [10.20.{}.{}]}}\n",
            i / 250,
            i % 250
        ));
    }
    yaml
}

fn raw(table: &Table, packet: &[u8], transport: Transport) -> (Outcome, Vec<u8>) {
    let mut out = Vec::new();
    let client = OUTSIDE.parse().unwrap();
    let outcome = respond(packet, transport, client, table, false, &mut out);
    (outcome, out)
}

#[test]
fn before_the_first_list_nothing_is_said_not_to_exist() {
    let table = Zones::new(config(&["apps.corp.example={service}"])).table();
    for name in [
        "web.default.svc.cluster.local",
        "cluster.local",
        "web.apps.corp.example",
        "1.0.96.10.in-addr.arpa",
    ] {
        let answer = ask(&table, INSIDE, &query(name, RecordType::A));
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::ServFail,
            "{name}"
        );
    }
}

#[test]
fn id_recursion_bit_and_case_are_echoed() {
    let (table, _) = table(WEB, &[]);
    let question = query("WEB.default.SVC.cluster.Local", RecordType::A);
    let (_, out) = raw(&table, &question.to_vec().unwrap(), Transport::Udp);
    assert!(out.windows(3).any(|w| w == b"WEB"));
    let answer = Message::from_vec(&out).unwrap();
    assert_eq!(answer.metadata.id, 0x4242);
    assert!(answer.metadata.recursion_desired);
    assert!(!answer.metadata.recursion_available);
    assert_eq!(answer.answers[0].ttl, 5);
}

#[test]
fn an_answer_that_has_no_room_is_left_out_whole() {
    let (table, _) = table(&many(100), &[]);
    let question = query("many.default.svc.cluster.local", RecordType::A);
    for size in [None, Some(512), Some(1232), Some(65535)] {
        let question = match size {
            None => question.clone(),
            Some(size) => with_edns(question.clone(), size),
        };
        let answer = ask(&table, INSIDE, &question);
        assert!(
            answer.metadata.truncation && answer.answers.is_empty(),
            "{size:?}"
        );
        let (_, out) = raw(&table, &question.to_vec().unwrap(), Transport::Tcp);
        let answer = Message::from_vec(&out).unwrap();
        assert!(!answer.metadata.truncation);
        assert_eq!(answer.answers.len(), 100);
    }
}

#[test]
fn additional_records_go_first_and_silently() {
    let (table, _) = table(&many(16), &[]);
    let question = query("_p._tcp.many.default.svc.cluster.local", RecordType::SRV);
    let answer = ask(&table, INSIDE, &with_edns(question.clone(), 1232));
    assert!(!answer.metadata.truncation);
    assert_eq!(answer.answers.len(), 16);
    assert!(
        answer.additionals.len() < 16,
        "{}",
        answer.additionals.len()
    );
    let (_, out) = raw(&table, &question.to_vec().unwrap(), Transport::Tcp);
    assert_eq!(Message::from_vec(&out).unwrap().additionals.len(), 16);
}

#[test]
fn more_than_a_message_can_hold_is_cut_at_a_record() {
    let (table, _) = table(&many(5000), &[]);
    for (name, rtype) in [
        ("many.default.svc.cluster.local", RecordType::A),
        ("_p._tcp.many.default.svc.cluster.local", RecordType::SRV),
    ] {
        let packet = with_edns(query(name, rtype), 1232).to_vec().unwrap();
        let (_, out) = raw(&table, &packet, Transport::Tcp);
        assert!(out.len() > 60_000 && out.len() <= 65_535, "{}", out.len());
        assert!(Message::from_vec(&out).unwrap().answers.len() > 500);
    }
}

#[test]
fn addresses_turn_with_the_id() {
    let (table, _) = table(&many(3), &[]);
    let mut first = std::collections::BTreeSet::new();
    for id in 0..3 {
        let mut question = query("many.default.svc.cluster.local", RecordType::A);
        question.metadata.id = id;
        let answer = ask(&table, INSIDE, &question);
        assert_eq!(answer.answers.len(), 3);
        first.insert(answer.answers[0].data.to_string());
    }
    assert_eq!(first.len(), 3);
}

#[test]
fn edns_is_spoken_only_with_those_who_speak_it() {
    let (table, _) = table(WEB, &[]);
    let plain = query(WEB_NAME, RecordType::A);
    assert!(ask(&table, INSIDE, &plain).edns.is_none());
    let edns = ask(&table, INSIDE, &with_edns(plain, 4096)).edns.unwrap();
    assert_eq!((edns.version(), edns.max_payload()), (0, 1232));
}

#[test]
fn an_unknown_edns_version_is_badvers() {
    let (table, _) = table(WEB, &[]);
    let mut packet = with_edns(query(WEB_NAME, RecordType::A), 1232)
        .to_vec()
        .unwrap();
    let version = packet.len() - 5; // version, flags, length of the data
    packet[version] = 1;
    let (_, out) = raw(&table, &packet, Transport::Udp);
    let answer = Message::from_vec(&out).unwrap();
    // 16 is BADVERS; the library also calls it BADSIG, as TSIG does.
    assert_eq!(u16::from(answer.metadata.response_code), 16);
    assert!(answer.answers.is_empty());
}

#[test]
fn what_is_no_query_is_refused_or_dropped() {
    let (table, _) = table(WEB, &[]);
    let packet = query(WEB_NAME, RecordType::A).to_vec().unwrap();
    let code = |packet: &[u8]| {
        let (outcome, out) = raw(&table, packet, Transport::Udp);
        assert!(matches!(outcome, Outcome::Reply));
        Message::from_vec(&out).unwrap().metadata.response_code
    };
    let with = |at: usize, octet: u8| {
        let mut packet = packet.clone();
        packet[at] = octet;
        packet
    };
    // An answer: to answer it could start a loop.
    assert!(matches!(
        raw(&table, &with(2, 0x80), Transport::Udp).0,
        Outcome::Drop
    ));
    assert!(matches!(
        raw(&table, &packet[..11], Transport::Udp).0,
        Outcome::Drop
    ));
    assert_eq!(code(&packet[..packet.len() - 1]), ResponseCode::FormErr);
    assert_eq!(code(&with(5, 2)), ResponseCode::FormErr);
    assert_eq!(code(&with(12, 0xc0)), ResponseCode::FormErr);
    assert_eq!(code(&with(12, 0x40)), ResponseCode::FormErr);
    assert_eq!(
        code(&[packet.as_slice(), b"x"].concat()),
        ResponseCode::FormErr
    );
    let mut notify = query(WEB_NAME, RecordType::SOA);
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(code(&notify.to_vec().unwrap()), ResponseCode::NotImp);
    let mut chaos = query("version.bind", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos.to_vec().unwrap()), ResponseCode::Refused);
    let twice = with_edns(query(WEB_NAME, RecordType::A), 1232)
        .to_vec()
        .unwrap();
    let mut twice = [&twice[..], &twice[twice.len() - 11..]].concat();
    twice[11] = 2;
    assert_eq!(code(&twice), ResponseCode::FormErr);
}

#[test]
fn nodes_and_loopback_see_the_inside() {
    let yaml = format!(
        "{WEB}---\napiVersion: v1\nkind: Node\nmetadata: {{name: node1}}\nstatus: {{addresses: \
         [{{type: InternalIP, address: 10.20.0.11}}]}}\n"
    );
    let (table, told) = table(&yaml, &["apps.corp.example={service}"]);
    assert_eq!(told, Vec::<String>::new());
    let question = query("web.apps.corp.example", RecordType::A);
    for client in ["10.20.0.11", "127.0.0.1", "::1", "::ffff:10.20.0.11"] {
        let answer = render(&ask(&table, client, &question));
        assert_eq!(answer, "NOERROR aa: A 10.96.0.1", "{client}");
    }
    let answer = render(&ask(&table, "10.20.0.12", &question));
    assert_eq!(answer, "NOERROR aa; authority apps.corp.example. SOA");
}
