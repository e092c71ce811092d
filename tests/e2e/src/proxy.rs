//! What the tests of the proxy share: a lab whose pods answer on fixed
//! addresses, Services as a test writes them, and what a client sees.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use berth_lab::Lab;
use berth_lab::ground::enter::Place;
use berth_lab::ground::netns;
use berth_netlink::{AddressFlags, Handle, Netns};
use serde_json::{Value, json};

use crate::socket::{Outcome, Sockets};

/// Pods on both nodes: two that answer on port 8080, two that ask.
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: s1, annotations: {berth.dev/ip: "10.20.0.61"}}
spec: {nodeName: node1, containers: [{name: c, image: registry.example/c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: s2, annotations: {berth.dev/ip: "10.20.0.62"}}
spec: {nodeName: node2, containers: [{name: c, image: registry.example/c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: c1, annotations: {berth.dev/ip: "10.20.0.71"}}
spec: {nodeName: node1, containers: [{name: c, image: registry.example/c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: c2, annotations: {berth.dev/ip: "10.20.0.72"}}
spec: {nodeName: node2, containers: [{name: c, image: registry.example/c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: h1}
spec: {nodeName: node1, hostNetwork: true, containers: [{name: c, image: registry.example/c}]}
"#;

/// Who asks or answers, by the name that the tests use: pods `s1`, `s2`, `c1`,
/// `c2`, the pod `h1` in node 1's network, and processes `n1`, `n2` on nodes.
pub const EVERYBODY: [&str; 7] = ["s1", "s2", "c1", "c2", "h1", "n1", "n2"];

/// Two nodes with agents, four pods, IPv4 and IPv6.
#[derive(Debug)]
pub struct Bench {
    // Dropped before the lab that they run in.
    sockets: Vec<(&'static str, Sockets)>,
    /// The lab.
    pub lab: Lab,
}

impl Bench {
    /// Starts it; `s1` and `s2` answer with their names on port 8080, TCP and
    /// UDP, IPv4 and IPv6 (fd20::61 and fd20::62).
    ///
    /// # Errors
    /// If the lab does not start.
    pub fn start() -> Result<Self> {
        let lab = Lab::builder()
            .vms(0)
            .without_dns()
            .yaml("pods.yaml", PODS)
            .start()?;
        if !lab.failed_pods().is_empty() {
            bail!("pods do not start: {:?}", lab.failed_pods());
        }
        let mut bench = Self {
            sockets: Vec::new(),
            lab,
        };
        for name in EVERYBODY {
            let place = bench.place(name)?;
            bench.sockets.push((name, Sockets::start(name, &place)?));
        }
        for (name, address) in [
            ("n1", "fd20::11"),
            ("n2", "fd20::12"),
            ("s1", "fd20::61"),
            ("s2", "fd20::62"),
            ("c1", "fd20::71"),
            ("c2", "fd20::72"),
        ] {
            bench.add_address(name, &format!("{address}/64"))?;
        }
        for name in ["s1", "s2"] {
            for protocol in ["tcp", "udp"] {
                bench
                    .ask(name)?
                    .calls(&[&format!("serve {name} {protocol} [::]:8080")])?;
            }
        }
        Ok(bench)
    }

    /// Gives a pod's or node's interface eth0 an address more.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_address(&self, name: &str, address: &str) -> Result<()> {
        let file = self.place(name)?.netns.context("all have a namespace")?;
        let handle = Handle::in_netns(&Netns::open(file)?)?;
        let link = handle.link_by_name("eth0")?;
        handle.add_address(link.index, address.parse()?, AddressFlags { nodad: true })?;
        Ok(())
    }

    /// Where its processes run.
    ///
    /// # Errors
    /// If there is nobody of that name.
    pub fn place(&self, name: &str) -> Result<Place> {
        Ok(match name {
            "n1" | "n2" => {
                let node = self.lab.node(if name == "n1" { 1 } else { 2 });
                Place {
                    cgroup: Some(node.cgroup().join("host")),
                    netns: Some(netns::path(node.netns())),
                    resolv_conf: None,
                }
            }
            pod => self.lab.pod(&format!("default/{pod}"))?.place().clone(),
        })
    }

    /// Whoever makes system calls in this place.
    ///
    /// # Errors
    /// If there is nobody of that name.
    pub fn ask(&self, name: &str) -> Result<&Sockets> {
        self.sockets
            .iter()
            .find_map(|(known, sockets)| (*known == name).then_some(sockets))
            .with_context(|| format!("there is no {name}"))
    }

    /// Writes objects and waits until both agents serve them.
    ///
    /// # Errors
    /// If they do not follow.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        for object in objects {
            self.lab.store().apply(object)?;
        }
        self.lab.settle()
    }

    /// Removes an object and waits until both agents have followed.
    ///
    /// # Errors
    /// If it was not there.
    pub fn remove(&self, kind: &str, name: &str) -> Result<()> {
        if !self.lab.store().remove(kind, "default", name)? {
            bail!("there is no {kind} {name}");
        }
        self.lab.settle()
    }

    /// One exchange from `who` to `to` by `how`.
    ///
    /// # Errors
    /// If a program has ended; how the exchange ended is in the [`Seen`].
    pub fn exchange(&self, who: &str, how: How, to: &str) -> Result<Seen> {
        let sockets = self.ask(who)?;
        let call = |text: &str| sockets.call(text);
        call(&format!("open x {}", how.kind()))?.map_err(anyhow::Error::msg)?;
        let told = exchange(&call, how, to);
        call("close x")?.map_err(anyhow::Error::msg)?;
        told
    }

    /// Everything that `who` sees in a number of exchanges that reaches each
    /// of two endpoints but for one case in a million.
    ///
    /// # Errors
    /// If a program has ended.
    pub fn see(&self, who: &str, how: How, to: &str) -> Result<BTreeSet<String>> {
        let mut seen = BTreeSet::new();
        for _ in 0..21 {
            let one = self.exchange(who, how, to)?;
            seen.insert(one.to_string());
            // Neither an error nor a wrong peer gets better.
            if !matches!(one, Seen::Answer { .. }) {
                break;
            }
        }
        Ok(seen)
    }
}

fn exchange(call: &dyn Fn(&str) -> Result<Outcome>, how: How, to: &str) -> Result<Seen> {
    let steps: &[String] = match how {
        How::UdpUnconnected | How::MappedUdpUnconnected => {
            &[format!("sendto x {to} hello"), "recv x".to_owned()]
        }
        _ => &[
            format!("connect x {to}"),
            "send x hello".to_owned(),
            "recv x".to_owned(),
        ],
    };
    let mut last = String::new();
    for step in steps {
        match call(step)? {
            Ok(told) => last = told,
            Err(errno) => return Ok(Seen::Error(errno)),
        }
    }
    // A datagram comes with its sender, a stream does not.
    let (from, word) = match last.split_once(' ') {
        Some((from, word)) => (Some(from.to_owned()), word.to_owned()),
        None => (None, last.clone()),
    };
    let mut peers: Vec<String> = from.into_iter().collect();
    if !matches!(how, How::UdpUnconnected | How::MappedUdpUnconnected) {
        peers.push(call("peer x")?.unwrap_or_else(|errno| errno));
    }
    let to: SocketAddr = to.parse()?;
    for peer in peers {
        if peer.parse() != Ok(to) {
            return Ok(Seen::WrongPeer(peer));
        }
    }
    Ok(Seen::Answer(word))
}

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A TCP connection, of the address's own family.
    Tcp,
    /// A connected UDP socket.
    Udp,
    /// A UDP socket that names the address with each datagram.
    UdpUnconnected,
    /// TCP over IPv6.
    Tcp6,
    /// Connected UDP over IPv6.
    Udp6,
    /// An AF_INET6 socket with an IPv4-mapped address.
    MappedTcp,
    /// The same, connected UDP.
    MappedUdp,
    /// The same, unconnected UDP.
    MappedUdpUnconnected,
}

impl How {
    fn kind(self) -> &'static str {
        match self {
            Self::Tcp => "tcp4",
            Self::Udp | Self::UdpUnconnected => "udp4",
            Self::Tcp6 | Self::MappedTcp => "tcp6",
            Self::Udp6 | Self::MappedUdp | Self::MappedUdpUnconnected => "udp6",
        }
    }
}

/// What a client sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// This one answered, and the peer is the address that was asked.
    Answer(String),
    /// The system calls show another peer than was asked.
    WrongPeer(String),
    /// The name of an errno.
    Error(String),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(name) => f.write_str(name),
            Self::WrongPeer(peer) => write!(f, "peer {peer}"),
            Self::Error(errno) => f.write_str(errno),
        }
    }
}

/// A Service with `spec` merged over type ClusterIP and port 80, TCP and UDP.
#[must_use]
pub fn service(name: &str, address: &str, spec: Value) -> Value {
    let mut whole = json!({
        "type": "ClusterIP",
        "clusterIP": address,
        "clusterIPs": [address],
        "ipFamilies": [family(address)],
        "ports": [
            {"name": "t", "protocol": "TCP", "port": 80, "targetPort": 8080},
            {"name": "u", "protocol": "UDP", "port": 80, "targetPort": 8080},
        ],
    });
    if let (Some(whole), Value::Object(spec)) = (whole.as_object_mut(), spec) {
        whole.extend(spec);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": whole,
    })
}

/// The same with NodePort `number` for both protocols.
#[must_use]
pub fn node_port(name: &str, address: &str, number: u16, spec: Value) -> Value {
    let port = |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": 80, "targetPort": 8080, "nodePort": number});
    let mut service = service(name, address, spec);
    service["spec"]["type"] = json!("NodePort");
    service["spec"]["ports"] = json!([port("t", "TCP"), port("u", "UDP")]);
    service
}

/// The endpoints of a Service, in one slice.
#[must_use]
pub fn slice(service: &str, endpoints: &[Value]) -> Value {
    let of = |endpoint: &Value| {
        let address = endpoint["addresses"][0].as_str().map(family);
        address.unwrap_or("IPv4")
    };
    let family = endpoints.first().map_or("IPv4", of);
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-0"),
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [
            {"name": "t", "protocol": "TCP", "port": 8080},
            {"name": "u", "protocol": "UDP", "port": 8080},
        ],
    })
}

/// `s1` or `s2` as an endpoint that is ready.
#[must_use]
pub fn ready(pod: &str) -> Value {
    endpoint(pod, "10.20.0.6", json!({"ready": true}))
}

/// The same with its IPv6 address.
#[must_use]
pub fn ready6(pod: &str) -> Value {
    endpoint(pod, "fd20::6", json!({"ready": true}))
}

/// As an endpoint that terminates, and still serves or not.
#[must_use]
pub fn terminating(pod: &str, serving: bool) -> Value {
    let conditions = json!({"ready": false, "serving": serving, "terminating": true});
    endpoint(pod, "10.20.0.6", conditions)
}

fn endpoint(pod: &str, prefix: &str, conditions: Value) -> Value {
    let number = pod.trim_start_matches('s');
    json!({
        "addresses": [format!("{prefix}{number}")],
        "nodeName": format!("node{number}"),
        "conditions": conditions,
    })
}

fn family(address: &str) -> &'static str {
    match address.parse() {
        Ok(IpAddr::V6(_)) => "IPv6",
        _ => "IPv4",
    }
}

/// Asks until `is_true`, for at most `within`.
///
/// # Errors
/// If it is not true by then, with `what`; or if asking fails.
pub fn until(what: &str, within: Duration, is_true: impl Fn() -> Result<bool>) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let asked = began.elapsed();
        if is_true()? {
            return Ok(asked);
        }
        if asked > within {
            bail!("not within {within:?}: {what}");
        }
        std::thread::yield_now();
    }
}
