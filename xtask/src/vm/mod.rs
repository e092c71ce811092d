//! `cargo xtask vm`: the tests of `berth-vm-guest` on Debian's kernels, in
//! virtual machines without hardware virtualization.
//!
//! It must not know what is tested: it gets a kernel, boots it over this
//! machine's file system (read-only, with everything written kept in the
//! guest's memory), and reads lines.

mod boot;
mod kernels;
mod lines;
mod tools;

use std::process::ExitCode;

use anyhow::Result;

pub(crate) use self::kernels::Series;
pub(crate) use self::lines::{Run, Verdict};
use crate::binaries;
use crate::cli::VmArgs;
use crate::setup::{self, Purpose};
use crate::testing::Tally;

/// The tests, and what they start.
const GUEST_BINARIES: [&str; 3] = ["berth-vm-guest", "berth-agent", "berth-cni"];

/// `cargo xtask vm`.
pub(crate) fn run(args: &VmArgs) -> Result<ExitCode> {
    setup::ensure(Purpose::Vm)?;
    binaries::build_only(&GUEST_BINARIES)?;
    let series = args.kernel.series();
    if !args.command.is_empty() {
        return each_command(series, &args.command.join(" "));
    }
    let mut tally = Tally::default();
    for series in series {
        tests(*series, &mut tally);
    }
    Ok(crate::testing::conclude(&tally))
}

/// Runs the guest's tests on one kernel, tells and counts them.
pub(crate) fn tests(series: Series, tally: &mut Tally) {
    let run = tools::ensure(series).and_then(|tools| boot::tests(&tools));
    match run {
        Ok(run) => {
            println!("{}", run.headline(series));
            tally.add_run(&series.to_string(), &run);
        }
        Err(error) => tally.skip(
            &format!("vm {series}"),
            &format!("the virtual machine does not start: {error:#}"),
        ),
    }
}

/// Runs a user's command on each kernel; the first failure is the exit code.
fn each_command(series: &[Series], command: &str) -> Result<ExitCode> {
    let mut exit = ExitCode::SUCCESS;
    for series in series {
        let tools = tools::ensure(*series)?;
        eprintln!("==> {series}: {command}");
        let code = boot::command(&tools, command)?;
        if code != 0 {
            eprintln!("{series}: exit code {code}");
            exit = ExitCode::from(u8::try_from(code).unwrap_or(1));
        }
    }
    Ok(exit)
}
