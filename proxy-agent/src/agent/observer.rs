//! What the loop tells others about its work: health, metrics, alarms and the
//! answers of health check ports.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SendError, Sender};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tracing::debug;

use super::alarm::Alarms;
use super::controller::Controller;
use super::input::Input;
use crate::compile::{local_endpoints, without_local};
use crate::datapath::Datapath;
use crate::health::{HealthCheck, HealthChecks, ProxyHealth};
use crate::metrics::{Metrics, NoLocalEndpoints, Queued, View};
use crate::model::{Change, EndpointSlice, Family, NamespacedName};

/// The way in to the loop, for sources and for those who ask.
#[derive(Clone, Debug)]
pub struct Inputs {
    sender: Sender<Input>,
    health: ProxyHealth,
    metrics: Metrics,
}

impl Inputs {
    /// Queues `input`. A change counts as pending from now on, so that a loop
    /// that hangs is noticed.
    ///
    /// # Errors
    /// When the loop has ended.
    pub fn send(&self, input: Input) -> Result<(), SendError<Input>> {
        if let Input::Changes(changes) = &input {
            self.health.queued(Instant::now());
            self.metrics
                .queued(Queued::count(changes), SystemTime::now());
        }
        self.sender.send(input)
    }
}

/// The loop's side.
#[derive(Debug)]
pub struct Observer {
    health: ProxyHealth,
    metrics: Metrics,
    checks: watch::Sender<HealthChecks>,
    alarms: Alarms,
    since: SystemTime,
    /// Taken in, and not known to be in the maps.
    batches: u64,
    changes: Queued,
    triggers: Vec<Trigger>,
    touched: HashSet<NamespacedName>,
}

/// What made an endpoint change happen, and when.
#[derive(Debug)]
struct Trigger {
    service: NamespacedName,
    family: Family,
    time: SystemTime,
}

impl Observer {
    /// Makes the way in, what comes out of it, and the loop's side.
    #[must_use]
    pub fn new(health: &ProxyHealth, metrics: &Metrics) -> (Inputs, Receiver<Input>, Self) {
        let (sender, receiver) = mpsc::channel();
        let (health, metrics) = (health.clone(), metrics.clone());
        let inputs = Inputs {
            sender,
            health: health.clone(),
            metrics: metrics.clone(),
        };
        let observer = Self {
            health,
            metrics,
            checks: watch::Sender::default(),
            alarms: Alarms::default(),
            since: SystemTime::now(),
            batches: 0,
            changes: Queued::default(),
            triggers: Vec::new(),
            touched: HashSet::new(),
        };
        (inputs, receiver, observer)
    }

    /// What the health check ports are to answer, from now on.
    #[must_use]
    pub fn health_checks(&self) -> watch::Receiver<HealthChecks> {
        self.checks.subscribe()
    }

    /// The loop is about to take `changes` in.
    pub(super) fn taking<D: Datapath>(&mut self, controller: &Controller<D>, changes: &[Change]) {
        self.batches += 1;
        self.changes += Queued::count(changes);
        for change in changes {
            match change {
                Change::Service(service) => drop(self.touched.insert(service.name.clone())),
                Change::ServiceGone(name) => drop(self.touched.insert(name.clone())),
                Change::Slice(slice) => {
                    self.triggers.extend(self.trigger(controller, slice));
                    self.touched.insert(slice.key.service.clone());
                }
                // The annotation of a slice that is gone tells of an earlier
                // change, so a deletion is not measured; nor is it upstream.
                Change::SliceGone(key) => {
                    self.triggers
                        .retain(|trigger| trigger.service != key.service);
                    self.touched.insert(key.service.clone());
                }
                _ => {}
            }
        }
    }

    /// Only of what happened while this agent ran, and only once: a list that
    /// is told again says nothing new.
    fn trigger<D: Datapath>(
        &self,
        controller: &Controller<D>,
        slice: &EndpointSlice,
    ) -> Option<Trigger> {
        let time = slice.triggered.filter(|time| *time > self.since)?;
        let mut known = controller.state().slices(&slice.key.service);
        if known.any(|known| known.key == slice.key && known.triggered == Some(time)) {
            return None;
        }
        Some(Trigger {
            service: slice.key.service.clone(),
            family: Family::of(slice.endpoints.first()?.address),
            time,
        })
    }

    /// A round of the loop that began at `began` is over.
    pub(super) fn round<D: Datapath>(&mut self, controller: &Controller<D>, began: Instant) {
        let state = controller.state();
        self.health.set_node_is_leaving(state.node_is_leaving());
        if !controller.is_current() || self.batches == 0 {
            return;
        }
        let now = SystemTime::now();
        self.health.updated(self.batches, began, now);
        self.metrics.synced(self.changes, began.elapsed(), now);
        for trigger in self.triggers.drain(..) {
            let latency = now.duration_since(trigger.time).unwrap_or(Duration::ZERO);
            debug!(service = %trigger.service, ?latency, "programmed");
            self.metrics.programmed(trigger.family, latency);
        }
        self.batches = 0;
        self.changes = Queued::default();
        self.alarms.watch(&controller.usage());
        self.tell_health_checks(controller);
    }

    fn tell_health_checks<D: Datapath>(&mut self, controller: &Controller<D>) {
        let (state, node) = (controller.state(), controller.node());
        let told = Arc::clone(&self.checks.borrow());
        let mut changed = Vec::new();
        for name in self.touched.drain() {
            let service = state.service(&name);
            let port = service.and_then(|service| service.health_check_node_port);
            let check = port.map(|port| HealthCheck {
                port,
                local_endpoints: local_endpoints(state, node, &name),
            });
            if told.get(&name) != check.as_ref() {
                changed.push((name, check));
            }
        }
        // Almost no Service has such a port.
        if changed.is_empty() {
            return;
        }
        let mut checks = BTreeMap::clone(&told);
        for (name, check) in changed {
            match check {
                Some(check) => drop(checks.insert(name, check)),
                None => drop(checks.remove(&name)),
            }
        }
        self.checks.send_replace(Arc::new(checks));
    }

    /// Leaves the loop's own numbers for whoever reads the metrics next.
    /// `not_ready` is how many reasons there are against sending it traffic.
    pub(super) fn look<D: Datapath>(&self, controller: &Controller<D>, not_ready: usize) {
        let state = controller.state();
        let no_local_endpoints = [Family::V4, Family::V6].map(|family| {
            let (internal, external) = without_local(state, controller.node(), family);
            NoLocalEndpoints { internal, external }
        });
        self.metrics.view(View {
            usage: Some(controller.usage()),
            services: state.services().count(),
            frontends: controller.desired().len(),
            failing: controller.failing().len(),
            not_ready,
            counters: controller.datapath().counters(),
            refused: state.refused().clone(),
            no_local_endpoints,
        });
    }
}
