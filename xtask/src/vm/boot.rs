//! Booting a kernel and running one command line in it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::GUEST_BINARIES;
use super::lines::{EXIT, Run, Verdict};
use super::tools::Tools;
use crate::progress::{self, Heartbeat};
use crate::{binaries, paths};

/// A run of the tests takes under a minute where nothing else runs; one that
/// takes longer than this, in seconds, hangs.
const TESTS_WITHIN: u32 = 600;
/// A folder of the guest's that is in its memory.
const IN_MEMORY: &str = "/run/berth-vm";
/// How much of the console is shown when something goes wrong.
const CONSOLE_LINES: usize = 60;

/// Runs the tests.
///
/// # Errors
/// The guest's program never ran; the end of the console is printed.
pub(super) fn tests(tools: &Tools) -> Result<Run> {
    let script = tests_script(&binaries::bin_dir(false));
    let mut run = Run::default();
    let mut console = VecDeque::new();
    let mut heartbeat = Heartbeat::new(&format!("testing on {}", kernel_name(tools)));
    let began = Instant::now();
    let mut command = machine(tools, &script, Some(TESTS_WITHIN))?;
    progress::stream(&mut command, &mut heartbeat, |line, heartbeat| {
        if run.read(line) {
            heartbeat.detail(line);
            if let Some((name, Verdict::Failed(why))) = run.tests.last()
                && line.starts_with("FAILED ")
            {
                heartbeat.clear();
                println!("FAILED {name}: {why}");
            }
        }
        if console.len() == CONSOLE_LINES {
            console.pop_front();
        }
        console.push_back(line.to_owned());
    })?;
    heartbeat.done();
    let tests = run.tests.len();
    run.finish(began.elapsed());
    if !run.has_started() || run.tests.len() > tests {
        for line in &console {
            eprintln!("{}", line.trim_end());
        }
    }
    if !run.has_started() {
        bail!("the kernel did not come to run the tests; the end of its console is above");
    }
    Ok(run)
}

/// Runs a user's command, showing all that it prints, and returns its exit
/// code.
///
/// # Errors
/// The machine ended before the command did.
pub(super) fn command(tools: &Tools, script: &str) -> Result<i32> {
    let mut run = Run::default();
    let mut heartbeat = Heartbeat::new(&format!("running on {}", kernel_name(tools)));
    let mut command = machine(tools, script, None)?;
    progress::stream(&mut command, &mut heartbeat, |line, heartbeat| {
        run.read(line);
        if !line.starts_with(EXIT) {
            heartbeat.clear();
            println!("{}", line.trim_end());
        }
    })?;
    run.exit()
        .context("the machine ended before the command did")
}

fn kernel_name(tools: &Tools) -> String {
    let name = tools.vmlinuz.file_name().unwrap_or_default();
    name.to_string_lossy()
        .trim_start_matches("vmlinuz-")
        .to_owned()
}

/// The emulator's command. The guest sees this machine's file system; what it
/// writes stays in its memory. Its console is the output, for there is no udev
/// that would name virtme's own channels.
fn machine(tools: &Tools, script: &str, within: Option<u32>) -> Result<Command> {
    let mut command = match within {
        None => Command::new(tools.virtme_bin.join("vng")),
        Some(seconds) => {
            // It ends the emulator too, being in the same process group.
            let mut command = Command::new("timeout");
            command
                .args(["--kill-after=5", &seconds.to_string()])
                .arg(tools.virtme_bin.join("vng"));
            command
        }
    };
    command
        .arg("--run")
        .arg(&tools.vmlinuz)
        .arg("--busybox")
        .arg(&tools.busybox)
        // Where /dev/kvm is, it need not work.
        .args(["--disable-kvm", "--disable-microvm", "--force-9p"])
        .args(["--user", "root", "--cpus", "2", "--memory", "1G"])
        // The console with the kernel's warnings, without its chatter.
        .args(["--verbose", "--append", "loglevel=5"])
        .arg("--exec")
        .arg(in_guest(script))
        .current_dir(paths::workspace())
        .env("PATH", path_with(&tools.virtme_bin)?);
    Ok(command)
}

/// The command line for the guest's shell.
fn in_guest(script: &str) -> String {
    let bin = binaries::bin_dir(false);
    format!(
        "export BERTH_BIN_DIR='{}'; {script}; code=$?; echo; echo {EXIT} $code",
        bin.display()
    )
}

/// Starts the tests from the guest's memory: over 9p the kernel reads a program
/// anew, page by page, each time that it is started, which takes seconds.
fn tests_script(bin: &Path) -> String {
    let programs: Vec<_> = GUEST_BINARIES
        .iter()
        .map(|name| format!("'{}/{name}'", bin.display()))
        .collect();
    format!(
        "mkdir {IN_MEMORY} && cp {} {IN_MEMORY} && \
         BERTH_BIN_DIR={IN_MEMORY} {IN_MEMORY}/berth-vm-guest",
        programs.join(" ")
    )
}

/// `vng` starts `virtme-run` by its name.
fn path_with(first: &Path) -> Result<OsString> {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(first.to_owned()).chain(std::env::split_paths(&rest));
    std::env::join_paths(folders).context("PATH has a folder that it cannot have")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_copied_and_the_tests_start() {
        let script = tests_script(Path::new("/a b"));
        assert!(script.contains("cp '/a b/berth-vm-guest' '/a b/berth-agent' '/a b/berth-cni' /"));
        assert!(script.ends_with("BERTH_BIN_DIR=/run/berth-vm /run/berth-vm/berth-vm-guest"));
    }

    #[test]
    fn the_guest_tells_the_exit_code_on_a_line_of_its_own() {
        let line = in_guest("printf x; false");
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, format!("x\n{EXIT} 1\n"));
    }
}
