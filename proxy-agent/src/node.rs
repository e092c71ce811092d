//! The addresses that this node answers on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_netlink::Handle;

/// Every address of the namespace that a NodePort is served on: not loopback
/// ones (those are served apart) and not IPv6 link-local ones, which need an
/// interface to mean anything.
///
/// # Errors
/// When the kernel does not list them.
pub fn addresses() -> berth_netlink::Result<BTreeSet<IpAddr>> {
    let all = Handle::new()?.addresses(None)?;
    let serves = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    Ok(all
        .into_iter()
        .map(|address| address.network.ip())
        .filter(serves)
        .collect())
}
