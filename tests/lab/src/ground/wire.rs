//! The wire: a bridge in a network namespace of its own, to which every node
//! and VM has one cable.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use berth_netlink::{AddressFlags, Handle, Netns, Route};
use ipnetwork::{IpNetwork, Ipv4Network};

use super::netns;

/// Name of the bridge inside of the wire's namespace.
const BRIDGE: &str = "br0";
/// Name of the interface at each machine's end of its cable.
pub const UPLINK: &str = "eth0";

/// A bridge with an address: the network's router.
#[derive(Debug)]
pub struct Wire {
    netns: Netns,
    handle: Handle,
    bridge: u32,
    gateway: Ipv4Network,
}

impl Wire {
    /// Makes the wire in a namespace called `name`; its router has the address
    /// `gateway`.
    ///
    /// # Errors
    /// Without root, or in a kernel without bridges.
    pub fn create(name: &str, gateway: Ipv4Network) -> Result<Self> {
        let netns = netns::create(name)?;
        // Frames between ports are switched, not filtered: bridge-netfilter of
        // a machine that runs Docker would drop them.
        netns.run(|| {
            for file in ["bridge-nf-call-iptables", "bridge-nf-call-arptables"] {
                // Not there unless the module br_netfilter is loaded.
                let _ = fs::write(format!("/proc/sys/net/bridge/{file}"), "0");
            }
        })?;
        let handle = Handle::in_netns(&netns)?;
        handle.add_bridge(BRIDGE)?;
        let bridge = handle.link_by_name(BRIDGE)?.index;
        handle.add_address(bridge, IpNetwork::V4(gateway), AddressFlags::default())?;
        handle.set_up(bridge)?;
        Ok(Self {
            netns,
            handle,
            bridge,
            gateway,
        })
    }

    /// Makes a machine: a namespace called `name` with an uplink to the wire
    /// that has `address`, and a default route. `port` names the cable's other
    /// end, at most 15 bytes.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn attach(&self, name: &str, port: &str, address: Ipv4Addr) -> Result<Netns> {
        let machine = netns::create(name)?;
        let handle = Handle::in_netns(&machine)?;
        handle
            .add_veth(UPLINK, port, Some(&self.netns))
            .with_context(|| format!("give {name} a cable"))?;
        let port = self.handle.link_by_name(port)?.index;
        self.handle.set_master(port, Some(self.bridge))?;
        self.handle.set_up(port)?;
        let uplink = handle.link_by_name(UPLINK)?.index;
        let network = Ipv4Network::new(address, self.gateway.prefix())?;
        handle.add_address(uplink, IpNetwork::V4(network), AddressFlags::default())?;
        handle.set_up(uplink)?;
        handle.add_route(&Route {
            gateway: Some(IpAddr::V4(self.gateway.ip())),
            oif: Some(uplink),
            ..Route::default()
        })?;
        Ok(machine)
    }
}
