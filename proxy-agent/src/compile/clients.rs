//! Which of this node's network namespaces may use what: source ranges, for
//! clients that have no source address yet when they connect, and pods that
//! have opted out (spec/proxy rows 4 and 25).

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_abi::ClientKey;

use crate::model::{ClusterState, Owner, PortId};

/// The entries that there should be. `number` tells the number of a Service
/// port; one that has none has no frontend to be let into.
///
/// A namespace counts as inside when any of its addresses is: it is the pod
/// that the ranges are about. One that is not known yet is outside.
#[must_use]
pub fn clients(
    state: &ClusterState,
    number: impl Fn(&PortId) -> Option<u32>,
) -> BTreeSet<ClientKey> {
    let opted_out = state.opted_out_pods();
    let is_out = |address: &IpAddr| opted_out.contains(address);
    let mut wanted: BTreeSet<_> = state
        .clients()
        .iter()
        .filter(|(_, addresses)| addresses.iter().any(is_out))
        .map(|(cookie, _)| ClientKey::new(*cookie, ClientKey::OPTED_OUT))
        .collect();
    let cgroups = state.opted_out_cgroups().iter();
    wanted.extend(cgroups.map(|id| ClientKey::new(*id, ClientKey::OPTED_OUT_CGROUP)));
    for service in state.restricted() {
        let ranges = &service.source_ranges;
        let is_inside = |address: &IpAddr| ranges.iter().any(|r| r.contains(*address));
        let inside = state
            .clients()
            .iter()
            .filter(|(_, addresses)| addresses.iter().any(is_inside));
        let inside: Vec<u64> = inside.map(|(cookie, _)| *cookie).collect();
        for port in &service.ports {
            let port = PortId {
                owner: Owner::Service(service.name.clone()),
                port: port.port,
                protocol: port.protocol,
            };
            let Some(number) = number(&port) else {
                continue;
            };
            wanted.extend(inside.iter().map(|cookie| ClientKey::new(*cookie, number)));
        }
    }
    wanted
}
