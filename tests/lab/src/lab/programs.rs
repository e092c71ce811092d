//! The programs under test on a node: started, waited for, restarted, ended;
//! and what their logs say.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::kubelet::sandbox::log_to;

/// How long a program may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often a program without a way to tell is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// How a program says that it is ready.
#[derive(Clone, Debug)]
pub enum Readiness {
    /// `GET /readyz` on this unix socket answers 200.
    Http(PathBuf),
    /// This file is there.
    File(PathBuf),
}

/// A program of the product, running on a node. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    readiness: Readiness,
    log: PathBuf,
}

impl Program {
    /// Starts `command`; its output goes to `log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(
        name: &str,
        command: &mut Command,
        readiness: Readiness,
        log: &PathBuf,
    ) -> Result<Self> {
        if let Readiness::File(path) = &readiness {
            // One of an earlier start would be believed.
            let _ = fs::remove_file(path);
        }
        log_to(command, log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            readiness,
            log: log.clone(),
        })
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// If it ends, or takes more than 30 s; with the end of its log.
    pub fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        let mut said = String::new();
        while Instant::now() < deadline {
            if is_ready(&self.readiness, &mut said) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} has ended ({status}):\n{}",
                    self.name,
                    tail(&self.log, 20)
                );
            }
            thread::sleep(ASK_EVERY);
        }
        bail!(
            "{} is not ready after {} s{said}:\n{}",
            self.name,
            READY_WITHIN.as_secs(),
            tail(&self.log, 20)
        )
    }

    /// Ends it at once, as a crash would (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map(drop)
            .with_context(|| format!("kill {}", self.name))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

fn is_ready(readiness: &Readiness, said: &mut String) -> bool {
    match readiness {
        Readiness::File(path) => path.exists(),
        Readiness::Http(socket) => match ask_readyz(socket) {
            Ok(reply) => {
                let (head, body) = reply.split_once("\r\n\r\n").unwrap_or((&reply, ""));
                *said = format!(", it says {:?}", body.trim());
                head.split(' ').nth(1) == Some("200")
            }
            // It does not listen yet.
            Err(_) => false,
        },
    }
}

fn ask_readyz(socket: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}

/// The last `lines` lines of a log, under its name.
#[must_use]
pub fn tail(log: &Path, lines: usize) -> String {
    let text = plain(&fs::read_to_string(log).unwrap_or_default());
    let all: Vec<_> = text.lines().collect();
    let mut told = format!("--- {} (the last lines)\n", log.display());
    for line in &all[all.len().saturating_sub(lines)..] {
        told += line;
        told.push('\n');
    }
    told
}

/// The messages that a log has at level WARN or ERROR.
#[must_use]
pub fn warnings(log: &Path) -> Vec<String> {
    let text = plain(&fs::read_to_string(log).unwrap_or_default());
    text.lines()
        .filter_map(message)
        .map(str::to_owned)
        .collect()
}

/// What follows the level, in the text format of tracing-subscriber; without
/// the module's path, if that is told.
fn message(line: &str) -> Option<&str> {
    let rest = [" WARN ", " ERROR "]
        .iter()
        .find_map(|level| line.split_once(level).map(|(_, rest)| rest))?
        .trim();
    let is_module = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c);
    match rest.split_once(": ") {
        Some((path, told)) if path.starts_with("berth_") && path.chars().all(is_module) => {
            Some(told)
        }
        _ => Some(rest),
    }
}

/// Without the escape sequences that colour a terminal.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        out += before;
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_warnings_under_the_colours() {
        let line =
            "\u{1b}[2m2026-01-01T00:00:00Z\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m agent: x.yaml: no";
        assert_eq!(message(&plain(line)), Some("agent: x.yaml: no"));
        let line = "2026-01-01T00:00:00Z  WARN berth_dns::feed: x.yaml:1: no";
        assert_eq!(message(line), Some("x.yaml:1: no"));
        assert_eq!(message("2026-01-01T00:00:00Z  INFO agent: fine"), None);
    }

    #[test]
    fn the_tail_is_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("agent.log");
        fs::write(&log, "a\nb\nc\n").unwrap();
        assert!(tail(&log, 2).ends_with(")\nb\nc\n"));
        assert!(!tail(&log, 2).contains("\na\n"));
    }
}
