//! The kernel's side of an attachment: the macvlan in the pod, the shim on the
//! host, their routes and neighbours. Knows addresses and interfaces, nothing
//! of stores, runtimes or configuration.

pub(crate) mod announce;
pub(crate) mod parent;
pub(crate) mod pod;
pub(crate) mod shim;

use std::net::IpAddr;
use std::path::Path;

use berth_netlink::{Handle, Netns};
use ipnetwork::IpNetwork;

use crate::error::{CniError, Code};

/// A pod's namespace, open.
#[derive(Debug)]
pub(crate) struct PodNetns {
    pub(crate) netns: Netns,
    pub(crate) handle: Handle,
}

impl PodNetns {
    /// Opens the namespace that a runtime named.
    pub(crate) fn open(path: &Path) -> Result<Self, CniError> {
        let invalid = |problem: String| {
            CniError::new(
                Code::InvalidNetns,
                format!("CNI_NETNS {}: {problem}", path.display()),
            )
        };
        let netns = Netns::open(path).map_err(|e| invalid(e.to_string()))?;
        let own = Netns::current()?;
        if netns.id() == own.id() {
            return Err(invalid(
                "is the namespace that this program runs in; a pod on the host's network needs no CNI".to_owned(),
            ));
        }
        let handle = Handle::in_netns(&netns).map_err(|e| invalid(e.to_string()))?;
        Ok(Self { netns, handle })
    }

    /// Opens it if it is still a namespace: after a sandbox has gone the path
    /// is missing, or a plain file that was a mount point.
    pub(crate) fn if_alive(path: &Path) -> Option<Self> {
        Self::open(path).ok()
    }
}

/// `address` as the only one of its network.
pub(crate) fn alone(address: IpAddr) -> IpNetwork {
    IpNetwork::from(address)
}

/// What a change is that has been made already.
pub(crate) fn or_gone(
    result: Result<(), berth_netlink::Error>,
) -> Result<(), berth_netlink::Error> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
