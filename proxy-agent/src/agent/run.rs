//! The loop: wait for something, take all of it, bring the maps up to date.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::answers;
use super::controller::Controller;
use super::dump;
use super::input::{Input, Question};
use super::observer::Observer;
use super::trace::trace;
use crate::datapath::Datapath;

/// How often everything is compared with everything.
const PRUNE: Duration = Duration::from_secs(60);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What the loop last said about itself.
#[derive(Clone, Debug, Default)]
pub struct Status {
    not_ready: Arc<Mutex<Vec<String>>>,
    canary: Arc<Mutex<Option<String>>>,
}

impl Status {
    /// Of an agent that has not begun.
    #[must_use]
    pub fn starting() -> Self {
        let status = Self::default();
        status.set(vec!["the agent is starting".to_owned()]);
        status.set_canary(Some("the canary has not passed yet".to_owned()));
        status
    }

    /// Why not to send traffic here; empty when all is well.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = self
            .not_ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let canary = self.canary.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.extend(canary.clone());
        reasons
    }

    /// Whether the maps and programs are in place, as far as the loop knows:
    /// the canary can be sent.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.not_ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Why the canary does not pass; `None` when it does.
    pub fn set_canary(&self, reason: Option<String>) {
        *self.canary.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn set(&self, reasons: Vec<String>) {
        *self
            .not_ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = reasons;
    }
}

/// Runs until every sender is gone.
pub fn run<D: Datapath>(
    mut controller: Controller<D>,
    inputs: &Receiver<Input>,
    status: &Status,
    mut observer: Observer,
) {
    let mut next_prune = Instant::now() + PRUNE;
    loop {
        let now = Instant::now();
        let retry = controller.is_failing().then(|| now + RETRY);
        let wake = [Some(next_prune), retry, controller.next_chore()]
            .into_iter()
            .flatten()
            .min();
        let patience = wake.map_or(PRUNE, |wake| wake.saturating_duration_since(now));
        let input = match inputs.recv_timeout(patience) {
            Ok(input) => Some(input),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let began = Instant::now();
        let mut questions = Vec::new();
        let mut is_ill = false;
        for input in input.into_iter().chain(inputs.try_iter()) {
            match input {
                Input::Changes(changes) => {
                    observer.taking(&controller, &changes);
                    controller.take(changes);
                }
                Input::CanaryFailed => is_ill = true,
                Input::Ask(question) => questions.push(question),
            }
        }
        if is_ill {
            controller.heal();
        }
        if began >= next_prune {
            controller.prune(began);
            next_prune = began + PRUNE;
        }
        controller.sync(began);
        status.set(controller.not_ready());
        observer.round(&controller, began);
        for question in questions {
            answer(&controller, &observer, status, question);
        }
    }
}

/// Whoever asked may have gone away.
fn answer<D: Datapath>(
    controller: &Controller<D>,
    observer: &Observer,
    status: &Status,
    question: Question,
) {
    match question {
        Question::Text(stage, reply) => drop(reply.send(dump::show(controller, stage))),
        Question::Dump(stage, reply) => drop(reply.send(answers::dump(controller, stage))),
        Question::Services(reply) => drop(reply.send(answers::services(controller))),
        Question::Service(name, reply) => {
            drop(reply.send(answers::service(controller, &name)));
        }
        Question::Trace(connection, reply) => {
            drop(reply.send(trace(controller, &connection)));
        }
        Question::Numbers(reply) => {
            observer.look(controller, status.not_ready().len());
            let _ = reply.send(());
        }
    }
}
