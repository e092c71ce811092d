//! One Service, or one pod's hostPorts, to frontends: every address and port that it answers on,
//! each with the backends behind it, in the order of the slots.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_abi::{Addr, Backend, Frontend, Scope};
use berth_api::mac::pod_mac;

use super::endpoints::{Choice, NodeView, choose, is_on};
use super::host_ports::host_ports;
use crate::model::{
    ClusterState, Endpoint, Family, NamespacedName, Owner, PortId, Protocol, Service, ServicePort,
    TrafficPolicy,
};

/// An address that somebody can connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendKey {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// For whom.
    pub scope: Scope,
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = std::net::SocketAddr::new(self.address, self.port);
        write!(f, "{socket}/{}", self.protocol)?;
        match self.scope {
            Scope::Socket => Ok(()),
            Scope::Wire => f.write_str(" (wire)"),
        }
    }
}

/// What the maps should say about one frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredFrontend {
    /// The address.
    pub key: FrontendKey,
    /// Whose it is.
    pub owner: PortId,
    /// The backends, those on this node first, each part sorted by address.
    pub backends: Vec<Backend>,
    /// How many of `backends` are on this node.
    pub local_count: u32,
    /// Session affinity in seconds; 0 is none.
    pub affinity_seconds: u32,
    /// [`Frontend::flags`].
    pub flags: u32,
}

/// The frontends of `owner`, sorted by key; none if it is not there.
#[must_use]
pub fn compile(state: &ClusterState, node: &str, owner: &Owner) -> Vec<DesiredFrontend> {
    match owner {
        Owner::Service(name) => service(state, node, name),
        Owner::Pod(name) => host_ports(state, name),
    }
}

fn service(state: &ClusterState, node: &str, name: &NamespacedName) -> Vec<DesiredFrontend> {
    let Some(service) = state.service(name) else {
        return Vec::new();
    };
    let view = NodeView {
        node,
        zone: state.zone(),
    };
    let mut frontends = BTreeMap::new();
    for port in &service.ports {
        for family in [Family::V4, Family::V6] {
            let endpoints = endpoints_of(state, service, port, family);
            let redirect = state
                .redirect(name)
                .filter(|target| Family::of(*target) == family);
            for (address, number, policy) in addresses(state, service, port, family) {
                let key = socket_key(address, number, port.protocol);
                frontends.entry(key).or_insert_with(|| {
                    let mut made = frontend(key, service, port, &endpoints, policy, view);
                    // The ranges guard what a load balancer would guard.
                    let is_guarded = service.load_balancer_ips.contains(&address);
                    if is_guarded && !service.source_ranges.is_empty() {
                        made.flags |= Frontend::RESTRICTED;
                    }
                    if let Some(target) = redirect {
                        made.backends = vec![backend(target, port.port, true)];
                        made.local_count = 1;
                        made.flags &= !Frontend::LOCAL_ONLY;
                    }
                    made
                });
            }
        }
    }
    frontends.into_values().collect()
}

/// What a connection of this node's own to an address is looked up by.
pub(super) const fn socket_key(address: IpAddr, port: u16, protocol: Protocol) -> FrontendKey {
    FrontendKey {
        address,
        port,
        protocol,
        scope: Scope::Socket,
    }
}

/// The addresses of one family that a port answers on for sockets of this
/// node, and the policy that holds there. A pod's or node's own connection to
/// an external address reaches any endpoint, whatever the external policy
/// (spec/proxy row 7).
pub(super) fn addresses(
    state: &ClusterState,
    service: &Service,
    port: &ServicePort,
    family: Family,
) -> Vec<(IpAddr, u16, TrafficPolicy)> {
    let of_family = |address: &&IpAddr| Family::of(**address) == family;
    let mut found: Vec<_> = service
        .cluster_ips
        .iter()
        .filter(of_family)
        .map(|address| (*address, port.port, service.internal_policy))
        .collect();
    // A family that the Service does not have has no other addresses either.
    if found.is_empty() {
        return found;
    }
    let outside = service
        .external_ips
        .iter()
        .chain(&service.load_balancer_ips);
    found.extend(
        outside
            .filter(of_family)
            .map(|address| (*address, port.port, TrafficPolicy::Cluster)),
    );
    if let Some(node_port) = port.node_port {
        let nodes = state.node_addresses().iter().filter(of_family).copied();
        found.extend(
            nodes
                .chain([loopback(family)])
                .filter(|address| state.has_node_ports(*address))
                .map(|address| (address, node_port, TrafficPolicy::Cluster)),
        );
    }
    found
}

/// The node's own name for itself.
pub(super) const fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

/// One address of a Service port's endpoints, with the port it listens on.
pub(super) type PortEndpoint<'a> = (&'a Endpoint, u16);

pub(super) fn endpoints_of<'a>(
    state: &'a ClusterState,
    service: &Service,
    port: &ServicePort,
    family: Family,
) -> Vec<PortEndpoint<'a>> {
    let mut found = BTreeMap::new();
    for slice in state.slices(&service.name) {
        let target = slice
            .ports
            .iter()
            .find(|p| p.name == port.name && p.protocol == port.protocol);
        let Some(target) = target else { continue };
        for endpoint in &slice.endpoints {
            if Family::of(endpoint.address) != family {
                continue;
            }
            // While an endpoint moves from one slice to another it is in both;
            // the one that is ready is the newer.
            let known = found
                .entry((endpoint.address, target.port))
                .or_insert(endpoint);
            if endpoint.ready && !known.ready {
                *known = endpoint;
            }
        }
    }
    found
        .into_iter()
        .map(|((_, port), endpoint)| (endpoint, port))
        .collect()
}

fn frontend(
    key: FrontendKey,
    service: &Service,
    port: &ServicePort,
    endpoints: &[PortEndpoint<'_>],
    policy: TrafficPolicy,
    view: NodeView<'_>,
) -> DesiredFrontend {
    let all: Vec<_> = endpoints.iter().map(|(endpoint, _)| *endpoint).collect();
    let Choice {
        endpoints: chosen,
        only_elsewhere,
    } = choose(&all, policy, view);
    // `chosen` keeps the order of `all`, so one walk pairs them up again.
    let mut rest = chosen.into_iter().peekable();
    let mut local = Vec::new();
    let mut remote = Vec::new();
    for (endpoint, target) in endpoints {
        if rest
            .next_if(|next| std::ptr::eq(*next, *endpoint))
            .is_none()
        {
            continue;
        }
        let is_local = is_on(endpoint, view.node);
        let list = if is_local { &mut local } else { &mut remote };
        list.push(backend(endpoint.address, *target, is_local));
    }
    let local_count = u32::try_from(local.len()).expect("slots are counted in 32 bits");
    local.append(&mut remote);
    DesiredFrontend {
        key,
        owner: PortId {
            owner: Owner::Service(service.name.clone()),
            port: port.port,
            protocol: port.protocol,
        },
        backends: local,
        local_count,
        affinity_seconds: service.affinity.map_or(0, |timeout| {
            u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX)
        }),
        flags: if only_elsewhere {
            Frontend::LOCAL_ONLY
        } else {
            0
        },
    }
}

pub(super) fn backend(address: IpAddr, port: u16, is_local: bool) -> Backend {
    Backend {
        address: Addr::from(address),
        port_be: port.to_be(),
        mac: pod_mac(address).0,
        flags: if is_local { Backend::ON_THIS_NODE } else { 0 },
        reserved: [0; 3],
    }
}
