//! Services and endpoints, as the proxy sees them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnetwork::IpNetwork;

/// `namespace/name`. Cheap to clone: it is the key of most tables.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl NamespacedName {
    /// From its two parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP: on the packet path only.
    Sctp,
}

impl Protocol {
    /// The IP protocol number (IANA).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// From the IP protocol number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// `internalTrafficPolicy` and `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficPolicy {
    /// Any usable endpoint.
    #[default]
    Cluster,
    /// Only endpoints on the node where the connection is made or arrives.
    Local,
}

/// One Service that the proxy serves. Headless and ExternalName Services, and
/// those of another proxy, never become one.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Which Service.
    pub name: NamespacedName,
    /// The cluster IPs, at most one a family.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` with `ipMode: VIP`.
    pub load_balancer_ips: Vec<IpAddr>,
    /// The ports, in the order of the object.
    pub ports: Vec<ServicePort>,
    /// `sessionAffinity: ClientIP` with its timeout.
    pub affinity: Option<Duration>,
    /// For connections to a cluster IP.
    pub internal_policy: TrafficPolicy,
    /// For connections from outside to a NodePort or an external address.
    pub external_policy: TrafficPolicy,
    /// `loadBalancerSourceRanges`; empty allows everybody.
    pub source_ranges: Vec<IpNetwork>,
    /// `healthCheckNodePort`, of a LoadBalancer with an external policy Local.
    pub health_check_node_port: Option<u16>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty for a Service's only port, if it has no name.
    pub name: Arc<str>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The port that clients use.
    pub port: u16,
    /// The port on every node, if there is one.
    pub node_port: Option<u16>,
}

/// Whose frontends they are. Of several that claim one address the first in
/// this order has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// A Service.
    Service(NamespacedName),
    /// A pod of this node, with its hostPorts.
    Pod(NamespacedName),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "{name}"),
            Self::Pod(name) => write!(f, "pod/{name}"),
        }
    }
}

/// One port of a Service, or one hostPort of a pod: what affinity and counters
/// are kept by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId {
    /// Whose port.
    pub owner: Owner,
    /// The port's number: a Service's own, or a pod's hostPort.
    pub port: u16,
    /// The port's protocol.
    pub protocol: Protocol,
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.owner, self.port, self.protocol)
    }
}

/// Which EndpointSlice: its own name and the Service that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SliceKey {
    /// From the label `kubernetes.io/service-name`.
    pub service: NamespacedName,
    /// `metadata.name`.
    pub slice: Arc<str>,
}

/// One EndpointSlice.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSlice {
    /// Which slice of which Service.
    pub key: SliceKey,
    /// The ports that every endpoint of the slice serves.
    pub ports: Vec<EndpointPort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
    /// When what made the slice change happened, as the annotation
    /// `endpoints.kubernetes.io/last-change-trigger-time` says.
    pub triggered: Option<SystemTime>,
}

/// One port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// Matches [`ServicePort::name`].
    pub name: Arc<str>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The port that the pods listen on.
    pub port: u16,
}

/// One endpoint, with the defaults of the API filled in (KEP-1672).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod's address.
    pub address: IpAddr,
    /// `conditions.ready`; absent means true.
    pub ready: bool,
    /// `conditions.serving`; absent means the same as `ready`.
    pub serving: bool,
    /// `conditions.terminating`; absent means false.
    pub terminating: bool,
    /// `nodeName`.
    pub node: Option<Arc<str>>,
    /// `hints.forNodes`.
    pub hint_nodes: Vec<Arc<str>>,
    /// `hints.forZones`.
    pub hint_zones: Vec<Arc<str>>,
}
