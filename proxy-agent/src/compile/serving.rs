//! The endpoints that connections may go on with, as opposed to those that new
//! ones are made to.

use std::net::IpAddr;

use crate::model::{ClusterState, PortId};

/// Address and port of every endpoint of a Service port that serves: ready
/// ones and terminating ones, on every node, whatever the traffic policies and
/// the topology say about new connections.
pub fn serving<'a>(
    state: &'a ClusterState,
    id: &'a PortId,
) -> impl Iterator<Item = (IpAddr, u16)> + 'a {
    let ports = state.service(&id.service).into_iter().flat_map(|service| {
        service
            .ports
            .iter()
            .filter(|port| port.port == id.port && port.protocol == id.protocol)
    });
    ports.flat_map(move |port| {
        state.slices(&id.service).flat_map(move |slice| {
            let target = slice
                .ports
                .iter()
                .find(|target| target.name == port.name && target.protocol == port.protocol);
            target.into_iter().flat_map(|target| {
                slice
                    .endpoints
                    .iter()
                    .filter(|endpoint| endpoint.ready || endpoint.serving)
                    .map(|endpoint| (endpoint.address, target.port))
            })
        })
    })
}
