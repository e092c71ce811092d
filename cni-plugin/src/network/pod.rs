//! The interface inside the pod.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use berth_api::mac::MacAddr;
use berth_netlink::{
    AddressFlags, Error, Handle, Link, MAIN_TABLE, MacvlanMode, NewMacvlan, Route, Scope,
};
use nix::errno::Errno;

use super::{PodNetns, alone};
use crate::error::{CniError, Code};
use crate::plan::Plan;

/// How long a new interface waits for the old one with its MAC. The kernel
/// takes a namespace apart in the background; with many at once that takes
/// most of a second.
const OLD_LINK_DEADLINE: Duration = Duration::from_secs(3);

/// Makes the macvlan in the pod's namespace.
pub(crate) fn make(
    host: &Handle,
    pod: &PodNetns,
    parent: &Link,
    ifname: &str,
    mac: MacAddr,
    mtu: Option<u32>,
) -> Result<Link, CniError> {
    let made = |name: &str| {
        host.add_macvlan(&NewMacvlan {
            name,
            parent_index: parent.index,
            mode: MacvlanMode::Bridge,
            mac: Some(mac.0),
            mtu,
            netns: Some(&pod.netns),
        })
    };
    let result = match made(ifname) {
        // Linux 6.1 and 6.12 refuse a name that the host's namespace has too,
        // as with an uplink that is called eth0; 6.18 does not.
        Err(error) if error.is_exists() => {
            let temporary = temporary_name(mac);
            made(&temporary).and_then(|()| rename(pod, &temporary, ifname))
        }
        result => result,
    };
    result.map_err(|error| match error.errno() {
        Some(Errno::EBUSY) => CniError::new(
            Code::Kernel,
            format!(
                "{error}: {} is a port of a bridge or bond; name that as the pool's spec.parent",
                parent.name
            ),
        ),
        _ => error.into(),
    })?;
    Ok(pod.handle.link_by_name(ifname)?)
}

/// What the interface is called until it has the name that it is to have: at
/// most 15 octets, and nobody else's, since the MAC is nobody else's.
fn temporary_name(mac: MacAddr) -> String {
    let hex: String = mac.0.iter().map(|octet| format!("{octet:02x}")).collect();
    format!("bt{hex}")
}

fn rename(pod: &PodNetns, from: &str, to: &str) -> Result<(), Error> {
    let link = pod.handle.link_by_name(from)?;
    pod.handle.rename(link.index, to).inspect_err(|_| {
        // The refusal is what the caller has to hear of.
        drop(pod.handle.delete_link(link.index));
    })
}

/// Gives it its addresses, then brings it up: in this order the kernel's own
/// announcement (`arp_notify`) works too, and no packet leaves without an
/// address. IPv6 duplicate detection would take 1.7 s; the store is what makes
/// an address unique.
///
/// A macvlan whose MAC a sibling has cannot come up. `clear_away` is called
/// once, to remove what a killed ADD of the same pod left.
pub(crate) fn address_and_up(
    pod: &PodNetns,
    link: &Link,
    plan: &Plan,
    clear_away: &mut dyn FnMut(),
) -> Result<(), CniError> {
    for address in &plan.addresses {
        let flags = AddressFlags {
            nodad: address.network.is_ipv6(),
        };
        pod.handle.add_address(link.index, address.network, flags)?;
    }
    let started = Instant::now();
    let mut cleared = false;
    loop {
        match pod.handle.set_up(link.index) {
            Err(error) if error.errno() == Some(Errno::EADDRINUSE) => {
                if !cleared {
                    clear_away();
                    cleared = true;
                } else if started.elapsed() > OLD_LINK_DEADLINE {
                    return Err(duplicate_mac(&error, link));
                } else {
                    thread::sleep(Duration::from_millis(5));
                }
            }
            other => return Ok(other?),
        }
    }
}

fn duplicate_mac(error: &Error, link: &Link) -> CniError {
    let mac = link
        .mac
        .map(|mac| MacAddr(mac).to_string())
        .unwrap_or_default();
    CniError::new(
        Code::Kernel,
        format!(
            "{error}: another interface on the same parent has the MAC {mac}; \
             look for it with `ip -all netns exec ip -d link`, and remove it"
        ),
    )
}

/// Routes through the gateway, and straight to the node: the pod cannot see
/// its own node through the parent, only through the shim.
pub(crate) fn route(
    pod: &PodNetns,
    link: &Link,
    plan: &Plan,
    node: &[IpAddr],
    shim: Option<MacAddr>,
) -> Result<(), CniError> {
    for route in &plan.routes {
        pod.handle.add_route(&Route {
            dst: Some(route.dst),
            gateway: route.via,
            oif: Some(link.index),
            scope: if route.via.is_some() {
                Scope::Global
            } else {
                Scope::Link
            },
            table: route.table.unwrap_or(MAIN_TABLE),
            priority: route.priority,
            ..Route::default()
        })?;
    }
    let Some(shim) = shim else { return Ok(()) };
    let families = |ip: &&IpAddr| {
        let mut addresses = plan.addresses.iter();
        addresses.any(|a| a.network.is_ipv4() == ip.is_ipv4())
    };
    for address in node.iter().filter(families) {
        pod.handle
            .set_neighbour(link.index, *address, shim.0, true)?;
        pod.handle.replace_route(&Route {
            dst: Some(alone(*address)),
            oif: Some(link.index),
            scope: Scope::Link,
            ..Route::default()
        })?;
    }
    Ok(())
}

/// Removes the interface, if it is the one that was made: its MAC is one of
/// `macs`. One that was made but not named yet is found, too.
pub(crate) fn remove(pod: &PodNetns, ifname: &str, macs: &[MacAddr]) -> Result<(), Error> {
    let temporary = macs.iter().map(|mac| temporary_name(*mac));
    for name in std::iter::once(ifname.to_owned()).chain(temporary) {
        match pod.handle.link_by_name(&name) {
            Ok(link)
                if macs.iter().any(|mac| link.mac == Some(mac.0))
                    && link.kind.as_deref() == Some("macvlan") =>
            {
                return super::or_gone(pod.handle.delete_link(link.index));
            }
            Ok(_) => {}
            Err(error) => super::or_gone(Err(error))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_name_fits_an_interface() {
        let name = temporary_name(MacAddr([0x02, 0xbe, 10, 20, 0, 57]));
        assert_eq!(name, "bt02be0a140039");
        assert!(name.len() <= 15);
    }
}
