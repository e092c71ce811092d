//! What people ask about Services, answered from the loop's state. The shapes
//! are those of [`berth_api::agent`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use berth_abi::{Backend, Scope};
use berth_api::agent::{
    Dump, DumpedFrontend, Endpoint, Frontend, MapEntry, ServiceDetail, ServiceSummary,
};

use super::controller::Controller;
use super::input::Stage;
use crate::compile::{Explanation, FrontendKey, explain_service};
use crate::datapath::Datapath;
use crate::model::{NamespacedName, Owner, Service, ServicePort, TrafficPolicy};

/// Every Service, sorted by name.
#[must_use]
pub fn services<D: Datapath>(controller: &Controller<D>) -> Vec<ServiceSummary> {
    let mut failing: BTreeMap<&NamespacedName, usize> = BTreeMap::new();
    for key in controller.failing().keys() {
        let frontend = controller.desired().get(key);
        if let Some(Owner::Service(name)) = frontend.map(|f| &f.owner.owner) {
            *failing.entry(name).or_default() += 1;
        }
    }
    let mut all: Vec<_> = controller.state().services().collect();
    all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    all.into_iter()
        .map(|service| {
            let failing = failing.get(&service.name).copied().unwrap_or_default();
            summary(controller, service, failing)
        })
        .collect()
}

fn summary<D: Datapath>(
    controller: &Controller<D>,
    service: &Service,
    failing: usize,
) -> ServiceSummary {
    let (mut all, mut ready, mut local) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for slice in controller.state().slices(&service.name) {
        for endpoint in &slice.endpoints {
            all.insert(endpoint.address);
            if endpoint.ready {
                ready.insert(endpoint.address);
                if endpoint.node.as_deref() == Some(controller.node()) {
                    local.insert(endpoint.address);
                }
            }
        }
    }
    let outside = service
        .external_ips
        .iter()
        .chain(&service.load_balancer_ips);
    ServiceSummary {
        namespace: service.name.namespace.to_string(),
        name: service.name.name.to_string(),
        cluster_ips: service.cluster_ips.clone(),
        external_ips: outside.copied().collect(),
        ports: service.ports.iter().map(port).collect(),
        endpoints: all.len(),
        ready: ready.len(),
        local: local.len(),
        failing,
    }
}

fn port(port: &ServicePort) -> String {
    match port.node_port {
        Some(node_port) => format!("{}:{node_port}/{}", port.port, port.protocol),
        None => format!("{}/{}", port.port, port.protocol),
    }
}

/// One Service in full; `None` if there is no such Service.
#[must_use]
pub fn service<D: Datapath>(
    controller: &Controller<D>,
    name: &NamespacedName,
) -> Option<ServiceDetail> {
    let state = controller.state();
    let service = state.service(name)?;
    let frontends = explain_service(state, controller.node(), service);
    Some(ServiceDetail {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        node: controller.node().to_owned(),
        zone: state.zone().map(ToOwned::to_owned),
        internal_policy: policy(service.internal_policy).to_owned(),
        external_policy: policy(service.external_policy).to_owned(),
        affinity_seconds: service.affinity.map(|timeout| timeout.as_secs()),
        source_ranges: service
            .source_ranges
            .iter()
            .map(ToString::to_string)
            .collect(),
        health_check_node_port: service.health_check_node_port,
        frontends: frontends
            .iter()
            .map(|explanation| frontend(controller, service, explanation))
            .collect(),
        node_counters: counters(controller),
    })
}

pub(super) fn policy(policy: TrafficPolicy) -> &'static str {
    match policy {
        TrafficPolicy::Cluster => "Cluster",
        TrafficPolicy::Local => "Local",
    }
}

/// One frontend with its endpoints and what the maps hold.
pub(super) fn frontend<D: Datapath>(
    controller: &Controller<D>,
    service: &Service,
    explanation: &Explanation<'_>,
) -> Frontend {
    let key = &explanation.key;
    let endpoints = explanation
        .endpoints
        .iter()
        .map(|(endpoint, port, reason)| Endpoint {
            address: SocketAddr::new(endpoint.address, *port),
            node: endpoint.node.as_deref().map(ToOwned::to_owned),
            used: reason.is_used(),
            reason: reason.word().to_owned(),
            why: reason.to_string(),
        });
    Frontend {
        address: SocketAddr::new(key.address, key.port),
        protocol: key.protocol.to_string(),
        kind: explanation.kind.to_string(),
        policy: policy(explanation.policy).to_owned(),
        endpoints: endpoints.collect(),
        maps: entry(controller, key),
        problem: problem(controller, service, key),
    }
}

fn entry<D: Datapath>(controller: &Controller<D>, key: &FrontendKey) -> Option<MapEntry> {
    let realized = controller.realized();
    Some(MapEntry {
        service: realized.service(key)?,
        backends: realized.backends(key).map(socket).collect(),
    })
}

fn problem<D: Datapath>(
    controller: &Controller<D>,
    service: &Service,
    key: &FrontendKey,
) -> Option<String> {
    match controller.desired().get(key).map(|f| &f.owner.owner) {
        // A hostPort never has an address that a Service claims.
        Some(Owner::Service(owner)) if *owner != service.name => Some(format!(
            "the address belongs to Service {owner}, whose name sorts first"
        )),
        _ => controller.failing().get(key).cloned(),
    }
}

fn counters<D: Datapath>(controller: &Controller<D>) -> BTreeMap<String, u64> {
    let counters = controller.datapath().counters().into_iter();
    counters
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

pub(super) fn socket(backend: &Backend) -> SocketAddr {
    SocketAddr::new(IpAddr::from(backend.address), u16::from_be(backend.port_be))
}

/// One stage in full.
#[must_use]
pub(super) fn dump<D: Datapath>(controller: &Controller<D>, stage: Stage) -> Dump {
    match stage {
        Stage::Model => Dump::Model(services(controller)),
        Stage::Desired => {
            let mut all: Vec<_> = controller.desired().iter().collect();
            all.sort_unstable_by_key(|frontend| frontend.key);
            let rows = all.into_iter().map(|frontend| DumpedFrontend {
                service: Some(frontend.owner.to_string()),
                affinity_seconds: frontend.affinity_seconds,
                local: frontend.local_count,
                ..dumped(&frontend.key, &frontend.backends)
            });
            Dump::Desired(rows.collect())
        }
        Stage::Realized => {
            let rows = controller.realized().resolved().into_iter();
            let rows = rows.map(|(key, frontend, backends)| DumpedFrontend {
                service: controller.realized().owner(frontend.service),
                affinity_seconds: frontend.affinity_seconds,
                local: frontend.local_count,
                ..dumped(&key, &backends)
            });
            Dump::Realized(rows.collect())
        }
        Stage::Counters => Dump::Counters(counters(controller)),
    }
}

fn dumped(key: &FrontendKey, backends: &[Backend]) -> DumpedFrontend {
    DumpedFrontend {
        address: SocketAddr::new(key.address, key.port),
        protocol: key.protocol.to_string(),
        scope: match key.scope {
            Scope::Socket => "socket",
            Scope::Wire => "wire",
        }
        .to_owned(),
        service: None,
        affinity_seconds: 0,
        backends: backends.iter().map(socket).collect(),
        local: 0,
    }
}
