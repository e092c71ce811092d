//! ADD and DEL on a real wire: what they make, what they leave, what they say.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

use berth_e2e::cni::{Node, POOL, Sandbox, connect, path_of};
use berth_lab::{require_binaries, require_root};
use berth_netlink::{MAIN_TABLE, MacvlanMode, Route};
use serde_json::json;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn add_wires_the_pod_to_the_wire_and_to_its_node() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(POOL);
    let pod = Sandbox::new("c1");
    // What a machine on the wire believes before: the announcement corrects it.
    let bridge = node.on_wire.link_by_name("br0").unwrap().index;
    let wrong = [2, 0, 0, 0, 0, 9];
    node.on_wire
        .set_neighbour(bridge, ip("10.20.0.50"), wrong, false)
        .unwrap();

    let answer = node.add(&pod, "web");
    assert!(answer.ok, "{answer:?}");
    assert_eq!(
        answer.json,
        json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "eth0", "mac": "02:be:0a:14:00:32", "sandbox": pod.path()}],
            "ips": [{"address": "10.20.0.50/24", "gateway": "10.20.0.1", "interface": 0}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.20.0.1"}],
            "dns": {},
        })
    );
    let link = pod.handle.link_by_name("eth0").unwrap();
    assert!(link.up);
    assert_eq!(link.mac, Some([2, 0xbe, 10, 20, 0, 50]));
    assert_eq!(link.macvlan_mode, Some(MacvlanMode::Bridge));
    assert!(
        !pod.handle.link_by_name("lo").unwrap().up,
        "lo is the runtime's"
    );
    let default = pod.handle.routes(MAIN_TABLE).unwrap();
    assert!(
        default
            .iter()
            .any(|r| r.dst.is_none() && r.gateway == Some(ip("10.20.0.1")))
    );

    let learnt = node.on_wire.neighbours(Some(bridge)).unwrap();
    let learnt = learnt
        .iter()
        .find(|n| n.address == ip("10.20.0.50"))
        .unwrap();
    assert_eq!(learnt.mac, link.mac, "the gratuitous ARP was heard");

    let pod_ip = ip("10.20.0.50");
    assert_eq!(
        connect(&node.wire, &pod.netns, pod_ip).unwrap(),
        ip("10.20.0.1")
    );
    assert_eq!(
        connect(&pod.netns, &node.wire, ip("10.20.0.1")).unwrap(),
        pod_ip
    );
    assert_eq!(
        connect(&node.netns, &pod.netns, pod_ip).unwrap(),
        ip("10.20.0.11")
    );
    assert_eq!(
        connect(&pod.netns, &node.netns, ip("10.20.0.11")).unwrap(),
        pod_ip
    );
    // The shim stays silent: the wire knows the node by its uplink alone.
    assert_eq!(
        connect(&node.wire, &node.netns, ip("10.20.0.11")).unwrap(),
        ip("10.20.0.1")
    );
    let learnt = node.on_wire.neighbours(Some(bridge)).unwrap();
    let learnt = learnt
        .iter()
        .find(|n| n.address == ip("10.20.0.11"))
        .unwrap();
    assert_eq!(learnt.mac, node.uplink.mac);

    let record = node.state().join("attachments/c1:eth0.json");
    assert_eq!(
        fs::metadata(record).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let mut check = node.call("CHECK", &pod, "web");
    assert!(node.run(&check).ok);
    check.netns = String::new();
    assert!(node.run(&check).ok, "the record knows the namespace");
}

#[test]
fn the_last_pod_takes_the_shim_along_and_nothing_is_left() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(POOL);
    let (one, two) = (Sandbox::new("c1"), Sandbox::new("c2"));
    assert!(node.add(&one, "one").ok && node.add(&two, "two").ok);
    assert!(connect(&one.netns, &two.netns, two.address().unwrap()).is_ok());
    assert!(node.del(&one, "one").ok);
    assert_eq!(node.handle.links().unwrap().len(), 3, "lo, eth0, shim");
    assert!(connect(&node.netns, &two.netns, two.address().unwrap()).is_ok());
    assert!(node.del(&two, "two").ok);
    assert!(node.traces().is_empty(), "{:?}", node.traces());
    for _ in 0..2 {
        assert!(node.del(&two, "two").ok, "DEL may be repeated");
    }
    assert!(one.handle.link_by_name("eth0").is_err());
}

#[test]
fn a_shim_that_somebody_else_made_stays() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(POOL);
    let pod = Sandbox::new("c1");
    assert!(node.add(&pod, "web").ok);
    fs::remove_dir_all(node.state().join("shims")).unwrap();
    assert!(node.del(&pod, "web").ok);
    let left: Vec<_> = node.traces().into_iter().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].starts_with("link berth-shim"), "{left:?}");
    assert!(
        node.add(&Sandbox::new("c2"), "web").ok,
        "it is used all the same"
    );
}

#[test]
fn del_works_whatever_is_missing() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(POOL);
    // Nothing was ever there.
    assert!(node.del(&Sandbox::new("c0"), "web").ok);
    // The runtime has dropped the namespace's name, but it lives on.
    let pod = Sandbox::new("c1");
    assert!(node.add(&pod, "web").ok);
    let mut del = node.call("DEL", &pod, "web");
    del.netns = String::new();
    assert!(node.run(&del).ok);
    assert!(pod.handle.link_by_name("eth0").is_err());
    assert_eq!(node.held(), []);
    // The namespace has gone.
    let pod = Sandbox::new("c2");
    assert!(node.add(&pod, "web").ok);
    let del = node.call("DEL", &pod, "web");
    drop(pod);
    assert!(node.run(&del).ok);
    assert_eq!(node.held(), []);
    // The folder of objects has gone.
    let pod = Sandbox::new("c3");
    assert!(node.add(&pod, "web").ok);
    fs::rename(
        node.dir.path().join("objects"),
        node.dir.path().join("away"),
    )
    .unwrap();
    assert!(node.del(&pod, "web").ok);
    fs::rename(
        node.dir.path().join("away"),
        node.dir.path().join("objects"),
    )
    .unwrap();
    // The state folder has gone: the store still knows the address.
    let pod = Sandbox::new("c4");
    assert!(node.add(&pod, "web").ok);
    fs::remove_dir_all(node.state()).unwrap();
    assert!(node.del(&pod, "web").ok);
    let left = node.traces();
    assert!(
        left.iter()
            .all(|trace| trace.starts_with("link berth-shim")),
        "{left:?}"
    );
}

#[test]
fn a_release_waits_on_disk_until_the_database_is_back() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(POOL);
    let pod = Sandbox::new("c1");
    assert!(node.add(&pod, "web").ok);
    let away = node.dir.path().join("away");
    fs::create_dir(&away).unwrap();
    let files = ["ipam.db", "ipam.db-wal", "ipam.db-shm"];
    for file in files {
        let _ = fs::rename(node.dir.path().join(file), away.join(file));
    }
    assert!(node.del(&pod, "web").ok);
    assert_eq!(
        node.traces().into_iter().collect::<Vec<_>>(),
        ["releases c1:eth0.json"]
    );
    for file in files {
        let _ = fs::rename(away.join(file), node.dir.path().join(file));
    }
    assert_eq!(node.held().len(), 1, "the store has not heard of it yet");
    let next = Sandbox::new("c2");
    assert!(node.add(&next, "other").ok);
    let held = node.held();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].holder.as_ref().unwrap().container_id, "c2");
    assert!(!node.state().join("releases/c1:eth0.json").exists());
}

#[test]
fn a_new_sandbox_keeps_the_address_and_a_late_del_changes_nothing() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(POOL);
    let (old, new) = (Sandbox::new("c1"), Sandbox::new("c2"));
    assert!(node.add(&old, "web").ok);
    let address = old.address().unwrap();
    // The runtime has lost the old sandbox; its interface is still there, with
    // the MAC that the new one needs.
    let answer = node.add(&new, "web");
    assert!(answer.ok, "{answer:?}");
    assert_eq!(new.address(), Some(address));
    assert!(node.del(&old, "web").ok);
    assert_eq!(
        connect(&node.netns, &new.netns, address).unwrap(),
        ip("10.20.0.11")
    );
    assert_eq!(node.held().len(), 1);
    assert!(node.run(&node.call("CHECK", &new, "web")).ok);
    assert!(node.del(&new, "web").ok);
    assert!(node.traces().is_empty(), "{:?}", node.traces());
}

#[test]
fn a_statefulset_pod_comes_back_with_its_address() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(POOL);
    let mut seen = Vec::new();
    for round in 0..3 {
        let uid = format!("uid-{round}");
        node.object(
            "pod.yaml",
            &format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: db-0, namespace: shop, uid: {uid}, \
                 ownerReferences: [{{kind: StatefulSet, name: db, controller: true}}]}}\n"
            ),
        );
        let pod = Sandbox::new(&format!("c{round}"));
        let mut add = node.call("ADD", &pod, "db-0");
        add.uid = uid;
        assert!(node.run(&add).ok);
        seen.push(pod.address().unwrap());
        let mut del = add.clone();
        del.verb = "DEL";
        assert!(node.run(&del).ok);
        // Others come in between, and take other addresses.
        assert!(
            node.add(
                &Sandbox::new(&format!("other{round}")),
                &format!("other{round}")
            )
            .ok
        );
    }
    assert_eq!(seen, [seen[0]; 3]);
}

#[test]
fn each_refusal_says_what_to_do_and_leaves_nothing() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(&format!(
        "{POOL}---\napiVersion: berth.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: small}}\n\
         spec: {{subnet: 10.20.0.0/24, ranges: [10.20.0.200], gateway: 10.20.0.1}}\n\
         ---\napiVersion: berth.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: twin}}\n\
         spec: {{subnet: 10.20.0.0/24, ranges: [10.20.0.200]}}\n\
         ---\napiVersion: berth.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: elsewhere}}\n\
         spec: {{subnet: 10.99.0.0/24}}\n\
         ---\napiVersion: berth.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: named}}\n\
         spec: {{subnet: 10.98.0.0/24, parent: eth7}}\n\
         ---\napiVersion: berth.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: tagged}}\n\
         spec: {{subnet: 10.97.0.0/24, vlan: 7}}\n"
    ));
    let holder = Sandbox::new("holder");
    let mut add = node.call("ADD", &holder, "first");
    add.annotations = json!({"berth.dev/ip": "10.20.0.200"});
    assert!(node.run(&add).ok);
    let before = node.traces();
    for (annotation, value, code, told) in [
        (
            "berth.dev/ip",
            "10.20.0.200",
            102,
            "pod shop/x: address 10.20.0.200 of pool small is held by pod shop/first (sandbox holder on node node1); delete that pod, or give one of the two another address",
        ),
        (
            "berth.dev/pool",
            "small",
            104,
            "pod shop/x: no free address: pool small has 1 addresses, 1 held by pods",
        ),
        (
            "berth.dev/ip",
            "10.30.0.1",
            103,
            "pod shop/x: address 10.30.0.1 is in no pool; make an IPPool for its subnet",
        ),
        (
            "berth.dev/pool",
            "none",
            100,
            "pod shop/x: pool none does not exist; create it",
        ),
        (
            "berth.dev/pool",
            "twin",
            100,
            "IPPool twin: spec.ranges: overlaps pool small, which has 10.20.0.200 too",
        ),
        (
            "berth.dev/pool",
            "elsewhere",
            107,
            "pool elsewhere: no interface of this node has an address in 10.99.0.0/24; set spec.parent",
        ),
        (
            "berth.dev/pool",
            "named",
            107,
            "pool named: spec.parent: cannot look up interface eth7",
        ),
        (
            "berth.dev/pool",
            "tagged",
            100,
            "pool tagged: spec.vlan: this version makes no interface for VLAN 7",
        ),
        (
            "berth.dev/keep",
            "always",
            101,
            "pod shop/x: annotation berth.dev/keep: \"always\" is not a keep policy",
        ),
    ] {
        let pod = Sandbox::new("x");
        let mut add = node.call("ADD", &pod, "x");
        add.annotations = json!({ annotation: value });
        let answer = node.run(&add);
        assert!(!answer.ok);
        assert_eq!(answer.json["code"], code, "{}", answer.json);
        let message = answer.json["msg"].as_str().unwrap();
        assert!(message.contains(told), "{message}\n  lacks {told}");
        assert_eq!(answer.json["cniVersion"], "1.0.0");
        assert!(pod.handle.link_by_name("eth0").is_err());
        assert_eq!(node.traces(), before, "{annotation}: {value}");
    }
}

#[test]
fn a_namespace_that_cannot_be_a_pods_is_refused() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(POOL);
    let pod = Sandbox::new("c1");
    let file = node.dir.path().join("file");
    fs::write(&file, "").unwrap();
    for (netns, told) in [
        (
            path_of(&node.netns),
            "is the namespace that this program runs in",
        ),
        ("/run/netns/berth-none".to_owned(), "No such file"),
        (file.display().to_string(), "enter network namespace"),
    ] {
        let mut add = node.call("ADD", &pod, "web");
        add.netns = netns;
        let answer = node.run(&add);
        assert_eq!(answer.json["code"], 8, "{answer:?}");
        assert!(
            answer.json["msg"].as_str().unwrap().contains(told),
            "{answer:?}"
        );
    }
    assert!(node.traces().is_empty());
    // An interface that is there already is not touched.
    pod.handle.add_bridge("eth0").unwrap();
    let answer = node.add(&pod, "web");
    assert_eq!(answer.json["code"], 4, "{answer:?}");
    assert!(node.del(&pod, "web").ok);
    assert!(pod.handle.link_by_name("eth0").is_ok());
    // There is no database that could say that nothing is to be released.
    assert!(node.add(&Sandbox::new("c2"), "other").ok);
    let held: Vec<_> = node
        .held()
        .into_iter()
        .map(|a| a.holder.unwrap().container_id)
        .collect();
    assert_eq!(held, ["c2"]);
    assert!(
        !node
            .traces()
            .iter()
            .any(|trace| trace.starts_with("releases"))
    );
}

#[test]
fn two_families_come_together() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(&format!(
        "{POOL}---\napiVersion: berth.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: six}}\n\
         spec: {{subnet: 'fd20::/64', gateway: 'fd20::1', default: true}}\n"
    ));
    let flags = berth_netlink::AddressFlags { nodad: true };
    node.handle
        .add_address(node.uplink.index, "fd20::11/64".parse().unwrap(), flags)
        .unwrap();
    let pod = Sandbox::new("c1");
    let answer = node.add(&pod, "web");
    assert!(answer.ok, "{answer:?}");
    assert_eq!(answer.json["ips"][1]["address"], "fd20::2/64");
    let (four, six) = (ip("10.20.0.50"), ip("fd20::2"));
    assert_eq!(connect(&node.wire, &pod.netns, six).unwrap(), ip("fd20::1"));
    assert_eq!(
        connect(&node.netns, &pod.netns, six).unwrap(),
        ip("fd20::11")
    );
    assert_eq!(
        connect(&pod.netns, &node.netns, ip("fd20::11")).unwrap(),
        six
    );
    assert_eq!(
        connect(&node.netns, &pod.netns, four).unwrap(),
        ip("10.20.0.11")
    );
    assert!(node.run(&node.call("CHECK", &pod, "web")).ok);
    assert!(node.del(&pod, "web").ok);
    assert!(node.traces().is_empty(), "{:?}", node.traces());
}

#[test]
fn check_says_what_is_wrong() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(POOL);
    let pod = Sandbox::new("c1");
    let check = node.call("CHECK", &pod, "web");
    assert_eq!(node.run(&check).json["code"], 3);
    assert!(node.add(&pod, "web").ok);
    let shim = node.handle.links().unwrap();
    let shim = shim
        .iter()
        .find(|l| l.name.starts_with("berth-shim"))
        .unwrap();
    let to_pod = Route {
        dst: Some("10.20.0.50/32".parse().unwrap()),
        oif: Some(shim.index),
        ..Route::default()
    };
    node.handle.delete_route(&to_pod).unwrap();
    let told = |what: &str| {
        let answer = node.run(&check);
        assert_eq!(answer.json["code"], 108, "{answer:?}");
        assert!(
            answer.json["msg"].as_str().unwrap().starts_with(what),
            "{answer:?}"
        );
    };
    told("shim route: ");
    let eth0 = pod.handle.link_by_name("eth0").unwrap().index;
    let default = Route {
        gateway: Some(ip("10.20.0.1")),
        oif: Some(eth0),
        ..Route::default()
    };
    pod.handle.delete_route(&default).unwrap();
    told("route: 0.0.0.0/0 via 10.20.0.1");
    pod.handle
        .delete_address(eth0, "10.20.0.50/24".parse().unwrap())
        .unwrap();
    told("address: 10.20.0.50");
    pod.handle.set_down(eth0).unwrap();
    told("link: eth0 is down");
    pod.handle.delete_link(eth0).unwrap();
    told("link: cannot look up interface eth0");
}

#[test]
fn gc_undoes_what_the_runtime_has_forgotten() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(POOL);
    let (kept, lost) = (Sandbox::new("kept"), Sandbox::new("lost"));
    assert!(node.add(&kept, "kept").ok && node.add(&lost, "lost").ok);
    let mut gc = node.call("GC", &kept, "");
    gc.version = "1.1.0";
    assert_eq!(
        node.run(&gc).json["code"],
        7,
        "GC without a list undoes nothing"
    );
    assert_eq!(node.held().len(), 2);
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        gc.extra = json!({ key: [{"containerID": "kept", "ifname": "eth0"}] });
        assert!(node.run(&gc).ok);
        assert!(lost.handle.link_by_name("eth0").is_err());
        let held: Vec<_> = node
            .held()
            .into_iter()
            .map(|a| a.holder.unwrap().container_id)
            .collect();
        assert_eq!(held, ["kept"]);
        assert!(connect(&node.netns, &kept.netns, kept.address().unwrap()).is_ok());
    }
}

#[test]
fn status_tells_whether_an_add_could_work() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(&POOL.replace("10.20.0.50-10.20.0.199", "10.20.0.50"));
    let pod = Sandbox::new("c1");
    let mut status = node.call("STATUS", &pod, "");
    status.version = "1.1.0";
    assert!(node.run(&status).ok);
    assert!(node.add(&pod, "web").ok);
    let full = node.run(&status);
    assert_eq!(full.json["code"], 50);
    assert!(
        full.json["msg"]
            .as_str()
            .unwrap()
            .contains("every pool is full; widen")
    );
    node.object("pools.yaml", "");
    let none = node.run(&status);
    assert_eq!(none.json["code"], 50);
    assert!(
        none.json["msg"]
            .as_str()
            .unwrap()
            .contains("has no usable IPPool")
    );
    status.version = "1.0.0";
    assert_eq!(
        node.run(&status).json["code"],
        4,
        "the verb came with 1.1.0"
    );
}
