//! Waiting until every agent and DNS server has seen all that was written.
//!
//! The programs under test follow the folder on their own; nothing tells when
//! they have caught up. So the lab keeps a Service of its own, the beacon, and
//! changes where it leads: who follows that change has followed all earlier
//! ones. Twice, because a program that was just listing the folder may have
//! met the beacon's new file after an older state of another.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;

use super::{Node, Store};
use crate::ground::enter::Place;
use crate::ground::record::Record;
use crate::ground::{cgroup, netns};
use crate::probe::Probe;

/// The beacon's ClusterIP.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 11);
/// The namespace of its objects.
pub(super) const NAMESPACE: &str = "berth-lab";
const PORT: u16 = 7;
/// Its name, and that of the headless Service that DNS servers are asked for.
const NAME: &str = "beacon";
const HEADLESS: &str = "beacon-headless";
/// Nobody has these addresses (RFC 5737).
const NOBODY: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
/// How long a change may take to be seen.
const WITHIN: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_millis(1);

/// Two echo servers at the wire's router, and which of them is shown.
#[derive(Debug)]
pub(super) struct Beacon {
    _servers: Vec<Probe>,
    router: Ipv4Addr,
    shown: Mutex<usize>,
}

/// Which programs are waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Programs {
    pub(super) agent: bool,
    pub(super) dns: bool,
}

impl Beacon {
    pub(super) fn start(record: &Record, lab: &Path, router: Ipv4Addr) -> Result<Self> {
        let cgroup = cgroup::of_lab(&record.name)?.join("wire");
        cgroup::create(&cgroup)?;
        let place = Place {
            cgroup: Some(cgroup),
            netns: Some(netns::path(&format!("{}wire", record.prefix()))),
            resolv_conf: None,
        };
        let server = |number: usize| {
            let mut command = place.command(lab, lab);
            let port = format!("TCP:{}", port(number));
            command.arg("pod").args(["--name", &name(number)]);
            command.args(["--node", "wire", "--port", &port]);
            Probe::start("the beacon", &mut command)
        };
        Ok(Self {
            _servers: (0..2).map(server).collect::<Result<_>>()?,
            router,
            shown: Mutex::new(0),
        })
    }

    /// Writes the beacon's Services and the first place they lead to.
    pub(super) fn publish(&self, store: &Store) -> Result<()> {
        let service = |name: &str, address: &str| {
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {
                    "type": "ClusterIP",
                    "clusterIP": address,
                    "clusterIPs": [address],
                    "ipFamilies": ["IPv4"],
                    "ports": [{"protocol": "TCP", "port": PORT, "targetPort": PORT}],
                },
            })
        };
        store.apply(&service(NAME, &ADDRESS.to_string()))?;
        store.apply(&service(HEADLESS, "None"))?;
        self.show(store, 0)
    }

    /// Returns when all of `nodes` serve what is in the folder now.
    pub(super) fn settle(&self, store: &Store, nodes: &[Node], programs: Programs) -> Result<()> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..2 {
            *shown = 1 - *shown;
            self.show(store, *shown)?;
            for node in nodes {
                if programs.agent {
                    until(&format!("berth-agent on {}", node.name()), || {
                        follows_service(node, *shown)
                    })?;
                }
                if programs.dns {
                    until(&format!("berth-dns on {}", node.name()), || {
                        follows_name(node, *shown)
                    })?;
                }
            }
        }
        Ok(())
    }

    fn show(&self, store: &Store, number: usize) -> Result<()> {
        for (service, address, port) in [
            (NAME, self.router, port(number)),
            (HEADLESS, NOBODY[number], PORT),
        ] {
            store.apply(&json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("{service}-0"),
                    "namespace": NAMESPACE,
                    "labels": {"kubernetes.io/service-name": service},
                },
                "addressType": "IPv4",
                "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
                "ports": [{"name": "", "protocol": "TCP", "port": port}],
            }))?;
        }
        Ok(())
    }
}

fn port(number: usize) -> u16 {
    if number == 0 { PORT } else { PORT + 1 }
}

fn name(number: usize) -> String {
    format!("{NAMESPACE}/beacon-{number}")
}

/// What was seen instead, if it does not follow yet.
fn follows_service(node: &Node, number: usize) -> Result<(), String> {
    match node.tcp(&format!("{ADDRESS}:{PORT}")) {
        Ok(exchange) if exchange.echo.pod == name(number) => Ok(()),
        Ok(exchange) => Err(format!("{} answers", exchange.echo.pod)),
        Err(failure) => Err(failure.to_string()),
    }
}

fn follows_name(node: &Node, number: usize) -> Result<(), String> {
    let name = format!("{HEADLESS}.{NAMESPACE}.svc.cluster.local.");
    match node.resolve(&name) {
        Ok(found) if found.addresses == [IpAddr::V4(NOBODY[number])] => Ok(()),
        Ok(found) => Err(format!("{name} is {:?}", found.addresses)),
        Err(failure) => Err(failure.to_string()),
    }
}

fn until(what: &str, mut follows: impl FnMut() -> Result<(), String>) -> Result<()> {
    let deadline = Instant::now() + WITHIN;
    loop {
        match follows() {
            Ok(()) => return Ok(()),
            Err(seen) if Instant::now() > deadline => bail!(
                "{what} has not followed a change of the folder within {} s: {seen}",
                WITHIN.as_secs()
            ),
            Err(_) => thread::sleep(ASK_EVERY),
        }
    }
}
