//! Which endpoints are alive, as the controller says and the reaper reads.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_abi::{Addr, Translation};

/// An endpoint's address and port (network byte order).
pub type Peer = (Addr, u16);

/// For each UDP Service port, by its number in the maps, the endpoints that
/// its sockets may be connected to. Shared: clones are one table.
#[derive(Clone, Debug, Default)]
pub struct LivePeers(Arc<Mutex<HashMap<u32, HashSet<Peer>>>>);

impl LivePeers {
    /// Whether a socket with this translation has an endpoint to talk to.
    #[must_use]
    pub fn covers(&self, translation: &Translation) -> bool {
        let peer = (translation.backend, translation.backend_port_be);
        self.lock()
            .get(&translation.service)
            .is_some_and(|peers| peers.contains(&peer))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, HashSet<Peer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The controller's side of [`LivePeers`]: it says what is alive, and wakes
/// the reaper when something is no longer.
#[derive(Debug, Default)]
pub struct Tracker {
    live: LivePeers,
    wake: Option<Sender<()>>,
}

impl Tracker {
    /// One that sends to `wake` when sockets have to be looked at.
    #[must_use]
    pub fn new(live: LivePeers, wake: Sender<()>) -> Self {
        Self {
            live,
            wake: Some(wake),
        }
    }

    /// The table.
    #[must_use]
    pub fn live(&self) -> &LivePeers {
        &self.live
    }

    /// The maps are about to name these for new connections.
    pub fn allow(&self, service: u32, peers: impl IntoIterator<Item = Peer>) {
        self.live.lock().entry(service).or_default().extend(peers);
    }

    /// The maps are settled: these are all that is alive of `service`. Says
    /// whether something is no longer.
    pub fn settle(&self, service: u32, peers: HashSet<Peer>) -> bool {
        let mut live = self.live.lock();
        let before = if peers.is_empty() {
            live.remove(&service)
        } else {
            live.insert(service, peers)
        };
        let after = live.get(&service);
        before.is_some_and(|before| {
            let is_gone = |peer| !after.is_some_and(|after| after.contains(peer));
            before.iter().any(is_gone)
        })
    }

    /// Has every socket looked at, soon.
    pub fn sweep(&self) {
        if let Some(wake) = &self.wake {
            // Without a reaper nobody is to be woken.
            let _ = wake.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn peer(last: u8) -> Peer {
        (
            Addr::from(IpAddr::from([10, 20, 0, last])),
            5353_u16.to_be(),
        )
    }

    fn socket(service: u32, last: u8) -> Translation {
        let (backend, backend_port_be) = peer(last);
        Translation {
            backend,
            backend_port_be,
            service,
            ..Translation::default()
        }
    }

    #[test]
    fn an_endpoint_lives_from_before_until_after_the_maps_name_it() {
        let tracker = Tracker::default();
        let live = tracker.live().clone();
        assert!(!live.covers(&socket(1, 7)));
        tracker.allow(1, [peer(7), peer(8)]);
        assert!(live.covers(&socket(1, 7)) && live.covers(&socket(1, 8)));
        assert!(!live.covers(&socket(2, 7)), "another Service's");
        assert!(tracker.settle(1, HashSet::from([peer(8), peer(9)])));
        assert!(!live.covers(&socket(1, 7)) && live.covers(&socket(1, 9)));
        assert!(!tracker.settle(1, HashSet::from([peer(8), peer(9), peer(10)])));
        assert!(tracker.settle(1, HashSet::new()));
        assert!(!tracker.settle(1, HashSet::new()));
        assert!(!live.covers(&socket(1, 8)));
    }
}
