//! Running a program that takes a while: its output is kept back, a heartbeat
//! line shows that it lives, and a failure shows what it said.

use std::io::{BufRead, BufReader, IsTerminal, Write, stderr};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What takes less than this goes by without a word.
const SILENT: Duration = Duration::from_secs(2);
/// A log file gets a line this often; a terminal's line is kept current.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// How much of a failed program's output is shown.
const SHOWN_LINES: usize = 200;

/// Runs `command` with its output kept back.
///
/// # Errors
/// The program cannot be started, or it fails; its output is printed then.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut output = Vec::new();
    let mut heartbeat = Heartbeat::new(what);
    let status = stream(command, &mut heartbeat, |line, heartbeat| {
        heartbeat.detail(line);
        output.push(line.to_owned());
    })?;
    if status.success() {
        heartbeat.done();
        return Ok(());
    }
    heartbeat.clear();
    let hidden = output.len().saturating_sub(SHOWN_LINES);
    if hidden > 0 {
        eprintln!("[{hidden} lines left out]");
    }
    for line in &output[hidden..] {
        eprintln!("{line}");
    }
    bail!("{what}: {program} failed ({status}); its output is above")
}

/// Runs `command`, handing each line of its output (standard output and error
/// in the order they were written) to `on_line`.
///
/// # Errors
/// The program cannot be started. How it ended is the caller's to judge.
pub(crate) fn stream(
    command: &mut Command,
    heartbeat: &mut Heartbeat,
    mut on_line: impl FnMut(&str, &mut Heartbeat),
) -> Result<ExitStatus> {
    let program = command.get_program().to_string_lossy().into_owned();
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let both = writer.try_clone().context("cannot share a pipe")?;
    let child = command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(both)
        .spawn();
    // The command holds the pipe's writing end; while it does, no end comes.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.with_context(|| format!("cannot start {program}"))?;

    let lines = lines_of(reader);
    loop {
        match lines.recv_timeout(Duration::from_secs(1)) {
            Ok(line) => on_line(&line, heartbeat),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        heartbeat.beat();
    }
    child
        .wait()
        .with_context(|| format!("cannot wait for {program}"))
}

fn lines_of(reader: std::io::PipeReader) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The line that says what is going on, and for how long it has been.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    what: String,
    detail: String,
    started: Instant,
    next: Duration,
    terminal: bool,
    /// A line without its newline is on the terminal.
    open: bool,
}

impl Heartbeat {
    pub(crate) fn new(what: &str) -> Self {
        Self {
            what: what.to_owned(),
            detail: String::new(),
            started: Instant::now(),
            next: SILENT,
            terminal: stderr().is_terminal(),
            open: false,
        }
    }

    /// What it is at right now: shown in brackets after the time.
    pub(crate) fn detail(&mut self, line: &str) {
        let line = line.trim();
        if !line.is_empty() {
            self.detail = line.chars().filter(|c| !c.is_control()).take(60).collect();
        }
    }

    /// Shows the line if it is time.
    fn beat(&mut self) {
        let elapsed = self.started.elapsed();
        if elapsed < self.next {
            return;
        }
        let line = beat_line(&self.what, elapsed, &self.detail);
        if self.terminal {
            eprint!("\r\x1b[2K{line}");
            // A terminal that is gone is no reason to stop.
            let _ = stderr().flush();
            self.open = true;
            self.next = elapsed + Duration::from_secs(1);
        } else {
            eprintln!("{line}");
            self.next = elapsed + LOG_INTERVAL;
        }
    }

    /// Takes the line off the terminal, so that something else can be printed.
    pub(crate) fn clear(&mut self) {
        if self.open {
            eprint!("\r\x1b[2K");
            self.open = false;
        }
    }

    /// Says how long it took, if that was worth a line.
    pub(crate) fn done(mut self) {
        self.clear();
        let elapsed = self.started.elapsed();
        if elapsed >= SILENT {
            eprintln!("{}: done in {} s", self.what, elapsed.as_secs());
        }
    }
}

fn beat_line(what: &str, elapsed: Duration, detail: &str) -> String {
    let seconds = elapsed.as_secs();
    if detail.is_empty() {
        format!("{what} ... {seconds} s")
    } else {
        format!("{what} ... {seconds} s ({detail})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_names_the_work_its_time_and_its_place() {
        let twelve = Duration::from_secs(12);
        assert_eq!(
            beat_line("building the eBPF object", twelve, ""),
            "building the eBPF object ... 12 s"
        );
        assert_eq!(
            beat_line("building", twelve, "Compiling aya"),
            "building ... 12 s (Compiling aya)"
        );
    }

    #[test]
    fn a_detail_is_one_short_line_and_an_empty_one_changes_nothing() {
        let mut heartbeat = Heartbeat::new("x");
        heartbeat.detail(&format!("  \x1b{}\r", "y".repeat(100)));
        assert_eq!(heartbeat.detail, "y".repeat(60));
        heartbeat.detail("   ");
        assert_eq!(heartbeat.detail, "y".repeat(60));
    }

    #[test]
    fn lines_come_in_the_order_in_which_they_were_written() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo one; echo two >&2; echo three; exit 3"]);
        let mut lines = Vec::new();
        let status = stream(&mut command, &mut Heartbeat::new("x"), |line, _| {
            lines.push(line.to_owned());
        })
        .unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn a_failure_names_the_work_and_the_program() {
        let error = run("doing it", &mut Command::new("/bin/false")).unwrap_err();
        assert!(error.to_string().starts_with("doing it: /bin/false failed"));
    }
}
