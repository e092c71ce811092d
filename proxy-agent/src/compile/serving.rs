//! The endpoints that connections may go on with, as opposed to those that new
//! ones are made to.

use std::net::IpAddr;

use super::host_ports;
use crate::model::{ClusterState, NamespacedName, Owner, PortId};

/// Address and port of every endpoint of a port that serves: ready
/// ones and terminating ones, on every node, whatever the traffic policies and
/// the topology say about new connections.
pub fn serving<'a>(
    state: &'a ClusterState,
    id: &'a PortId,
) -> impl Iterator<Item = (IpAddr, u16)> + 'a {
    let (service, pod) = match &id.owner {
        Owner::Service(name) => (Some(name), None),
        Owner::Pod(name) => (None, Some(name)),
    };
    let endpoints = service.map(|name| endpoints(state, name, id));
    let pods = pod.map(|name| host_ports::serving(state, name, id));
    let endpoints = endpoints.into_iter().flatten();
    endpoints.chain(pods.into_iter().flatten())
}

fn endpoints<'a>(
    state: &'a ClusterState,
    name: &'a NamespacedName,
    id: &'a PortId,
) -> impl Iterator<Item = (IpAddr, u16)> + 'a {
    let ports = state.service(name).into_iter().flat_map(|service| {
        service
            .ports
            .iter()
            .filter(|port| port.port == id.port && port.protocol == id.protocol)
    });
    ports.flat_map(move |port| {
        state.slices(name).flat_map(move |slice| {
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
