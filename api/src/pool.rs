//! `IPPool` (`berth.dev/v1alpha1`): which addresses exist, and how a pod that
//! holds one of them is wired. Shapes only; the rules are in `ipam`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// `apiVersion` of Berth's own objects.
pub const API_VERSION: &str = "berth.dev/v1alpha1";

/// One pool of addresses on one subnet of the company's network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpPool {
    /// Name and labels.
    pub metadata: PoolMeta,
    /// What the admin wrote.
    pub spec: IpPoolSpec,
}

/// The part of a pool's metadata that Berth reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolMeta {
    /// The pool's name.
    pub name: String,
}

/// What an admin says about a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpPoolSpec {
    /// The subnet that the addresses are on, such as `10.20.0.0/24`.
    pub subnet: IpNetwork,
    /// Addresses that pods may have: `10.20.0.50-10.20.0.99`, `10.20.0.7` or a
    /// CIDR. Empty means the whole subnet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<String>,
    /// Addresses that pods may not have, in the same forms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// The subnet's router; pods get a default route through it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Further routes for pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<PoolRoute>,
    /// 802.1Q tag, 1 to 4094; none means untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The node's physical interface. Without it: the one that holds `subnet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// How pods share the parent.
    #[serde(default)]
    pub mode: PoolMode,
    /// MTU of the pods' interface; without it, the parent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether pods that name no pool get addresses from this one.
    #[serde(default)]
    pub default: bool,
    /// Among equal choices the pool with the highest number is taken first.
    #[serde(default)]
    pub priority: i32,
    /// The keep policy of pods that name none: `pod`, `app`, a duration, `forever`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<String>,
    /// How long a free address rests before somebody else gets it, such as `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cool_down: Option<String>,
}

/// One route that a pool gives to its pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRoute {
    /// Destination.
    pub dst: IpNetwork,
    /// Next hop; without it, the pool's gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

/// How pods share the parent interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolMode {
    /// A MAC of its own for each pod.
    #[default]
    Macvlan,
    /// The parent's MAC for all, for switches and hypervisors that drop others.
    Ipvlan,
}
