//! Progress on the terminal: each step as it begins, a sign of life every two
//! seconds, warnings as they come.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a step may be silent.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// Writes to stderr, so that stdout holds the tables alone.
#[derive(Debug)]
pub(super) struct Screen {
    started: Instant,
    step: Arc<Mutex<Option<(String, Instant)>>>,
    /// Dropping it ends the thread that gives signs of life.
    _alive: Sender<()>,
}

impl Screen {
    pub(super) fn new(started: Instant) -> Self {
        let step: Arc<Mutex<Option<(String, Instant)>>> = Arc::default();
        let (alive, end) = channel();
        let watched = Arc::clone(&step);
        thread::spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(SIGN_OF_LIFE) {
                let step = watched.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((what, since)) = &*step
                    && since.elapsed() >= SIGN_OF_LIFE
                {
                    let seconds = since.elapsed().as_secs();
                    eprintln!("           still {what}, for {seconds} s");
                }
            }
        });
        Self {
            started,
            step,
            _alive: alive,
        }
    }

    /// A step begins.
    pub(super) fn step(&self, what: &str) {
        self.note(what);
        let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        *step = Some((what.to_owned(), Instant::now()));
    }

    /// The last step has ended.
    pub(super) fn end(&self) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The last step has ended, with this to say.
    pub(super) fn done(&self, what: &str) {
        self.end();
        self.note(what);
    }

    /// One line with the time since the start.
    pub(super) fn note(&self, what: &str) {
        eprintln!("[{:6.2} s] {what}", self.started.elapsed().as_secs_f64());
    }

    /// Something that people should know.
    pub(super) fn warning(&self, what: &str) {
        eprintln!("  warning: {what}");
    }
}
