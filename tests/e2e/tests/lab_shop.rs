//! The lab with the demo's own example: every real program at work.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use berth_lab::controllers::slices::target_number;
use berth_lab::ground::netns;
use berth_lab::lab::{COMPANY_ZONE, SERVICES};
use berth_lab::probe::FailureKind;
use berth_lab::{Lab, require_binaries, require_root};
use berth_netlink::{Handle, Netns};

const SHOP: &str = include_str!("../../lab/examples/shop.yaml");

macro_rules! require_everything {
    () => {
        require_root!();
        require_binaries!("berth-lab", "berth-cni", "berth-agent", "berth-dns");
    };
}

fn shop() -> Result<Lab> {
    Lab::builder().yaml("shop.yaml", SHOP).start()
}

#[test]
fn every_pod_of_the_example_starts_with_the_address_it_asks_for() -> Result<()> {
    require_everything!();
    let lab = shop()?;
    assert_eq!(lab.warnings(), [] as [&str; 0]);
    assert_eq!(lab.pods().len(), 9);
    for (pod, address) in [
        ("default/ledger-0", "10.20.0.210"),
        ("default/ledger-1", "10.20.0.211"),
        ("default/licence", "10.20.0.220"),
    ] {
        let address: IpAddr = address.parse()?;
        let pod = lab.pod(pod)?;
        assert_eq!(pod.address(), address);
        let mac = berth_api::mac::pod_mac(address);
        assert_eq!(pod.mac(), Some(mac.to_string().as_str()));
        let inside = Handle::in_netns(&Netns::open(netns::path(pod.netns()))?)?;
        let eth0 = inside.link_by_name("eth0")?;
        assert_eq!((eth0.mac, eth0.up), (Some(mac.0), true));
        let told = inside.addresses(Some(eth0.index))?;
        assert!(told.iter().any(|told| told.network.ip() == address));
    }
    let gateway = lab.pod("default/card-gateway")?.address().to_string();
    let last: u8 = gateway.rsplit('.').next().context("an address")?.parse()?;
    assert!(
        (200..=239).contains(&last),
        "{gateway} is not of pool payments"
    );
    let all: BTreeSet<_> = lab.pods().iter().map(|pod| pod.address()).collect();
    assert_eq!(all.len(), 9, "no address is given twice");
    Ok(())
}

#[test]
fn a_pod_reaches_services_by_name_and_sees_the_services_address() -> Result<()> {
    require_everything!();
    let lab = shop()?;
    for client in ["default/web", "default/ledger-0", "default/ledger-1"] {
        let client = lab.pod(client)?;
        let exchange = client.tcp("web:80")?;
        assert!(exchange.echo.pod.starts_with("default/web-"));
        assert_eq!(exchange.echo.client.ip(), client.address());
        assert_eq!(
            exchange.peer, exchange.target,
            "getpeername tells the Service"
        );
        assert!(matches!(exchange.peer.ip(), IpAddr::V4(ip) if SERVICES.contains(ip)));
        for exchange in [
            client.udp("clock:123")?,
            client.udp_unconnected("clock:123")?,
        ] {
            assert!(exchange.echo.pod.starts_with("default/clock-"));
            assert_eq!(exchange.peer, exchange.target);
        }
        let pods = client.resolve("ledger.default")?.addresses;
        let pods: BTreeSet<_> = pods.iter().map(ToString::to_string).collect();
        assert_eq!(
            pods,
            BTreeSet::from(["10.20.0.210".to_owned(), "10.20.0.211".to_owned()])
        );
        assert_eq!(
            client.tcp("ledger-1.ledger:5432")?.echo.pod,
            "default/ledger-1"
        );
        let refused = client.tcp("returns:8080").unwrap_err();
        assert_eq!(refused.kind, FailureKind::Refused, "{refused}");
    }
    Ok(())
}

#[test]
fn nodes_and_vms_reach_pods_and_are_seen_as_they_are() -> Result<()> {
    require_everything!();
    let lab = shop()?;
    let pods: Vec<_> = lab.pods();
    for pod in &pods {
        let Some(port) = berth_tcp_port(pod) else {
            continue;
        };
        let target = format!("{}:{port}", pod.address());
        let node = lab.nodes().iter().find(|node| node.name() == pod.node());
        let node = node.context("a pod is on a node")?;
        let probe = node.tcp(&target)?;
        assert_eq!(probe.echo.pod, pod.full_name());
        assert_eq!(probe.echo.client.ip(), IpAddr::V4(node.address()));
        let vm = lab.vm(1).tcp(&target)?;
        assert_eq!(vm.echo.pod, pod.full_name());
        assert_eq!(vm.echo.client.ip(), IpAddr::V4(lab.vm(1).address()));
        for other in &pods {
            assert_eq!(other.tcp(&target)?.echo.pod, pod.full_name());
        }
    }
    for service in lab.services() {
        let Some(pod) = lab.pods_of(service).into_iter().next() else {
            continue;
        };
        let tcp = service.spec.ports.iter().find(|p| p.protocol == "TCP");
        let port = target_number(tcp.context("each has one")?, &pod.plan).context("a port")?;
        let name = format!(
            "{}-{}.{COMPANY_ZONE}:{port}",
            service.name, service.namespace
        );
        lab.vm(1).tcp(&name)?;
    }
    let name = format!("ledger-1.ledger-default.{COMPANY_ZONE}:5432");
    assert_eq!(lab.vm(1).tcp(&name)?.echo.pod, "default/ledger-1");
    Ok(())
}

fn berth_tcp_port(pod: &berth_lab::Pod) -> Option<u16> {
    let mut ports = pod.ports().iter();
    ports
        .find(|port| port.protocol == berth_lab::probe::echo::Protocol::Tcp)
        .map(|port| port.number)
}

#[test]
fn a_stateful_pod_keeps_address_and_mac_on_another_node() -> Result<()> {
    require_everything!();
    let lab = shop()?;
    let before = lab.pod("default/ledger-0")?;
    let (address, node) = (before.address(), before.node().to_owned());
    let mac = before.mac().map(str::to_owned);
    drop(before);
    let number = if node == "node1" { 2 } else { 1 };
    let after = lab.move_pod("default/ledger-0", number)?;
    assert_ne!(after.node(), node);
    assert_eq!(after.address(), address);
    assert_eq!(after.mac(), mac.as_deref());
    assert_eq!(lab.vm(1).tcp("10.20.0.210:5432")?.echo.node, after.node());
    assert_eq!(
        lab.pod("default/web")?.tcp("10.20.0.210:5432")?.echo.node,
        after.node()
    );
    Ok(())
}

#[test]
fn a_deleted_pod_leaves_nothing_and_its_service_refuses() -> Result<()> {
    require_everything!();
    let lab = shop()?;
    let pod = lab.pod("default/licence")?;
    let (name, cgroup) = (pod.netns().to_owned(), pod.place().cgroup.clone());
    drop(pod);
    let client = lab.pod("default/web")?;
    assert_eq!(client.tcp("licence:27000")?.echo.pod, "default/licence");
    lab.delete_pod("default/licence")?;
    assert!(!netns::path(&name).exists());
    assert!(!Path::new("/etc/netns").join(&name).exists());
    assert!(!cgroup.context("a pod has a cgroup")?.exists());
    let object = lab.store().folder().join("pod_default_licence.json");
    assert!(!object.exists(), "{}", object.display());
    lab.settle()?;
    let refused = client.tcp("licence:27000").unwrap_err();
    assert_eq!(refused.kind, FailureKind::Refused, "{refused}");
    Ok(())
}

#[test]
fn two_labs_do_not_disturb_each_other() -> Result<()> {
    require_everything!();
    let (one, two) = (shop()?, shop()?);
    assert_ne!(one.name(), two.name());
    for lab in [&one, &two] {
        lab.pod("default/web")?.tcp("ledger:5432")?;
    }
    drop(one);
    two.pod("default/web")?.tcp("ledger:5432")?;
    Ok(())
}
