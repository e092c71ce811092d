//! Services, as a pod uses them: by name, through its resolver.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Patience, is, is_one_of, one_pod_a_node};
use crate::controllers::Service;
use crate::controllers::shapes::ServicePort;
use crate::controllers::slices::target_number;
use crate::demo::row::{Outcome, Row};
use crate::probe::echo::Protocol;
use crate::probe::{Exchange, Failure, FailureKind, Probe};
use crate::{Lab, Pod};

const SERVICES: &str = "A pod reaches every Service by name";
/// A connection that is refused slower than this has waited for something.
const AT_ONCE: Duration = Duration::from_secs(1);

pub(super) fn services(lab: &Lab) -> Vec<Row> {
    let clients = one_pod_a_node(lab);
    let mut rows = Vec::new();
    let mut patience = Patience::default();
    for (turn, service) in lab.services().iter().enumerate() {
        let Some(client) = client_of(lab, service, &clients, turn) else {
            break; // No pod runs at all, which `started` has told.
        };
        let name = service_name(service, client);
        if service.spec.kind == "ExternalName" || service.spec.selector.is_none() {
            let why = "its endpoints are not the lab's";
            let outcome = Outcome::Skipped(why.to_owned());
            rows.push(Row::new(SERVICES, client.full_name(), name, outcome));
            continue;
        }
        if service.spec.ports.is_empty() {
            let outcome = headless(lab, service, client, &name)
                .map(|(told, time)| Outcome::Good(told, Some(time)));
            let outcome = outcome.unwrap_or_else(Outcome::Failed);
            rows.push(Row::new(
                SERVICES,
                client.full_name(),
                name.clone(),
                outcome,
            ));
        }
        for port in &service.spec.ports {
            let to = format!("{name}:{}/{}", port.port, port.protocol);
            let outcome = patience.check(|| service_port(lab, service, port, client, &name));
            rows.push(Row::new(SERVICES, client.full_name(), to, outcome));
        }
    }
    rows
}

/// A pod of each node in turn; but a node that has pods of the Service if the
/// Service does not lead to other nodes.
fn client_of<'a>(
    lab: &Lab,
    service: &Service,
    clients: &'a [Arc<Pod>],
    turn: usize,
) -> Option<&'a Pod> {
    let near = clients
        .iter()
        .find(|client| is_local(service) && !usable(lab, service, client).is_empty());
    let any = clients.get(turn % clients.len().max(1));
    near.or(any).map(Arc::as_ref)
}

fn is_local(service: &Service) -> bool {
    let policy = service.value.pointer("/spec/internalTrafficPolicy");
    policy.and_then(Value::as_str) == Some("Local")
}

/// The pods that the Service may lead this client to.
fn usable(lab: &Lab, service: &Service, client: &Pod) -> Vec<Arc<Pod>> {
    let mut pods = lab.pods_of(service);
    pods.retain(|pod| !is_local(service) || pod.node() == client.node());
    pods
}

fn service_port(
    lab: &Lab,
    service: &Service,
    port: &ServicePort,
    client: &Pod,
    name: &str,
) -> Outcome {
    let Some(protocol) = crate::controllers::shapes::protocol(&port.protocol) else {
        return Outcome::Skipped(format!("the lab's pods do not speak {}", port.protocol));
    };
    let tried = if service.is_headless() {
        headless_port(lab, service, port, protocol, client, name)
    } else if !leads_somewhere(lab, service, port) {
        refused(client, protocol, &format!("{name}:{}", port.port))
    } else {
        cluster_ip(lab, service, port, protocol, client, name)
    };
    match tried {
        Ok((told, time)) => Outcome::Good(told, Some(time)),
        Err(why) => Outcome::Failed(why),
    }
}

/// Whether there is a pod behind it that has the port.
fn leads_somewhere(lab: &Lab, service: &Service, port: &ServicePort) -> bool {
    let pods = lab.pods_of(service);
    pods.iter()
        .any(|pod| target_number(port, &pod.plan).is_some())
}

/// What was seen and how long it took; or what is wrong.
type Seen = Result<(String, Duration), String>;

fn cluster_ip(
    lab: &Lab,
    service: &Service,
    port: &ServicePort,
    protocol: Protocol,
    client: &Pod,
    name: &str,
) -> Seen {
    let target = format!("{name}:{}", port.port);
    let wanted = service
        .cluster_ip()
        .map(|ip| SocketAddr::new(ip, port.port))
        .ok_or("it has no ClusterIP")?;
    let pods = usable(lab, service, client);
    let mut first = None;
    for exchange in exchanges(client, protocol, &target) {
        let exchange = exchange.map_err(|failure| failure.to_string())?;
        is("the name's address", exchange.target, wanted)?;
        is("the peer that the client sees", exchange.peer, wanted)?;
        is(
            "the client that the pod sees",
            exchange.echo.client.ip(),
            client.address(),
        )?;
        is_one_of(&exchange.echo.pod, &pods)?;
        first.get_or_insert(exchange);
    }
    let exchange = first.ok_or("nothing was tried")?;
    Ok((
        format!(
            "{wanted} -> {} on {}",
            exchange.echo.pod, exchange.echo.node
        ),
        Duration::from_micros(exchange.total_us),
    ))
}

/// TCP once; UDP over a connected socket and over an unconnected one.
fn exchanges(probe: &Probe, protocol: Protocol, target: &str) -> Vec<Result<Exchange, Failure>> {
    match protocol {
        Protocol::Tcp => vec![probe.tcp(target)],
        Protocol::Udp => vec![probe.udp(target), probe.udp_unconnected(target)],
    }
}

fn refused(client: &Pod, protocol: Protocol, target: &str) -> Seen {
    let mut slowest = Duration::ZERO;
    for tried in exchanges(client, protocol, target) {
        match tried {
            Ok(exchange) => return Err(format!("{} answered", exchange.echo.pod)),
            Err(failure) if failure.kind != FailureKind::Refused => {
                return Err(format!("it is not refused: {failure}"));
            }
            Err(failure) => slowest = slowest.max(Duration::from_micros(failure.us)),
        }
    }
    if slowest > AT_ONCE {
        return Err(format!("refused only after {slowest:?}"));
    }
    Ok((
        "refused at once: no pod is there for it".to_owned(),
        slowest,
    ))
}

/// A headless name stands for the addresses of the ready pods.
fn headless(lab: &Lab, service: &Service, client: &Pod, name: &str) -> Seen {
    let wanted: BTreeSet<IpAddr> = lab.pods_of(service).iter().map(|p| p.address()).collect();
    match client.resolve(name) {
        Ok(found) => {
            let addresses: BTreeSet<_> = found.addresses.iter().copied().collect();
            if addresses != wanted {
                return Err(format!(
                    "it resolves to {addresses:?}, its pods are {wanted:?}"
                ));
            }
            Ok((listed(&addresses), Duration::from_micros(found.us)))
        }
        Err(failure) if wanted.is_empty() && failure.kind == FailureKind::NotResolved => {
            let time = Duration::from_micros(failure.us);
            Ok(("not found: there are no pods".to_owned(), time))
        }
        Err(failure) => Err(failure.to_string()),
    }
}

fn headless_port(
    lab: &Lab,
    service: &Service,
    port: &ServicePort,
    protocol: Protocol,
    client: &Pod,
    name: &str,
) -> Seen {
    let (told, time) = headless(lab, service, client, name)?;
    let pods = lab.pods_of(service);
    let Some(pod) = pods.first() else {
        return Ok((told, time));
    };
    // Nothing is translated: the client must know the pod's own port.
    let number = target_number(port, &pod.plan).ok_or("no pod has this port")?;
    let mut first = None;
    for exchange in exchanges(client, protocol, &format!("{name}:{number}")) {
        let exchange = exchange.map_err(|failure| failure.to_string())?;
        is_one_of(&exchange.echo.pod, &pods)?;
        first.get_or_insert(exchange);
    }
    let exchange = first.ok_or("nothing was tried")?;
    Ok((
        format!("{told}; {} answered", exchange.echo.pod),
        Duration::from_micros(exchange.total_us),
    ))
}

fn listed(addresses: &BTreeSet<IpAddr>) -> String {
    let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    all.join(" ")
}

/// The short name inside of a namespace, `service.namespace` from outside.
fn service_name(service: &Service, client: &Pod) -> String {
    if service.namespace == client.plan.namespace {
        service.name.clone()
    } else {
        format!("{}.{}", service.name, service.namespace)
    }
}
