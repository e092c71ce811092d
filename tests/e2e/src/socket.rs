//! Single system calls on sockets in a pod or on a node: the test's side of
//! `berth-socket`.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use berth_lab::binaries;
use berth_lab::ground::enter::Place;

/// A process with sockets. Dropping it ends it.
#[derive(Debug)]
pub struct Sockets {
    what: String,
    child: Child,
    line: RefCell<(ChildStdin, BufReader<ChildStdout>)>,
}

/// How a system call ended: what came of it, or the name of its errno.
pub type Outcome = std::result::Result<String, String>;

impl Sockets {
    /// Starts it in `place`; `what` is said in failures.
    ///
    /// # Errors
    /// If a program is missing.
    pub fn start(what: &str, place: &Place) -> Result<Self> {
        let program = binaries::find("berth-socket")?;
        Self::spawn(what, place.command(&binaries::find("berth-lab")?, &program))
    }

    /// Starts it with a command that runs `berth-socket` somewhere.
    ///
    /// # Errors
    /// If it does not start.
    pub fn spawn(what: &str, mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start sockets in {what}"))?;
        let stdin = child.stdin.take().context("stdin is piped")?;
        let stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        Ok(Self {
            what: what.to_owned(),
            child,
            line: RefCell::new((stdin, stdout)),
        })
    }

    /// One call, such as `connect a 10.96.0.10:53`.
    ///
    /// # Errors
    /// If the process has ended. How the call ended is the [`Outcome`].
    pub fn call(&self, call: &str) -> Result<Outcome> {
        let (stdin, stdout) = &mut *self.line.borrow_mut();
        let ask = |stdin: &mut ChildStdin, stdout: &mut BufReader<ChildStdout>| {
            writeln!(stdin, "{call}")?;
            let mut answer = String::new();
            stdout.read_line(&mut answer)?;
            std::io::Result::Ok(answer)
        };
        let answer =
            ask(stdin, stdout).with_context(|| format!("{}: ask for {call:?}", self.what))?;
        match answer.trim_end().split_once(' ') {
            None if answer.trim_end() == "ok" => Ok(Ok(String::new())),
            Some(("ok", told)) => Ok(Ok(told.to_owned())),
            Some(("error", errno)) => Ok(Err(errno.to_owned())),
            _ => bail!("{}: {call:?} was answered {answer:?}", self.what),
        }
    }

    /// Calls that must all do well, the answer of the last.
    ///
    /// # Errors
    /// If one of them fails, with its errno.
    pub fn calls(&self, calls: &[&str]) -> Result<String> {
        let mut last = String::new();
        for call in calls {
            last = self
                .call(call)?
                .map_err(|errno| anyhow::anyhow!("{}: {call}: {errno}", self.what))?;
        }
        Ok(last)
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
