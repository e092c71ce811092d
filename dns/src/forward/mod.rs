//! Upstreams: which one to ask, for how long, and whether to believe it.
//!
//! The longest zone that holds the name decides which upstreams are asked.
//! They are asked in order; one that is silent for [`Timing::stagger`] gets
//! company from the next, and the first good answer wins, so a dead upstream
//! costs a fraction of a second once and nothing while it is remembered. Equal
//! questions that are under way share one exchange.
//!
//! Knows nothing of zones, clients or views.

mod exchange;
mod upstream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

pub use exchange::{ExchangeError, Question};
pub use upstream::{Upstream, UpstreamError, UpstreamSpec};

use crate::name::{Name, suffixes};
use crate::wire::{rcode, walk};

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For one upstream's answer.
    pub attempt: Duration,
    /// Before the next upstream is asked as well.
    pub stagger: Duration,
    /// For any answer at all. Below the five seconds after which resolvers
    /// ask again.
    pub total: Duration,
    /// For which a silent upstream is asked last.
    pub suspicion: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(2),
            stagger: Duration::from_millis(300),
            total: Duration::from_secs(4),
            suspicion: Duration::from_secs(10),
        }
    }
}

/// Most questions under way at once.
const MAX_CONCURRENT: usize = 4096;

/// Why no upstream's answer can be given.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ForwardError {
    /// None serves this name.
    #[error("no upstream is configured for this name; add --upstream ADDR:PORT")]
    NoUpstream,
    /// Too many questions under way.
    #[error("{MAX_CONCURRENT} questions are waiting for upstreams already")]
    Overloaded,
    /// All were silent, or answered nonsense.
    #[error("no upstream answered: {0}")]
    NoAnswer(String),
}

/// An upstream's message, checked by [`walk`], with the question as asked.
pub type Reply = Result<Arc<[u8]>, ForwardError>;

/// Asks upstreams.
#[derive(Debug)]
pub struct Forwarder {
    routes: HashMap<Name, Vec<Arc<Upstream>>>,
    timing: Timing,
    permits: Arc<Semaphore>,
    flights: Mutex<HashMap<Question, Vec<oneshot::Sender<Reply>>>>,
}

impl Forwarder {
    /// A forwarder to these upstreams, each zone's in the order given.
    #[must_use]
    pub fn new(specs: &[UpstreamSpec], timing: Timing) -> Arc<Self> {
        let mut routes: HashMap<Name, Vec<Arc<Upstream>>> = HashMap::new();
        for spec in specs {
            let upstream = Arc::new(Upstream::new(spec.address));
            routes.entry(spec.zone.clone()).or_default().push(upstream);
        }
        Arc::new(Self {
            routes,
            timing,
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            flights: Mutex::default(),
        })
    }

    /// Whether there is any upstream: whether recursion is available.
    #[must_use]
    pub fn has_upstreams(&self) -> bool {
        !self.routes.is_empty()
    }

    /// Asks, or joins those who wait for the same answer.
    ///
    /// # Errors
    /// If no upstream gives an answer in time.
    pub async fn ask(self: &Arc<Self>, question: Question) -> Reply {
        let (tell, told) = oneshot::channel();
        if let Some(permit) = self.join_or_start(&question, tell)? {
            let upstreams = self.route(question.name());
            // A task of its own, so that the others get their answer even if
            // the first to ask goes away.
            let this = Arc::clone(self);
            tokio::spawn(async move {
                let reply = this.race(&upstreams, &question).await;
                drop(permit);
                let waiting = this.flights().remove(&question).unwrap_or_default();
                for tell in waiting {
                    // Who has gone away needs no answer.
                    let _ = tell.send(reply.clone());
                }
            });
        }
        told.await
            .unwrap_or_else(|_| Err(ForwardError::NoAnswer("shutting down".to_owned())))
    }

    /// A permit if the question is new, nothing if others wait for it already.
    fn join_or_start(
        &self,
        question: &Question,
        tell: oneshot::Sender<Reply>,
    ) -> Result<Option<OwnedSemaphorePermit>, ForwardError> {
        let mut flights = self.flights();
        if let Some(waiting) = flights.get_mut(question) {
            waiting.push(tell);
            return Ok(None);
        }
        if self.route(question.name()).is_empty() {
            return Err(ForwardError::NoUpstream);
        }
        let permit = Arc::clone(&self.permits)
            .try_acquire_owned()
            .map_err(|_| ForwardError::Overloaded)?;
        flights.insert(question.clone(), vec![tell]);
        Ok(Some(permit))
    }

    fn flights(&self) -> std::sync::MutexGuard<'_, HashMap<Question, Vec<oneshot::Sender<Reply>>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The upstreams of the longest zone that holds the name.
    fn route(&self, name: &[u8]) -> Vec<Arc<Upstream>> {
        suffixes(name)
            .find_map(|suffix| {
                self.routes
                    .iter()
                    .find(|(zone, _)| zone.as_wire() == suffix)
            })
            .map(|(_, upstreams)| upstreams.clone())
            .unwrap_or_default()
    }

    /// Two rounds over the upstreams, since a datagram may be lost.
    async fn race(&self, upstreams: &[Arc<Upstream>], question: &Question) -> Reply {
        let deadline = Instant::now() + self.timing.total;
        let mut order: Vec<_> = upstreams.iter().collect();
        order.sort_by_key(|upstream| upstream.is_suspect());
        let mut left = order.iter().chain(order.iter()).map(|u| Arc::clone(u));
        let mut pending: Vec<Arc<Upstream>> = Vec::new();
        let mut attempts = JoinSet::new();
        let mut fallback = None;
        let mut failures = Vec::new();
        let mut next_start = Instant::now();
        loop {
            if Instant::now() >= next_start || attempts.is_empty() {
                match left.next() {
                    Some(upstream) => {
                        pending.push(Arc::clone(&upstream));
                        let (question, limit) = (question.clone(), self.timing.attempt);
                        attempts.spawn(async move {
                            let reply = exchange::ask(upstream.address, &question, limit).await;
                            (upstream, reply)
                        });
                        next_start = Instant::now() + self.timing.stagger;
                    }
                    None if attempts.is_empty() => break,
                    None => next_start = deadline,
                }
            }
            let finished = tokio::select! {
                finished = timeout_at(deadline, attempts.join_next()) => match finished {
                    Ok(finished) => finished,
                    Err(_) => break,
                },
                () = sleep_until(next_start), if next_start < deadline => continue,
            };
            let Some(Ok((upstream, reply))) = finished else {
                continue;
            };
            let at = pending.iter().position(|p| Arc::ptr_eq(p, &upstream));
            let earlier = at.map_or(0, |at| {
                pending.remove(at);
                at
            });
            match reply {
                Ok(message) if is_good(&message) => {
                    upstream.trust();
                    // Those asked earlier and still silent are slower.
                    for slow in pending.iter().take(earlier) {
                        slow.suspect_for(self.timing.suspicion);
                    }
                    return Ok(message.into());
                }
                Ok(message) => fallback = Some(message),
                Err(error) => {
                    upstream.suspect_for(self.timing.suspicion);
                    failures.push(format!("{}: {error}", upstream.address));
                }
            }
            next_start = Instant::now(); // No reason to wait with the next.
        }
        for silent in pending {
            silent.suspect_for(self.timing.suspicion);
        }
        fallback.map(Into::into).ok_or_else(|| {
            failures.dedup();
            ForwardError::NoAnswer(failures.join(", "))
        })
    }
}

/// An answer about the name, rather than about the upstream's own state.
fn is_good(message: &[u8]) -> bool {
    walk(message).is_ok_and(|m| matches!(m.rcode, rcode::NOERROR | rcode::NXDOMAIN))
}
