//! Where the numbers are kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::histogram::{Histogram, programming_bounds, sync_bounds};
use super::page;
use crate::diff::Usage;
use crate::model::{Change, Family};

/// The agent's numbers; cheap to clone, every clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    numbers: Arc<Mutex<Numbers>>,
}

/// Who asks for the proxy's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `/healthz`.
    Healthz,
    /// `/livez`.
    Livez,
}

/// How many changes of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// Of Services.
    pub services: u64,
    /// Of EndpointSlices.
    pub endpoints: u64,
}

impl Queued {
    /// Counts them.
    #[must_use]
    pub fn count(changes: &[Change]) -> Self {
        let mut queued = Self::default();
        for change in changes {
            match change {
                Change::Service(_) | Change::ServiceGone(_) => queued.services += 1,
                Change::Slice(_) | Change::SliceGone(_) => queued.endpoints += 1,
                _ => {}
            }
        }
        queued
    }
}

impl std::ops::AddAssign for Queued {
    fn add_assign(&mut self, more: Self) {
        self.services += more.services;
        self.endpoints += more.endpoints;
    }
}

/// Service ports with a Local traffic policy that have endpoints, but none on
/// this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoLocalEndpoints {
    /// By `internalTrafficPolicy`.
    pub internal: u64,
    /// By `externalTrafficPolicy`.
    pub external: u64,
}

/// What the loop knows at the moment it is asked.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// How full the maps are.
    pub usage: Option<Usage>,
    /// Services and frontends that are served.
    pub services: usize,
    /// Frontends that there should be.
    pub frontends: usize,
    /// Frontends that are not as they should be.
    pub failing: usize,
    /// How many reasons there are against sending this node traffic.
    pub not_ready: usize,
    /// The programs' counters.
    pub counters: Vec<(&'static str, u64)>,
    /// Objects that were refused, by kind.
    pub refused: BTreeMap<Arc<str>, u64>,
    /// For IPv4 and IPv6.
    pub no_local_endpoints: [NoLocalEndpoints; 2],
}

#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) sync: Histogram,
    /// For IPv4 and IPv6.
    pub(super) programming: [Histogram; 2],
    pub(super) last_queued: Option<SystemTime>,
    pub(super) last_synced: Option<SystemTime>,
    pub(super) queued: Queued,
    pub(super) synced: Queued,
    pub(super) healthz: Codes,
    pub(super) livez: Codes,
    pub(super) canary: Option<bool>,
    pub(super) sockets_destroyed: u64,
    pub(super) address_calls: BTreeMap<&'static str, u64>,
    pub(super) address_requests: BTreeMap<(&'static str, &'static str), u64>,
    pub(super) view: View,
}

/// Answers by status.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Codes {
    pub(super) ok: u64,
    pub(super) unavailable: u64,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            sync: Histogram::new(sync_bounds()),
            programming: [(); 2].map(|()| Histogram::new(programming_bounds())),
            last_queued: None,
            last_synced: None,
            queued: Queued::default(),
            synced: Queued::default(),
            healthz: Codes::default(),
            livez: Codes::default(),
            canary: None,
            sockets_destroyed: 0,
            address_calls: BTreeMap::new(),
            address_requests: BTreeMap::new(),
            view: View::default(),
        }
    }
}

impl Metrics {
    /// A batch of changes is on its way to the loop.
    pub fn queued(&self, changes: Queued, now: SystemTime) {
        let mut numbers = self.numbers();
        numbers.queued += changes;
        numbers.last_queued = Some(now);
    }

    /// The maps are up to date with `changes` more changes, and that took
    /// `took`.
    pub fn synced(&self, changes: Queued, took: Duration, now: SystemTime) {
        let mut numbers = self.numbers();
        numbers.synced += changes;
        numbers.sync.observe(took.as_secs_f64());
        numbers.last_synced = Some(now);
    }

    /// An endpoint change is in the maps, this long after what caused it.
    pub fn programmed(&self, family: Family, latency: Duration) {
        let index = match family {
            Family::V4 => 0,
            Family::V6 => 1,
        };
        self.numbers().programming[index].observe(latency.as_secs_f64());
    }

    /// Somebody asked for the proxy's health.
    pub fn probed(&self, probe: Probe, is_well: bool) {
        let mut numbers = self.numbers();
        let codes = match probe {
            Probe::Healthz => &mut numbers.healthz,
            Probe::Livez => &mut numbers.livez,
        };
        if is_well {
            codes.ok += 1;
        } else {
            codes.unavailable += 1;
        }
    }

    /// The canary's connection was translated, or was not.
    pub fn canary(&self, is_well: bool) {
        self.numbers().canary = Some(is_well);
    }

    /// UDP sockets were destroyed, because their endpoint had gone.
    pub fn sockets_destroyed(&self, count: u64) {
        self.numbers().sockets_destroyed += count;
    }

    /// A request for addresses has ended; so many calls of the API server, by
    /// verb, were made for all of them so far.
    pub fn address_request(
        &self,
        verb: &'static str,
        result: &'static str,
        calls: impl IntoIterator<Item = (&'static str, u64)>,
    ) {
        let mut numbers = self.numbers();
        *numbers.address_requests.entry((verb, result)).or_default() += 1;
        numbers.address_calls.extend(calls);
    }

    /// What the loop knows now.
    pub fn view(&self, view: View) {
        self.numbers().view = view;
    }

    /// Everything, as a page.
    #[must_use]
    pub fn page(&self) -> String {
        page::write(&self.numbers())
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
