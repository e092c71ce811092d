//! Where a connection would go, and why.

use std::net::{IpAddr, SocketAddr};

use berth_abi::Scope;
use berth_api::agent::{Frontend, Outcome, Trace};

use super::answers::{frontend, policy, socket};
use super::controller::Controller;
use super::input::Connection;
use crate::compile::{Explanation, FrontendKey, Kind, explain_service};
use crate::datapath::Datapath;
use crate::model::{ClusterState, NamespacedName, Owner, Service, TrafficPolicy};

/// Answers for a connection that is made on this node.
#[must_use]
pub fn trace<D: Datapath>(controller: &Controller<D>, connection: &Connection) -> Trace {
    let state = controller.state();
    let to = SocketAddr::new(connection.to.ip().to_canonical(), connection.to.port());
    let mut trace = Trace {
        from: connection.from.clone(),
        client: client(state, controller.node(), &connection.from),
        to,
        protocol: connection.protocol.to_string(),
        outcome: Outcome::NotAService,
        steps: Vec::new(),
        service: None,
        frontend: None,
    };
    let key = FrontendKey {
        address: to.ip(),
        port: to.port(),
        protocol: connection.protocol,
        scope: Scope::Socket,
    };
    let service = match controller.desired().get(&key).map(|f| &f.owner.owner) {
        Some(Owner::Service(name)) => state.service(name),
        Some(Owner::Pod(name)) => {
            (trace.outcome, trace.steps) = host_port(controller, &key, name);
            return trace;
        }
        None => None,
    };
    let explained = service.and_then(|service| {
        let mut all = explain_service(state, controller.node(), service).into_iter();
        let explanation = all.find(|explanation| explanation.key == key)?;
        Some((service, explanation))
    });
    match explained {
        Some((service, explanation)) => {
            let frontend = frontend(controller, service, &explanation);
            trace.steps = rules(service, &explanation);
            trace.outcome = outcome(&frontend);
            trace.steps.push(last_step(trace.outcome, &frontend));
            trace.service = Some(service.name.to_string());
            trace.frontend = Some(frontend);
        }
        None => trace.steps = not_a_service(state, &key),
    }
    trace
}

/// A hostPort has one pod behind it and no rules.
fn host_port<D: Datapath>(
    controller: &Controller<D>,
    key: &FrontendKey,
    pod: &NamespacedName,
) -> (Outcome, Vec<String>) {
    let mut steps = vec![format!("{key} is a hostPort of pod {pod} on this node")];
    let held: Vec<_> = controller.realized().backends(key).map(socket).collect();
    let outcome = match held.as_slice() {
        [backend, ..] => {
            steps.push(format!(
                "socket path: translated once, to {backend}, when the socket connects or sends"
            ));
            Outcome::Translated
        }
        [] => {
            let why = controller.failing().get(key).map(String::as_str);
            let why = why.unwrap_or("the agent has not written it yet");
            steps.push(format!(
                "the maps do not hold it, so the connection is left as it is: {why}"
            ));
            Outcome::NotInMaps
        }
    };
    (outcome, steps)
}

fn rules(service: &Service, explanation: &Explanation<'_>) -> Vec<String> {
    let Explanation {
        key,
        kind,
        port,
        policy: holds,
        ..
    } = explanation;
    let mut steps = vec![format!(
        "{key} is the {kind} of Service {}, port {}/{}",
        service.name, port.port, port.protocol
    )];
    steps.push(match (kind, holds) {
        (Kind::ClusterIp, TrafficPolicy::Cluster) => {
            "internalTrafficPolicy Cluster: endpoints on any node".to_owned()
        }
        (Kind::ClusterIp, TrafficPolicy::Local) => {
            "internalTrafficPolicy Local: endpoints on this node only".to_owned()
        }
        (_, _)
            if service.external_policy == TrafficPolicy::Local
                && *holds == TrafficPolicy::Cluster =>
        {
            "externalTrafficPolicy Local is for clients outside: a connection made on this node \
             reaches endpoints on any node"
                .to_owned()
        }
        (_, holds) => format!("externalTrafficPolicy {}", policy(*holds)),
    });
    if let Some(timeout) = service.affinity {
        steps.push(format!(
            "sessionAffinity ClientIP: a network namespace that connected in the last {} s goes \
             to the same endpoint again",
            timeout.as_secs()
        ));
    }
    steps
}

/// By what the maps hold, since that is what happens.
fn outcome(frontend: &Frontend) -> Outcome {
    match &frontend.maps {
        None => Outcome::NotInMaps,
        Some(entry) if !entry.backends.is_empty() => Outcome::Translated,
        Some(_) if frontend.endpoints.iter().any(|e| e.reason == "NotLocal") => {
            Outcome::NoLocalEndpoints
        }
        Some(_) => Outcome::NoEndpoints,
    }
}

fn last_step(outcome: Outcome, frontend: &Frontend) -> String {
    match outcome {
        Outcome::Translated => "socket path: translated once, when the socket connects or sends; \
                                its packets then go straight to the endpoint"
            .to_owned(),
        Outcome::NoEndpoints => "socket path: refused, no endpoint is usable".to_owned(),
        Outcome::NoLocalEndpoints => {
            "socket path: fails at once, no endpoint is on this node".to_owned()
        }
        Outcome::NotAService | Outcome::NotInMaps => {
            let why = frontend.problem.as_deref();
            let why = why.unwrap_or("the agent has not written it yet");
            format!("the maps do not hold it, so the connection is left as it is: {why}")
        }
    }
}

fn not_a_service(state: &ClusterState, key: &FrontendKey) -> Vec<String> {
    let mut steps = vec![format!(
        "{key} is not a Service's: the connection is left as it is"
    )];
    for service in state.services() {
        let ips = [
            &service.cluster_ips,
            &service.external_ips,
            &service.load_balancer_ips,
        ];
        if ips.into_iter().flatten().any(|ip| *ip == key.address) {
            let ports: Vec<_> = service
                .ports
                .iter()
                .map(|port| format!("{}/{}", port.port, port.protocol))
                .collect();
            steps.push(format!(
                "the address is Service {}'s, which has the ports {}",
                service.name,
                ports.join(", ")
            ));
        }
    }
    if let Some((name, node)) = endpoint_at(state, key.address) {
        steps.push(format!(
            "the address is an endpoint of Service {name}, on node {node}"
        ));
    } else if state.node_addresses().contains(&key.address) {
        steps.push(
            "the address is this node's, and no Service has the port as NodePort, nor a pod here \
             as hostPort"
                .to_owned(),
        );
    }
    steps
}

/// A Service that has an endpoint at `address`, and the endpoint's node.
fn endpoint_at(state: &ClusterState, address: IpAddr) -> Option<(String, String)> {
    let mut services: Vec<_> = state.services().collect();
    services.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    services.into_iter().find_map(|service| {
        let mut endpoints = state
            .slices(&service.name)
            .flat_map(|slice| &slice.endpoints);
        let endpoint = endpoints.find(|endpoint| endpoint.address == address)?;
        let node = endpoint.node.as_deref().unwrap_or("unknown");
        Some((service.name.to_string(), node.to_owned()))
    })
}

fn client(state: &ClusterState, node: &str, from: &str) -> String {
    let Ok(address) = from.parse::<IpAddr>() else {
        return "a pod, taken to be on this node: the agent does not watch pods, and treats \
                every socket of its node alike"
            .to_owned();
    };
    if address.is_loopback() || state.node_addresses().contains(&address) {
        return "this node itself".to_owned();
    }
    match endpoint_at(state, address) {
        Some((service, on)) if on == node => {
            format!("a pod on this node, an endpoint of Service {service}")
        }
        Some((service, on)) => format!(
            "an endpoint of Service {service} on node {on}: ask the agent there, since this one \
             answers for connections made on {node}"
        ),
        None => "not an address that this agent knows, taken to be a pod on this node".to_owned(),
    }
}
