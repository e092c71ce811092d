//! Who may use a Service: source ranges for clients on the node, by what the
//! programs know of a client, its network namespace.

use std::time::Duration;

use anyhow::{Context as _, Result};
use berth_e2e::agent::{Agent, Home};
use berth_e2e::proxy::How::{Tcp, Udp, UdpUnconnected};
use berth_e2e::proxy::{Bench, How, ready, service, slice, until};
use berth_lab::{require_binaries, require_root};
use serde_json::{Value, json};

/// How long the agent may take to find a namespace, on a slow machine.
const SLOW: Duration = Duration::from_secs(10);

fn guarded(ranges: &[&str]) -> Value {
    let spec = json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ranges});
    let mut service = service("guarded", "10.96.2.1", spec);
    service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}});
    service
}

/// What one client sees, within the time that a change may take.
fn expect(bench: &Bench, who: &str, how: How, to: &str, sees: &str) -> Result<()> {
    until(
        &format!("{who} over {how:?} to {to} sees {sees}"),
        SLOW,
        || Ok(bench.exchange(who, how, to)?.to_string() == sees),
    )
    .map(drop)
}

#[test]
fn source_ranges_hold_for_pods_and_the_node() -> Result<()> {
    require_root!();
    require_binaries!("berth-lab", "berth-cni", "berth-agent", "berth-socket");
    let bench = Bench::start()?;
    // c1 is 10.20.0.71, the node 10.20.0.11, c2 (on node 2) 10.20.0.72.
    bench.apply(&[
        guarded(&["10.20.0.71/32", "10.20.0.12/32"]),
        slice("guarded", &[ready("s2")]),
    ])?;
    let address = "203.0.113.9:80";
    for how in [Tcp, Udp, UdpUnconnected] {
        expect(&bench, "c1", how, address, "s2")?;
        expect(&bench, "n2", how, address, "s2")?;
        expect(&bench, "c2", how, address, "EACCES")?;
        expect(&bench, "n1", how, address, "EACCES")?;
        expect(&bench, "h1", how, address, "EACCES")?;
    }
    // The ranges guard the load balancer's address, not the cluster IP.
    for who in ["c1", "c2", "n1"] {
        expect(&bench, who, Tcp, "10.96.2.1:80", "s2")?;
    }
    // They can change under a live Service, and go.
    bench.apply(&[guarded(&["10.20.0.72/32"])])?;
    expect(&bench, "c2", Tcp, address, "s2")?;
    expect(&bench, "c1", Tcp, address, "EACCES")?;
    bench.apply(&[guarded(&[])])?;
    for who in ["c1", "c2", "n1", "h1"] {
        expect(&bench, who, Tcp, address, "s2")?;
    }
    Ok(())
}

#[test]
fn pods_that_opt_out_are_left_alone() -> Result<()> {
    require_root!();
    require_binaries!("berth-lab", "berth-cni", "berth-agent", "berth-socket");
    let bench = Bench::start()?;
    // The Service has the address of a pod that answers itself: who is left
    // alone reaches s1, everybody else the Service's endpoint, s2.
    let spec = json!({"externalIPs": ["10.20.0.61"], "ports": [
        {"name": "t", "protocol": "TCP", "port": 8080, "targetPort": 8080},
    ]});
    bench.apply(&[
        service("in-the-way", "10.96.2.2", spec),
        slice("in-the-way", &[ready("s2")]),
    ])?;
    let address = "10.20.0.61:8080";
    expect(&bench, "c1", Tcp, address, "s2")?;
    expect(&bench, "c2", Tcp, address, "s2")?;
    let namespace = |annotations: Value| {
        json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": "default", "annotations": annotations},
        })
    };
    bench.apply(&[namespace(json!({"berth.dev/service-proxy": "disabled"}))])?;
    expect(&bench, "c1", Tcp, address, "s1")?;
    expect(&bench, "c2", Tcp, address, "s1")?;
    // A pod's word is for that pod; the node itself has said nothing.
    expect(&bench, "n1", Tcp, address, "s2")?;
    bench.apply(&[namespace(json!({}))])?;
    expect(&bench, "c1", Tcp, address, "s2")?;
    Ok(())
}

#[test]
fn a_cgroup_that_opts_out_is_left_alone() -> Result<()> {
    require_root!();
    require_binaries!("berth-lab", "berth-cni", "berth-agent", "berth-socket");
    let bench = Bench::start()?;
    let spec = json!({"externalIPs": ["10.20.0.61"], "ports": [
        {"name": "t", "protocol": "TCP", "port": 8080, "targetPort": 8080},
    ]});
    bench.apply(&[
        service("in-the-way", "10.96.2.3", spec),
        slice("in-the-way", &[ready("s2")]),
    ])?;
    let address = "10.20.0.61:8080";
    expect(&bench, "c1", Tcp, address, "s2")?;
    // An agent in the place of the lab's, told to leave the pod's cgroup alone.
    let node = bench.lab.node(1);
    node.kill_agent()?;
    let cgroup = bench.place("c1")?.cgroup.context("a pod has a cgroup")?;
    let arguments = |opt_out: bool| {
        let mut all = vec![
            "--folder".into(),
            bench.lab.store().folder().as_os_str().to_owned(),
        ];
        if opt_out {
            all.extend(["--opt-out-cgroup".into(), cgroup.clone().into_os_string()]);
        }
        all
    };
    let home = Home::of(node)?;
    let agent = Agent::start(&home, &arguments(true))?;
    expect(&bench, "c1", Tcp, address, "s1")?;
    expect(&bench, "n1", Tcp, address, "s2")?;
    // The next one is not told so: what the maps held is taken back.
    agent.kill()?;
    let agent = Agent::start(&home, &arguments(false))?;
    expect(&bench, "c1", Tcp, address, "s2")?;
    agent.kill()
}
