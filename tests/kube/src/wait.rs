//! Waiting for what the cluster does in its own time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const ASK_EVERY: Duration = Duration::from_millis(50);

/// Asks until there is an answer, for 60 s. `what` is what is waited for.
///
/// # Errors
/// The last refusal, when the time is over.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let within = Duration::from_secs(60);
    let deadline = Instant::now() + within;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() > deadline => {
                return Err(error)
                    .with_context(|| format!("{what}: not after {} s", within.as_secs()));
            }
            Err(_) => thread::sleep(ASK_EVERY),
        }
    }
}
