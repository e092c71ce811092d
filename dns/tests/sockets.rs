//! The whole server on loopback: a folder that changes, UDP and TCP, and
//! upstreams that this test runs. No root, no fixed ports.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use berth_dns::feed::Feed;
use berth_dns::forward::{Forwarder, Timing, UpstreamSpec};
use berth_dns::name::Name;
use berth_dns::resolve::Resolver;
use berth_dns::server::Server;
use berth_dns::zone::Zones;
use common::{config, query, render, with_edns};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, TXT};
use hickory_proto::rr::{Name as HickoryName, RData, Record, RecordType};
use tokio::runtime::Runtime;

const DEADLINE: Duration = Duration::from_secs(10);

/// A server that ends with its test.
struct Running {
    folder: tempfile::TempDir,
    server: Server,
    _feed: Feed,
    _runtime: Runtime,
}

impl Running {
    fn start(yaml: &str, upstreams: &[SocketAddr]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "objects.yaml", yaml);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let zones = Zones::new(config(&["apps.corp.example={service}-{namespace}"]));
        let tables = Arc::new(ArcSwap::new(zones.table()));
        let upstreams: Vec<_> = upstreams
            .iter()
            .map(|address| UpstreamSpec {
                zone: Name::root(),
                address: *address,
            })
            .collect();
        let timing = Timing {
            stagger: Duration::from_millis(50),
            ..Timing::default()
        };
        let resolver = Resolver {
            tables: Arc::clone(&tables),
            forwarder: Forwarder::new(&upstreams, timing),
        };
        let listen = ["127.0.0.1:0".parse().unwrap()];
        let server = Server::start(runtime.handle(), &listen, 2, &resolver).unwrap();
        let feed = Feed::start(folder.path().to_owned(), zones, tables).unwrap();
        Self {
            folder,
            server,
            _feed: feed,
            _runtime: runtime,
        }
    }

    fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    fn ask(&self, message: &Message) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.address()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.send(&message.to_vec().unwrap()).unwrap();
        let mut buffer = [0; 4096];
        let len = socket.recv(&mut buffer).unwrap();
        let answer = Message::from_vec(&buffer[..len]).unwrap();
        assert_eq!(answer.metadata.id, message.metadata.id);
        answer
    }

    fn ask_a(&self, name: &str) -> String {
        render(&self.ask(&query(name, RecordType::A)))
    }

    /// Until the answer is as wanted.
    fn becomes(&self, name: &str, wanted: &str) {
        let until = Instant::now() + DEADLINE;
        loop {
            let answer = self.ask_a(name);
            if answer == wanted {
                return;
            }
            assert!(
                Instant::now() < until,
                "{name}: still {answer}, not {wanted}"
            );
        }
    }
}

fn put(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(".new"), text).unwrap();
    fs::rename(folder.join(".new"), folder.join(name)).unwrap();
}

fn service(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

const WEB: &str = "web.default.svc.cluster.local";

fn web() -> String {
    service("web", "clusterIP: 10.96.0.1, ports: [{port: 80}]")
}

fn frame(message: &Message) -> Vec<u8> {
    let bytes = message.to_vec().unwrap();
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], &bytes].concat()
}

fn read_frame(stream: &mut TcpStream) -> Option<Message> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes).unwrap();
    Some(Message::from_vec(&bytes).unwrap())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// What the tiny upstream says.
#[derive(Clone, Copy)]
enum Manner {
    /// An address, and an alias for names that begin with `alias`.
    Answer,
    /// SERVFAIL.
    Fail,
    /// Nothing.
    Silent,
    /// First a forgery with another ID and one with another question.
    Forge,
    /// TC over UDP, 100 addresses over TCP.
    Large,
}

/// A tiny upstream on loopback; its threads end with the test's process.
struct TinyUpstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl TinyUpstream {
    fn start(manner: Manner) -> Self {
        let (socket, listener) = loop {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(listener) = TcpListener::bind(socket.local_addr().unwrap()) {
                break (socket, listener);
            }
        };
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((len, client)) = socket.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                let query = Message::from_vec(&buffer[..len]).unwrap();
                for message in say(manner, &query, false) {
                    socket.send_to(&message.to_vec().unwrap(), client).unwrap();
                }
            }
        });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                while let Some(query) = read_frame(&mut stream) {
                    for message in say(manner, &query, true) {
                        stream.write_all(&frame(&message)).unwrap();
                    }
                }
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn say(manner: Manner, query: &Message, tcp: bool) -> Vec<Message> {
    let mut answer = query.clone();
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.recursion_available = true;
    let name = query.queries[0].name().clone();
    let address = |last| RData::A(A::new(192, 0, 2, last));
    let one = |mut answer: Message, last| {
        if name.to_string().starts_with("alias") {
            let target = HickoryName::from_ascii("web.default.svc.cluster.local.").unwrap();
            answer.add_answer(Record::from_rdata(
                name.clone(),
                60,
                RData::CNAME(CNAME(target)),
            ));
        } else {
            answer.add_answer(Record::from_rdata(name.clone(), 60, address(last)));
        }
        answer
    };
    match manner {
        Manner::Silent => vec![],
        Manner::Fail => {
            answer.metadata.response_code = ResponseCode::ServFail;
            vec![answer]
        }
        Manner::Answer => vec![one(answer, 1)],
        Manner::Forge => {
            let mut wrong_id = one(answer.clone(), 66);
            wrong_id.metadata.id ^= 1;
            let mut wrong_question = one(answer.clone(), 67);
            wrong_question.queries[0].set_query_type(RecordType::AAAA);
            vec![wrong_id, wrong_question, one(answer, 1)]
        }
        Manner::Large if tcp => {
            for last in 0..100 {
                answer.add_answer(Record::from_rdata(name.clone(), 60, address(last)));
            }
            // Something after the answers that the client need not get.
            let text = RData::TXT(TXT::new(vec!["extra".to_owned()]));
            answer.add_additional(Record::from_rdata(name.clone(), 60, text));
            vec![answer]
        }
        Manner::Large => {
            answer.metadata.truncation = true;
            vec![answer]
        }
    }
}

#[test]
fn follows_the_folder() {
    let running = Running::start(&web(), &[]);
    assert_eq!(running.ask_a(WEB), "NOERROR aa: A 10.96.0.1");
    put(
        running.folder.path(),
        "more.yaml",
        &service("more", "clusterIP: 10.96.0.2, ports: [{port: 80}]"),
    );
    running.becomes("more.default.svc.cluster.local", "NOERROR aa: A 10.96.0.2");
    // From a ClusterIP to an ExternalName and to nothing.
    put(
        running.folder.path(),
        "more.yaml",
        &service("more", "type: ExternalName, externalName: legacy.example"),
    );
    running.becomes(
        "more.default.svc.cluster.local",
        "NOERROR aa: CNAME legacy.example.",
    );
    fs::remove_file(running.folder.path().join("more.yaml")).unwrap();
    running.becomes(
        "more.default.svc.cluster.local",
        "NXDOMAIN aa; authority cluster.local. SOA",
    );
    // A broken edit takes nothing away, and others are served.
    put(running.folder.path(), "objects.yaml", "kind: [");
    put(
        running.folder.path(),
        "last.yaml",
        &service("last", "clusterIP: 10.96.0.3, ports: [{port: 80}]"),
    );
    running.becomes("last.default.svc.cluster.local", "NOERROR aa: A 10.96.0.3");
    assert_eq!(running.ask_a(WEB), "NOERROR aa: A 10.96.0.1");
}

#[test]
fn answers_many_questions_on_one_connection() {
    let upstream = TinyUpstream::start(Manner::Answer);
    let running = Running::start(&web(), &[upstream.address]);
    let mut stream = connect(running.address());
    let mut frames = Vec::new();
    for id in 0..100 {
        let name = if id % 2 == 0 { WEB } else { "www.example.com" };
        let mut message = query(name, RecordType::A);
        message.metadata.id = id;
        frames.extend(frame(&message));
    }
    // All at once, and cut at an odd place.
    stream.write_all(&frames[..777]).unwrap();
    stream.write_all(&frames[777..]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut ids = std::collections::BTreeSet::new();
    while let Some(answer) = read_frame(&mut stream) {
        let id = answer.metadata.id;
        let wanted = if id % 2 == 0 {
            "A 10.96.0.1"
        } else {
            "A 192.0.2.1"
        };
        assert!(render(&answer).ends_with(wanted), "{}", render(&answer));
        ids.insert(id);
    }
    assert_eq!(ids.len(), 100);
    assert_eq!(running.ask_a(WEB), "NOERROR aa: A 10.96.0.1");
}

#[test]
fn a_connection_that_talks_nonsense_is_closed() {
    let running = Running::start(&web(), &[]);
    let mut stream = connect(running.address());
    stream.write_all(&[0, 3, 1, 2, 3]).unwrap();
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn a_large_answer_is_cut_over_udp_and_whole_over_tcp() {
    let mut yaml = service("many", "clusterIP: None");
    yaml.push_str(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: m, labels: \
         {kubernetes.io/service-name: many}}\nendpoints:\n",
    );
    for i in 0..200 {
        yaml.push_str(&format!("- {{addresses: [10.20.0.{i}]}}\n"));
    }
    let running = Running::start(&yaml, &[]);
    let question = with_edns(query("many.default.svc.cluster.local", RecordType::A), 4096);
    let cut = running.ask(&question);
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let mut stream = connect(running.address());
    stream.write_all(&frame(&question)).unwrap();
    assert_eq!(read_frame(&mut stream).unwrap().answers.len(), 200);
}

#[test]
fn forwards_what_is_not_ours() {
    let upstream = TinyUpstream::start(Manner::Answer);
    let running = Running::start(&web(), &[upstream.address]);
    let answer = running.ask(&query("WWW.Example.com", RecordType::A));
    assert_eq!(render(&answer), "NOERROR: A 192.0.2.1");
    assert_eq!(answer.queries[0].name().to_string(), "WWW.Example.com.");
    assert!(answer.metadata.recursion_available && answer.edns.is_none());
    let answer = running.ask(&with_edns(query("www.example.com", RecordType::A), 1232));
    assert_eq!(answer.edns.unwrap().max_payload(), 1232);
    // Ours is never asked of others.
    let before = upstream.asked();
    assert!(
        running
            .ask_a("none.default.svc.cluster.local")
            .starts_with("NXDOMAIN aa")
    );
    // Nor what the client does not want us to ask.
    let mut question = query("www.example.com", RecordType::A);
    question.metadata.recursion_desired = false;
    assert_eq!(render(&running.ask(&question)), "REFUSED");
    assert_eq!(upstream.asked(), before);
}

#[test]
fn goes_on_to_the_next_upstream() {
    for bad in [Manner::Silent, Manner::Fail] {
        let bad = TinyUpstream::start(bad);
        let good = TinyUpstream::start(Manner::Answer);
        let running = Running::start(&web(), &[bad.address, good.address]);
        assert_eq!(running.ask_a("www.example.com"), "NOERROR: A 192.0.2.1");
        assert!(bad.asked() > 0);
    }
}

#[test]
fn remembers_that_an_upstream_is_silent() {
    let silent = TinyUpstream::start(Manner::Silent);
    let good = TinyUpstream::start(Manner::Answer);
    let running = Running::start(&web(), &[silent.address, good.address]);
    assert_eq!(running.ask_a("first.example.com"), "NOERROR: A 192.0.2.1");
    let before = silent.asked();
    for i in 0..20 {
        assert_eq!(
            running.ask_a(&format!("n{i}.example.com")),
            "NOERROR: A 192.0.2.1"
        );
    }
    assert_eq!(
        silent.asked(),
        before,
        "it is asked last while it is suspect"
    );
}

#[test]
fn without_a_good_answer_it_is_servfail() {
    let failing = TinyUpstream::start(Manner::Fail);
    let running = Running::start(&web(), &[failing.address]);
    assert_eq!(running.ask_a("www.example.com"), "SERVFAIL");
}

#[test]
fn forgeries_are_passed_over() {
    let upstream = TinyUpstream::start(Manner::Forge);
    let running = Running::start(&web(), &[upstream.address]);
    assert_eq!(running.ask_a("www.example.com"), "NOERROR: A 192.0.2.1");
}

#[test]
fn a_cut_answer_is_fetched_over_tcp() {
    let upstream = TinyUpstream::start(Manner::Large);
    let running = Running::start(&web(), &[upstream.address]);
    let question = query("www.example.com", RecordType::A);
    let cut = running.ask(&question);
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let mut stream = connect(running.address());
    stream.write_all(&frame(&question)).unwrap();
    let whole = read_frame(&mut stream).unwrap();
    assert_eq!((whole.answers.len(), whole.additionals.len()), (100, 1));
}

#[test]
fn equal_questions_share_one_exchange() {
    let upstream = TinyUpstream::start(Manner::Silent);
    let running = Running::start(&web(), &[upstream.address]);
    let mut stream = connect(running.address());
    for id in 0..10 {
        let mut message = query("www.example.com", RecordType::A);
        message.metadata.id = id;
        stream.write_all(&frame(&message)).unwrap();
    }
    for _ in 0..10 {
        assert_eq!(render(&read_frame(&mut stream).unwrap()), "SERVFAIL");
    }
    // Two rounds, and not two for each of the ten.
    assert_eq!(upstream.asked(), 2);
}

#[test]
fn aliases_are_followed_both_ways() {
    let upstream = TinyUpstream::start(Manner::Answer);
    let yaml = [
        web(),
        service("out", "type: ExternalName, externalName: www.example.com"),
        service(
            "within",
            &format!("type: ExternalName, externalName: {WEB}"),
        ),
        service(
            "back",
            "type: ExternalName, externalName: alias.example.com",
        ),
        service(
            "gone",
            "type: ExternalName, externalName: none.default.svc.cluster.local",
        ),
        service(
            "loop",
            "type: ExternalName, externalName: loop.default.svc.cluster.local",
        ),
    ]
    .join("---\n");
    let running = Running::start(&yaml, &[upstream.address]);
    let ask = |name: &str| running.ask_a(&format!("{name}.default.svc.cluster.local"));
    assert_eq!(
        ask("out"),
        "NOERROR aa: CNAME www.example.com., www.example.com. A 192.0.2.1"
    );
    assert_eq!(
        ask("within"),
        format!("NOERROR aa: CNAME {WEB}., {WEB}. A 10.96.0.1")
    );
    assert_eq!(
        ask("back"),
        format!(
            "NOERROR aa: CNAME alias.example.com., alias.example.com. CNAME {WEB}., {WEB}. A 10.96.0.1"
        )
    );
    assert_eq!(
        ask("gone"),
        "NXDOMAIN aa: CNAME none.default.svc.cluster.local.; authority cluster.local. SOA"
    );
    assert_eq!(ask("loop"), "SERVFAIL");
    // Without upstreams the alias alone is the answer.
    let alone = Running::start(&yaml, &[]);
    let answer = alone.ask_a("out.default.svc.cluster.local");
    assert_eq!(answer, "NOERROR aa: CNAME www.example.com.");
}
