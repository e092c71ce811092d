//! One pod of this node to its hostPorts: ports of the node that lead to the
//! pod, as the portmap plugin would make them, which cannot serve a pod that
//! does not pass through the node's network stack (spec/proxy row 15).

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::frontends::{DesiredFrontend, backend, loopback, socket_key};
use crate::model::{ClusterState, Family, HostPort, NamespacedName, Owner, Pod, PortId};

/// The frontends of the pod `name`, sorted by key; none if it is not on this
/// node or cannot be reached.
pub(super) fn host_ports(state: &ClusterState, name: &NamespacedName) -> Vec<DesiredFrontend> {
    let Some(pod) = state.pod(name).filter(|pod| pod.is_running) else {
        return Vec::new();
    };
    let mut frontends = BTreeMap::new();
    for port in &pod.host_ports {
        for address in addresses(state, port) {
            let Some(target) = address_of(pod, Family::of(address)) else {
                continue;
            };
            let key = socket_key(address, port.host_port, port.protocol);
            frontends.entry(key).or_insert_with(|| DesiredFrontend {
                key,
                owner: PortId {
                    owner: Owner::Pod(name.clone()),
                    port: port.host_port,
                    protocol: port.protocol,
                },
                backends: vec![backend(target, port.container_port, true)],
                local_count: 1,
                affinity_seconds: 0,
                flags: 0,
            });
        }
    }
    frontends.into_values().collect()
}

/// The addresses that a hostPort is on. A hostIP that is not this node's would
/// let a pod's author take any address from all pods of the node, so it
/// leads nowhere until the node has it.
fn addresses(state: &ClusterState, port: &HostPort) -> Vec<IpAddr> {
    let all_of = |family| {
        let nodes = state.node_addresses().iter().copied();
        let nodes = nodes.filter(move |address| Family::of(*address) == family);
        nodes.chain([loopback(family)])
    };
    match port.host_ip {
        None => all_of(Family::V4).chain(all_of(Family::V6)).collect(),
        Some(any) if any.is_unspecified() => all_of(Family::of(any)).collect(),
        Some(one) if one.is_loopback() || state.node_addresses().contains(&one) => vec![one],
        Some(_) => Vec::new(),
    }
}

/// The pod's address of a family.
fn address_of(pod: &Pod, family: Family) -> Option<IpAddr> {
    let mut addresses = pod.addresses.iter().copied();
    addresses.find(|address| Family::of(*address) == family)
}

/// Address and port in the pod behind a hostPort, while the pod runs.
pub(super) fn serving<'a>(
    state: &'a ClusterState,
    name: &NamespacedName,
    id: &'a PortId,
) -> impl Iterator<Item = (IpAddr, u16)> + 'a {
    let pod = state.pod(name).filter(|pod| pod.is_running);
    pod.into_iter().flat_map(move |pod| {
        let ports = pod.host_ports.iter();
        let ports = ports.filter(|port| port.host_port == id.port && port.protocol == id.protocol);
        ports.flat_map(move |port| {
            let addresses = pod.addresses.iter();
            addresses.map(|address| (*address, port.container_port))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Change, Dirty, Protocol};

    fn told(host_ip: Option<&str>, addresses: &[&str], is_running: bool) -> Vec<String> {
        let ip = |text: &&str| text.parse::<IpAddr>().unwrap();
        let mut state = ClusterState::default();
        let mut say = |change| state.apply(change, &mut Dirty::default());
        let node = ["10.20.0.11", "fd00::11"].iter().map(ip).collect();
        say(Change::NodeAddresses(node));
        say(Change::Pod(Box::new(Pod {
            name: NamespacedName::new("shop", "dns"),
            uid: "u".into(),
            addresses: addresses.iter().map(ip).collect(),
            host_network: false,
            host_ports: vec![HostPort {
                host_ip: host_ip.as_ref().map(ip),
                host_port: 53,
                container_port: 5353,
                protocol: Protocol::Udp,
            }],
            is_running,
            opted_out: false,
        })));
        let frontends = host_ports(&state, &NamespacedName::new("shop", "dns"));
        let one = |f: &DesiredFrontend| {
            let [backend] = &f.backends[..] else {
                panic!("one pod is behind a hostPort");
            };
            let (address, port) = (backend.address, u16::from_be(backend.port_be));
            assert_eq!((port, f.owner.port), (5353, 53));
            format!("{} {}", f.key.address, IpAddr::from(address))
        };
        frontends.iter().map(one).collect()
    }

    #[test]
    fn is_on_every_address_or_on_the_one_it_names() {
        let both = &["10.20.0.50", "fd00::50"][..];
        let v4 = ["10.20.0.11 10.20.0.50", "127.0.0.1 10.20.0.50"];
        let v6 = ["::1 fd00::50", "fd00::11 fd00::50"];
        for (host_ip, addresses, expected) in [
            (None, both, [v4, v6].concat()),
            (None, &both[..1], v4.to_vec()),
            (None, &both[1..], v6.to_vec()),
            (Some("0.0.0.0"), both, v4.to_vec()),
            (Some("::"), both, v6.to_vec()),
            (Some("10.20.0.11"), both, vec![v4[0]]),
            (Some("127.0.0.1"), both, vec![v4[1]]),
            (Some("fd00::11"), &both[..1], vec![]),
            (Some("8.8.8.8"), both, vec![]),
        ] {
            assert_eq!(told(host_ip, addresses, true), expected, "{host_ip:?}");
            assert!(told(host_ip, addresses, false).is_empty(), "{host_ip:?}");
        }
    }
}
