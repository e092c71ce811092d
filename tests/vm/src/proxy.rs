//! The proxy's programs on this kernel: the verifier takes every one of them,
//! every one is attached and does its work, and they survive their agent.
//!
//! One agent, one node, and a pod behind a veth; the rules themselves are
//! tested elsewhere.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use berth_e2e::proxy::{node_port, service, slice};
use berth_lab::binaries;
use berth_lab::lab::programs::{Program, Readiness};
use berth_netlink::{AddressFlags, Handle, Netns};
use nix::errno::Errno;
use serde_json::{Value, json};

use crate::machine::{self, BPFFS, CGROUP2};
use crate::report::Report;

/// An exchange may wait this long for the network.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A change in the folder is followed by then.
const FOLLOWED: Duration = Duration::from_secs(20);

/// Between two connections of a client that never stops.
const PACE: Duration = Duration::from_millis(100);

const VIP: &str = "10.96.0.10";
const VIP6: &str = "fd96::10";
const EMPTY: &str = "10.96.0.11";
const NODE_PORT: u16 = 30080;
/// Every program, by the name that its link is pinned under.
const PROGRAMS: [&str; 10] = [
    "connect4",
    "connect6",
    "getpeername4",
    "getpeername6",
    "post_bind4",
    "post_bind6",
    "recvmsg4",
    "recvmsg6",
    "sendmsg4",
    "sendmsg6",
];

/// Runs all of it. Each step needs the ones before.
pub(crate) fn run(report: &mut Report) {
    let mut scene = None;
    let ready = report.step("proxy: the agent loads every program and is ready", || {
        let mut new = Scene::new()?;
        new.start_agent()?;
        scene = Some(new);
        Ok(())
    });
    let Some(mut scene) = scene.filter(|_| ready) else {
        return;
    };
    report.step("proxy: every program is attached", || {
        let links = links()?;
        let names: Vec<_> = links.iter().map(|link| link.0.as_str()).collect();
        ensure!(names == PROGRAMS, "attached are {names:?}");
        Ok(())
    });
    report.step("proxy: connect and getpeername, IPv4", || tcp(VIP, VIP));
    report.step("proxy: connect and getpeername, IPv6", || tcp(VIP6, VIP6));
    report.step("proxy: connect and getpeername, IPv4-mapped", || {
        let mapped = format!("::ffff:{VIP}");
        tcp(&mapped, &mapped)
    });
    for (family, vip) in [("IPv4", VIP), ("IPv6", VIP6)] {
        report.step(&format!("proxy: connected UDP, {family}"), || {
            udp_connected(vip).map(drop)
        });
        report.step(
            &format!("proxy: sendmsg and recvmsg of unconnected UDP, {family}"),
            || udp_unconnected(vip),
        );
    }
    report.step("proxy: a Service without endpoints refuses", refused);
    report.step("proxy: a NodePort answers and cannot be bound", node_ports);
    report.step("proxy: stale connected UDP sockets are destroyed", || {
        scene.stale_udp()
    });
    report.step("proxy: the agent is killed and restarted unnoticed", || {
        scene.restart()
    });
    report.step("proxy: clean-up leaves nothing", || scene.clean_up());
}

/// The node, its pod and its agent.
#[derive(Debug)]
struct Scene {
    dir: tempfile::TempDir,
    agent: Option<Program>,
    /// Kept open: its pod goes with it.
    _pod: Netns,
}

impl Scene {
    fn new() -> Result<Self> {
        let pod = Netns::create()?;
        let (here, inside) = (Handle::new()?, Handle::in_netns(&pod)?);
        here.add_veth("uplink", "eth0", Some(&pod))?;
        let nodad = AddressFlags { nodad: true };
        for (handle, name, addresses) in [
            (&here, "uplink", ["10.20.0.11/24", "fd20::11/64", ""]),
            (
                &inside,
                "eth0",
                ["10.20.0.61/24", "fd20::61/64", "10.20.0.62/24"],
            ),
        ] {
            let link = handle.link_by_name(name)?.index;
            for address in addresses.iter().filter(|address| !address.is_empty()) {
                handle.add_address(link, address.parse()?, nodad)?;
            }
            handle.set_up(link)?;
        }
        pod.run(serve)??;
        let scene = Self {
            dir: tempfile::tempdir()?,
            agent: None,
            _pod: pod,
        };
        fs::create_dir(scene.folder())?;
        scene.apply(&node_port("web", VIP, NODE_PORT, json!({})))?;
        scene.apply(&slice("web", &[endpoint("10.20.0.61")]))?;
        scene.apply(&service("web6", VIP6, json!({})))?;
        scene.apply(&slice("web6", &[endpoint("fd20::61")]))?;
        scene.apply(&service("empty", EMPTY, json!({})))?;
        Ok(scene)
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("objects")
    }

    /// Writes an object as the controllers' stand-in does: by renaming.
    fn apply(&self, object: &Value) -> Result<()> {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = format!(
            "{}-{}.yaml",
            word(&object["kind"]),
            word(&object["metadata"]["name"])
        );
        let fresh = self.dir.path().join("fresh");
        fs::write(&fresh, object.to_string())?;
        fs::rename(fresh, self.folder().join(name))?;
        Ok(())
    }

    fn start_agent(&mut self) -> Result<()> {
        let socket = self.dir.path().join("agent.sock");
        let mut command = Command::new(binaries::find("berth-agent")?);
        command
            .args(["run", "--node-name", "node1"])
            .args(["--cgroup-root", CGROUP2, "--bpffs", BPFFS])
            .arg("--folder")
            .arg(self.folder())
            .arg("--state-dir")
            .arg(self.dir.path())
            .arg("--socket")
            .arg(&socket);
        let log = self.dir.path().join("agent.log");
        let mut agent = Program::start("berth-agent", &mut command, Readiness::Http(socket), &log)?;
        // Emulated, the verifier takes several seconds of a core that others
        // want too: twice the lab's deadline.
        agent.wait_ready().or_else(|_| agent.wait_ready())?;
        self.agent = Some(agent);
        Ok(())
    }

    /// The endpoint moves; whoever talks to the old one hears of it, by the
    /// iterator over the sockets' storage and SOCK_DESTROY.
    fn stale_udp(&self) -> Result<()> {
        let socket = udp_connected(VIP)?;
        self.apply(&slice("web", &[endpoint("10.20.0.62")]))?;
        let deadline = Instant::now() + FOLLOWED;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        while Instant::now() < deadline {
            match socket.recv(&mut [0; 16]) {
                Err(error) if error.raw_os_error() == Some(Errno::ECONNABORTED as i32) => {
                    return tcp(VIP, VIP);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => bail!("recv ended with {other:?}, not with ECONNABORTED"),
            }
        }
        bail!("the socket still lives after {} s", FOLLOWED.as_secs())
    }

    /// The links stay and get new programs (`BPF_LINK_UPDATE`); connections
    /// work all the while.
    fn restart(&mut self) -> Result<()> {
        let before = links()?;
        let stop = AtomicBool::new(false);
        let attempts = thread::scope(|scope| {
            let client = scope.spawn(|| -> Result<usize> {
                let mut attempts = 0;
                while !stop.load(Ordering::Relaxed) {
                    tcp(VIP, VIP).with_context(|| format!("after {attempts} connections"))?;
                    attempts += 1;
                    // The agent needs the machine's two slow processors more.
                    thread::sleep(PACE);
                }
                Ok(attempts)
            });
            let restarted = self.kill_and_start();
            stop.store(true, Ordering::Relaxed);
            let attempts = client.join().expect("the client does not panic");
            restarted.and(attempts)
        })?;
        ensure!(attempts > 0, "no connection was tried meanwhile");
        let after = links()?;
        ensure!(after.len() == before.len(), "{before:?} became {after:?}");
        for ((name, link, program), (_, link_now, program_now)) in before.iter().zip(&after) {
            ensure!(link == link_now, "{name} has another link");
            ensure!(program != program_now, "{name} still has the old program");
        }
        Ok(())
    }

    fn kill_and_start(&mut self) -> Result<()> {
        self.agent.take().context("there is an agent")?.kill()?;
        // The programs serve without it.
        tcp(VIP, VIP).context("without the agent")?;
        self.start_agent()
    }

    fn clean_up(&mut self) -> Result<()> {
        self.agent.take().context("there is an agent")?.kill()?;
        machine::run(
            Command::new(binaries::find("berth-agent")?).args(["cleanup", "--bpffs", BPFFS]),
        )?;
        let left: Vec<_> = fs::read_dir(BPFFS)?.flatten().map(|e| e.path()).collect();
        ensure!(left.is_empty(), "pins are left: {left:?}");
        let links = bpftool(&["link", "show"])?;
        ensure!(links == json!([]), "links are left: {links}");
        ensure!(
            connect(VIP).is_err(),
            "the Service still answers without its programs"
        );
        Ok(())
    }
}

/// The pod: whoever connects, or sends a datagram, to port 8080 is answered.
fn serve() -> Result<()> {
    let listener = TcpListener::bind("[::]:8080")?;
    let socket = UdpSocket::bind("[::]:8080")?;
    // They end with the program.
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A client that has gone already is no matter.
            let _ = stream.write_all(b"pod");
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(b"pod", from);
        }
    });
    Ok(())
}

fn endpoint(address: &str) -> Value {
    json!({"addresses": [address], "nodeName": "node1", "conditions": {"ready": true}})
}

fn port80(address: &str) -> Result<SocketAddr> {
    let address: IpAddr = address.parse()?;
    Ok(SocketAddr::new(address, 80))
}

fn connect(address: &str) -> Result<TcpStream> {
    Ok(TcpStream::connect_timeout(&port80(address)?, TIMEOUT)?)
}

/// One connection to `address`; it shows `peer` as its peer.
fn tcp(address: &str, peer: &str) -> Result<()> {
    let mut stream = connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    ensure!(said == "pod", "{address} said {said:?}");
    let shown = stream.peer_addr()?;
    ensure!(shown == port80(peer)?, "the peer of {address} is {shown}");
    Ok(())
}

fn udp(like: SocketAddr) -> Result<UdpSocket> {
    let any = if like.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    Ok(socket)
}

fn udp_connected(vip: &str) -> Result<UdpSocket> {
    let vip = port80(vip)?;
    let socket = udp(vip)?;
    socket.connect(vip)?;
    socket.send(b"hello")?;
    let mut buffer = [0; 16];
    let length = socket.recv(&mut buffer)?;
    ensure!(&buffer[..length] == b"pod", "not the pod's answer");
    let shown = socket.peer_addr()?;
    ensure!(shown == vip, "the peer is {shown}");
    Ok(socket)
}

fn udp_unconnected(vip: &str) -> Result<()> {
    let vip = port80(vip)?;
    let socket = udp(vip)?;
    socket.send_to(b"hello", vip)?;
    let mut buffer = [0; 16];
    let (length, from) = socket.recv_from(&mut buffer)?;
    ensure!(&buffer[..length] == b"pod", "not the pod's answer");
    ensure!(from == vip, "the answer comes from {from}");
    Ok(())
}

fn refused() -> Result<()> {
    match TcpStream::connect_timeout(&port80(EMPTY)?, TIMEOUT) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        other => bail!("connect ended with {other:?}"),
    }
}

fn node_ports() -> Result<()> {
    for address in ["127.0.0.1", "10.20.0.11"] {
        let target = SocketAddr::new(address.parse()?, NODE_PORT);
        TcpStream::connect_timeout(&target, TIMEOUT)
            .with_context(|| format!("connect to {target}"))?;
    }
    for any in ["0.0.0.0", "[::]"] {
        match TcpListener::bind(format!("{any}:{NODE_PORT}")) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            other => bail!("bind to {any}:{NODE_PORT} ended with {other:?}"),
        }
    }
    Ok(())
}

/// Name, number of the link and number of its program, in order of the names.
fn links() -> Result<Vec<(String, u64, u64)>> {
    let programs = bpftool(&["prog", "show"])?;
    let programs = programs.as_array().context("a list of programs")?;
    let name = |number: &Value| {
        let program = programs.iter().find(|program| program["id"] == *number);
        program.and_then(|program| program["name"].as_str())
    };
    let links = bpftool(&["link", "show"])?;
    let links = links.as_array().context("a list of links")?;
    let of_cgroups = links.iter().filter(|link| link["type"] == "cgroup");
    let mut found = of_cgroups
        .map(|link| {
            let program = &link["prog_id"];
            Some((
                name(program)?.to_owned(),
                link["id"].as_u64()?,
                program.as_u64()?,
            ))
        })
        .collect::<Option<Vec<_>>>()
        .with_context(|| format!("a link without a program in {links:?}"))?;
    found.sort();
    Ok(found)
}

fn bpftool(args: &[&str]) -> Result<Value> {
    let told = machine::run(Command::new("bpftool").arg("-j").args(args))?;
    serde_json::from_str(&told).with_context(|| format!("bpftool said {told}"))
}
