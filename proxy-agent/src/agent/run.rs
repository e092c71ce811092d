//! The loop: wait for something, take all of it, bring the maps up to date.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::controller::Controller;
use super::dump;
use crate::datapath::Datapath;
use crate::model::Change;

/// How often everything is compared with everything.
const PRUNE: Duration = Duration::from_secs(60);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What reaches the loop.
#[derive(Debug)]
pub enum Input {
    /// A source has something to say.
    Changes(Vec<Change>),
    /// Somebody wants to see a stage.
    Show(Stage, tokio::sync::oneshot::Sender<String>),
}

/// A stage of the agent that can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The cluster as heard.
    Model,
    /// What the maps should say.
    Desired,
    /// What the maps say.
    Realized,
    /// The programs' counters.
    Counters,
}

/// What the loop last said about itself.
#[derive(Clone, Debug, Default)]
pub struct Status {
    not_ready: Arc<Mutex<Vec<String>>>,
}

impl Status {
    /// Of an agent that has not begun.
    #[must_use]
    pub fn starting() -> Self {
        let status = Self::default();
        status.set(vec!["the agent is starting".to_owned()]);
        status
    }

    /// Why not to send traffic here; empty when all is well.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        self.not_ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, reasons: Vec<String>) {
        *self
            .not_ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = reasons;
    }
}

/// Runs until every sender is gone.
pub fn run<D: Datapath>(mut controller: Controller<D>, inputs: &Receiver<Input>, status: &Status) {
    let mut next_prune = Instant::now() + PRUNE;
    loop {
        let now = Instant::now();
        let retry = controller.is_failing().then(|| now + RETRY);
        let wake = [Some(next_prune), retry, controller.next_chore()]
            .into_iter()
            .flatten()
            .min();
        let patience = wake.map_or(PRUNE, |wake| wake.saturating_duration_since(now));
        match inputs.recv_timeout(patience) {
            Ok(input) => {
                handle(&mut controller, input);
                for input in inputs.try_iter() {
                    handle(&mut controller, input);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        if now >= next_prune {
            controller.prune(now);
            next_prune = now + PRUNE;
        }
        controller.sync(now);
        status.set(controller.not_ready());
    }
}

fn handle<D: Datapath>(controller: &mut Controller<D>, input: Input) {
    match input {
        Input::Changes(changes) => controller.take(changes),
        // Whoever asked may have gone away.
        Input::Show(stage, reply) => drop(reply.send(dump::show(controller, stage))),
    }
}
