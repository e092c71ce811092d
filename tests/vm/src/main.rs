//! What is tested on a kernel that the machine does not run: the program that
//! `cargo xtask vm` starts in a virtual machine with Debian's 6.1 and 6.12.
//!
//! It owns that machine: it mounts, loads modules and attaches programs at the
//! root of its cgroups, so it refuses to run anywhere else. It must not know
//! how the machine was booted; what it prints is all that leaves it:
//!
//! ```text
//! kernel 6.1.0-56-amd64 after 9 s
//! ok NAME
//! FAILED NAME: why, in one line
//! end
//! ```
#![forbid(unsafe_code)]

mod machine;
mod proxy;
mod report;
mod wire;

use std::process::ExitCode;

use report::Report;

fn main() -> ExitCode {
    if !machine::is_virtual() {
        eprintln!(
            "berth-vm-guest loads modules and attaches to the root of the cgroups: \
             it runs in the virtual machine of `cargo xtask vm` alone"
        );
        return ExitCode::FAILURE;
    }
    report::started();
    let mut report = Report::default();
    if report.step("the machine is prepared", machine::prepare) {
        proxy::run(&mut report);
        wire::run(&mut report);
    }
    report.end()
}
