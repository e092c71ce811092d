//! What is in the lab: its topology, pods, Services; and what to try.

use std::io::{self, Write};

use super::table;
use crate::Lab;
use crate::controllers::Service;
use crate::ground::enter::Place;
use crate::lab::{COMPANY_ZONE, NETWORK};

/// Width of one machine in the drawing.
const COLUMN: usize = 18;

pub(super) fn all(out: &mut impl Write, lab: &Lab) -> io::Result<()> {
    topology(out, lab)?;
    writeln!(out, "\nPods: each has an address on the company's network")?;
    let pods: Vec<_> = lab
        .pods()
        .iter()
        .map(|pod| {
            [
                pod.full_name(),
                pod.node().to_owned(),
                pod.address().to_string(),
                pod.mac().unwrap_or("the node's").to_owned(),
            ]
        })
        .collect();
    table::write(out, ["POD", "NODE", "ADDRESS", "MAC"], &pods)?;
    writeln!(
        out,
        "\nServices: a name and an address for the pods behind them"
    )?;
    let services: Vec<_> = lab.services().iter().map(|s| service(lab, s)).collect();
    table::write(
        out,
        ["SERVICE", "TYPE", "ADDRESS", "PORTS", "ENDPOINTS"],
        &services,
    )
}

fn service(lab: &Lab, service: &Service) -> [String; 5] {
    let address = if service.is_headless() {
        "none: headless".to_owned()
    } else {
        service.spec.cluster_ip.clone()
    };
    let ports = service.spec.ports.iter().map(|port| {
        let node = port.node_port.map(|n| format!(":{n}")).unwrap_or_default();
        format!("{}{node}/{}", port.port, port.protocol)
    });
    let pods = lab.pods_of(service);
    let endpoints: Vec<_> = pods.iter().map(|pod| pod.address().to_string()).collect();
    [
        service.full_name(),
        service.spec.kind.clone(),
        address,
        ports.collect::<Vec<_>>().join(" "),
        if endpoints.is_empty() {
            "-".to_owned()
        } else {
            endpoints.join(" ")
        },
    ]
}

fn topology(out: &mut impl Write, lab: &Lab) -> io::Result<()> {
    let pods = lab.pods();
    let vms = lab.vms().iter().map(|vm| {
        [
            vm.name().to_owned(),
            vm.address().to_string(),
            "a legacy machine".to_owned(),
        ]
    });
    let nodes = lab.nodes().iter().map(|node| {
        let count = pods.iter().filter(|pod| pod.node() == node.name()).count();
        [
            node.name().to_owned(),
            node.address().to_string(),
            format!("{count} {}", if count == 1 { "pod" } else { "pods" }),
        ]
    });
    let machines: Vec<_> = vms.chain(nodes).collect();
    let network = format!("{}/{}", NETWORK.network(), NETWORK.prefix());
    writeln!(
        out,
        "\nLab {}: one wire, the company's network {network}, router {}",
        lab.name(),
        NETWORK.ip()
    )?;
    let cable = format!("──┬{}", "─".repeat(COLUMN - 3));
    writeln!(out, "  {}", cable.repeat(machines.len()))?;
    let drop = format!("  │{}", " ".repeat(COLUMN - 3));
    writeln!(out, "  {}", drop.repeat(machines.len()).trim_end())?;
    for line in 0..3 {
        let cells: String = machines
            .iter()
            .map(|machine| format!("{:<COLUMN$}", machine[line]))
            .collect();
        writeln!(out, "  {}", cells.trim_end())?;
    }
    Ok(())
}

/// Five commands that work as they stand.
pub(super) fn commands(out: &mut impl Write, lab: &Lab) -> io::Result<()> {
    writeln!(
        out,
        "\nThe lab runs until Ctrl-C. In another terminal, as root, try:"
    )?;
    let mut told: Vec<(String, String)> = Vec::new();
    let vm = lab.vm(1);
    let reachable = lab.services().iter().find_map(|service| {
        let port = tcp_port(lab, service)?;
        Some((service, port))
    });
    if let Some((service, number)) = reachable {
        let name = format!("{}-{}.{COMPANY_ZONE}", service.name, service.namespace);
        told.push((
            format!("{} talks to a pod by its company name", vm.name()),
            format!(
                "ip netns exec {} bash -c 'exec 3<>/dev/tcp/{name}/{number}; echo hello >&3; head -n1 <&3'",
                vm.netns()
            ),
        ));
    }
    if let Some((service, pod)) = lab.services().iter().find_map(|service| {
        service.cluster_ip()?;
        tcp_port(lab, service)?;
        Some((service, lab.pods().into_iter().find(|p| p.mac().is_some())?))
    }) {
        let port = service.spec.ports.iter().find(|p| p.protocol == "TCP");
        let number = port.map_or(0, |port| port.port);
        told.push((
            format!(
                "pod {} talks to Service {}",
                pod.full_name(),
                service.full_name()
            ),
            format!(
                "{} bash -c 'exec 3<>/dev/tcp/{}.{}/{number}; echo hello >&3; head -n1 <&3'",
                exec(pod.place()),
                service.name,
                service.namespace
            ),
        ));
        told.push((
            "the pod's only interface, with the MAC that follows from its address".to_owned(),
            format!("ip -n {} -d link show eth0", pod.netns()),
        ));
    }
    let node = lab.node(1);
    told.push((
        format!("{}'s routes to its own pods, through the shim", node.name()),
        format!("ip -n {} route", node.netns()),
    ));
    told.push((
        "the objects that stand in for the API server; edit one and watch the agent".to_owned(),
        format!(
            "ls {}; tail -f {}",
            lab.store().folder().display(),
            node.folder().join("agent.log").display()
        ),
    ));
    for (why, command) in told {
        writeln!(out, "\n  # {why}\n  {command}")?;
    }
    out.flush()
}

/// The command that runs something in a place.
fn exec(place: &Place) -> String {
    let lab = std::env::current_exe().unwrap_or_else(|_| "berth-lab".into());
    let mut text = format!("{} exec", lab.display());
    for (flag, value) in [
        ("cgroup", &place.cgroup),
        ("netns", &place.netns),
        ("resolv-conf", &place.resolv_conf),
    ] {
        if let Some(value) = value {
            text += &format!(" --{flag} {}", value.display());
        }
    }
    text + " --"
}

/// The pods' TCP port behind a Service that has pods.
fn tcp_port(lab: &Lab, service: &Service) -> Option<u16> {
    let pods = lab.pods_of(service);
    let ports = &service.spec.ports;
    let port = ports.iter().find(|port| port.protocol == "TCP")?;
    crate::controllers::slices::target_number(port, &pods.first()?.plan)
}
