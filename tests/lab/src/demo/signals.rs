//! Ctrl-C: the lab is removed before the process ends, whatever it is doing.

use std::os::unix::process::CommandExt;
use std::process::{Command, exit};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

/// What a shell says of a process that was interrupted.
const INTERRUPTED: u8 = 130;

/// Ctrl-C, SIGTERM and the closing of the terminal, caught.
#[derive(Debug)]
pub(super) struct Signals {
    code: Arc<AtomicU8>,
}

impl Signals {
    /// Must be called before any other thread is made: threads inherit what is
    /// blocked. Programs in the lab do not; see [`crate::ground::enter`].
    pub(super) fn catch() -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().context("block signals")?;
        let code = Arc::new(AtomicU8::new(INTERRUPTED));
        let shared = Arc::clone(&code);
        thread::spawn(move || {
            if set.wait().is_ok() {
                eprintln!("\nremoving the lab");
                end(shared.load(Ordering::SeqCst));
            }
        });
        Ok(Self { code })
    }

    /// Waits for a signal, which ends the process with `code`.
    pub(super) fn wait_for_end(&self, code: u8) -> ! {
        self.code.store(code, Ordering::SeqCst);
        let never = Condvar::new();
        let lock = Mutex::new(());
        let mut guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            guard = never.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Turns this process into `berth-lab end`: that stops all other threads at
/// once, so that nothing is made any more while the lab is being removed.
fn end(code: u8) -> ! {
    let error = match std::env::current_exe() {
        Ok(own) => Command::new(own)
            .args(["end", "--code", &code.to_string()])
            .exec(),
        Err(error) => error,
    };
    eprintln!("the lab is left: run `berth-lab sweep`: {error}");
    exit(code.into());
}
