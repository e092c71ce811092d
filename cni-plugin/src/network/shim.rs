//! The host's own macvlan on a parent: how a node and its pods see each other.
//!
//! It has no address. The host has a /32 route to each pod through it and a
//! permanent neighbour entry, so nothing is ever asked on the wire. One shim
//! serves all pods on a parent; the last pod takes it along, if Berth made it.

use std::fs;
use std::io;
use std::net::IpAddr;

use berth_api::mac::{MacAddr, shim_mac};
use berth_netlink::{Handle, Link, MAIN_TABLE, MacvlanMode, NewMacvlan, Route, Scope};

use super::parent::Parent;
use super::{alone, or_gone};
use crate::error::{CniError, Code};
use crate::state::State;
use crate::step::{Observer, Step};

/// What every shim's name starts with.
pub(crate) const PREFIX: &str = "berth-shim";

/// The shim's name: five letters or digits are left for the parent's index.
pub(crate) fn name(parent: &Link) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut rest = parent.index;
    let mut digits = Vec::new();
    loop {
        digits.push(char::from(DIGITS[(rest % 36) as usize]));
        rest /= 36;
        if rest == 0 {
            break;
        }
    }
    let number: String = digits.iter().rev().collect();
    format!("{PREFIX}{number}")
}

/// The MAC that the parent's shim has or will have; `None` if the node has no
/// address to be reached at.
pub(crate) fn mac(host: &Handle, parent: &Parent) -> Option<MacAddr> {
    let first = parent.node.first()?;
    let made = host.link_by_name(&name(&parent.link)).ok();
    Some(
        made.and_then(|link| link.mac)
            .map_or_else(|| shim_mac(*first), MacAddr),
    )
}

/// Makes the shim if it is missing, and leads the host to the pod through it.
pub(crate) fn connect(
    host: &Handle,
    state: &State,
    parent: &Parent,
    pod: &[IpAddr],
    pod_mac: MacAddr,
    shim: MacAddr,
    observer: Observer<'_>,
) -> Result<(), CniError> {
    let _lock = state.lock_shims()?;
    let link = ensure(host, state, parent, shim, observer)?;
    for address in pod {
        let family = |node: &&IpAddr| node.is_ipv4() == address.is_ipv4();
        let Some(node) = parent.node.iter().find(family) else {
            continue;
        };
        host.set_neighbour(link.index, *address, pod_mac.0, true)?;
        observer(Step::HostNeighbour);
        host.replace_route(&Route {
            dst: Some(alone(*address)),
            oif: Some(link.index),
            src: Some(*node),
            scope: Scope::Link,
            ..Route::default()
        })?;
        observer(Step::HostRouted);
    }
    Ok(())
}

fn ensure(
    host: &Handle,
    state: &State,
    parent: &Parent,
    mac: MacAddr,
    observer: Observer<'_>,
) -> Result<Link, CniError> {
    let name = name(&parent.link);
    let link = match host.link_by_name(&name) {
        Ok(link) if link.parent == Some(parent.link.index) => link,
        Ok(_) => {
            return Err(CniError::new(
                Code::Kernel,
                format!(
                    "interface {name} is not on {}; remove or rename it: the name is Berth's",
                    parent.link.name
                ),
            ));
        }
        Err(error) if error.is_not_found() => {
            state.put_shim(&name, &parent.link.name)?;
            observer(Step::ShimPlanned);
            host.add_macvlan(&NewMacvlan {
                name: &name,
                parent_index: parent.link.index,
                mode: MacvlanMode::Bridge,
                mac: Some(mac.0),
                mtu: None,
                netns: None,
            })?;
            observer(Step::ShimMade);
            host.link_by_name(&name)?
        }
        Err(error) => return Err(error.into()),
    };
    if !link.up {
        keep_quiet(&name)?;
        host.set_up(link.index)?;
    }
    Ok(link)
}

/// The shim must not answer for the node's addresses: the machines on the wire
/// would see a second MAC for the node. Linux answers ARP on any interface for
/// any of its addresses (`arp_ignore` 0); 8 is never. IPv6 would give the shim
/// a link-local address of its own (`addr_gen_mode` 0); 1 is none.
fn keep_quiet(name: &str) -> Result<(), CniError> {
    for (path, value) in [
        (format!("/proc/sys/net/ipv4/conf/{name}/arp_ignore"), "8"),
        (format!("/proc/sys/net/ipv6/conf/{name}/addr_gen_mode"), "1"),
    ] {
        match fs::write(&path, value) {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(CniError::new(
                    Code::Kernel,
                    format!("cannot set {path}: {error}; make /proc/sys writable for the runtime"),
                ));
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Takes back what [`connect`] did for these addresses, and the shim with the
/// last of them. The caller holds the lock, and knows that nobody else has the
/// addresses by now.
pub(crate) fn disconnect(
    host: &Handle,
    state: &State,
    shim: &str,
    pod: &[IpAddr],
) -> Result<(), CniError> {
    let link = match host.link_by_name(shim) {
        Ok(link) => link,
        Err(error) if error.is_not_found() => {
            return if state.made_shim(shim) {
                state.remove_shim(shim)
            } else {
                Ok(())
            };
        }
        Err(error) => return Err(error.into()),
    };
    for address in pod {
        or_gone(host.delete_route(&Route {
            dst: Some(alone(*address)),
            oif: Some(link.index),
            scope: Scope::Link,
            ..Route::default()
        }))?;
        or_gone(host.delete_neighbour(link.index, *address))?;
    }
    let routes = host.routes(MAIN_TABLE)?;
    let serves = |route: &Route| {
        // IPv6 has routes of the kernel's own on every interface.
        let whole =
            |dst: ipnetwork::IpNetwork| dst.prefix() == if dst.is_ipv4() { 32 } else { 128 };
        route.oif == Some(link.index) && route.dst.is_some_and(whole)
    };
    if state.made_shim(shim) && !routes.iter().any(serves) {
        or_gone(host.delete_link(link.index))?;
        state.remove_shim(shim)?;
    }
    Ok(())
}

/// The shims that are there.
pub(crate) fn all(host: &Handle) -> Result<Vec<String>, CniError> {
    let links = host.links()?;
    Ok(links
        .into_iter()
        .filter(|link| link.name.starts_with(PREFIX) && link.kind.as_deref() == Some("macvlan"))
        .map(|link| link.name)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_gives_another_name_that_fits() {
        let name_of = |index| {
            name(&Link {
                index,
                ..Link::default()
            })
        };
        assert_eq!(name_of(2), "berth-shim2");
        assert_eq!(name_of(36), "berth-shim10");
        assert_eq!(name_of(60_466_175), "berth-shimzzzzz");
        assert!(name_of(60_466_175).len() <= 15);
    }
}
