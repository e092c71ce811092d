//! The program itself: readiness, the end, and what it says of mistakes.

use std::fs;
use std::io::Read;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(10);

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth-dns"));
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn fails(arguments: &[&str]) -> String {
    let output = program().args(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::yield_now();
    }
}

#[test]
fn tells_when_it_is_ready_and_ends_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    fs::write(&ready, "left by an earlier run").unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--folder"];
    let child = program()
        .args(arguments)
        .arg(folder.path())
        .arg("--ready-file")
        .arg(&ready)
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    until("readiness", || {
        fs::read(&ready).is_ok_and(|text| text.is_empty())
    });
    let pid = child.0.id().to_string();
    let told = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(told.success());
    let start = Instant::now();
    assert!(child.0.wait().unwrap().success());
    assert!(start.elapsed() < DEADLINE);
    assert!(!ready.exists(), "the ready file goes with the server");
}

#[test]
fn a_taken_port_is_one_clear_message() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let told = fails(&["--folder", folder, "--listen", &address]);
    assert!(
        told.contains(&format!("cannot serve UDP on {address}")),
        "{told}"
    );
    assert!(told.contains("ss -lnptu"), "{told}");
}

#[test]
fn mistakes_on_the_command_line_are_told_with_the_mend() {
    let listen = ["--listen", "127.0.0.1:0"];
    for (arguments, told) in [
        (["--folder", "/does/not/exist"], "create it"),
        (
            ["--company-zone", "a.example={pod}"],
            "unknown placeholder {pod}",
        ),
        (["--upstream", "10.0.0.2"], "with a port"),
        (["--zone", "a..b"], "empty label"),
    ] {
        let mut all = listen.to_vec();
        if arguments[0] != "--folder" {
            all.extend(["--folder", "/"]);
        }
        all.extend(arguments);
        let error = fails(&all);
        assert!(error.contains(told), "{arguments:?}: {error}");
    }
}

#[test]
fn dumps_what_it_would_answer_and_names_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: \
                10.96.0.1, ports: [{port: 80}]}\n---\napiVersion: v1\nkind: Service\nmetadata: \
                {name: bad}\nspec: {clusterIP: 10.96.0.2}\n";
    fs::write(Path::new(folder.path()).join("web.yaml"), yaml).unwrap();
    let mut child = program()
        .arg("--dump")
        .arg("--folder")
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    let mut told = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut told)
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert!(
        text.contains("web.default.svc.cluster.local all A 10.96.0.1\n"),
        "{text}"
    );
    assert!(
        told.contains("web.yaml:6: Service default/bad: spec.ports: is empty"),
        "{told}"
    );
}
