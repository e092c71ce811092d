//! Which endpoints of UDP Service ports are alive, told around each round of
//! operations: what the maps are about to name before it, what is left after.

use std::collections::{BTreeSet, HashSet};

use berth_abi::{Addr, Backend};

use crate::compile::{Desired, FrontendKey, serving};
use crate::diff::{Op, Realized};
use crate::model::{ClusterState, Protocol};
use crate::sockets::{Peer, Tracker};

/// The UDP Service ports, by number, that a round may change.
#[derive(Debug)]
pub(super) struct UdpPorts(BTreeSet<u32>);

impl UdpPorts {
    /// Before `ops` are done: their backends are alive from now on.
    pub(super) fn before(
        tracker: &Tracker,
        desired: &Desired,
        realized: &Realized,
        touched: &BTreeSet<FrontendKey>,
        ops: &[Op],
    ) -> Self {
        let mut ports: BTreeSet<u32> = udp(touched).filter_map(|k| realized.service(k)).collect();
        for op in ops {
            match op {
                Op::SetFrontend { key, frontend } if key.protocol == Protocol::Udp => {
                    // The key may change hands.
                    ports.extend(realized.service(key));
                    ports.insert(frontend.service);
                    let backends = desired.get(key).map(|f| f.backends.as_slice());
                    let peers = backends.unwrap_or_default().iter().map(peer);
                    tracker.allow(frontend.service, peers);
                }
                Op::DeleteFrontend { key } if key.protocol == Protocol::Udp => {
                    ports.extend(realized.service(key));
                }
                _ => {}
            }
        }
        Self(ports)
    }

    /// After the operations are done, or failed: says whether an endpoint is
    /// alive no longer.
    pub(super) fn after(
        mut self,
        tracker: &Tracker,
        state: &ClusterState,
        desired: &Desired,
        realized: &Realized,
        touched: &BTreeSet<FrontendKey>,
    ) -> bool {
        self.0
            .extend(udp(touched).filter_map(|k| realized.service(k)));
        let mut is_any_gone = false;
        for service in self.0 {
            let peers = alive(service, state, desired, realized);
            is_any_gone |= tracker.settle(service, peers);
        }
        is_any_gone
    }
}

/// What serves, and what the maps hand out even so: a frontend that could not
/// be written still does.
fn alive(
    service: u32,
    state: &ClusterState,
    desired: &Desired,
    realized: &Realized,
) -> HashSet<Peer> {
    let Some(port) = realized.port(service) else {
        return HashSet::new();
    };
    let mut peers: HashSet<Peer> = serving(state, port)
        .map(|(address, number)| (Addr::from(address), number.to_be()))
        .collect();
    let frontends = desired.of(&port.owner);
    for frontend in frontends.filter(|frontend| frontend.owner == *port) {
        peers.extend(realized.backends(&frontend.key).map(peer));
    }
    peers
}

fn udp(keys: &BTreeSet<FrontendKey>) -> impl Iterator<Item = &FrontendKey> {
    keys.iter().filter(|key| key.protocol == Protocol::Udp)
}

fn peer(backend: &Backend) -> Peer {
    (backend.address, backend.port_be)
}
