//! The lines that leave the machine.

use std::any::Any;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use anyhow::{Result, anyhow};

/// The tests that ran so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    failed: usize,
}

/// Says which kernel this is, and how long it took to get here.
pub(crate) fn started() {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let uptime = read("/proc/uptime");
    let seconds = uptime.split('.').next().unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    println!("kernel {} after {seconds} s", release.trim());
}

impl Report {
    /// Runs one test, and says whether it did well. It fails by an error or by
    /// a panic.
    pub(crate) fn step(&mut self, name: &str, test: impl FnOnce() -> Result<()>) -> bool {
        let caught = panic::catch_unwind(AssertUnwindSafe(test));
        match caught.unwrap_or_else(|cause| Err(anyhow!("{}", message(&*cause)))) {
            Ok(()) => println!("ok {name}"),
            Err(error) => {
                self.failed += 1;
                println!("FAILED {name}: {}", one_line(&format!("{error:#}")));
                return false;
            }
        }
        true
    }

    /// Says that nothing was left out.
    pub(crate) fn end(self) -> ExitCode {
        println!("end");
        if self.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// What a panic said.
fn message(cause: &(dyn Any + Send)) -> &str {
    cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message")
}

fn one_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    lines.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_panics_fail_a_step_and_the_whole() {
        let mut report = Report::default();
        assert!(report.step("good", || Ok(())));
        assert!(!report.step("error", || Err(anyhow!("one\n  two"))));
        assert!(!report.step("panic", || panic!("{} three", 2)));
        assert_eq!(report.failed, 2);
    }

    #[test]
    fn a_reason_is_one_line() {
        assert_eq!(one_line("one\n  two"), "one | two");
    }

    #[test]
    fn both_kinds_of_panic_message_are_found() {
        let cause = panic::catch_unwind(|| panic!("plain")).unwrap_err();
        assert_eq!(message(&*cause), "plain");
        let cause = panic::catch_unwind(|| panic!("with {}", 1)).unwrap_err();
        assert_eq!(message(&*cause), "with 1");
    }
}
