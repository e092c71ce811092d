//! Other projects' annotations, and a KubeVirt machine that is started anew.

use berth_e2e::cni::{Call, Node, POOL, Sandbox};
use berth_lab::{require_binaries, require_root};
use serde_json::json;

#[test]
fn another_projects_annotation_gives_address_and_mac() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(POOL);
    let pod = Sandbox::new("c1");
    let add = |annotations| {
        node.run(&Call {
            annotations,
            ..node.call("ADD", &pod, "web")
        })
    };
    for annotations in [
        json!({"ovn.kubernetes.io/ip_address": "10.20.0.77"}),
        json!({"cni.projectcalico.org/ipAddrs": "[\"10.20.0.77\"]"}),
        json!({"berth.dev/ip": "10.20.0.77", "ovn.kubernetes.io/ip_address": "10.20.0.78"}),
    ] {
        let answer = add(annotations);
        assert_eq!(
            answer.json["ips"][0]["address"], "10.20.0.77/24",
            "{answer:?}"
        );
        assert!(node.del(&pod, "web").ok);
    }
    let answer = add(json!({
        "k8s.v1.cni.cncf.io/networks": "[{\"name\":\"berth\",\"ips\":[\"10.20.0.77/24\"],\"mac\":\"06:00:00:00:00:01\"}]"
    }));
    assert_eq!(
        answer.json["interfaces"][0]["mac"], "06:00:00:00:00:01",
        "{answer:?}"
    );
    assert!(node.del(&pod, "web").ok);
    let refused = add(json!({"cni.projectcalico.org/ipAddrs": "10.20.0.77"}));
    assert_eq!(refused.json["code"], 101, "{refused:?}");
    let refused = add(json!({"ipam.spidernet.io/ippool": "{\"ipv4\":[\"none\"]}"}));
    assert_eq!(refused.json["code"], 100, "{refused:?}");
    assert!(node.traces().is_empty(), "{:?}", node.traces());
}

#[test]
fn a_machine_has_its_address_again() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(POOL);
    let write = |pod: &str| {
        node.object(
            "pod.yaml",
            &format!(
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {pod}\n  namespace: shop\n  uid: uid-of-{pod}\n  labels: {{kubevirt.io: virt-launcher, vm.kubevirt.io/name: db}}\n"
            ),
        );
    };
    let first = Sandbox::new("c1");
    write("virt-launcher-db-aaaaa");
    assert!(node.add(&first, "virt-launcher-db-aaaaa").ok);
    let address = first.address().unwrap();
    assert!(node.del(&first, "virt-launcher-db-aaaaa").ok);
    // Somebody else comes in between, and does not get it.
    let other = Sandbox::new("c2");
    assert!(node.add(&other, "web").ok);
    assert_ne!(other.address(), Some(address));
    let second = Sandbox::new("c3");
    write("virt-launcher-db-bbbbb");
    let answer = node.add(&second, "virt-launcher-db-bbbbb");
    assert!(answer.ok, "{answer:?}");
    assert_eq!(second.address(), Some(address));
}
