//! Beside the reference plugins (Debian's containernetworking-plugins): the
//! same shape of result in every version, and `berth-ipam` under their macvlan.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;

use berth_e2e::cni::{Call, Node, POOL, Sandbox, merge};
use berth_lab::{require_binaries, require_root, skip};
use serde_json::{Value, json};

const MACVLAN: &str = "/usr/lib/cni/macvlan";

/// The paths of all fields, without list indices.
fn shape(value: &Value, at: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                shape(value, &format!("{at}.{key}"), into);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| shape(item, at, into)),
        leaf => {
            let kind = match leaf {
                Value::Number(_) => "number",
                Value::String(_) => "string",
                _ => "other",
            };
            into.insert(format!("{at}: {kind}"));
        }
    }
}

fn shape_of(value: &Value) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    shape(value, "", &mut paths);
    paths
}

/// The reference macvlan with `ipam`, found in the node's CNI_PATH.
fn reference(node: &Node, pod: &Sandbox, version: &'static str, ipam: &Value) -> (Call, Value) {
    let bin = node.dir.path().join("bin");
    if !bin.exists() {
        std::fs::create_dir(&bin).unwrap();
        symlink("/usr/lib/cni/host-local", bin.join("host-local")).unwrap();
        let ours = berth_lab::binaries::find("berth-cni").unwrap();
        symlink(ours, bin.join("berth-ipam")).unwrap();
    }
    let call = Call {
        program: MACVLAN.into(),
        version,
        ..node.call("ADD", pod, "web")
    };
    let config = json!({ "cniVersion": version, "name": "peer", "type": "macvlan", "master": "eth0", "ipam": ipam });
    (call, config)
}

#[test]
fn results_have_the_shape_of_the_reference_plugins() {
    require_root!();
    require_binaries!("berth-cni");
    if !Path::new(MACVLAN).exists() {
        skip!("{MACVLAN} is missing; install containernetworking-plugins");
    }
    let node = Node::new(POOL);
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        let (ours, theirs) = (Sandbox::new("c1"), Sandbox::new("c2"));
        let ipam = json!({
            "type": "host-local",
            "dataDir": node.dir.path().join("host-local"),
            "ranges": [[{"subnet": "10.20.0.0/24", "rangeStart": "10.20.0.220", "rangeEnd": "10.20.0.230", "gateway": "10.20.0.1"}]],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.20.0.1"}],
        });
        let (mut call, config) = reference(&node, &theirs, version, &ipam);
        let peer = node.run_config(&call, &config);
        assert!(peer.ok, "{peer:?}");
        call.verb = "DEL";
        assert!(node.run_config(&call, &config).ok);
        let call = Call {
            version,
            ..node.call("ADD", &ours, "web")
        };
        let own = node.run(&call);
        assert!(own.ok, "{own:?}");
        assert_eq!(own.json["cniVersion"], version);
        assert_eq!(shape_of(&own.json), shape_of(&peer.json), "{version}");
        assert!(node.del(&ours, "web").ok);
    }
    let pod = Sandbox::new("c1");
    let newest = node.run(&Call {
        version: "1.1.0",
        ..node.call("ADD", &pod, "web")
    });
    assert_eq!(
        newest.json["interfaces"][0]["mtu"], 1500,
        "CNI 1.1.0 says the MTU"
    );
    for version in ["0.1.0", "0.2.0", "2.0.0"] {
        let refused = node.run(&Call {
            version,
            ..node.call("ADD", &pod, "web")
        });
        assert_eq!(refused.json["code"], 1, "{refused:?}");
        assert_eq!(refused.json["cniVersion"], version);
    }
}

#[test]
fn berth_ipam_serves_the_reference_macvlan() {
    require_root!();
    require_binaries!("berth-cni");
    if !Path::new(MACVLAN).exists() {
        skip!("{MACVLAN} is missing; install containernetworking-plugins");
    }
    let node = Node::new(POOL);
    let mut ipam = json!({ "type": "berth-ipam" });
    merge(&mut ipam, &node.settings());
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        let pod = Sandbox::new("c1");
        let (mut call, mut config) = reference(&node, &pod, version, &ipam);
        config["runtimeConfig"] =
            json!({ "io.kubernetes.cri.pod-annotations": {"berth.dev/ip": "10.20.0.77"} });
        let answer = node.run_config(&call, &config);
        assert!(answer.ok, "{answer:?}");
        assert_eq!(answer.json["ips"][0]["address"], "10.20.0.77/24");
        assert_eq!(pod.address(), Some("10.20.0.77".parse().unwrap()));
        assert_eq!(node.held().len(), 1);
        if version != "0.3.1" {
            config["prevResult"] = answer.json;
            call.verb = "CHECK";
            let checked = node.run_config(&call, &config);
            assert!(checked.ok, "{checked:?}");
        }
        call.verb = "DEL";
        for _ in 0..2 {
            let answer = node.run_config(&call, &config);
            assert!(answer.ok, "{answer:?}");
        }
        assert!(node.traces().is_empty(), "{:?}", node.traces());
    }
}
