//! The checks: each says who asked whom, what was seen, and how long it took.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::row::{Outcome, Row};
use crate::controllers::Service;
use crate::controllers::shapes::ServicePort;
use crate::controllers::slices::target_number;
use crate::lab::COMPANY_ZONE;
use crate::probe::echo::Protocol;
use crate::probe::{Exchange, Failure, FailureKind, Probe};
use crate::{Lab, Node, Pod};

const STARTED: &str = "Pods start";
const SERVICES: &str = "A pod reaches every Service by name";
const ACROSS: &str = "A pod reaches a pod on another node by address";
const PROBES: &str = "A node reaches its own pods (kubelet's probes)";
const FROM_VM: &str = "A legacy VM reaches pods by address, and they see it as it is";
const BY_NAME: &str = "A legacy VM reaches pods by company name";

/// A connection that is refused slower than this has waited for something.
const AT_ONCE: Duration = Duration::from_secs(1);

pub(super) fn all(lab: &Lab) -> Vec<Row> {
    let mut rows = started(lab);
    rows.extend(services(lab));
    rows.extend(across(lab));
    rows.extend(lab.nodes().iter().map(|node| probes(lab, node)));
    rows.extend(from_vm(lab));
    rows.extend(lab.services().iter().filter_map(|s| by_name(lab, s)));
    rows.extend(by_pod_name(lab));
    rows
}

fn started(lab: &Lab) -> Vec<Row> {
    let failed = lab.failed_pods();
    let count = lab.pods().len();
    let mut rows = vec![Row::new(
        STARTED,
        "the stand-in for kubelet",
        "berth-cni",
        Outcome::Good(format!("{count} pods have an address"), None),
    )];
    rows.extend(failed.into_iter().map(|why| {
        Row::new(
            STARTED,
            "the stand-in for kubelet",
            "berth-cni",
            Outcome::Failed(why),
        )
    }));
    rows
}

fn services(lab: &Lab) -> Vec<Row> {
    let clients = one_pod_a_node(lab);
    let mut rows = Vec::new();
    let mut turn = clients.iter().cycle();
    for service in lab.services() {
        let Some(client) = turn.next() else {
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
            let outcome = service_port(lab, service, port, client, &name);
            rows.push(Row::new(SERVICES, client.full_name(), to, outcome));
        }
    }
    rows
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
    } else if lab.pods_of(service).is_empty() {
        refused(client, protocol, &format!("{name}:{}", port.port))
    } else {
        cluster_ip(lab, service, port, protocol, client, name)
    };
    match tried {
        Ok((told, time)) => Outcome::Good(told, Some(time)),
        Err(why) => Outcome::Failed(why),
    }
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
    let pods = lab.pods_of(service);
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
    Ok(("refused at once: there are no pods".to_owned(), slowest))
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

fn across(lab: &Lab) -> Vec<Row> {
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
fn probes(lab: &Lab, node: &Node) -> Row {
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
    let told = format!(
        "all answer; the slowest took {}",
        super::row::readable(slowest)
    );
    let outcome = Outcome::Good(told, Some(slowest));
    Row::new(PROBES, node.name(), format!("its {count} pods"), outcome)
}

fn from_vm(lab: &Lab) -> Vec<Row> {
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

/// A legacy VM cannot use a ClusterIP: it gets the pods' own addresses.
fn by_name(lab: &Lab, service: &Service) -> Option<Row> {
    let pods = lab.pods_of(service);
    let first = pods.first()?;
    let port = service
        .spec
        .ports
        .iter()
        .find(|port| port.protocol == "TCP")?;
    let number = target_number(port, &first.plan)?;
    let name = format!("{}-{}.{COMPANY_ZONE}", service.name, service.namespace);
    let tried = lab.vm(1).tcp(&format!("{name}:{number}"));
    let outcome = named(tried, lab, &pods);
    Some(Row::new(
        BY_NAME,
        lab.vm(1).name(),
        format!("{name}:{number}"),
        outcome,
    ))
}

/// A StatefulSet's pod has a name of its own below its Service's.
fn by_pod_name(lab: &Lab) -> Vec<Row> {
    let pods = lab.pods();
    pods.iter()
        .filter_map(|pod| {
            let (number, name) = (tcp_port(pod)?, company_name(pod)?);
            let tried = lab.vm(1).tcp(&format!("{name}:{number}"));
            let outcome = named(tried, lab, &[Arc::clone(pod)]);
            Some(Row::new(
                BY_NAME,
                lab.vm(1).name(),
                format!("{name}:{number}"),
                outcome,
            ))
        })
        .collect()
}

/// The company name of a pod with a host name and a governing Service.
pub(super) fn company_name(pod: &Pod) -> Option<String> {
    let spec = &pod.plan.spec;
    let (hostname, service) = (spec.hostname.as_ref()?, spec.subdomain.as_ref()?);
    Some(format!(
        "{hostname}.{service}-{}.{COMPANY_ZONE}",
        pod.plan.namespace
    ))
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

fn is<T: PartialEq + std::fmt::Display>(what: &str, seen: T, wanted: T) -> Result<(), String> {
    if seen == wanted {
        Ok(())
    } else {
        Err(format!("{what} is {seen}, and should be {wanted}"))
    }
}

fn is_one_of(answered: &str, pods: &[Arc<Pod>]) -> Result<(), String> {
    if pods.iter().any(|pod| pod.full_name() == answered) {
        Ok(())
    } else {
        Err(format!("{answered} answered, which is none of its pods"))
    }
}

fn listed(addresses: &BTreeSet<IpAddr>) -> String {
    let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    all.join(" ")
}

/// The first pod of each node that has an address of its own.
fn one_pod_a_node(lab: &Lab) -> Vec<Arc<Pod>> {
    let pods = lab.pods();
    lab.nodes()
        .iter()
        .filter_map(|node| {
            let own = pods.iter().filter(|pod| pod.node() == node.name());
            let mut own = own.filter(|pod| pod.mac().is_some());
            own.clone()
                .find(|pod| tcp_port(pod).is_some())
                .or_else(|| own.next())
                .cloned()
        })
        .collect()
}

pub(super) fn tcp_port(pod: &Pod) -> Option<u16> {
    let mut ports = pod.ports().iter();
    ports
        .find(|p| p.protocol == Protocol::Tcp)
        .map(|p| p.number)
}

/// The short name inside of a namespace, `service.namespace` from outside.
fn service_name(service: &Service, client: &Pod) -> String {
    if service.namespace == client.plan.namespace {
        service.name.clone()
    } else {
        format!("{}.{}", service.name, service.namespace)
    }
}
