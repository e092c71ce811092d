//! Whether the proxy keeps up with what it hears.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// A change that waits longer than this means that the proxy is stuck: twice
/// kube-proxy's default sync period of 30 s, as its health server has it.
pub const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Shared by those who queue changes, the loop that works them off, and the
/// servers that answer.
#[derive(Clone, Debug)]
pub struct ProxyHealth {
    state: Arc<Mutex<State>>,
    stuck_after: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// Batches of changes queued, and of those the ones that are in the maps.
    queued: u64,
    done: u64,
    /// Since when the oldest batch that is not in the maps has waited.
    waiting_since: Option<Instant>,
    last_updated: Option<SystemTime>,
    node_is_leaving: bool,
}

/// The answer to "how is the proxy?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// No change has waited too long. True until the first full set of
    /// changes is in the maps, as upstream's is while it starts.
    pub healthy: bool,
    /// When the maps were last brought up to date.
    pub last_updated: Option<SystemTime>,
    /// The node is not being deleted.
    pub node_eligible: bool,
}

impl ProxyHealth {
    /// Of a proxy that has heard nothing yet.
    #[must_use]
    pub fn new(stuck_after: Duration) -> Self {
        Self {
            state: Arc::default(),
            stuck_after,
        }
    }

    /// A batch of changes is on its way to the loop.
    pub fn queued(&self, now: Instant) {
        let mut state = self.state();
        state.queued += 1;
        state.waiting_since.get_or_insert(now);
    }

    /// All changes of `batches` more batches are in the maps. `began` is when
    /// the loop took them: what is queued besides came later.
    pub fn updated(&self, batches: u64, began: Instant, now: SystemTime) {
        let mut state = self.state();
        state.done += batches;
        state.waiting_since = (state.done < state.queued).then_some(began);
        state.last_updated = Some(now);
    }

    /// The node is being deleted, or is not any more.
    pub fn set_node_is_leaving(&self, leaving: bool) {
        self.state().node_is_leaving = leaving;
    }

    /// How the proxy is.
    #[must_use]
    pub fn report(&self, now: Instant) -> Report {
        let state = self.state();
        let has_waited = state
            .waiting_since
            .map(|since| now.saturating_duration_since(since));
        let is_late = has_waited.is_some_and(|waited| waited >= self.stuck_after);
        Report {
            healthy: state.last_updated.is_none() || !is_late,
            last_updated: state.last_updated,
            node_eligible: !state.node_is_leaving,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ProxyHealth {
    fn default() -> Self {
        Self::new(STUCK_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_change_that_waits_too_long_is_told() {
        let (health, start, wall) = (
            ProxyHealth::default(),
            Instant::now(),
            SystemTime::UNIX_EPOCH,
        );
        let healthy_after = |seconds: u32| health.report(start + seconds * SECOND).healthy;
        assert!(healthy_after(0));
        health.queued(start);
        // Starting up takes as long as it takes.
        assert!(healthy_after(1_000));
        health.updated(1, start, wall);
        assert!(healthy_after(1_000));
        health.queued(start);
        health.queued(start + 30 * SECOND);
        assert!(healthy_after(59));
        assert!(!healthy_after(60), "the oldest counts");
        // The first is in the maps, the second is not.
        health.updated(1, start + 20 * SECOND, wall);
        assert!(healthy_after(79));
        assert!(!healthy_after(80));
        health.updated(1, start + 80 * SECOND, wall);
        assert!(healthy_after(10_000));
    }

    #[test]
    fn a_leaving_node_is_not_an_unhealthy_proxy() {
        let health = ProxyHealth::default();
        health.set_node_is_leaving(true);
        let report = health.report(Instant::now());
        assert!(report.healthy && !report.node_eligible);
        health.set_node_is_leaving(false);
        assert!(health.report(Instant::now()).node_eligible);
    }
}
