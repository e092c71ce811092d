//! Building what runs in user space.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::cli::BuildArgs;
use crate::setup::{self, Purpose};
use crate::{paths, progress, toolchain};

/// Everything that stable Rust compiles. Builds, tests and clippy name the same
/// packages: with others cargo would choose other features of shared
/// dependencies, and compile those again.
pub(crate) const PACKAGES: [&str; 3] = ["--workspace", "--exclude", "berth-proxy-ebpf"];

/// Names the folder of the binaries to the lab, the tests and the benchmarks.
const BIN_DIR_ENV: &str = "BERTH_BIN_DIR";

/// `cargo xtask build`.
pub(crate) fn run(args: &BuildArgs) -> Result<ExitCode> {
    setup::ensure(Purpose::Build)?;
    build(args.release)?;
    println!("built: {}", bin_dir(args.release).display());
    Ok(ExitCode::SUCCESS)
}

/// Builds all binaries but xtask, which is running.
///
/// # Errors
/// Something does not compile; what the compiler said is printed.
pub(crate) fn build(release: bool) -> Result<()> {
    let mut command = toolchain::cargo();
    command
        .args(["build", "--bins"])
        .args(PACKAGES)
        .args(["--exclude", "xtask"]);
    if release {
        command.arg("--release");
    }
    progress::run("building the binaries", &mut command)
}

/// Builds these binaries, unoptimised, with the features that all would have.
///
/// # Errors
/// One does not compile; what the compiler said is printed.
pub(crate) fn build_only(names: &[&str]) -> Result<()> {
    let mut command = toolchain::cargo();
    command.arg("build").args(PACKAGES);
    for name in names {
        command.args(["--bin", name]);
    }
    progress::run("building the binaries", &mut command)
}

/// Where [`build`] puts the binaries.
pub(crate) fn bin_dir(release: bool) -> PathBuf {
    paths::target_dir().join(if release { "release" } else { "debug" })
}

/// Tells a program where the binaries are.
pub(crate) fn with_bin_dir(command: &mut Command, release: bool) -> &mut Command {
    command.env(BIN_DIR_ENV, bin_dir(release))
}
