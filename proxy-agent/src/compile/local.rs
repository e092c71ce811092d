//! What load balancers and monitors want to know of a node: which Services
//! have endpoints on it.

use std::collections::BTreeSet;

use super::endpoints::{NodeView, choose, is_on};
use super::frontends::endpoints_of;
use crate::model::{ClusterState, Family, NamespacedName, Service, ServicePort, TrafficPolicy};

/// How many ready endpoints of a Service are on this node. An endpoint counts
/// once, whatever number of ports it has; of a dual-stack Service the family
/// with more of them counts, since a pod has an address in each. A terminating
/// one does not count, although connections still go to it: load balancers
/// are to turn away (KEP-1669).
#[must_use]
pub fn local_endpoints(state: &ClusterState, node: &str, service: &NamespacedName) -> usize {
    let here: BTreeSet<_> = state
        .slices(service)
        .flat_map(|slice| &slice.endpoints)
        .filter(|endpoint| endpoint.ready && is_on(endpoint, node))
        .map(|endpoint| endpoint.address)
        .collect();
    let v6 = here.iter().filter(|address| address.is_ipv6()).count();
    v6.max(here.len() - v6)
}

/// The Service ports of one family with a Local policy, endpoints on other
/// nodes and none on this one: by internal policy, and by external policy.
#[must_use]
pub fn without_local(state: &ClusterState, node: &str, family: Family) -> (u64, u64) {
    let view = NodeView {
        node,
        zone: state.zone(),
    };
    let (mut internal, mut external) = (0, 0);
    for service in state.services() {
        let is_internal = service.internal_policy == TrafficPolicy::Local;
        for port in &service.ports {
            let is_external =
                service.external_policy == TrafficPolicy::Local && is_reached(service, port);
            if !is_internal && !is_external {
                continue;
            }
            let endpoints = endpoints_of(state, service, port, family);
            let endpoints: Vec<_> = endpoints
                .into_iter()
                .map(|(endpoint, _)| endpoint)
                .collect();
            if choose(&endpoints, TrafficPolicy::Local, view).only_elsewhere {
                internal += u64::from(is_internal);
                external += u64::from(is_external);
            }
        }
    }
    (internal, external)
}

/// Whether anybody outside can reach the port.
fn is_reached(service: &Service, port: &ServicePort) -> bool {
    port.node_port.is_some()
        || !service.external_ips.is_empty()
        || !service.load_balancer_ips.is_empty()
}
