//! Counting, from the lines that `cargo test -- --show-output` prints. Pure.

use std::collections::BTreeMap;

use crate::vm::{Run, Verdict};

/// What a line of the output means for the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// A test ended well.
    Done(String),
    /// Something to show.
    Show(String),
}

/// The part of a test binary's output that a line belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Section {
    /// Cargo's own lines, before and between the binaries.
    #[default]
    Cargo,
    /// `test NAME ... ok`.
    Results,
    /// What tests printed that passed.
    Successes,
    /// What tests printed that failed.
    Failures,
}

/// The counts over all test binaries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    passed: usize,
    failures: Vec<String>,
    /// Test and reason.
    skips: Vec<(String, String)>,
    section: Section,
    binary: Binary,
}

/// The test binary that is running.
#[derive(Clone, Debug, Default)]
struct Binary {
    name: String,
    planned: usize,
    passed: usize,
    ignored: Vec<String>,
    failed: Vec<String>,
    /// By test, so that one that says SKIP twice counts once.
    skipped: BTreeMap<String, String>,
    /// The test whose output is being read.
    speaker: String,
}

impl Binary {
    fn seen(&self) -> usize {
        self.passed + self.ignored.len() + self.failed.len()
    }
}

impl Tally {
    /// The tests do not compile: none of them holds.
    pub(super) fn not_built() -> Self {
        Self {
            failures: vec!["the build (see above)".to_owned()],
            ..Self::default()
        }
    }

    /// Reads the next line.
    pub(super) fn read(&mut self, line: &str) -> Vec<Note> {
        if let Some(name) = binary_name(line) {
            let notes = self.close_binary();
            self.binary.name = name;
            return notes;
        }
        if let Some(planned) = planned_tests(line) {
            let name = self.binary.name.clone();
            let mut notes = Vec::new();
            // Doctests of one package come in several lots.
            if self.section != Section::Cargo {
                notes = self.close_binary();
            }
            self.binary = Binary {
                name,
                planned,
                ..Binary::default()
            };
            self.section = Section::Results;
            return notes;
        }
        match self.section {
            Section::Cargo => cargo_line(line),
            _ if line.starts_with("test result: ") => self.close_binary(),
            Section::Results => self.result_line(line),
            Section::Successes => self.success_line(line),
            Section::Failures if line == "successes:" => {
                self.section = Section::Successes;
                Vec::new()
            }
            Section::Failures => vec![Note::Show(line.to_owned())],
        }
    }

    /// The output has ended; `success` is how cargo did.
    pub(super) fn finish(&mut self, success: bool) {
        self.close_binary();
        if !success && self.failures.is_empty() {
            self.failures
                .push("cargo test (it failed and named no test; see above)".to_owned());
        }
    }

    /// Adds what ran on the kernel `kernel` in a virtual machine.
    pub(crate) fn add_run(&mut self, kernel: &str, run: &Run) {
        for (test, verdict) in &run.tests {
            match verdict {
                Verdict::Passed => self.passed += 1,
                Verdict::Failed(_) => self.failures.push(format!("vm {kernel} {test}")),
            }
        }
    }

    /// Adds a test that cannot run here.
    pub(crate) fn skip(&mut self, test: &str, reason: &str) {
        self.skips.push((test.to_owned(), reason.to_owned()));
    }

    fn result_line(&mut self, line: &str) -> Vec<Note> {
        match line {
            "successes:" => {
                self.section = Section::Successes;
                return Vec::new();
            }
            "failures:" => {
                self.section = Section::Failures;
                return vec![Note::Show(format!("failures in {}:", self.binary.name))];
            }
            "" => return Vec::new(),
            _ => {}
        }
        let parsed = line
            .strip_prefix("test ")
            .and_then(|rest| rest.rsplit_once(" ... "));
        let Some((test, outcome)) = parsed else {
            // A program that the test started wrote past libtest's capture.
            return self
                .skip_line("(unnamed)", line)
                .map_or_else(|| vec![Note::Show(line.to_owned())], |()| Vec::new());
        };
        // `ignored, because ...` and `FAILED` carry more words sometimes.
        match outcome.split([',', ' ']).next() {
            Some("ok") => {
                self.binary.passed += 1;
                vec![Note::Done(test.to_owned())]
            }
            Some("ignored") => {
                let reason = outcome.strip_prefix("ignored, ").unwrap_or("#[ignore]");
                self.binary.ignored.push(test.to_owned());
                self.skips.push((self.full_name(test), reason.to_owned()));
                Vec::new()
            }
            Some("FAILED") => {
                self.binary.failed.push(test.to_owned());
                vec![Note::Show(format!("FAILED {}", self.full_name(test)))]
            }
            _ => vec![Note::Show(line.to_owned())],
        }
    }

    fn success_line(&mut self, line: &str) -> Vec<Note> {
        if line == "failures:" {
            self.section = Section::Failures;
            return vec![Note::Show(format!("failures in {}:", self.binary.name))];
        }
        let speaker = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"));
        if let Some(test) = speaker {
            test.clone_into(&mut self.binary.speaker);
        } else {
            let test = self.binary.speaker.clone();
            self.skip_line(&test, line);
        }
        Vec::new()
    }

    /// Notes a line such as `SKIP no Go toolchain`, if it is one.
    fn skip_line(&mut self, test: &str, line: &str) -> Option<()> {
        let reason = line.strip_prefix("SKIP")?;
        if !reason.is_empty() && !reason.starts_with([' ', ':']) {
            return None;
        }
        let reason = reason.trim_start_matches([' ', ':']);
        self.binary
            .skipped
            .entry(test.to_owned())
            .or_insert_with(|| reason.to_owned());
        Some(())
    }

    /// Adds the running binary's counts. A binary that ended without its result
    /// line died, and the tests that it did not report died with it.
    fn close_binary(&mut self) -> Vec<Note> {
        let died = self.section != Section::Cargo && self.binary.seen() < self.binary.planned;
        self.section = Section::Cargo;
        let name = self.binary.name.clone();
        let binary = std::mem::take(&mut self.binary);
        self.binary.name.clone_from(&name);

        let full = |test: &str| format!("{name} {test}");
        let skipped = binary.skipped.len().min(binary.passed);
        let (passed, failed) = (binary.passed - skipped, binary.failed.len());
        self.passed += passed;
        self.failures
            .extend(binary.failed.iter().map(|test| full(test)));
        self.skips.extend(
            binary
                .skipped
                .iter()
                .map(|(test, reason)| (full(test), reason.clone())),
        );
        if died {
            let lost = binary.planned - binary.seen();
            self.failures.extend((1..=lost).map(|n| {
                format!("{name} (died before its result: unreported test {n} of {lost})")
            }));
        }
        if binary.planned == 0 || binary.seen() == 0 {
            return Vec::new();
        }
        let all_skipped = skipped + binary.ignored.len();
        vec![Note::Show(format!(
            "{name}: {passed} passed, {failed} failed, {all_skipped} skipped"
        ))]
    }

    fn full_name(&self, test: &str) -> String {
        format!("{} {test}", self.binary.name)
    }

    pub(super) fn skips(&self) -> &[(String, String)] {
        &self.skips
    }

    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Whether no test ran at all, as with a filter that fits none.
    pub(super) fn is_empty(&self) -> bool {
        self.passed == 0 && self.failures.is_empty() && self.skips.is_empty()
    }

    pub(super) fn is_success(&self, require_all: bool) -> bool {
        self.failures.is_empty() && (!require_all || self.skips.is_empty())
    }

    /// The line that other programs read.
    pub(super) fn summary(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failures.len(),
            self.skips.len()
        )
    }
}

/// The name of the test binary that cargo announces:
/// `Running unittests src/lib.rs (target/debug/deps/berth_abi-1a2b)` or
/// `Doc-tests berth_abi`.
fn binary_name(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(package) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{package} (doc)"));
    }
    let (_, path) = line.strip_prefix("Running ")?.rsplit_once(" (")?;
    let file = path.strip_suffix(')')?.rsplit('/').next()?;
    Some(
        file.rsplit_once('-')
            .map_or(file, |(name, _hash)| name)
            .to_owned(),
    )
}

/// `running 3 tests`.
fn planned_tests(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("running ")?;
    let count = rest.strip_suffix(" tests").or(rest.strip_suffix(" test"))?;
    count.parse().ok()
}

/// Cargo's lines: warnings and errors are shown, its progress is not.
fn cargo_line(line: &str) -> Vec<Note> {
    let progress = [
        "Compiling ",
        "Finished ",
        "Blocking ",
        "Executable ",
        "all doctests ran",
    ];
    let trimmed = line.trim_start();
    if trimmed.is_empty() || progress.iter().any(|word| trimmed.starts_with(word)) {
        return Vec::new();
    }
    vec![Note::Show(line.to_owned())]
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
