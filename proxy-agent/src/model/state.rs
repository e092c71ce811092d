//! The cluster as last heard, and which sources have been heard in full.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::pod::{Pod, Pods};
use super::service::{EndpointSlice, NamespacedName, Service, SliceKey};

/// One thing that a source says.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A Service is there, new or changed.
    Service(Box<Service>),
    /// A Service is gone, or is no longer ours to serve.
    ServiceGone(NamespacedName),
    /// An EndpointSlice is there, new or changed.
    Slice(Box<EndpointSlice>),
    /// An EndpointSlice is gone.
    SliceGone(SliceKey),
    /// Where a Service's connections from this node go, whatever its endpoints
    /// are; `None`: to its endpoints.
    Redirect {
        /// The Service.
        service: NamespacedName,
        /// An address of this node.
        target: Option<IpAddr>,
    },
    /// The ids of the cgroups that want no service proxy.
    OptedOutCgroups(BTreeSet<u64>),
    /// The network namespaces of this node, by cookie, with their addresses.
    Clients(BTreeMap<u64, Vec<IpAddr>>),
    /// A pod of this node is there, new or changed.
    Pod(Box<Pod>),
    /// A pod of this node is gone.
    PodGone(NamespacedName),
    /// Whether the pods of a namespace want no service proxy.
    NamespaceOptOut {
        /// The namespace.
        namespace: Arc<str>,
        /// Whether they want none.
        opted_out: bool,
    },
    /// The zone that this node is in.
    Zone(Option<Arc<str>>),
    /// This node is being deleted, or is not any more.
    NodeLeaving(bool),
    /// The addresses that this node answers on.
    NodeAddresses(BTreeSet<IpAddr>),
    /// The networks whose addresses have NodePorts; of a family without any,
    /// all addresses have.
    NodePortNetworks(Vec<IpNetwork>),
    /// An object of this kind was refused for what it says.
    Refused(Arc<str>),
    /// A source's first list has been told in full.
    Synced(SourceKind),
}

/// Whose first list is waited for before anything is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourceKind {
    /// Services.
    Services,
    /// EndpointSlices.
    EndpointSlices,
    /// This node: its zone and addresses.
    Node,
    /// The pods of this node.
    Pods,
    /// Namespaces.
    Namespaces,
}

impl SourceKind {
    /// Every source.
    pub const ALL: [Self; 5] = [
        Self::Services,
        Self::EndpointSlices,
        Self::Node,
        Self::Pods,
        Self::Namespaces,
    ];
}

/// What has to be compiled again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// These Services.
    pub services: HashSet<NamespacedName>,
    /// These pods.
    pub pods: HashSet<NamespacedName>,
    /// All of them: something changed that everything depends on.
    pub all: bool,
}

/// The cluster as this node sees it. The order in which changes come does not
/// matter to where it ends.
#[derive(Debug, Default)]
pub struct ClusterState {
    revision: u64,
    services: HashMap<NamespacedName, Arc<Service>>,
    /// Sorted by name. Nearly always one.
    slices: HashMap<NamespacedName, Vec<Arc<EndpointSlice>>>,
    names: Names,
    redirects: HashMap<NamespacedName, IpAddr>,
    pods: Pods,
    clients: BTreeMap<u64, Vec<IpAddr>>,
    opted_out_cgroups: BTreeSet<u64>,
    /// Services with source ranges: few, and looked at each round.
    restricted: BTreeSet<NamespacedName>,
    zone: Option<Arc<str>>,
    node_is_leaving: bool,
    node_addresses: BTreeSet<IpAddr>,
    node_port_networks: Vec<IpNetwork>,
    refused: BTreeMap<Arc<str>, u64>,
    synced: BTreeSet<SourceKind>,
}

impl ClusterState {
    /// Takes one change in, and notes in `dirty` what depends on it.
    pub fn apply(&mut self, change: Change, dirty: &mut Dirty) {
        self.revision += 1;
        match change {
            Change::Service(service) => {
                dirty.services.insert(service.name.clone());
                if service.source_ranges.is_empty() {
                    self.restricted.remove(&service.name);
                } else {
                    self.restricted.insert(service.name.clone());
                }
                self.services
                    .insert(service.name.clone(), Arc::from(service));
            }
            Change::ServiceGone(name) => {
                self.restricted.remove(&name);
                if self.services.remove(&name).is_some() {
                    dirty.services.insert(name);
                }
            }
            Change::Slice(mut slice) => {
                self.names.share(&mut slice);
                let service = slice.key.service.clone();
                let slices = self
                    .slices
                    .entry(service.clone())
                    .or_insert_with(|| Vec::with_capacity(1));
                match slices.binary_search_by(|known| known.key.slice.cmp(&slice.key.slice)) {
                    Ok(index) => slices[index] = Arc::from(slice),
                    Err(index) => slices.insert(index, Arc::from(slice)),
                }
                dirty.services.insert(service);
            }
            Change::SliceGone(key) => {
                let Some(slices) = self.slices.get_mut(&key.service) else {
                    return;
                };
                let before = slices.len();
                slices.retain(|slice| slice.key.slice != key.slice);
                if slices.len() < before {
                    dirty.services.insert(key.service.clone());
                }
                if slices.is_empty() {
                    self.slices.remove(&key.service);
                }
            }
            Change::Redirect { service, target } => {
                match target {
                    Some(target) => drop(self.redirects.insert(service.clone(), target)),
                    None => drop(self.redirects.remove(&service)),
                }
                dirty.services.insert(service);
            }
            Change::Clients(clients) => self.clients = clients,
            Change::OptedOutCgroups(cgroups) => self.opted_out_cgroups = cgroups,
            Change::Pod(pod) => {
                let name = pod.name.clone();
                if self.pods.insert(pod) {
                    dirty.pods.insert(name);
                }
            }
            Change::PodGone(name) => {
                if self.pods.remove(&name) {
                    dirty.pods.insert(name);
                }
            }
            Change::NamespaceOptOut {
                namespace,
                opted_out,
            } => self.pods.set_opt_out(namespace, opted_out),
            Change::Zone(zone) => {
                dirty.all |= self.zone != zone;
                self.zone = zone;
            }
            Change::NodeLeaving(leaving) => self.node_is_leaving = leaving,
            Change::NodeAddresses(addresses) => {
                dirty.all |= self.node_addresses != addresses;
                self.node_addresses = addresses;
            }
            Change::NodePortNetworks(networks) => {
                dirty.all |= self.node_port_networks != networks;
                self.node_port_networks = networks;
            }
            Change::Refused(kind) => *self.refused.entry(kind).or_default() += 1,
            Change::Synced(source) => {
                self.synced.insert(source);
            }
        }
    }

    /// How many objects were refused, by kind.
    #[must_use]
    pub fn refused(&self) -> &BTreeMap<Arc<str>, u64> {
        &self.refused
    }

    /// How many changes were taken in.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The sources whose first list has not been told in full.
    pub fn unsynced(&self) -> impl Iterator<Item = SourceKind> + '_ {
        SourceKind::ALL
            .into_iter()
            .filter(|source| !self.synced.contains(source))
    }

    /// Whether every source has been heard in full.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.unsynced().next().is_none()
    }

    /// One Service.
    #[must_use]
    pub fn service(&self, name: &NamespacedName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// Every Service, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The slices of one Service, by name.
    pub fn slices(&self, service: &NamespacedName) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.slices.get(service).into_iter().flatten()
    }

    /// Where connections to a Service go instead of to its endpoints.
    #[must_use]
    pub fn redirect(&self, service: &NamespacedName) -> Option<IpAddr> {
        self.redirects.get(service).copied()
    }

    /// This node's network namespaces, by cookie, with their addresses.
    #[must_use]
    pub fn clients(&self) -> &BTreeMap<u64, Vec<IpAddr>> {
        &self.clients
    }

    /// The ids of the cgroups that want no service proxy.
    #[must_use]
    pub fn opted_out_cgroups(&self) -> &BTreeSet<u64> {
        &self.opted_out_cgroups
    }

    /// The Services that have source ranges.
    pub fn restricted(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.restricted
            .iter()
            .filter_map(|name| self.services.get(name))
    }

    /// One pod of this node.
    #[must_use]
    pub fn pod(&self, name: &NamespacedName) -> Option<&Arc<Pod>> {
        self.pods.get(name)
    }

    /// The pods of this node, in no order.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter()
    }

    /// The addresses of this node's pods that want no service proxy, because
    /// they or their namespaces say so.
    #[must_use]
    pub fn opted_out_pods(&self) -> BTreeSet<IpAddr> {
        self.pods.opted_out()
    }

    /// The zone that this node is in.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Whether this node is being deleted.
    #[must_use]
    pub fn node_is_leaving(&self) -> bool {
        self.node_is_leaving
    }

    /// The addresses that this node answers on.
    #[must_use]
    pub fn node_addresses(&self) -> &BTreeSet<IpAddr> {
        &self.node_addresses
    }

    /// Whether NodePorts are on an address of this node, loopback included.
    #[must_use]
    pub fn has_node_ports(&self, address: IpAddr) -> bool {
        let mut networks = self
            .node_port_networks
            .iter()
            .filter(|network| network.is_ipv4() == address.is_ipv4())
            .peekable();
        networks.peek().is_none() || networks.any(|network| network.contains(address))
    }
}

/// Names that recur, each kept once: the endpoints of 50,000 Services name the
/// same nodes, zones and ports again and again.
#[derive(Debug, Default)]
struct Names(HashSet<Arc<str>>);

impl Names {
    fn share(&mut self, slice: &mut EndpointSlice) {
        for port in &mut slice.ports {
            self.one(&mut port.name);
        }
        for endpoint in &mut slice.endpoints {
            endpoint.node.iter_mut().for_each(|name| self.one(name));
            let hints = endpoint
                .hint_nodes
                .iter_mut()
                .chain(&mut endpoint.hint_zones);
            hints.for_each(|name| self.one(name));
        }
        slice.endpoints.shrink_to_fit();
    }

    fn one(&mut self, name: &mut Arc<str>) {
        match self.0.get(name) {
            Some(known) => *name = known.clone(),
            None => drop(self.0.insert(name.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ports_are_on_the_networks_named_and_a_family_without_any_has_all() {
        let on = |networks: &[&str]| {
            let mut state = ClusterState::default();
            let networks = networks.iter().map(|text| text.parse().unwrap());
            let change = Change::NodePortNetworks(networks.collect());
            state.apply(change, &mut Dirty::default());
            let all = ["10.20.0.11", "192.0.2.1", "127.0.0.1", "fd00::11", "::1"];
            all.into_iter()
                .filter(|text| state.has_node_ports(text.parse().unwrap()))
                .collect::<Vec<_>>()
                .join(" ")
        };
        for (networks, expected) in [
            (&[][..], "10.20.0.11 192.0.2.1 127.0.0.1 fd00::11 ::1"),
            (&["10.20.0.0/24"], "10.20.0.11 fd00::11 ::1"),
            (&["10.20.0.99/24"], "10.20.0.11 fd00::11 ::1"),
            (&["127.0.0.0/8"], "127.0.0.1 fd00::11 ::1"),
            (
                &["0.0.0.0/0", "::1/128"],
                "10.20.0.11 192.0.2.1 127.0.0.1 ::1",
            ),
            (&["198.51.100.0/24", "fd00::/64"], "fd00::11"),
        ] {
            assert_eq!(on(networks), expected, "{networks:?}");
        }
    }
}
