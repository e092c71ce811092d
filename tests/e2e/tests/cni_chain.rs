//! As libcni calls: the real cnitool with a list of plugins, what comes before
//! and after type berth in one, and the order and repetitions of its calls.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use berth_e2e::cni::{Call, Node, POOL, Sandbox, connect, merge};
use berth_kube::{Program, binaries};
use berth_lab::{require_binaries, require_root, skip};
use serde_json::{Value, json};

const PLUGINS: &str = "/usr/lib/cni";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// cnitool with a folder of network configurations of its own.
struct Tool<'a> {
    node: &'a Node,
    network: String,
}

impl<'a> Tool<'a> {
    fn new(node: &'a Node, version: &str, more: Value) -> Self {
        let bin = node.dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        symlink(
            berth_lab::binaries::find("berth-cni").unwrap(),
            bin.join("berth"),
        )
        .unwrap();
        for name in ["tuning", "host-local"] {
            symlink(Path::new(PLUGINS).join(name), bin.join(name)).unwrap();
        }
        // libcni keeps results under the network's name.
        let network = format!("berth-test-{}", std::process::id());
        let mut first = json!({ "type": "berth" });
        merge(&mut first, &node.settings());
        merge(&mut first, &more);
        let list = json!({
            "cniVersion": version,
            "name": network,
            "plugins": [
                first,
                {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}, "mac": "06:00:00:00:00:07"},
            ],
        });
        let folder = node.dir.path().join("net.d");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("10.conflist"), list.to_string()).unwrap();
        Self { node, network }
    }

    fn run(&self, verb: &str, netns: &str) -> Output {
        self.node
            .netns
            .run(|| {
                Command::new(binaries::find(Program::Cnitool).unwrap())
                    .args([verb, &self.network, netns])
                    .env("CNI_PATH", self.node.dir.path().join("bin"))
                    .env("NETCONFPATH", self.node.dir.path().join("net.d"))
                    .env(
                        "CNI_ARGS",
                        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u1",
                    )
                    .output()
                    .unwrap()
            })
            .unwrap()
    }

    fn ok(&self, verb: &str, netns: &str) -> Output {
        let output = self.run(verb, netns);
        assert!(output.status.success(), "{verb}: {output:?}");
        output
    }
}

macro_rules! require_cnitool {
    () => {
        if let Err(problem) = binaries::ensure(&[Program::Cnitool]) {
            skip!("{problem:#}");
        }
        if !Path::new(PLUGINS).join("tuning").exists() {
            skip!("{PLUGINS}/tuning is missing; install containernetworking-plugins");
        }
    };
}

#[test]
fn cnitool_drives_a_list_of_berth_and_tuning() {
    require_root!();
    require_binaries!("berth-cni");
    require_cnitool!();
    // Debian's tuning speaks 1.0.0; GC is of 1.1.0 and goes to Berth alone.
    let node = Node::new(POOL);
    let tool = Tool::new(&node, "1.0.0", json!({}));
    let pod = Sandbox::new("c1");
    let added = tool.ok("add", &pod.path());
    let result: Value = serde_json::from_slice(&added.stdout).unwrap();
    assert_eq!(result["ips"][0]["address"], "10.20.0.50/24");
    let link = pod.handle.link_by_name("eth0").unwrap();
    assert_eq!(
        link.mac,
        Some([6, 0, 0, 0, 0, 7]),
        "tuning changed it after Berth"
    );
    tool.ok("check", &pod.path());
    tool.ok("check", &pod.path());
    connect(&node.wire, &pod.netns, ip("10.20.0.50")).unwrap();
    // What CHECK is for.
    pod.handle.set_down(link.index).unwrap();
    let checked = tool.run("check", &pod.path());
    assert!(!checked.status.success());
    pod.handle.set_up(link.index).unwrap();
    tool.ok("del", &pod.path());
    assert!(node.traces().is_empty(), "{:?}", node.traces());
    assert!(
        pod.handle.link_by_name("eth0").is_err(),
        "whatever MAC it has by now"
    );
    tool.ok("del", &pod.path());

    // libcni's GC of 1.0.0 is DEL for every attachment that it knows.
    tool.ok("add", &pod.path());
    tool.ok("gc", &pod.path());
    assert!(node.traces().is_empty(), "{:?}", node.traces());
}

#[test]
fn cnitool_with_the_addresses_of_host_local() {
    require_root!();
    require_binaries!("berth-cni");
    require_cnitool!();
    let node = Node::new(POOL);
    let ipam = json!({"master": "eth0", "ipam": {
        "type": "host-local",
        "dataDir": node.dir.path().join("host-local"),
        "subnet": "10.20.0.0/24", "rangeStart": "10.20.0.220", "rangeEnd": "10.20.0.230",
    }});
    let tool = Tool::new(&node, "0.4.0", ipam);
    let pod = Sandbox::new("c1");
    for _ in 0..2 {
        tool.ok("add", &pod.path());
        tool.ok("check", &pod.path());
        tool.ok("del", &pod.path());
        tool.ok("del", &pod.path());
        assert!(node.traces().is_empty(), "{:?}", node.traces());
        assert!(pod.handle.link_by_name("eth0").is_err());
    }
}

#[test]
fn what_an_earlier_plugin_did_is_kept_and_checked() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(POOL);
    let pod = Sandbox::new("c1");
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let earlier = json!({
            "cniVersion": version,
            "interfaces": [{"name": "net9", "mac": "06:00:00:00:00:09", "sandbox": pod.path()}],
            "ips": [{"address": "192.0.2.9/24", "interface": 0}],
            "dns": {"nameservers": ["192.0.2.53"]},
        });
        let mut call = Call {
            version,
            extra: json!({"prevResult": earlier}),
            ..node.call("ADD", &pod, "web")
        };
        let answer = node.run(&call);
        assert!(answer.ok, "{answer:?}");
        assert_eq!(answer.json["interfaces"][0], earlier["interfaces"][0]);
        assert_eq!(answer.json["ips"][0], earlier["ips"][0]);
        assert_eq!(answer.json["interfaces"][1]["name"], "eth0");
        assert_eq!(answer.json["ips"][1]["interface"], 1);
        assert_eq!(answer.json["dns"], earlier["dns"]);
        call.verb = "CHECK";
        let checked = node.run(&call);
        assert_eq!(
            checked.json["code"], 108,
            "a result without this attachment"
        );
        call.extra["prevResult"] = answer.json;
        let checked = node.run(&call);
        assert!(checked.ok, "{checked:?}");
        call.verb = "DEL";
        assert!(node.run(&call).ok);
        assert!(node.traces().is_empty(), "{:?}", node.traces());
    }
}

/// What libcni and the runtimes on it do besides ADD and DEL in turn.
#[test]
fn the_calling_habits_of_libcni() {
    require_root!();
    require_binaries!("berth-cni");
    let node = Node::new(POOL);
    let run = |call: &Call| {
        let answer = node.run(call);
        assert!(answer.ok, "{} {}: {answer:?}", call.verb, call.container);
        answer.json
    };
    let on = |verb, pod: &Sandbox| Call {
        version: "1.1.0",
        ..node.call(verb, pod, "web")
    };
    let valid = |pods: &[&Sandbox]| {
        let list: Vec<_> = pods
            .iter()
            .map(|pod| json!({"containerID": pod.id, "ifname": "eth0"}))
            .collect();
        json!({ "cni.dev/valid-attachments": list })
    };

    // CRI-O: CHECK right after ADD, and again whenever it likes.
    let first = Sandbox::new("c1");
    let added = run(&on("ADD", &first));
    for _ in 0..2 {
        let mut check = on("CHECK", &first);
        check.extra = json!({ "prevResult": added });
        run(&check);
    }
    // The sandbox is made anew before the DEL of the old one comes.
    let second = Sandbox::new("c2");
    run(&on("ADD", &second));
    assert_eq!(
        second.address(),
        Some(ip("10.20.0.50")),
        "same pod, same address"
    );
    let mut late = on("DEL", &first);
    late.extra = json!({ "prevResult": added });
    run(&late);
    run(&on("CHECK", &second));
    connect(&node.netns, &second.netns, ip("10.20.0.50")).unwrap();
    // GC with what the runtime knows: the living stay, whatever the order.
    for _ in 0..2 {
        let mut gc = on("GC", &second);
        gc.extra = valid(&[&second]);
        run(&gc);
    }
    run(&on("CHECK", &second));
    // DEL in reverse order of the list, twice, the second time without netns.
    run(&on("DEL", &second));
    let mut again = on("DEL", &second);
    again.netns = String::new();
    run(&again);
    assert!(node.traces().is_empty(), "{:?}", node.traces());

    // The namespace goes first, with the interface in it.
    let third = Sandbox::new("c3");
    run(&on("ADD", &third));
    let mut del = on("DEL", &third);
    del.netns = String::new();
    drop(third);
    run(&del);
    assert!(node.traces().is_empty(), "{:?}", node.traces());

    // DEL of an ADD that never came, and GC of one that the runtime forgot.
    let fourth = Sandbox::new("c4");
    run(&on("DEL", &fourth));
    run(&on("ADD", &fourth));
    let mut gc = on("GC", &fourth);
    gc.extra = valid(&[]);
    run(&gc);
    assert!(node.traces().is_empty(), "{:?}", node.traces());
}
