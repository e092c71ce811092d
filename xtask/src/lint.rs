//! Formatting and clippy, as `.ci/run` runs them.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::binaries::PACKAGES;
use crate::cli::FmtArgs;
use crate::toolchain;

/// `cargo xtask fmt`.
pub(crate) fn fmt(args: &FmtArgs) -> Result<ExitCode> {
    let mut command = toolchain::cargo();
    command.args(["fmt", "--all"]);
    if args.check {
        command.arg("--check");
    }
    show(&mut command)
}

/// `cargo xtask lint`.
pub(crate) fn lint() -> Result<ExitCode> {
    let mut command = toolchain::cargo();
    command
        .arg("clippy")
        .args(PACKAGES)
        .args(["--all-targets", "--", "-D", "warnings"]);
    show(&mut command)
}

/// Runs a command on the user's terminal.
fn show(command: &mut Command) -> Result<ExitCode> {
    let status = command.status().context("cannot start cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
