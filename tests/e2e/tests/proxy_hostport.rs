//! hostPorts: ports of a node that lead to a pod there, for whoever connects on
//! that node (spec/proxy row 15).

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_api::folder::parse;
use berth_e2e::proxy::How::{MappedTcp, Tcp, Tcp6, Udp, Udp6, UdpUnconnected};
use berth_e2e::proxy::{Bench, How, node_port, ready, slice, until};
use berth_lab::{require_binaries, require_root};
use serde_json::{Value, json};

const ALL: &[How] = &[Tcp, Udp, UdpUnconnected];
const IPV6: &[How] = &[Tcp6, Udp6];
const REFUSED: &str = "ECONNREFUSED";

macro_rules! require_everything {
    () => {
        require_root!();
        require_binaries!("berth-lab", "berth-cni", "berth-agent", "berth-socket");
    };
}

/// The Pod object of `s1` as kubelet's stand-in wrote it, with its IPv6 address
/// and `ports`.
fn s1(bench: &Bench, ports: &Value) -> Result<Value> {
    let folder = bench.lab.store().folder();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let parsed = parse(&path, &fs::read_to_string(&path)?);
        let found = parsed.objects.into_iter();
        let mut found = found.filter(|object| object.key.kind == "Pod" && object.key.name == "s1");
        if let Some(object) = found.next() {
            let mut pod = object.value;
            pod["status"]["podIPs"] = json!([{"ip": "10.20.0.61"}, {"ip": "fd20::61"}]);
            pod["spec"]["containers"][0]["ports"] = ports.clone();
            return Ok(pod);
        }
    }
    None.context("the lab wrote no Pod s1")
}

fn port(host_port: u16, host_ip: &str) -> [Value; 2] {
    ["TCP", "UDP"].map(|protocol| {
        json!({
            "containerPort": 8080, "hostPort": host_port, "hostIP": host_ip, "protocol": protocol,
        })
    })
}

#[test]
fn leads_to_the_pod_on_its_own_node() -> Result<()> {
    require_everything!();
    let bench = Bench::start()?;
    let ports = [port(9080, ""), port(9081, "10.20.0.11"), port(30080, "")].concat();
    bench.apply(&[
        s1(&bench, &json!(ports))?,
        // A Service has its NodePort before a pod that wants the same port.
        node_port("np", "10.96.1.1", 30080, json!({})),
        slice("np", &[ready("s2")]),
    ])?;
    // The IPv6 address, which came after the agents.
    until("the hostPort on fd20::11", Duration::from_secs(10), || {
        Ok(bench.exchange("c1", Tcp6, "[fd20::11]:9080")?.to_string() == "s1")
    })?;
    let everybody = &["c1", "n1", "h1", "s1"][..];
    let node = &["n1", "h1"][..];
    for (who, how, to, expected) in [
        (everybody, ALL, "10.20.0.11:9080", "s1"),
        (node, ALL, "127.0.0.1:9080", "s1"),
        // Over IPv6 from a pod: the lab gives the node no way to its own pods.
        (&["c1"], IPV6, "[fd20::11]:9080", "s1"),
        (&["n1"], &[MappedTcp], "[::ffff:10.20.0.11]:9080", "s1"),
        // On the one address that it names.
        (everybody, ALL, "10.20.0.11:9081", "s1"),
        (node, &[Tcp, Udp], "127.0.0.1:9081", REFUSED),
        // A pod's loopback is its own.
        (&["c1"], &[Tcp, Udp], "127.0.0.1:9080", REFUSED),
        // The pod is on another node.
        (&["n2"], &[Tcp, Udp], "10.20.0.12:9080", REFUSED),
        (node, ALL, "10.20.0.11:30080", "s2"),
        // A NodePort of an IPv4 Service leaves IPv6 to the pod.
        (&["c1"], IPV6, "[fd20::11]:30080", "s1"),
    ] {
        for who in who {
            for how in how {
                let seen = bench.exchange(who, *how, to)?.to_string();
                assert_eq!(seen, expected, "{who} to {to} by {how:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn ends_with_the_pod_and_no_process_of_the_node_can_bind_it() -> Result<()> {
    require_everything!();
    let bench = Bench::start()?;
    bench.apply(&[s1(&bench, &json!(port(9080, "")))?])?;
    let client = bench.ask("n1")?;
    let to = "10.20.0.11:9080";
    for kind in ["tcp4", "udp4"] {
        client.calls(&[&format!("open b {kind}")])?;
        let bound = client.call("bind b 0.0.0.0:9080")?;
        assert_eq!(bound, Err("EADDRINUSE".to_owned()), "{kind}");
    }
    client.calls(&["open k udp4", &format!("connect k {to}"), "send k hello"])?;
    assert_eq!(client.calls(&["recv k"])?.rsplit(' ').next(), Some("s1"));

    // A socket that is connected to the pod ends with it.
    bench.remove("Pod", "s1")?;
    until("the end of the UDP socket", Duration::from_secs(5), || {
        Ok(client.call("send k hello")?.is_err())
    })?;
    for how in [Tcp, Udp] {
        assert_eq!(bench.exchange("n1", how, to)?.to_string(), REFUSED);
    }
    client.calls(&["open b tcp4", "bind b 0.0.0.0:9080"])?;
    Ok(())
}
