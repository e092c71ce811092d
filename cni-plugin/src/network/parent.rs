//! Which of the node's interfaces a pod's macvlan goes on, and which addresses
//! the node has there.

use std::net::IpAddr;

use berth_api::pool::PoolMode;
use berth_ipam::{Grant, Pool};
use berth_netlink::{Address, Handle, Link, MAIN_TABLE};

use crate::error::{CniError, Code};

/// The node's interface under a pod.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) link: Link,
    /// The node's addresses that pods on this parent talk to, IPv4 first.
    pub(crate) node: Vec<IpAddr>,
}

/// Finds the one parent of all pools that a pod's addresses came from.
pub(crate) fn find(host: &Handle, grants: &[Grant<'_>]) -> Result<Parent, CniError> {
    let addresses = host.addresses(None)?;
    let mut found: Option<(Link, &Pool)> = None;
    for grant in grants {
        let link = of_pool(host, &addresses, grant.pool)?;
        match &found {
            Some((first, pool)) if first.index != link.index => {
                return Err(CniError::new(
                    Code::Parent,
                    format!(
                        "pools {} and {} lie on different interfaces, {} and {}; \
                         give both the same spec.parent, or name only one of them",
                        pool.name, grant.pool.name, first.name, link.name
                    ),
                ));
            }
            Some(_) => {}
            None => found = Some((link, grant.pool)),
        }
    }
    let (link, _) = found.expect("an allocation has at least one address");
    let node = node_addresses(host, &addresses, link.index)?;
    Ok(Parent { link, node })
}

/// The interface that an administrator named, or else the one that the default
/// route takes: for addresses that came from no pool of Berth's.
pub(crate) fn named(host: &Handle, master: Option<&str>) -> Result<Parent, CniError> {
    let wrong = |problem: String| CniError::new(Code::Parent, format!("master: {problem}"));
    let link = match master {
        Some(name) => host
            .link_by_name(name)
            .map_err(|error| wrong(format!("{error}; name an interface that this node has")))?,
        None => {
            let index = default_interface(host)?.ok_or_else(|| {
                wrong("is not set, and this node has no default route; set it".to_owned())
            })?;
            host.link_by_index(index)?
        }
    };
    let node = node_addresses(host, &host.addresses(None)?, link.index)?;
    Ok(Parent { link, node })
}

fn default_interface(host: &Handle) -> Result<Option<u32>, CniError> {
    let routes = host.routes(MAIN_TABLE)?.into_iter();
    Ok(routes
        .filter(|route| route.dst.is_none())
        .min_by_key(|route| route.priority)
        .and_then(|route| route.oif))
}

fn of_pool(host: &Handle, addresses: &[Address], pool: &Pool) -> Result<Link, CniError> {
    let unsupported = |field: &str, problem: String, mend: &str| {
        CniError::new(
            Code::Pool,
            format!("pool {}: {field}: {problem}; {mend}", pool.name),
        )
    };
    if let Some(tag) = pool.vlan {
        return Err(unsupported(
            "spec.vlan",
            format!("this version makes no interface for VLAN {tag}"),
            "make it on the node, and name it as spec.parent without spec.vlan",
        ));
    }
    if pool.mode == PoolMode::Ipvlan {
        return Err(unsupported(
            "spec.mode",
            "this version makes no ipvlan".to_owned(),
            "use macvlan",
        ));
    }
    let parent =
        |problem: String| CniError::new(Code::Parent, format!("pool {}: {problem}", pool.name));
    if let Some(name) = &pool.parent {
        return host.link_by_name(name).map_err(|error| {
            parent(format!(
                "spec.parent: {error}; name an interface that every node of the pool has"
            ))
        });
    }
    let index = addresses
        .iter()
        .filter(|address| pool.subnet.contains(address.network.ip()))
        .filter(|address| !is_alone(address))
        .map(|address| address.index)
        .min()
        .ok_or_else(|| {
            parent(format!(
                "no interface of this node has an address in {}; set spec.parent, or give the uplink an address",
                pool.subnet
            ))
        })?;
    Ok(host.link_by_index(index)?)
}

/// A /32 or /128, as virtual addresses are: it does not say which subnet its
/// interface is on.
fn is_alone(address: &Address) -> bool {
    address.network.prefix() == if address.network.is_ipv4() { 32 } else { 128 }
}

/// The parent's own addresses. If it has none, because the node's address is
/// on another interface, those of the interface that the default route takes.
fn node_addresses(
    host: &Handle,
    addresses: &[Address],
    parent: u32,
) -> Result<Vec<IpAddr>, CniError> {
    let mut own = usable(addresses, parent);
    if own.is_empty() {
        own = default_interface(host)?.map_or_else(Vec::new, |index| usable(addresses, index));
    }
    Ok(own)
}

fn usable(addresses: &[Address], index: u32) -> Vec<IpAddr> {
    let mut own: Vec<IpAddr> = addresses
        .iter()
        .filter(|address| address.index == index && !address.dad_failed)
        .map(|address| address.network.ip())
        .filter(|ip| match ip {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        })
        .collect();
    // Stable: the kernel's order within a family stays.
    own.sort_by_key(|ip| !ip.is_ipv4());
    own
}
