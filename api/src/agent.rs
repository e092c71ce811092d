//! What the agent answers on its socket, as JSON. Field names are stable;
//! new ones may appear.
//!
//! | path | answer |
//! | --- | --- |
//! | `/v1/ready` | [`Readiness`] |
//! | `/v1/services` | list of [`ServiceSummary`] |
//! | `/v1/services/NAMESPACE/NAME` | [`ServiceDetail`], or 404 with [`Problem`] |
//! | `/v1/trace?from=..&to=..&protocol=..` | [`Trace`] |
//! | `/v1/dump/STAGE?format=json` | [`Dump`] |

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Where the agent listens, unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/berth/agent.sock";

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, and what to do.
    pub problem: String,
}

/// Whether this node can be sent traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// It can.
    pub ready: bool,
    /// Why it can not.
    pub reasons: Vec<String>,
}

/// One Service in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSummary {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The cluster IPs.
    pub cluster_ips: Vec<IpAddr>,
    /// The externalIPs and the load balancer's addresses.
    pub external_ips: Vec<IpAddr>,
    /// Each as `80/TCP` or `80:30080/TCP`.
    pub ports: Vec<String>,
    /// Endpoint addresses, in any state.
    pub endpoints: usize,
    /// Of those, ready.
    pub ready: usize,
    /// Of the ready ones, on this node.
    pub local: usize,
    /// Frontends that the maps should hold and do not, or hold otherwise.
    pub failing: usize,
}

/// One Service in full, as this node serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDetail {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// This node.
    pub node: String,
    /// The zone that it is in.
    pub zone: Option<String>,
    /// `internalTrafficPolicy`.
    pub internal_policy: String,
    /// `externalTrafficPolicy`.
    pub external_policy: String,
    /// `sessionAffinity: ClientIP`: its timeout.
    pub affinity_seconds: Option<u64>,
    /// `loadBalancerSourceRanges`.
    pub source_ranges: Vec<String>,
    /// `healthCheckNodePort`.
    pub health_check_node_port: Option<u16>,
    /// Every address that this node's own connections find the Service at.
    pub frontends: Vec<Frontend>,
    /// What the programs counted on this node, for all Services together.
    pub node_counters: BTreeMap<String, u64>,
}

/// One address and port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frontend {
    /// Address and port.
    pub address: SocketAddr,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// `ClusterIP`, `externalIP`, `LoadBalancer` or `NodePort`.
    pub kind: String,
    /// The traffic policy for connections of this node.
    pub policy: String,
    /// Every endpoint of the port, used or not.
    pub endpoints: Vec<Endpoint>,
    /// What the maps hold for the address; none when they do not have it.
    pub maps: Option<MapEntry>,
    /// Why the maps are not as they should be.
    pub problem: Option<String>,
}

/// One endpoint, seen from this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The pod's address and port.
    pub address: SocketAddr,
    /// The node that it is on.
    pub node: Option<String>,
    /// Whether new connections go to it.
    pub used: bool,
    /// One word for why: `Ready`, `OtherZone`, `NotLocal`, ...
    pub reason: String,
    /// The same as a sentence.
    pub why: String,
}

/// One frontend as the maps have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapEntry {
    /// The number of the Service port, the same in all of its frontends.
    pub service: u32,
    /// Where connections go.
    pub backends: Vec<SocketAddr>,
}

/// What happens to a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// Who connects, as it was asked.
    pub from: String,
    /// What this agent knows of them.
    pub client: String,
    /// The address that is connected to.
    pub to: SocketAddr,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// What happens.
    pub outcome: Outcome,
    /// Which path the connection takes, and why, a step a line.
    pub steps: Vec<String>,
    /// The Service, as `namespace/name`.
    pub service: Option<String>,
    /// The frontend that the address is.
    pub frontend: Option<Frontend>,
}

/// How a connection ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Translated on the socket path to one of the backends.
    Translated,
    /// Refused: the Service has no usable endpoint.
    NoEndpoints,
    /// Failed at once: the policy is Local, and no endpoint is on this node.
    NoLocalEndpoints,
    /// Left as it is: the address is not a Service's.
    NotAService,
    /// Left as it is although the address is a Service's: the maps do not
    /// hold it.
    NotInMaps,
}

/// One stage of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "stage", content = "content")]
pub enum Dump {
    /// Services as heard.
    Model(Vec<ServiceSummary>),
    /// What the maps should say.
    Desired(Vec<DumpedFrontend>),
    /// What the maps say.
    Realized(Vec<DumpedFrontend>),
    /// What the programs counted.
    Counters(BTreeMap<String, u64>),
}

/// One frontend of a dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DumpedFrontend {
    /// Address and port.
    pub address: SocketAddr,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// `socket` or `wire`.
    pub scope: String,
    /// The Service port, as `namespace/name:port/protocol`, if it is known.
    pub service: Option<String>,
    /// Session affinity; 0 is none.
    pub affinity_seconds: u32,
    /// Where connections go; those on this node first.
    pub backends: Vec<SocketAddr>,
    /// How many of the first backends are on this node.
    pub local: u32,
}
