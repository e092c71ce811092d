//! What the wire of a node can be on a kernel with 802.1Q and ipvlan: VLAN
//! interfaces that come with the first pod and go with the last, pods that
//! share the parent's MAC, and MTUs. `berth-cni` is called as a runtime does.
//!
//! A `berth-cni` that does not make such interfaces says so and leaves nothing
//! behind; then only that is tested.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;

use anyhow::{Context, Result, ensure};
use berth_e2e::cni::{Node, POOL, Sandbox, connect};
use berth_netlink::{AddressFlags, Link, Route};
use serde_json::json;

use crate::machine;
use crate::report::Report;

/// The node's uplink.
const UPLINK: &str = "uplink";
const TAG: u16 = 120;
const VLAN_POOL: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPPool
metadata: {name: tagged}
spec: {subnet: 10.30.0.0/24, ranges: [10.30.0.50-10.30.0.99], gateway: 10.30.0.1, default: true,
       coolDown: 0s, parent: uplink, vlan: 120}
";
const IPVLAN_POOL: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPPool
metadata: {name: shared}
spec: {subnet: 10.20.0.0/24, ranges: [10.20.0.50-10.20.0.99], gateway: 10.20.0.1, default: true,
       coolDown: 0s, mode: ipvlan}
";

/// How a `berth-cni` begins to say that it does not do what a pool asks for.
const NOT_MADE: &str = "this version makes no";

/// Runs all of it.
pub(crate) fn run(report: &mut Report) {
    report.step("cni: macvlan pods come and go", macvlan);
    report.step(
        "cni: the pod's interface has the name of the node's uplink",
        same_name,
    );
    if report.step("cni: 802.1Q is there", || machine::load("8021q")) {
        report.step(
            "cni: pods on a VLAN interface of the node's own",
            vlan_as_parent,
        );
        if wired(report, "cni: a pool with a VLAN", VLAN_POOL) {
            report.step(
                "cni: a VLAN interface comes with the first pod and goes with the last",
                vlan_counted,
            );
            report.step(
                "cni: a VLAN interface of somebody else's stays",
                vlan_of_others,
            );
            report.step(
                "cni: many pods at once share one VLAN interface",
                vlan_at_once,
            );
            report.step("cni: a VLAN pod's MTU", vlan_mtu);
        }
    }
    if report.step("cni: ipvlan is there", || machine::load("ipvlan"))
        && wired(report, "cni: a pool with ipvlan", IPVLAN_POOL)
    {
        report.step("cni: ipvlan pods share the parent's MAC", ipvlan);
        report.step(
            "cni: an ipvlan pod takes the place of its older sandbox",
            ipvlan_again,
        );
        report.step("cni: what ipvlan cannot do is refused", ipvlan_refusals);
    }
}

/// Whether this `berth-cni` wires the pods of such a pool. If not, it says so
/// and leaves nothing.
fn wired(report: &mut Report, what: &str, pool: &str) -> bool {
    let mut wired = false;
    report.step(
        &format!("{what} is wired, or refused and nothing is left"),
        || {
            let node = tagged(pool)?;
            let pod = Sandbox::new("c1");
            let answer = node.add(&pod, "web");
            wired = answer.ok;
            if wired {
                del(&node, &pod, "web")?;
            } else {
                let said = answer.json["msg"].as_str().unwrap_or_default();
                ensure!(said.contains(NOT_MADE), "ADD: {}", answer.json);
            }
            nothing_left(&node)
        },
    );
    wired
}

fn ip(text: &str) -> Result<IpAddr> {
    Ok(text.parse()?)
}

fn add(node: &Node, sandbox: &Sandbox, pod: &str) -> Result<()> {
    let answer = node.add(sandbox, pod);
    ensure!(answer.ok, "ADD {pod}: {}", answer.json);
    Ok(())
}

fn del(node: &Node, sandbox: &Sandbox, pod: &str) -> Result<()> {
    let answer = node.del(sandbox, pod);
    ensure!(answer.ok, "DEL {pod}: {}", answer.json);
    Ok(())
}

fn nothing_left(node: &Node) -> Result<()> {
    let mut left = node.traces();
    left.remove(&format!("link {UPLINK}"));
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

/// Both directions between the wire and a pod, and between node and pod.
fn reaches_all(node: &Node, pod: &Sandbox, router: &str) -> Result<()> {
    let address = pod.address().context("the pod has no address")?;
    let router = ip(router)?;
    let ways = [
        ("wire to pod", &node.wire, &pod.netns, address),
        ("pod to wire", &pod.netns, &node.wire, router),
        ("node to pod", &node.netns, &pod.netns, address),
        ("pod to node", &pod.netns, &node.netns, ip("10.20.0.11")?),
    ];
    for (way, from, to, target) in ways {
        connect(from, to, target).with_context(|| format!("{way}, to {target}"))?;
    }
    Ok(())
}

/// A node whose uplink is called otherwise than the pods' interfaces.
fn node(pool: &str) -> Result<Node> {
    let node = Node::new(pool);
    // Before 6.2 an interface that is up keeps its name.
    node.handle.set_down(node.uplink.index)?;
    node.handle.rename(node.uplink.index, UPLINK)?;
    node.handle.set_up(node.uplink.index)?;
    Ok(node)
}

fn come_and_go(node: &Node, router: &str) -> Result<()> {
    let (one, two) = (Sandbox::new("c1"), Sandbox::new("c2"));
    add(node, &one, "one")?;
    add(node, &two, "two")?;
    reaches_all(node, &one, router)?;
    let second = two.address().context("the second pod has no address")?;
    connect(&one.netns, &two.netns, second).context("pod to pod")?;
    del(node, &one, "one")?;
    reaches_all(node, &two, router).context("after the first has gone")?;
    del(node, &two, "two")
}

fn macvlan() -> Result<()> {
    let node = node(POOL)?;
    come_and_go(&node, "10.20.0.1")?;
    nothing_left(&node)
}

/// Before 6.14 the kernel looks for the new name in the namespace of whoever
/// asks, too.
fn same_name() -> Result<()> {
    let node = Node::new(POOL);
    ensure!(node.uplink.name == "eth0", "it is {}", node.uplink.name);
    come_and_go(&node, "10.20.0.1")?;
    nothing_left(&node)
}

/// A node whose wire carries VLAN 120, with a router in it.
fn tagged(pool: &str) -> Result<Node> {
    let node = node(pool)?;
    let bridge = node.on_wire.link_by_name("br0")?.index;
    node.on_wire.add_vlan("br0.120", bridge, TAG)?;
    let router = node.on_wire.link_by_name("br0.120")?.index;
    let plain = AddressFlags::default();
    node.on_wire
        .add_address(router, "10.30.0.1/24".parse()?, plain)?;
    node.on_wire.set_up(router)?;
    node.handle.add_route(&Route {
        gateway: Some(ip("10.20.0.1")?),
        oif: Some(node.uplink.index),
        ..Route::default()
    })?;
    Ok(node)
}

/// The node's own interface with the tag.
fn storage(node: &Node) -> Result<()> {
    node.handle.add_vlan("storage", node.uplink.index, TAG)?;
    let link = node.handle.link_by_name("storage")?;
    Ok(node.handle.set_up(link.index)?)
}

fn only_storage_left(node: &Node) -> Result<()> {
    let left = node.traces();
    let expected = BTreeSet::from([format!("link {UPLINK}"), "link storage".to_owned()]);
    ensure!(left == expected, "left: {left:?}");
    Ok(())
}

/// The wire without Berth's part in it: tagged frames reach macvlan pods.
fn vlan_as_parent() -> Result<()> {
    let pool = VLAN_POOL
        .replace(", vlan: 120", "")
        .replace("parent: uplink", "parent: storage");
    let node = tagged(&pool)?;
    storage(&node)?;
    come_and_go(&node, "10.30.0.1")?;
    only_storage_left(&node)
}

/// The node's interfaces with tag 120 on the uplink.
fn vlans(node: &Node) -> Result<Vec<Link>> {
    let mut links = node.handle.links()?;
    links.retain(|link| link.vlan == Some(TAG) && link.parent == Some(node.uplink.index));
    Ok(links)
}

fn vlan_counted() -> Result<()> {
    let node = tagged(VLAN_POOL)?;
    let (one, two) = (Sandbox::new("c1"), Sandbox::new("c2"));
    add(&node, &one, "one")?;
    add(&node, &two, "two")?;
    let made = vlans(&node)?;
    ensure!(made.len() == 1 && made[0].up, "VLAN interfaces: {made:?}");
    ensure!(made[0].name == "uplink.120", "its name is {}", made[0].name);
    reaches_all(&node, &one, "10.30.0.1")?;
    let second = two.address().context("the second pod has no address")?;
    connect(&one.netns, &two.netns, second).context("pod to pod")?;
    del(&node, &one, "one")?;
    ensure!(vlans(&node)?.len() == 1, "it went with the first pod");
    reaches_all(&node, &two, "10.30.0.1")?;
    del(&node, &two, "two")?;
    nothing_left(&node)
}

fn vlan_of_others() -> Result<()> {
    let node = tagged(VLAN_POOL)?;
    storage(&node)?;
    let pod = Sandbox::new("c1");
    add(&node, &pod, "web")?;
    let names: Vec<_> = vlans(&node)?.into_iter().map(|link| link.name).collect();
    ensure!(names == ["storage"], "VLAN interfaces: {names:?}");
    reaches_all(&node, &pod, "10.30.0.1")?;
    del(&node, &pod, "web")?;
    only_storage_left(&node)
}

fn vlan_at_once() -> Result<()> {
    let node = tagged(VLAN_POOL)?;
    let pods: Vec<_> = (0..8)
        .map(|n| (Sandbox::new(&format!("c{n}")), format!("pod{n}")))
        .collect();
    let all = |call: fn(&Node, &Sandbox, &str) -> Result<()>| -> Result<()> {
        thread::scope(|scope| {
            let calls: Vec<_> = pods
                .iter()
                .map(|(sandbox, pod)| {
                    let node = &node;
                    scope.spawn(move || call(node, sandbox, pod))
                })
                .collect();
            calls
                .into_iter()
                .try_for_each(|call| call.join().expect("a call does not panic"))
        })
    };
    all(add)?;
    ensure!(
        vlans(&node)?.len() == 1,
        "VLAN interfaces: {:?}",
        vlans(&node)?
    );
    all(del)?;
    nothing_left(&node)
}

fn vlan_mtu() -> Result<()> {
    let small = VLAN_POOL.replace("vlan: 120", "vlan: 120, mtu: 1400");
    let node = tagged(&small)?;
    let pod = Sandbox::new("c1");
    add(&node, &pod, "web")?;
    let mtu = pod.handle.link_by_name("eth0")?.mtu;
    ensure!(mtu == 1400, "the pod's MTU is {mtu}");
    ensure!(
        vlans(&node)?[0].mtu == 1500,
        "the VLAN keeps its parent's MTU"
    );
    del(&node, &pod, "web")?;

    let large = VLAN_POOL.replace("vlan: 120", "vlan: 120, mtu: 9000");
    let node = tagged(&large)?;
    let answer = node.add(&pod, "web");
    ensure!(!answer.ok, "an MTU above the parent's was accepted");
    nothing_left(&node)
}

fn ipvlan() -> Result<()> {
    let node = node(IPVLAN_POOL)?;
    let (one, two) = (Sandbox::new("c1"), Sandbox::new("c2"));
    add(&node, &one, "one")?;
    add(&node, &two, "two")?;
    for pod in [&one, &two] {
        let link = pod.handle.link_by_name("eth0")?;
        ensure!(
            link.kind.as_deref() == Some("ipvlan"),
            "the pod has {link:?}"
        );
        ensure!(link.mac == node.uplink.mac, "it has a MAC of its own");
        reaches_all(&node, pod, "10.20.0.1")?;
    }
    let second = two.address().context("the second pod has no address")?;
    connect(&one.netns, &two.netns, second).context("pod to pod")?;
    let check = node.run(&node.call("CHECK", &one, "one"));
    ensure!(check.ok, "CHECK: {}", check.json);
    del(&node, &one, "one")?;
    reaches_all(&node, &two, "10.20.0.1")?;
    del(&node, &two, "two")?;
    nothing_left(&node)
}

fn ipvlan_again() -> Result<()> {
    let node = node(IPVLAN_POOL)?;
    let (old, new) = (Sandbox::new("c1"), Sandbox::new("c2"));
    let fixed = json!({"berth.dev/ip": "10.20.0.60"});
    for sandbox in [&old, &new] {
        let mut call = node.call("ADD", sandbox, "web");
        call.annotations = fixed.clone();
        let answer = node.run(&call);
        ensure!(answer.ok, "ADD in {}: {}", sandbox.id, answer.json);
    }
    reaches_all(&node, &new, "10.20.0.1")?;
    del(&node, &old, "web")?;
    reaches_all(&node, &new, "10.20.0.1").context("after the late DEL")?;
    del(&node, &new, "web")?;
    nothing_left(&node)
}

fn ipvlan_refusals() -> Result<()> {
    let node = node(IPVLAN_POOL)?;
    let mut call = node.call("ADD", &Sandbox::new("c1"), "web");
    call.extra = json!({"args": {"cni": {"mac": "02:00:00:00:00:07"}}});
    let answer = node.run(&call);
    ensure!(!answer.ok, "a MAC of its own was accepted");
    nothing_left(&node)?;

    // One interface cannot be the parent of both kinds.
    let neighbour = POOL
        .replace("name: main", "name: other")
        .replace("default: true, ", "");
    node.object(
        "other.yaml",
        &neighbour.replace("50-10.20.0.199", "150-10.20.0.199"),
    );
    let (one, two) = (Sandbox::new("c2"), Sandbox::new("c3"));
    add(&node, &one, "one")?;
    let mut call = node.call("ADD", &two, "two");
    call.annotations = json!({"berth.dev/pool": "other"});
    let answer = node.run(&call);
    ensure!(!answer.ok, "macvlan and ipvlan on one parent were accepted");
    let said = answer.json["msg"].as_str().unwrap_or_default();
    ensure!(said.contains("ipvlan"), "it is not told why: {said}");
    del(&node, &one, "one")?;
    nothing_left(&node)
}
