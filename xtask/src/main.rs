//! `cargo xtask`: everything that a machine needs before, around and after
//! `cargo build`. It installs what is missing, builds the eBPF object and the
//! binaries, and starts the demo, the tests and the benchmarks.
//!
//! It knows how to prepare a machine and how to start programs. It must not
//! know how pods, Services or addresses work: the demo lives in `berth-lab`,
//! the benchmarks in `berth-bench`.
#![forbid(unsafe_code)]

mod binaries;
mod cli;
mod demo;
mod lint;
mod paths;
mod progress;
mod setup;
mod testing;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Build(args) => binaries::run(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Test(args) => testing::run(&args),
        Command::Vm(args) => vm::run(&args),
        Command::Bench(args) => demo::bench(&args),
        Command::Fmt(args) => lint::fmt(&args),
        Command::Lint => lint::lint(),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
