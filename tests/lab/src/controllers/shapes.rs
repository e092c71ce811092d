//! The fields of Kubernetes objects that the stand-in reads. Everything else
//! in an object is passed on as it came.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::probe::echo::Protocol;

/// Labels or annotations.
pub type Labels = BTreeMap<String, String>;

/// Deployment, ReplicaSet, StatefulSet or DaemonSet.
#[derive(Clone, Debug, Deserialize)]
pub struct Workload {
    /// What is to run.
    pub spec: WorkloadSpec,
}

/// The part of the four kinds' specs that they share, and what some have.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSpec {
    /// How many pods; 1 if none. Not in DaemonSets.
    pub replicas: Option<u32>,
    /// Which pods are its own.
    pub selector: Selector,
    /// What each pod looks like.
    pub template: Template,
    /// StatefulSet: its governing Service.
    #[serde(default)]
    pub service_name: String,
    /// StatefulSet: where to begin counting.
    #[serde(default)]
    pub ordinals: Ordinals,
}

/// `spec.ordinals` of a StatefulSet.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Ordinals {
    /// The first pod's number.
    #[serde(default)]
    pub start: u32,
}

/// A label selector; expressions are not looked at.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// All of these.
    #[serde(default)]
    pub match_labels: Labels,
}

/// A pod, or the template of one.
#[derive(Clone, Debug, Deserialize)]
pub struct Template {
    /// Labels and annotations.
    #[serde(default)]
    pub metadata: Meta,
    /// Containers and the rest.
    pub spec: PodSpec,
}

/// Labels and annotations.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Meta {
    /// Labels.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub labels: Labels,
    /// Annotations.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub annotations: Labels,
}

/// A pod's spec.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// At least one.
    pub containers: Vec<Container>,
    /// Whether it lives in its node's namespace.
    #[serde(default)]
    pub host_network: bool,
    /// The node that it is bound to.
    pub node_name: Option<String>,
    /// Its host name, if not its own name.
    pub hostname: Option<String>,
    /// The Service under whose name its host name is found.
    pub subdomain: Option<String>,
}

/// A container.
#[derive(Clone, Debug, Deserialize)]
pub struct Container {
    /// The ports that it says it has.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub ports: Vec<ContainerPort>,
}

/// A container's port.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// For named targetPorts.
    pub name: Option<String>,
    /// Number.
    pub container_port: u16,
    /// TCP if none.
    #[serde(default = "tcp")]
    pub protocol: String,
}

/// A Service's spec.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// ClusterIP, NodePort, LoadBalancer or ExternalName.
    #[serde(rename = "type", default = "cluster_ip")]
    pub kind: String,
    /// An address, `None`, or empty.
    #[serde(rename = "clusterIP", default)]
    pub cluster_ip: String,
    /// The pods it stands for; none: somebody else writes the slices.
    pub selector: Option<Labels>,
    /// Its ports.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub ports: Vec<ServicePort>,
    /// Whether pods that are not ready count too.
    #[serde(default)]
    pub publish_not_ready_addresses: bool,
}

/// A Service's port.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Needed if there are several.
    pub name: Option<String>,
    /// TCP if none.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// The port of the Service.
    pub port: u16,
    /// The pod's port, by number or name; the same as `port` if none.
    pub target_port: Option<TargetPort>,
    /// The port on every node.
    pub node_port: Option<u16>,
}

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By a container port's name.
    Name(String),
}

/// What owns a pod, as in `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// `apps/v1`.
    pub api_version: String,
    /// `ReplicaSet`, ...
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Always true here.
    pub controller: bool,
}

/// The protocols that the echo server speaks; SCTP is not one of them.
#[must_use]
pub fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

/// Whether `labels` has all of `selector`.
#[must_use]
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector
        .iter()
        .all(|(name, value)| labels.get(name) == Some(value))
}

/// The addresses in a `clusterIP` field.
#[must_use]
pub fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

fn tcp() -> String {
    "TCP".to_owned()
}

fn cluster_ip() -> String {
    "ClusterIP".to_owned()
}

/// An explicit null is an empty list, as for an API server.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Sets `path` in an object, making the objects above it.
///
/// # Panics
/// If something on the way is not an object: callers have decoded it before.
pub fn set(value: &mut Value, path: &[&str], new: Value) {
    let mut at = value;
    for name in path {
        at = &mut at[*name];
    }
    *at = new;
}
