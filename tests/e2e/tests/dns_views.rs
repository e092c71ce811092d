//! Names as pods and legacy VMs see them, asked over the wire of a lab.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_lab::ground::netns;
use berth_lab::lab::{COMPANY_ZONE, DNS_SERVICE, SERVICES};
use berth_lab::{Lab, require_binaries, require_root};
use berth_netlink::Netns;

const SHOP: &str = include_str!("../../lab/examples/shop.yaml");
const DEADLINE: Duration = Duration::from_secs(5);
const PTR: u16 = 12;
const A: u16 = 1;

macro_rules! require_everything {
    () => {
        require_root!();
        require_binaries!("berth-lab", "berth-cni", "berth-agent", "berth-dns");
    };
}

fn shop() -> Result<Lab> {
    Lab::builder().yaml("shop.yaml", SHOP).start()
}

/// A name as it stands in a message.
fn wire(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.') {
        wire.push(u8::try_from(label.len()).expect("a label has at most 63 octets"));
        wire.extend(label.bytes());
    }
    wire.push(0);
    wire
}

fn query(name: &str, rtype: u16) -> Vec<u8> {
    let mut query = vec![0x42, 0x42, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(wire(name));
    query.extend(rtype.to_be_bytes());
    query.extend([0, 1]);
    query
}

/// Asks over UDP from inside a namespace. The socket is connected, so that an
/// answer from any other address than the one asked never arrives.
fn ask(from: &str, server: SocketAddr, name: &str, rtype: u16) -> Result<Vec<u8>> {
    let query = query(name, rtype);
    Netns::open(netns::path(from))?.run(move || -> Result<Vec<u8>> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.connect(server)?;
        socket.send(&query)?;
        let mut answer = vec![0; 4096];
        let len = socket.recv(&mut answer).context("no answer")?;
        answer.truncate(len);
        ensure!(answer[..2] == query[..2], "another ID");
        Ok(answer)
    })?
}

fn holds(answer: &[u8], name: &str) -> bool {
    let wire = wire(name);
    answer.windows(wire.len()).any(|window| window == wire)
}

#[test]
fn a_company_name_is_a_clusterip_for_pods_and_the_pods_for_vms() -> Result<()> {
    require_everything!();
    let lab = shop()?;
    let name = format!("web-default.{COMPANY_ZONE}");
    let inside = lab.pod("default/ledger-0")?.resolve(&name)?.addresses;
    let [IpAddr::V4(inside)] = inside[..] else {
        anyhow::bail!("a pod got {inside:?}");
    };
    assert!(SERVICES.contains(inside), "{inside} is no ClusterIP");
    let outside: BTreeSet<_> = lab.vm(1).resolve(&name)?.addresses.into_iter().collect();
    let web = lab.services().iter().find(|service| service.name == "web");
    let pods = lab.pods_of(web.context("the example has a Service web")?);
    let pods: BTreeSet<_> = pods.iter().map(|pod| pod.address()).collect();
    assert!(!pods.is_empty());
    assert_eq!(outside, pods);
    Ok(())
}

#[test]
fn every_node_answers_from_the_address_that_was_asked() -> Result<()> {
    require_everything!();
    let lab = shop()?;
    let name = format!("ledger-1.ledger-default.{COMPANY_ZONE}");
    let address = Ipv4Addr::new(10, 20, 0, 211).octets();
    for node in lab.nodes() {
        let server = (node.address(), 53).into();
        let answer = ask(lab.vm(1).netns(), server, &name, A)?;
        assert!(answer.ends_with(&address), "{answer:02x?}");
    }
    Ok(())
}

#[test]
fn a_pods_address_has_the_companys_name_outside_and_the_clusters_inside() -> Result<()> {
    require_everything!();
    let lab = shop()?;
    let server = (lab.node(1).address(), 53).into();
    let reverse = "210.0.20.10.in-addr.arpa";
    let answer = ask(lab.vm(1).netns(), server, reverse, PTR)?;
    let company = format!("ledger-0.ledger-default.{COMPANY_ZONE}");
    assert!(holds(&answer, &company), "{answer:02x?}");
    let web = lab.pod("default/web")?;
    let answer = ask(web.netns(), server, reverse, PTR)?;
    let cluster = "ledger-0.ledger.default.svc.cluster.local";
    assert!(holds(&answer, cluster), "{answer:02x?}");
    Ok(())
}

#[test]
fn the_servers_answer_over_tcp_too() -> Result<()> {
    require_everything!();
    let lab = shop()?;
    let server: SocketAddr = (lab.node(1).address(), 53).into();
    let vm = Netns::open(netns::path(lab.vm(1).netns()))?;
    let answer = vm.run(move || -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&server, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let query = query("kube-dns.kube-system.svc.cluster.local", A);
        let length = u16::try_from(query.len())?.to_be_bytes();
        stream.write_all(&[&length[..], &query].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    })??;
    assert!(answer.ends_with(&DNS_SERVICE.octets()), "{answer:02x?}");
    Ok(())
}

#[test]
fn a_deleted_pod_leaves_the_answer_that_vms_get() -> Result<()> {
    require_everything!();
    let lab = shop()?;
    let name = format!("licence-default.{COMPANY_ZONE}");
    let address = lab.pod("default/licence")?.address();
    assert_eq!(lab.vm(1).resolve(&name)?.addresses, [address]);
    lab.delete_pod("default/licence")?;
    lab.settle()?;
    // The name stays, without data, and so does the Service's ClusterIP.
    let server = (lab.node(1).address(), 53).into();
    let answer = ask(lab.vm(1).netns(), server, &name, A)?;
    assert_eq!(answer[3] & 0x0f, 0, "NOERROR");
    assert_eq!(answer[6..8], [0, 0], "no records");
    let inside = lab.pod("default/web")?.resolve(&name)?.addresses;
    assert!(matches!(inside[..], [IpAddr::V4(ip)] if SERVICES.contains(ip)));
    Ok(())
}
