//! `berth-cni` for tests: the same code, in a process that kills itself with
//! SIGKILL right after the step that `BERTH_KILL_AT` names.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;

fn main() -> ExitCode {
    let at = std::env::var("BERTH_KILL_AT").unwrap_or_default();
    berth_cni::run(&|step| {
        if step.name() == at {
            kill(getpid(), Signal::SIGKILL).expect("a process may kill itself");
        }
    })
}
