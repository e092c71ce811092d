//! The agent's address service, on its socket: what `berth-cni` and `berth`
//! ask, and what they are told. JSON; field names are stable.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /v1/addresses/acquire` with [`Acquire`] | [`Acquired`], or [`Refused`] |
//! | `POST /v1/addresses/release` with [`Release`] | [`Released`], or [`Refused`] |
//! | `GET /v1/addresses?pool=` | list of [`Address`] |
//! | `GET /v1/addresses/{ip}` | [`Address`]; 404: nobody ever had it |

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::pool::IpPool;

/// One interface asks for its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acquire {
    /// `K8S_POD_NAMESPACE`.
    #[serde(default)]
    pub namespace: String,
    /// `K8S_POD_NAME`.
    #[serde(default)]
    pub name: String,
    /// `K8S_POD_UID`.
    #[serde(default)]
    pub uid: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// The pod's annotations as the runtime passes them, and what the
    /// configuration asks for in their place.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// One address given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Given {
    /// The address.
    pub address: IpAddr,
    /// The pool that says how it is wired.
    pub pool: IpPool,
}

/// What an interface gets: at most one address of each family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Acquired {
    /// The addresses.
    pub given: Vec<Given>,
}

/// One sandbox lets go of an interface's addresses; or, with `address`, an
/// admin ends the claim on one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// `CNI_CONTAINERID`.
    #[serde(default)]
    pub container_id: String,
    /// `CNI_IFNAME`.
    #[serde(default)]
    pub ifname: String,
    /// The address of which the claim is to end, whoever has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Also if a sandbox uses it now.
    #[serde(default)]
    pub force: bool,
}

/// Which addresses were let go of; none if the sandbox held none any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// The addresses.
    pub released: Vec<IpAddr>,
}

/// Why a request was refused, as far as the asker acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The same may succeed a little later.
    TryAgain,
    /// No pool can be used.
    Pool,
    /// An annotation cannot be read or kept to.
    Annotation,
    /// The address is another's.
    Taken,
    /// The address is in no pool.
    OutsidePools,
    /// No address is left.
    Exhausted,
    /// The store of allocations failed.
    Store,
}

/// A request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What is wrong, and what to do.
    pub problem: String,
    /// How to act on it.
    pub reason: Reason,
}

/// What is known of one address. Moments are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// The pool that it came from.
    pub pool: String,
    /// `held`, `kept`, `resting` or `free`.
    pub state: AddressState,
    /// Who owns it for long, or owned it last, in words.
    pub owner: String,
    /// Namespace of the workload, or of the bare pod.
    pub namespace: String,
    /// Name of the workload, or of the bare pod.
    pub workload: String,
    /// The pod that uses it, or used it last: `namespace/name`.
    pub pod: String,
    /// The keep policy.
    pub keep: String,
    /// When the owner got it.
    pub since: u64,
    /// The live sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// The node that the sandbox is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When it was last let go of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<u64>,
    /// When others may have it, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_at: Option<u64>,
}

/// How an address is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressState {
    /// By a live sandbox.
    Held,
    /// By none, but it is kept for its owner.
    Kept,
    /// By none, and free by itself in some time.
    Resting,
    /// Others may have it.
    Free,
}
