//! What a Service costs a pod, beside the connection that needs no Service.

use anyhow::{Context, Result, ensure};
use berth_bench::{Row, Samples, Target, in_turn};
use berth_lab::Lab;
use berth_lab::probe::echo::Protocol;

/// Rounds of each side that count. Many short ones: what else the machine does
/// then hits both sides alike, or few enough rounds to leave the median alone.
const ROUNDS: usize = 41;
/// Exchanges a round. Each closed TCP connection keeps its port for a minute
/// (TIME_WAIT), and both sides reach the same pod: all rounds together must
/// leave most of the 28,000 ports free, or finding one is what is measured.
const TCP_COUNT: u64 = 150;
const UDP_COUNT: u64 = 1_000;

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
    let service = format!("{cluster_ip}:80");
    let direct = format!("{}:8080", server.address());

    // What is compared must be the same exchange with the same pod.
    for target in [&service, &direct] {
        let answer = client.tcp(target)?;
        ensure!(
            answer.echo.pod == server.full_name(),
            "{target} was answered by {}",
            answer.echo.pod
        );
    }

    let compare = |protocol, count| -> Result<[Samples; 2]> {
        in_turn(ROUNDS, |side| {
            let target = [&service, &direct][side];
            Ok(client.repeat(protocol, target, count)?.rate())
        })
    };
    let row = |name, unit, [ours, peer]: [Samples; 2]| {
        let peer = ("direct to the pod", &peer);
        Row::new(name, unit, &ours, peer, Target::AtLeast(0.97))
    };
    Ok(vec![
        row(
            "TCP connect + request + close, ClusterIP",
            "connections/s",
            compare(Protocol::Tcp, TCP_COUNT)?,
        ),
        row(
            "UDP request + answer, ClusterIP",
            "exchanges/s",
            compare(Protocol::Udp, UDP_COUNT)?,
        ),
    ])
}
