//! Reading what the guest printed on its console. Pure.

use std::time::Duration;

use super::Series;

/// What the shell in the guest prints when the program has ended.
pub(super) const EXIT: &str = "berth-vm-exit";

/// How one test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// With the reason.
    Failed(String),
}

/// One run of the guest's tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    /// The kernel's release, and the seconds until the guest's program ran;
    /// `None` if it never did.
    started: Option<(String, u64)>,
    pub(crate) tests: Vec<(String, Verdict)>,
    /// The guest said that nothing is missing.
    ended: bool,
    exit: Option<i32>,
    /// From the start of the emulator to its end.
    pub(super) took: Duration,
}

impl Run {
    /// Reads the next line; says whether it is one of the guest's program.
    pub(super) fn read(&mut self, line: &str) -> bool {
        // A serial console ends its lines with both.
        let line = line.trim_end();
        if let Some(code) = line.strip_prefix(EXIT) {
            self.exit = code.trim().parse().ok();
        } else if self.started.is_none() {
            self.started = started(line);
            return self.started.is_some();
        } else if line == "end" {
            self.ended = true;
        } else if let Some(name) = line.strip_prefix("ok ") {
            self.tests.push((name.to_owned(), Verdict::Passed));
        } else if let Some(rest) = line.strip_prefix("FAILED ") {
            let (name, why) = split_reason(rest);
            self.tests
                .push((name.to_owned(), Verdict::Failed(why.to_owned())));
        } else {
            return false;
        }
        true
    }

    pub(super) fn has_started(&self) -> bool {
        self.started.is_some()
    }

    /// The exit code of what ran in the guest; `None` if the machine ended
    /// before it.
    pub(super) fn exit(&self) -> Option<i32> {
        self.exit
    }

    /// The output is over. A guest that ended in the middle is a failure.
    pub(super) fn finish(&mut self, took: Duration) {
        self.took = took;
        let any_failed = self
            .tests
            .iter()
            .any(|(_, verdict)| *verdict != Verdict::Passed);
        let problem = match (self.ended, self.exit) {
            (false, _) => "the machine ended before its tests; its console is above",
            (true, Some(0)) => return,
            (true, Some(_)) if any_failed => return,
            (true, _) => "the tests' program failed without saying why",
        };
        self.tests
            .push(("to its end".to_owned(), Verdict::Failed(problem.to_owned())));
    }

    /// One line on the whole.
    pub(crate) fn headline(&self, series: Series) -> String {
        let failed = self
            .tests
            .iter()
            .filter(|(_, verdict)| *verdict != Verdict::Passed)
            .count();
        let (release, boot) = self.started.clone().unwrap_or_default();
        format!(
            "vm {series}: {} passed, {failed} failed on {release}; booted in {boot} s, {} s in all",
            self.tests.len() - failed,
            self.took.as_secs()
        )
    }
}

/// `kernel 6.1.0-56-amd64 after 9 s`.
fn started(line: &str) -> Option<(String, u64)> {
    let (release, rest) = line.strip_prefix("kernel ")?.split_once(" after ")?;
    let seconds = rest.strip_suffix(" s")?.parse().ok()?;
    Some((release.to_owned(), seconds))
}

/// A test's name is `AREA: WHAT`; the reason follows its second colon.
fn split_reason(rest: &str) -> (&str, &str) {
    let first = rest.find(": ").map_or(0, |at| at + 2);
    match rest[first..].find(": ") {
        Some(at) => (&rest[..first + at], &rest[first + at + 2..]),
        None => rest.split_once(": ").unwrap_or((rest, "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(console: &str) -> Run {
        let mut run = Run::default();
        for line in console.split('\n') {
            run.read(line);
        }
        run.finish(Duration::from_secs(40));
        run
    }

    #[test]
    fn a_good_run_is_read_from_a_serial_console() {
        let run = run(
            "[    0.1] Booting\r\nok not a test yet\r\nkernel 6.1.0-56-amd64 after 9 s\r\n\
                       ok cni: one\r\n[   11.0] noise\r\nok proxy: two\r\nend\r\nberth-vm-exit 0\r\n",
        );
        assert_eq!(
            run.tests,
            [
                ("cni: one".to_owned(), Verdict::Passed),
                ("proxy: two".to_owned(), Verdict::Passed),
            ]
        );
        assert_eq!(
            run.headline(Series::V6_1),
            "vm 6.1: 2 passed, 0 failed on 6.1.0-56-amd64; booted in 9 s, 40 s in all"
        );
    }

    #[test]
    fn a_failure_has_its_reason_and_is_not_told_twice() {
        let run = run(
            "kernel 6.12 after 9 s\nFAILED cni: two: ADD: {\"code\": 1}\nend\nberth-vm-exit 1\n",
        );
        let failed = Verdict::Failed("ADD: {\"code\": 1}".to_owned());
        assert_eq!(run.tests, [("cni: two".to_owned(), failed)]);
    }

    #[test]
    fn a_machine_that_ends_early_is_a_failure() {
        let run = run("kernel 6.12 after 9 s\nok cni: one\nKernel panic - not syncing\n");
        assert_eq!(run.tests.len(), 2);
        assert!(matches!(run.tests[1].1, Verdict::Failed(_)));
    }

    #[test]
    fn an_exit_code_without_a_failed_test_is_a_failure() {
        let run = run("kernel 6.12 after 9 s\nok cni: one\nend\nberth-vm-exit 134\n");
        assert!(matches!(run.tests[1].1, Verdict::Failed(_)));
    }

    #[test]
    fn what_never_started_says_so() {
        let mut run = Run::default();
        assert!(!run.read("qemu-system-x86_64: no memory"));
        assert!(!run.has_started());
    }

    #[test]
    fn a_reason_without_an_area_is_found_too() {
        assert_eq!(split_reason("machine: no"), ("machine", "no"));
        assert_eq!(split_reason("machine"), ("machine", ""));
    }
}
