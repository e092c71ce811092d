//! Handing over to the demo and the benchmarks: the program takes this
//! process's place, so Ctrl-C, the terminal and the exit code are its own.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::binaries;
use crate::cli::{BenchArgs, DemoArgs};
use crate::setup::{self, Purpose};

/// `cargo xtask demo`.
pub(crate) fn demo(args: &DemoArgs) -> Result<ExitCode> {
    for manifest in &args.manifests {
        if !manifest.exists() {
            // Said now, not after minutes of building.
            bail!("{}: no such file", manifest.display());
        }
    }
    setup::ensure(Purpose::Demo)?;
    binaries::build(false)?;
    let mut command = Command::new(binaries::bin_dir(false).join("berth-lab"));
    command.arg("demo").args(&args.manifests);
    if args.keep {
        command.arg("--keep");
    }
    become_program(binaries::with_bin_dir(&mut command, false))
}

/// `cargo xtask bench`.
pub(crate) fn bench(args: &BenchArgs) -> Result<ExitCode> {
    setup::ensure(Purpose::Test)?;
    binaries::build(true)?;
    let mut command = Command::new(binaries::bin_dir(true).join("berth-bench"));
    command.args(&args.name);
    if let Some(file) = &args.json {
        command.arg("--json").arg(file);
    }
    become_program(binaries::with_bin_dir(&mut command, true))
}

fn become_program(command: &mut Command) -> Result<ExitCode> {
    let program = command.get_program().to_string_lossy().into_owned();
    // exec returns only if it failed.
    Err(command.exec()).with_context(|| format!("cannot start {program}"))
}
