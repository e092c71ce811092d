//! Set-up: look at the machine ([`facts`]), decide what is missing ([`plan`]),
//! say it, do it. Running it again does nothing, and does it quickly.
//!
//! It must not know what the programs do that it prepares the machine for.

mod debian;
mod facts;
mod linker;
mod object;
mod packages;
mod plan;

use std::fmt::Write;
use std::io::{BufRead, IsTerminal};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

pub(crate) use self::plan::Purpose;
use self::plan::{Facts, Plan, Step};
use crate::cli::SetupArgs;
use crate::progress;

/// `cargo xtask setup`.
pub(crate) fn run(args: &SetupArgs) -> Result<ExitCode> {
    if args.check {
        let (_, plan) = look(Purpose::Test)?;
        let complete = plan.steps.is_empty() && !plan.is_blocked();
        print!("{}", missing_text(&plan)?);
        if complete {
            println!("nothing is missing");
        }
        return Ok(if complete {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    let ask = !args.yes && std::io::stdin().is_terminal() && std::env::var_os("CI").is_none();
    prepare(Purpose::Test, ask)?;
    println!("set up: try `cargo xtask demo`");
    Ok(ExitCode::SUCCESS)
}

/// Makes the machine ready for `purpose`, the eBPF object included.
///
/// # Errors
/// Something is missing that cannot be installed from here, or an installation
/// fails.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    prepare(purpose, false)
}

fn prepare(purpose: Purpose, ask: bool) -> Result<()> {
    let (mut facts, mut plan) = look(purpose)?;
    // Which LLVM is right shows when Debian's compiler is there: hence twice.
    for round in 0..2 {
        if plan.is_blocked() {
            bail!(
                "this machine is not ready\n{}",
                missing_text(&plan)?.trim_end()
            );
        }
        // What works less well is said once, before the work.
        if round == 0 || !plan.steps.is_empty() {
            eprint!("{}", missing_text(&plan)?);
        }
        if plan.steps.is_empty() {
            break;
        }
        if ask && round == 0 && !confirmed()? {
            bail!("nothing was installed");
        }
        for step in &plan.steps {
            do_step(step)?;
        }
        (facts, plan) = look(purpose)?;
    }
    if let Some(step) = plan.steps.first() {
        bail!(
            "set-up ended without an error and yet this is missing: {}",
            step_text(step)?.trim()
        );
    }
    if object::given().is_none() {
        object::build(facts.llvm_major())?;
    }
    Ok(())
}

fn look(purpose: Purpose) -> Result<(Facts, Plan)> {
    let facts = facts::gather()?;
    let plan = plan::plan(&facts, purpose, msrv());
    Ok((facts, plan))
}

/// The workspace's minimum Rust version.
fn msrv() -> (u32, u32) {
    let mut parts = env!("CARGO_PKG_RUST_VERSION")
        .split('.')
        .map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(1), parts.next().unwrap_or(0))
}

fn do_step(step: &Step) -> Result<()> {
    match step {
        Step::Packages(packages) => debian::install(packages),
        Step::Linker { llvm_major } => linker::install(*llvm_major),
        Step::MountBpffs => progress::run(
            "mounting bpffs",
            Command::new("mount").args(["-t", "bpf", "bpf", facts::BPFFS]),
        ),
    }
}

fn confirmed() -> Result<bool> {
    eprint!("Go on? [Y/n] ");
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer; --yes asks nothing")?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "" | "y" | "yes"
    ))
}

/// What will be installed, and what is in the way, for people.
fn missing_text(plan: &Plan) -> Result<String> {
    let mut text = String::new();
    if !plan.steps.is_empty() {
        text.push_str("to install:\n");
        for step in &plan.steps {
            text.push_str(&step_text(step)?);
        }
    }
    for problem in &plan.problems {
        let kind = if problem.fatal { "problem" } else { "note" };
        writeln!(text, "{kind}: {}\n   mend: {}", problem.what, problem.mend)?;
    }
    Ok(text)
}

fn step_text(step: &Step) -> Result<String> {
    Ok(match step {
        Step::Packages(packages) => {
            let mut text = "  Debian packages (apt-get)\n".to_owned();
            for package in packages {
                writeln!(text, "    {:<28} {}", package.name, package.why)?;
            }
            text
        }
        Step::Linker { llvm_major } => format!(
            "  bpf-linker {} for LLVM {llvm_major} (cargo install) in {}\n",
            linker::VERSION,
            linker::root(*llvm_major)?.display()
        ),
        Step::MountBpffs => format!("  bpffs, mounted on {}\n", facts::BPFFS),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_packages_tools_and_mends() {
        let plan = Plan {
            steps: vec![
                Step::Packages(packages::needed(Purpose::Test, 22, true)),
                Step::Linker { llvm_major: 22 },
                Step::MountBpffs,
            ],
            problems: vec![plan::Problem {
                what: "no cgroup2".to_owned(),
                mend: "mount it".to_owned(),
                fatal: true,
            }],
        };
        let text = missing_text(&plan).unwrap();
        for part in [
            "rustc-web",
            "bpf-linker 0.13.0",
            "/sys/fs/bpf",
            "problem: no cgroup2",
            "mend: mount it",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn the_minimum_rust_version_is_the_workspaces() {
        assert!(msrv() >= (1, 85), "edition 2024 needs 1.85");
    }
}
