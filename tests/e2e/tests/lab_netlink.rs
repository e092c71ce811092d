//! berth-netlink against the kernel: in namespaces without names, which go
//! when the test does.

use std::net::IpAddr;

use berth_lab::require_root;
use berth_netlink::{
    AddressFlags, Error, Handle, Link, MAIN_TABLE, MacvlanMode, Netns, NewMacvlan, Route, Scope,
};
use nix::errno::Errno;

type Result<T = (), E = Error> = std::result::Result<T, E>;

/// A namespace with one end of a veth called `eth0`, the other in `far`.
fn uplink() -> Result<(Netns, Netns, Handle, Link)> {
    let (near, far) = (Netns::create()?, Netns::create()?);
    let handle = Handle::in_netns(&near)?;
    handle.add_veth("eth0", "port", Some(&far))?;
    let eth0 = handle.link_by_name("eth0")?;
    handle.set_up(eth0.index)?;
    Ok((near, far, handle, eth0))
}

#[test]
fn a_veth_has_one_end_in_each_namespace() -> Result {
    require_root!();
    let (near, far, handle, eth0) = uplink()?;
    assert_ne!(near.id(), far.id());
    assert_eq!(eth0.kind.as_deref(), Some("veth"));
    assert!(!eth0.up, "it was read before it was brought up");
    let other = Handle::in_netns(&far)?;
    let port = other.link_by_name("port")?;
    other.set_up(port.index)?;
    let eth0 = handle.link_by_name("eth0")?;
    assert!(eth0.up && eth0.running, "{eth0:?}");
    other.delete_link(port.index)?;
    assert!(handle.link_by_name("eth0").unwrap_err().is_not_found());
    Ok(())
}

#[test]
fn the_callers_namespace_never_changes() -> Result {
    require_root!();
    let before = Netns::current()?.id();
    let inside = Netns::create()?;
    let seen = inside.run(Netns::current)??;
    assert_eq!(seen.id(), inside.id());
    assert_eq!(Netns::current()?.id(), before);
    Ok(())
}

#[test]
fn a_bridge_takes_ports_and_lets_them_go() -> Result {
    require_root!();
    let netns = Netns::create()?;
    let handle = Handle::in_netns(&netns)?;
    handle.add_bridge("br0")?;
    handle.add_veth("p1", "p2", None)?;
    let (bridge, port) = (handle.link_by_name("br0")?, handle.link_by_name("p1")?);
    assert_eq!(bridge.kind.as_deref(), Some("bridge"));
    handle.set_master(port.index, Some(bridge.index))?;
    assert_eq!(handle.link_by_index(port.index)?.master, Some(bridge.index));
    handle.set_master(port.index, None)?;
    assert_eq!(handle.link_by_index(port.index)?.master, None);
    let error = handle.add_bridge("br0").unwrap_err();
    assert!(error.is_exists(), "{error}");
    assert!(error.to_string().starts_with("cannot add bridge br0: "));
    Ok(())
}

#[test]
fn a_macvlan_is_made_in_the_pods_namespace() -> Result {
    require_root!();
    let (_near, _far, handle, eth0) = uplink()?;
    let pod = Netns::create()?;
    let new = NewMacvlan {
        name: "eth0",
        parent_index: eth0.index,
        mode: MacvlanMode::Bridge,
        mac: Some([2, 0xbe, 10, 20, 0, 57]),
        mtu: Some(1400),
        netns: Some(&pod),
    };
    handle.add_macvlan(&new)?;
    let inside = Handle::in_netns(&pod)?;
    let link = inside.link_by_name("eth0")?;
    assert_eq!(link.kind.as_deref(), Some("macvlan"));
    assert_eq!(link.macvlan_mode, Some(MacvlanMode::Bridge));
    assert_eq!(link.mac, new.mac);
    assert_eq!(link.mtu, 1400);
    assert_eq!(link.parent, Some(eth0.index));
    assert!(link.parent_netns_id.is_some(), "{link:?}");
    assert_eq!(handle.links()?.len(), 2, "lo and eth0, no macvlan here");
    assert!(handle.add_macvlan(&new).unwrap_err().is_exists());

    // A second with the same MAC is only found out when it comes up.
    inside.set_up(link.index)?;
    let twin = Netns::create()?;
    handle.add_macvlan(&NewMacvlan {
        netns: Some(&twin),
        ..new
    })?;
    let second = Handle::in_netns(&twin)?;
    let error = second
        .set_up(second.link_by_name("eth0")?.index)
        .unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EADDRINUSE), "{error}");
    Ok(())
}

#[test]
fn a_parent_that_is_a_bridge_port_is_refused() -> Result {
    require_root!();
    let (_near, _far, handle, eth0) = uplink()?;
    handle.add_bridge("br0")?;
    handle.set_master(eth0.index, Some(handle.link_by_name("br0")?.index))?;
    let error = handle
        .add_macvlan(&NewMacvlan {
            name: "shim",
            parent_index: eth0.index,
            mode: MacvlanMode::Bridge,
            mac: None,
            mtu: None,
            netns: None,
        })
        .unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EBUSY), "{error}");
    Ok(())
}

#[test]
fn interfaces_are_renamed_moved_and_changed() -> Result {
    require_root!();
    let (_near, far, handle, eth0) = uplink()?;
    handle.set_down(eth0.index)?;
    handle.set_mac(eth0.index, [2, 0, 0, 0, 0, 1])?;
    handle.set_mtu(eth0.index, 1300)?;
    handle.rename(eth0.index, "uplink")?;
    let link = handle.link_by_name("uplink")?;
    assert_eq!((link.mac, link.mtu), (Some([2, 0, 0, 0, 0, 1]), 1300));
    assert!(!link.up);
    handle.move_to_netns(link.index, &far)?;
    assert!(handle.link_by_name("uplink").unwrap_err().is_not_found());
    assert_eq!(Handle::in_netns(&far)?.link_by_name("uplink")?.mtu, 1300);
    Ok(())
}

#[test]
fn addresses_come_and_go() -> Result {
    require_root!();
    let (_near, _far, handle, eth0) = uplink()?;
    let (v4, v6) = (
        "10.20.0.11/24".parse().unwrap(),
        "fd00::11/64".parse().unwrap(),
    );
    handle.add_address(eth0.index, v4, AddressFlags::default())?;
    handle.add_address(eth0.index, v6, AddressFlags { nodad: true })?;
    let told = handle.addresses(Some(eth0.index))?;
    for network in [v4, v6] {
        let found = told.iter().find(|a| a.network == network);
        assert!(!found.expect("it was added").tentative);
    }
    assert_eq!(handle.addresses(Some(eth0.index + 1))?, []);
    let again = handle.add_address(eth0.index, v4, AddressFlags::default());
    assert!(again.unwrap_err().is_exists());
    handle.delete_address(eth0.index, v4)?;
    let error = handle.delete_address(eth0.index, v4).unwrap_err();
    assert!(error.is_not_found(), "{error}");
    Ok(())
}

#[test]
fn routes_are_added_replaced_and_deleted() -> Result {
    require_root!();
    let (_near, _far, handle, eth0) = uplink()?;
    let address = "10.20.0.11/24".parse().unwrap();
    handle.add_address(eth0.index, address, AddressFlags::default())?;
    let pod = Route {
        dst: Some("10.20.0.57/32".parse().unwrap()),
        oif: Some(eth0.index),
        src: Some(address.ip()),
        scope: Scope::Link,
        ..Route::default()
    };
    let default = Route {
        gateway: Some("10.20.0.1".parse().unwrap()),
        oif: Some(eth0.index),
        ..Route::default()
    };
    for route in [&pod, &default] {
        handle.add_route(route)?;
        assert!(handle.routes(MAIN_TABLE)?.contains(route));
        assert!(handle.add_route(route).unwrap_err().is_exists());
    }
    let moved = Route {
        src: None,
        ..pod.clone()
    };
    handle.replace_route(&moved)?;
    let told = handle.routes(MAIN_TABLE)?;
    assert!(told.contains(&moved) && !told.contains(&pod), "{told:?}");
    for route in [&moved, &default] {
        handle.delete_route(route)?;
        let error = handle.delete_route(route).unwrap_err();
        assert!(error.is_not_found(), "{error}");
    }
    assert_eq!(handle.routes(1000)?, []);

    let nowhere = Route {
        gateway: Some("192.0.2.1".parse().unwrap()),
        ..Route::default()
    };
    let error = handle.add_route(&nowhere).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENETUNREACH), "{error}");
    assert!(
        error.to_string().contains("default route via 192.0.2.1"),
        "{error}"
    );
    Ok(())
}

#[test]
fn neighbours_are_set_over_and_forgotten() -> Result {
    require_root!();
    let (_near, _far, handle, eth0) = uplink()?;
    let addresses: [IpAddr; 2] = ["10.20.0.57".parse().unwrap(), "fd00::57".parse().unwrap()];
    for address in addresses {
        handle.set_neighbour(eth0.index, address, [2, 0, 0, 0, 0, 1], false)?;
        handle.set_neighbour(eth0.index, address, [2, 0, 0, 0, 0, 2], true)?;
        let told = handle.neighbours(Some(eth0.index))?;
        let entry = told
            .iter()
            .find(|n| n.address == address)
            .expect("set above");
        assert_eq!(entry.mac, Some([2, 0, 0, 0, 0, 2]));
        assert!(entry.permanent);
        handle.delete_neighbour(eth0.index, address)?;
        let error = handle.delete_neighbour(eth0.index, address).unwrap_err();
        assert!(error.is_not_found(), "{error}");
    }
    Ok(())
}

#[test]
fn many_interfaces_are_listed_whole() -> Result {
    require_root!();
    let (_near, _far, handle, _eth0) = uplink()?;
    for number in 0..100 {
        handle.add_veth(&format!("a{number}"), &format!("b{number}"), None)?;
    }
    assert_eq!(handle.links()?.len(), 202);
    Ok(())
}
