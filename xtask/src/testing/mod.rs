//! `cargo xtask test`: every test of the workspace, those that need root
//! included, and one count over all of them.
//!
//! It must not know what is tested: it reads cargo's and libtest's output.

mod tally;

use std::process::ExitCode;

use anyhow::{Result, bail};

use self::tally::Note;
pub(crate) use self::tally::Tally;
use crate::binaries::{self, PACKAGES};
use crate::cli::TestArgs;
use crate::progress::Heartbeat;
use crate::setup::{self, Purpose};
use crate::vm::{self, Series};
use crate::{progress, toolchain};

/// `cargo xtask test`.
pub(crate) fn run(args: &TestArgs) -> Result<ExitCode> {
    setup::ensure(Purpose::Test)?;
    let tally = match build() {
        Ok(()) => {
            let mut tally = run_tests(args)?;
            if args.filter.as_deref().is_none_or(|filter| filter == "vm") {
                for series in Series::ALL {
                    vm::tests(series, &mut tally);
                }
            }
            tally
        }
        // Whoever reads the last line reads a count, whatever happened.
        Err(error) => {
            eprintln!("error: {error:#}");
            Tally::not_built()
        }
    };
    if tally.is_empty() {
        bail!("no test ran: no name contains what was asked for");
    }
    Ok(conclude(&tally))
}

/// Tells what was skipped and what failed; the count is the last line.
pub(crate) fn conclude(tally: &Tally) -> ExitCode {
    for (test, reason) in tally.skips() {
        println!("SKIPPED {test}: {reason}");
    }
    for test in tally.failures() {
        println!("FAILED  {test}");
    }
    let require_all = std::env::var_os("BERTH_REQUIRE_ALL").is_some_and(|value| value == "1");
    if require_all && !tally.skips().is_empty() {
        println!("BERTH_REQUIRE_ALL=1: a skipped test is a failure");
    }
    println!("{}", tally.summary());
    if tally.is_success(require_all) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn build() -> Result<()> {
    binaries::build(false)?;
    let mut command = toolchain::cargo();
    command.arg("test").args(PACKAGES).arg("--no-run");
    progress::run("building the tests", &mut command)
}

fn run_tests(args: &TestArgs) -> Result<Tally> {
    let mut command = toolchain::cargo();
    command
        .arg("test")
        .args(PACKAGES)
        .arg("--no-fail-fast")
        // Its lines are read: no colours.
        .env("CARGO_TERM_COLOR", "never")
        .args(["--", "--show-output"])
        .args(&args.filter);
    binaries::with_bin_dir(&mut command, false);

    let mut tally = Tally::default();
    let mut heartbeat = Heartbeat::new("running the tests");
    let status = progress::stream(&mut command, &mut heartbeat, |line, heartbeat| {
        for note in tally.read(line) {
            match note {
                Note::Done(test) => {
                    heartbeat.detail(&test);
                    if args.verbose {
                        heartbeat.clear();
                        println!("{line}");
                    }
                }
                Note::Show(text) => {
                    heartbeat.clear();
                    println!("{text}");
                }
            }
        }
    })?;
    heartbeat.done();
    tally.finish(status.success());
    Ok(tally)
}
