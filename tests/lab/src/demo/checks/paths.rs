//! The direct paths: pod to pod, node to pod, legacy VM to pod.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::{Patience, company_name, is, is_one_of, one_pod_a_node, tcp_port};
use crate::controllers::slices::target_number;
use crate::demo::row::{Outcome, Row, readable};
use crate::lab::COMPANY_ZONE;
use crate::probe::{Exchange, Failure};
use crate::{Lab, Node, Pod};

const ACROSS: &str = "A pod reaches a pod on another node by address";
const PROBES: &str = "A node reaches its own pods (kubelet's probes)";
const FROM_VM: &str = "A legacy VM reaches pods by address, and they see it as it is";
const BY_NAME: &str = "A legacy VM reaches pods by company name";

pub(super) fn across(lab: &Lab) -> Vec<Row> {
    let mut rows = Vec::new();
    for client in one_pod_a_node(lab) {
        let there = lab.pods().into_iter().find_map(|pod| {
            let far = pod.node() != client.node();
            let port = tcp_port(&pod)?;
            far.then_some((pod, port))
        });
        let Some((pod, port)) = there else { continue };
        let target = SocketAddr::new(pod.address(), port);
        let to = format!("{target} ({} on {})", pod.full_name(), pod.node());
        let from = format!("{} on {}", client.full_name(), client.node());
        let outcome = direct(client.tcp(&target.to_string()), &pod, client.address());
        rows.push(Row::new(ACROSS, from, to, outcome));
    }
    if rows.is_empty() {
        let outcome = Outcome::Skipped("no two pods on different nodes".to_owned());
        rows.push(Row::new(ACROSS, "-", "-", outcome));
    }
    rows
}

/// Every pod of the node: one that its kubelet cannot reach is restarted.
pub(super) fn probes(lab: &Lab, node: &Node) -> Row {
    let mut slowest = Duration::ZERO;
    let mut count = 0;
    let own = lab
        .pods()
        .into_iter()
        .filter(|pod| pod.node() == node.name());
    for pod in own.filter(|pod| pod.mac().is_some()) {
        let Some(port) = tcp_port(&pod) else { continue };
        let target = SocketAddr::new(pod.address(), port);
        let tried = node.tcp(&target.to_string());
        match direct(tried, &pod, IpAddr::V4(node.address())) {
            Outcome::Good(_, time) => slowest = slowest.max(time.unwrap_or_default()),
            outcome => {
                let to = format!("{} at {target}", pod.full_name());
                return Row::new(PROBES, node.name(), to, outcome);
            }
        }
        count += 1;
    }
    if count == 0 {
        let why = "none has an address of its own and a TCP port".to_owned();
        return Row::new(PROBES, node.name(), "its pods", Outcome::Skipped(why));
    }
    let told = format!("all answer; the slowest took {}", readable(slowest));
    let outcome = Outcome::Good(told, Some(slowest));
    Row::new(
        PROBES,
        node.name(),
        format!("its pods, {count} of them"),
        outcome,
    )
}

pub(super) fn from_vm(lab: &Lab) -> Vec<Row> {
    let vm = lab.vm(1);
    let pods = one_pod_a_node(lab).into_iter();
    pods.filter_map(|pod| {
        let target = SocketAddr::new(pod.address(), tcp_port(&pod)?);
        let tried = vm.tcp(&target.to_string());
        let outcome = direct(tried, &pod, IpAddr::V4(vm.address()));
        let to = format!("{target} ({} on {})", pod.full_name(), pod.node());
        Some(Row::new(FROM_VM, vm.name(), to, outcome))
    })
    .collect()
}

/// A legacy VM cannot use a ClusterIP: a Service's company name gives it the
/// pods' own addresses. A StatefulSet's pod has a name of its own below that.
pub(super) fn by_name(lab: &Lab) -> Vec<Row> {
    let services = lab.services().iter().filter_map(|service| {
        let pods = lab.pods_of(service);
        let tcp = service.spec.ports.iter().find(|p| p.protocol == "TCP")?;
        let number = target_number(tcp, &pods.first()?.plan)?;
        let name = format!("{}-{}.{COMPANY_ZONE}", service.name, service.namespace);
        Some((format!("{name}:{number}"), pods))
    });
    let all = lab.pods();
    let pods = all.iter().filter_map(|pod| {
        let target = format!("{}:{}", company_name(pod)?, tcp_port(pod)?);
        Some((target, vec![Arc::clone(pod)]))
    });
    let vm = lab.vm(1);
    let mut patience = Patience::default();
    services
        .chain(pods)
        .map(|(target, pods)| {
            let outcome = patience.check(|| named(vm.tcp(&target), lab, &pods));
            Row::new(BY_NAME, vm.name(), target, outcome)
        })
        .collect()
}

fn named(tried: Result<Exchange, Failure>, lab: &Lab, pods: &[Arc<Pod>]) -> Outcome {
    let exchange = match tried {
        Ok(exchange) => exchange,
        Err(failure) => return Outcome::Failed(failure.to_string()),
    };
    let seen = is_one_of(&exchange.echo.pod, pods).and_then(|()| {
        let vm = IpAddr::V4(lab.vm(1).address());
        is(
            "the client that the pod sees",
            exchange.echo.client.ip(),
            vm,
        )
    });
    match seen {
        Ok(()) => Outcome::Good(
            format!("{} -> {}", exchange.target.ip(), exchange.echo.pod),
            Some(Duration::from_micros(exchange.total_us)),
        ),
        Err(why) => Outcome::Failed(why),
    }
}

/// One pod was asked by its address: it must be that pod, and it must see the
/// client as it is.
fn direct(tried: Result<Exchange, Failure>, pod: &Pod, client: IpAddr) -> Outcome {
    let seen = tried
        .map_err(|failure| failure.to_string())
        .and_then(|exchange| {
            is(
                "the pod that answered",
                exchange.echo.pod.clone(),
                pod.full_name(),
            )?;
            is(
                "the client that the pod sees",
                exchange.echo.client.ip(),
                client,
            )?;
            Ok(exchange)
        });
    match seen {
        Ok(exchange) => Outcome::Good(
            format!("the pod sees {client}"),
            Some(Duration::from_micros(exchange.total_us)),
        ),
        Err(why) => Outcome::Failed(why),
    }
}
