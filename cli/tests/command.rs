//! The program as people run it, with a stand-in for the agent on a unix
//! socket in a temporary folder.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;

use berth_api::agent::{Dump, Problem, Readiness, ServiceSummary};
use serde::Serialize;

/// Answers each path with a status and a body; ends with the process.
struct Agent {
    folder: tempfile::TempDir,
}

impl Agent {
    fn answering(answers: BTreeMap<&'static str, (u16, String)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("agent.sock")).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(&stream.unwrap(), &answers);
            }
        });
        Self { folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    fn berth(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_berth"))
            .args(arguments)
            .arg("--socket")
            .arg(self.socket())
            .output()
            .unwrap()
    }
}

fn answer(mut stream: &UnixStream, answers: &BTreeMap<&'static str, (u16, String)>) {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap().unwrap();
    let path = request.split(' ').nth(1).unwrap();
    while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
    let missing = (500, format!("unexpected {path}"));
    let (status, body) = answers.get(path).unwrap_or(&missing);
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
}

fn json(status: u16, body: impl Serialize) -> (u16, String) {
    (status, serde_json::to_string(&body).unwrap())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn web() -> ServiceSummary {
    ServiceSummary {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        cluster_ips: vec!["10.96.0.7".parse().unwrap()],
        external_ips: vec![],
        ports: vec!["80/TCP".to_owned()],
        endpoints: 1,
        ready: 1,
        local: 0,
        failing: 1,
    }
}

#[test]
fn lists_services_for_people_and_for_programs() {
    let agent = Agent::answering([("/v1/services", json(200, [web()]))].into());
    let table = agent.berth(&["svc", "list"]);
    assert!(table.status.success());
    let last = text(&table.stdout).lines().last().unwrap().to_owned();
    assert!(last.starts_with("shop        web    10.96.0.7"), "{last}");
    assert!(last.ends_with("1 failing"), "{last}");
    let printed = agent.berth(&["svc", "list", "-o", "json"]);
    let read: Vec<ServiceSummary> = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(read, [web()]);
}

#[test]
fn what_the_agent_says_is_wrong_is_the_error() {
    let problem = Problem {
        problem: "Service shop/nobody is not served on this node".to_owned(),
    };
    let agent = Agent::answering([("/v1/services/shop/nobody", json(404, problem))].into());
    let shown = agent.berth(&["svc", "show", "shop/nobody"]);
    assert!(!shown.status.success());
    assert_eq!(
        text(&shown.stderr),
        "berth: Service shop/nobody is not served on this node\n"
    );
    assert_eq!(text(&shown.stdout), "");
}

#[test]
fn an_answer_of_another_shape_is_told() {
    let agent = Agent::answering([("/v1/services", json(200, "surprise"))].into());
    let shown = agent.berth(&["svc", "list"]);
    assert!(!shown.status.success());
    assert!(text(&shown.stderr).contains("use the berth of the agent's version"));
}

#[test]
fn readiness_is_the_exit_status() {
    let says = |ready, reasons: &[&str]| {
        let reasons = reasons.iter().map(ToString::to_string).collect();
        let agent =
            Agent::answering([("/v1/ready", json(200, Readiness { ready, reasons }))].into());
        agent.berth(&["agent", "ready"])
    };
    let ready = says(true, &[]);
    assert!(ready.status.success());
    assert_eq!(text(&ready.stdout), "ready\n");
    let not = says(false, &["the agent is starting"]);
    assert_eq!(not.status.code(), Some(1));
    assert_eq!(text(&not.stdout), "not ready:\n  the agent is starting\n");
}

#[test]
fn a_dump_is_text_or_json() {
    let counters = Dump::Counters([("connected".to_owned(), 7)].into());
    let agent = Agent::answering(
        [
            ("/v1/dump/counters", (200, "connected 7\n".to_owned())),
            ("/v1/dump/counters?format=json", json(200, &counters)),
        ]
        .into(),
    );
    let dump = |more: &[&str]| agent.berth(&[&["agent", "dump", "counters"], more].concat());
    assert_eq!(text(&dump(&[]).stdout), "connected 7\n");
    let read: Dump = serde_json::from_slice(&dump(&["-o", "json"]).stdout).unwrap();
    assert_eq!(read, counters);
}

#[test]
fn without_an_agent_it_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    let listed = Command::new(env!("CARGO_BIN_EXE_berth"))
        .args(["svc", "list", "--socket"])
        .arg(&socket)
        .output()
        .unwrap();
    assert_eq!(listed.status.code(), Some(1));
    let told = text(&listed.stderr);
    assert!(told.starts_with("berth: no berth-agent runs at "), "{told}");
    assert!(told.contains("--socket"), "{told}");
}
