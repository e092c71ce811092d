//! Type berth with the address of another IPAM plugin: the real host-local and
//! static (Debian's containernetworking-plugins), and one that is made to fail.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use berth_e2e::cni::{Call, Node, POOL, Sandbox, connect};
use berth_lab::{require_binaries, require_root, skip};
use berth_netlink::MAIN_TABLE;
use serde_json::{Value, json};

const PLUGINS: &str = "/usr/lib/cni";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn bin(node: &Node) {
    let bin = node.dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["host-local", "static"] {
        symlink(Path::new(PLUGINS).join(name), bin.join(name)).unwrap();
    }
}

/// A plugin that writes down how it was called, and answers with `script`.
fn peer(node: &Node, script: &str) {
    let path = node.dir.path().join("bin/peer");
    let log = node.dir.path().join("calls").display().to_string();
    let text = format!(
        "#!/bin/sh\nconfig=$(cat)\necho \"$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME [$CNI_NETNS] $config\" >> {log}\n{script}\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn calls(node: &Node) -> Vec<(String, String)> {
    let text = fs::read_to_string(node.dir.path().join("calls")).unwrap_or_default();
    text.lines()
        .map(|line| {
            let (verb, rest) = line.split_once(' ').unwrap();
            (verb.to_owned(), rest.to_owned())
        })
        .collect()
}

fn host_local(node: &Node) -> Value {
    json!({
        "type": "host-local",
        "dataDir": node.dir.path().join("host-local"),
        "ranges": [[{"subnet": "10.20.0.0/24", "rangeStart": "10.20.0.220", "rangeEnd": "10.20.0.221", "gateway": "10.20.0.1"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    })
}

fn leases(node: &Node) -> usize {
    fs::read_dir(node.dir.path().join("host-local/berth"))
        .into_iter()
        .flatten()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str().unwrap().starts_with("10.")
        })
        .count()
}

macro_rules! require_plugins {
    () => {
        if !Path::new(PLUGINS).join("host-local").exists() {
            skip!("{PLUGINS}/host-local is missing; install containernetworking-plugins");
        }
    };
}

#[test]
fn host_local_gives_the_address_in_every_version() {
    require_root!();
    require_binaries!("berth-cni");
    require_plugins!();
    let node = Node::new(POOL);
    bin(&node);
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        let pod = Sandbox::new("c1");
        let mut call = Call {
            version,
            extra: json!({"ipam": host_local(&node), "master": "eth0"}),
            ..node.call("ADD", &pod, "web")
        };
        let answer = node.run(&call);
        assert!(answer.ok, "{version}: {answer:?}");
        assert_eq!(answer.json["cniVersion"], version);
        let address = pod.address().unwrap();
        assert_eq!(answer.json["ips"][0]["address"], format!("{address}/24"));
        assert_eq!(answer.json["ips"][0]["interface"], 0);
        assert_eq!(leases(&node), 1);
        assert_eq!(node.held(), [], "none of Berth's own");
        let routes = pod.handle.routes(MAIN_TABLE).unwrap();
        assert!(
            routes
                .iter()
                .any(|r| r.dst.is_none() && r.gateway == Some(ip("10.20.0.1")))
        );
        connect(&node.wire, &pod.netns, address).unwrap();
        connect(&node.netns, &pod.netns, address).unwrap();
        connect(&pod.netns, &node.netns, ip("10.20.0.11")).unwrap();
        if version != "0.3.1" {
            call.verb = "CHECK";
            call.extra["prevResult"] = answer.json;
            let checked = node.run(&call);
            assert!(checked.ok, "{checked:?}");
        }
        call.verb = "DEL";
        for _ in 0..2 {
            let answer = node.run(&call);
            assert!(answer.ok, "{answer:?}");
        }
        assert_eq!(leases(&node), 0);
        assert!(node.traces().is_empty(), "{:?}", node.traces());
    }
}

#[test]
fn a_failed_add_gives_the_lease_back() {
    require_root!();
    require_binaries!("berth-cni");
    require_plugins!();
    let node = Node::new(POOL);
    bin(&node);
    let extra = json!({"ipam": host_local(&node), "master": "eth0"});
    // A next hop that cannot be reached: the wiring fails after the plugin has
    // answered.
    let mut broken = extra.clone();
    broken["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0", "gw": "192.0.2.1"}]);
    let pod = Sandbox::new("c1");
    let refused = node.run(&Call {
        extra: broken,
        ..node.call("ADD", &pod, "web")
    });
    assert_eq!(refused.json["code"], 106, "{refused:?}");
    assert_eq!(leases(&node), 0, "the plugin's DEL was called");
    assert!(node.traces().is_empty(), "{:?}", node.traces());
    assert!(pod.handle.link_by_name("eth0").is_err());

    // Two addresses, three pods: the third is told whose refusal it is.
    let pods = ["c1", "c2", "c3"].map(Sandbox::new);
    for (pod, fits) in pods.iter().zip([true, true, false]) {
        let answer = node.run(&Call {
            extra: extra.clone(),
            ..node.call("ADD", pod, "web")
        });
        assert_eq!(answer.ok, fits, "{answer:?}");
        if !fits {
            assert_eq!(answer.json["code"], 109);
            let told = answer.json["msg"].as_str().unwrap();
            assert!(told.starts_with("ipam plugin host-local (code"), "{told}");
        }
    }
    for pod in &pods[..2] {
        // The configuration has changed since: the record on disk counts.
        let del = node.run(&node.call("DEL", pod, "web"));
        assert!(del.ok, "{del:?}");
    }
    assert_eq!(leases(&node), 0);
    assert!(node.traces().is_empty(), "{:?}", node.traces());
}

#[test]
fn static_addresses_of_both_families() {
    require_root!();
    require_binaries!("berth-cni");
    require_plugins!();
    let node = Node::new(POOL);
    bin(&node);
    let pod = Sandbox::new("c1");
    let mut call = Call {
        extra: json!({"master": "eth0", "mtu": 1400, "ipam": {
            "type": "static",
            "addresses": [
                {"address": "10.20.0.230/24", "gateway": "10.20.0.1"},
                {"address": "fd20::230/64", "gateway": "fd20::1"},
            ],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.20.0.1"}],
            "dns": {"nameservers": ["10.20.0.1"]},
        }}),
        ..node.call("ADD", &pod, "web")
    };
    let answer = node.run(&call);
    assert!(answer.ok, "{answer:?}");
    assert_eq!(answer.json["dns"]["nameservers"][0], "10.20.0.1");
    assert_eq!(answer.json["ips"][1]["address"], "fd20::230/64");
    assert_eq!(pod.handle.link_by_name("eth0").unwrap().mtu, 1400);
    connect(&node.wire, &pod.netns, ip("10.20.0.230")).unwrap();
    connect(&node.wire, &pod.netns, ip("fd20::230")).unwrap();
    call.verb = "CHECK";
    call.extra["prevResult"] = answer.json;
    let checked = node.run(&call);
    assert!(checked.ok, "{checked:?}");
    let index = pod.handle.link_by_name("eth0").unwrap().index;
    pod.handle
        .delete_address(index, "fd20::230/64".parse().unwrap())
        .unwrap();
    let checked = node.run(&call);
    assert_eq!(checked.json["code"], 108, "{checked:?}");
    call.verb = "DEL";
    assert!(node.run(&call).ok);
    assert!(node.traces().is_empty(), "{:?}", node.traces());
}

#[test]
fn the_plugin_is_called_as_the_runtime_called() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(POOL);
    bin(&node);
    peer(
        &node,
        r#"[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.1.0","ips":[{"address":"10.20.0.240/24"}]}'; exit 0"#,
    );
    let pod = Sandbox::new("c1");
    let mut call = Call {
        version: "1.1.0",
        extra: json!({"master": "eth0", "ipam": {"type": "peer", "mine": [1, 2]}}),
        ..node.call("ADD", &pod, "web")
    };
    let answer = node.run(&call);
    assert!(answer.ok, "{answer:?}");
    assert_eq!(answer.json["routes"], json!([]), "it named none");
    for verb in ["STATUS", "CHECK"] {
        call.verb = verb;
        let answer = node.run(&call);
        assert!(answer.ok, "{answer:?}");
    }
    // A GC of the network: the attachment is not in the list.
    call.verb = "GC";
    call.extra["cni.dev/valid-attachments"] = json!([]);
    let answer = node.run(&call);
    assert!(answer.ok, "{answer:?}");
    assert!(node.traces().is_empty(), "{:?}", node.traces());
    // A DEL that comes late, and one without a namespace.
    call.verb = "DEL";
    call.netns = String::new();
    assert!(node.run(&call).ok);
    let calls = calls(&node);
    let verbs: Vec<_> = calls.iter().map(|(verb, _)| verb.as_str()).collect();
    assert_eq!(verbs, ["ADD", "STATUS", "CHECK", "DEL", "GC", "DEL"]);
    let (_, add) = &calls[0];
    assert!(
        add.starts_with(&format!("c1 eth0 [{}] {{", pod.path())),
        "{add}"
    );
    assert!(add.contains(r#""mine":[1,2]"#) && add.contains(r#""cniVersion":"1.1.0""#));
    let (_, recorded) = &calls[3];
    assert!(
        recorded.starts_with(&format!("c1 eth0 [{}] {{", pod.path())),
        "{recorded}"
    );
    assert!(calls[5].1.starts_with("c1 eth0 [] {"), "{}", calls[5].1);

    // What it refuses is undone, and its DEL is called before the answer.
    peer(
        &node,
        r#"[ "$CNI_COMMAND" = ADD ] && { echo '{"code":11,"msg":"full"}'; exit 1; }; exit 0"#,
    );
    fs::remove_file(node.dir.path().join("calls")).unwrap();
    let pod = Sandbox::new("c2");
    call = Call {
        extra: call.extra.clone(),
        ..node.call("ADD", &pod, "web")
    };
    let refused = node.run(&call);
    assert_eq!(refused.json["code"], 11, "{refused:?}");
    let verbs: Vec<_> = self::calls(&node)
        .into_iter()
        .map(|(verb, _)| verb)
        .collect();
    assert_eq!(verbs, ["ADD", "DEL"]);
    assert!(node.traces().is_empty(), "{:?}", node.traces());
}
