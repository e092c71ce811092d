//! What a Service costs a pod, beside the connection that needs no Service.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use berth_bench::{Row, Samples, Target, in_turn};
use berth_lab::Lab;
use serde_json::json;

use crate::exchange::{Client, PORT, Server};

/// Rounds of each side that count, and exchanges a round, of which the median
/// is taken. Many short ones: what else the machine does then hits both sides
/// alike, or few enough rounds to leave the median alone.
const ROUNDS: usize = 101;
const EXCHANGES: u32 = 100;

/// Connect, request, answer, close from a pod to a pod on another node through
/// a ClusterIP, beside the same to the pod's own address; and datagrams of one
/// unconnected UDP socket, each of which is translated there and back.
pub(crate) fn connect() -> Result<Vec<Row>> {
    let lab = Lab::builder()
        .nodes(2)
        .vms(0)
        .without_dns()
        .yaml("connect.yaml", include_str!("../manifests/connect.yaml"))
        .start()?;
    let client = lab.pod("default/client")?;
    let server = lab.pod("default/server")?;
    let cluster_ip = lab
        .services()
        .iter()
        .find(|service| service.name == "server")
        .and_then(berth_lab::controllers::Service::cluster_ip)
        .context("Service default/server has no ClusterIP")?;
    // The program of the benchmarks answers, and no controller knows its port.
    lab.store().apply(&json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "server", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "server"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [server.address()], "conditions": {"ready": true}}],
        "ports": [
            {"name": "tcp", "port": PORT, "protocol": "TCP"},
            {"name": "udp", "port": PORT, "protocol": "UDP"},
        ],
    }))?;
    lab.settle()?;
    let targets = [
        SocketAddr::new(cluster_ip, 80),
        SocketAddr::new(server.address(), PORT),
    ];
    let _program = Server::start(server.place())?;
    let mut client = Client::start(client.place())?;

    let mut compare = |how: &str| -> Result<[Samples; 2]> {
        let times = in_turn(ROUNDS, |side| {
            client.exchanges(how, targets[side], EXCHANGES)
        })?;
        Ok(times.map(|time: Samples| time.map(|us| 1e6 / us)))
    };
    let row = |name, unit, [ours, peer]: [Samples; 2]| {
        let peer = ("direct to the pod", &peer);
        Row::new(name, unit, &ours, peer, Target::AtLeast(0.97))
    };
    Ok(vec![
        row(
            "TCP connect + request + close, ClusterIP",
            "connections/s",
            compare("tcp")?,
        ),
        row(
            "request + answer, established TCP connection",
            "exchanges/s",
            compare("hold")?,
        ),
        row(
            "UDP request + answer, ClusterIP",
            "exchanges/s",
            compare("udp")?,
        ),
    ])
}
