//! A wire with nodes, each with two pods behind routed veths: the network of
//! most clusters, on which every peer works.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use berth_lab::ground::enter::Place;
use berth_lab::ground::record::Record;
use berth_lab::ground::wire::Wire;
use berth_lab::ground::{cgroup, netns};
use berth_netlink::{AddressFlags, Handle, Netns, Route};

use crate::exchange::{Client, Server};

/// Addresses of each server pod: each Service's endpoints.
pub(crate) const ENDPOINTS: u8 = 4;

/// The wire and what it is made in. Dropping it removes all of it.
#[derive(Debug)]
pub(crate) struct Ground {
    wire: Wire,
    /// Names and folder.
    pub(crate) record: Record,
}

impl Ground {
    pub(crate) fn create() -> Result<Self> {
        let record = Record::create()?;
        let name = format!("{}wire", record.prefix());
        let wire = Wire::create(&name, berth_lab::lab::NETWORK)?;
        Ok(Self { wire, record })
    }

    /// The wire's own namespace.
    pub(crate) fn netns(&self) -> PathBuf {
        netns::path(&format!("{}wire", self.record.prefix()))
    }

    /// Node `number`, 10.20.0.NUMBER, with its two pods and their programs.
    pub(crate) fn node(&self, name: &str, number: u8) -> Result<Node> {
        let prefix = self.record.prefix();
        let netns_name = format!("{prefix}{name}");
        let address = Ipv4Addr::new(10, 20, 0, number);
        let node = self.wire.attach(&netns_name, name, address)?;
        node.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?
            .context("forward packets")?;
        let cgroup = cgroup::of_lab(&self.record.name)?.join(name);
        let pod = |what: &str, index: u8, own: u8| -> Result<Place> {
            let pod = format!("{netns_name}-{what}");
            let at = |host| Ipv4Addr::new(10, 240 + index, number, host);
            veth(&node, &pod, what, at(1), at(2), own)?;
            let cgroup = cgroup.join(what);
            cgroup::create(&cgroup)?;
            Ok(Place {
                cgroup: Some(cgroup),
                netns: Some(netns::path(&pod)),
                resolv_conf: None,
            })
        };
        let (client, server) = (pod("client", 0, 1)?, pod("server", 1, ENDPOINTS)?);
        let host = Place {
            cgroup: Some(cgroup.join("host")),
            netns: Some(netns::path(&netns_name)),
            resolv_conf: None,
        };
        cgroup::create(&cgroup.join("host"))?;
        Ok(Node {
            number,
            address,
            client: Client::start(&client)?,
            _server: Server::start(&server)?,
            cgroup,
            host,
        })
    }
}

/// A node, with the programs of its pods.
#[derive(Debug)]
pub(crate) struct Node {
    number: u8,
    /// On the wire.
    pub(crate) address: Ipv4Addr,
    /// In the client pod.
    pub(crate) client: Client,
    _server: Server,
    /// All its processes are below.
    pub(crate) cgroup: PathBuf,
    /// Its own processes.
    pub(crate) host: Place,
}

impl Node {
    /// The server pod's addresses.
    pub(crate) fn endpoints(&self) -> [Ipv4Addr; ENDPOINTS as usize] {
        std::array::from_fn(|index| {
            Ipv4Addr::new(10, 241, self.number, 2 + u8::try_from(index).unwrap_or(0))
        })
    }
}

/// A pod with `own` addresses from `pod` on, reached through `node`.
fn veth(
    node: &Netns,
    pod_name: &str,
    port: &str,
    gateway: Ipv4Addr,
    pod: Ipv4Addr,
    own: u8,
) -> Result<()> {
    let netns = netns::create(pod_name)?;
    let (inside, outside) = (Handle::in_netns(&netns)?, Handle::in_netns(node)?);
    inside.add_veth("eth0", port, Some(node))?;
    let addresses = AddressFlags::default();
    let port = outside.link_by_name(port)?.index;
    outside.add_address(port, format!("{gateway}/24").parse()?, addresses)?;
    outside.set_up(port)?;
    let link = inside.link_by_name("eth0")?.index;
    for index in 0..own {
        let address = Ipv4Addr::from_bits(pod.to_bits() + u32::from(index));
        inside.add_address(link, format!("{address}/24").parse()?, addresses)?;
    }
    inside.set_up(link)?;
    inside.add_route(&Route {
        gateway: Some(IpAddr::V4(gateway)),
        oif: Some(link),
        ..Route::default()
    })?;
    Ok(())
}

/// Asks `ready` until it says yes.
pub(crate) fn wait(
    what: &str,
    within: std::time::Duration,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<std::time::Duration> {
    let began = std::time::Instant::now();
    while !ready()? {
        ensure!(
            began.elapsed() < within,
            "{what} has not come within {} s",
            within.as_secs()
        );
        thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(began.elapsed())
}
