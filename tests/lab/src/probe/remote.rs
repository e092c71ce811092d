//! The lab's end of a probe: start it, ask it, end it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::echo::Protocol;
use super::protocol::{
    Answer, Ask, Exchange, Failure, FailureKind, LoadReport, Reply, Request, Resolved,
};
use super::repeat::Repeated;

/// How long a probe may take to listen on all its ports.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long one step of an exchange may take.
const TIMEOUT: Duration = Duration::from_secs(3);

type Outcome = Result<Answer, Failure>;
type Waiting = Arc<Mutex<Option<HashMap<u64, Sender<Outcome>>>>>;

/// A running probe. Dropping it ends the process.
#[derive(Debug)]
pub struct Probe {
    what: String,
    child: Mutex<Child>,
    line: Mutex<(ChildStdin, u64)>,
    /// None when the probe has ended.
    waiting: Waiting,
}

impl Probe {
    /// Starts `command` and waits until it says that it is ready. `what` names
    /// it in messages.
    ///
    /// # Errors
    /// If it cannot be started, or ends before it is ready.
    pub fn start(what: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {what}"))?;
        let stdin = child.stdin.take().expect("it was asked for above");
        let stdout = child.stdout.take().expect("it was asked for above");
        let (ready, is_ready) = channel();
        let waiting = Arc::new(Mutex::new(Some(HashMap::from([(0, ready)]))));
        let listener = Arc::clone(&waiting);
        thread::spawn(move || listen(stdout, &listener));
        let probe = Self {
            what: what.to_owned(),
            child: Mutex::new(child),
            line: Mutex::new((stdin, 0)),
            waiting,
        };
        match is_ready.recv_timeout(READY_WITHIN) {
            Ok(Ok(Answer::Ready)) => Ok(probe),
            Ok(other) => bail!("{what} began with {other:?}"),
            Err(_) => bail!("{what} has ended, or is not ready after 20 s: see its log"),
        }
    }

    /// Connects to `host:port`, sends a line and reads one.
    ///
    /// # Errors
    /// As a program there would see it.
    pub fn tcp(&self, target: &str) -> Result<Exchange, Failure> {
        self.exchange(Ask::Tcp {
            target: target.to_owned(),
            timeout_ms: millis(TIMEOUT),
        })
    }

    /// Sends a datagram to `host:port` over a connected socket.
    ///
    /// # Errors
    /// As a program there would see it.
    pub fn udp(&self, target: &str) -> Result<Exchange, Failure> {
        self.exchange(udp(target, true))
    }

    /// Sends a datagram to `host:port` over an unconnected socket; the peer is
    /// who answered.
    ///
    /// # Errors
    /// As a program there would see it.
    pub fn udp_unconnected(&self, target: &str) -> Result<Exchange, Failure> {
        self.exchange(udp(target, false))
    }

    /// Looks a name up with the system's resolver.
    ///
    /// # Errors
    /// As a program there would see it.
    pub fn resolve(&self, name: &str) -> Result<Resolved, Failure> {
        match self.ask(Ask::Resolve {
            name: name.to_owned(),
        })? {
            Answer::Resolved(resolved) => Ok(resolved),
            other => Err(self.strange(&other)),
        }
    }

    /// Begins exchanges with `host:port` that go on until [`Load::stop`].
    ///
    /// # Errors
    /// If the probe has ended.
    pub fn load(&self, target: &str, pace: Pace) -> Result<Load<'_>, Failure> {
        let (id, outcome) = self.begin(Ask::Load {
            target: target.to_owned(),
            timeout_ms: millis(pace.timeout),
            every_ms: millis(pace.every),
            hold: pace.hold,
        })?;
        Ok(Load {
            probe: self,
            id,
            outcome,
        })
    }

    /// Exchanges `count` lines with `host:port`, one after the other and as
    /// fast as it goes: the client of the benchmarks.
    ///
    /// # Errors
    /// If one of them fails.
    pub fn repeat(
        &self,
        protocol: Protocol,
        target: &str,
        count: u64,
    ) -> Result<Repeated, Failure> {
        match self.ask(Ask::Repeat {
            protocol,
            target: target.to_owned(),
            count,
            timeout_ms: millis(TIMEOUT),
        })? {
            Answer::Repeated(repeated) => Ok(repeated),
            other => Err(self.strange(&other)),
        }
    }

    fn exchange(&self, ask: Ask) -> Result<Exchange, Failure> {
        match self.ask(ask)? {
            Answer::Exchange(exchange) => Ok(exchange),
            other => Err(self.strange(&other)),
        }
    }

    fn ask(&self, ask: Ask) -> Outcome {
        let (_, outcome) = self.begin(ask)?;
        self.wait(&outcome)
    }

    fn begin(&self, ask: Ask) -> Result<(u64, Receiver<Outcome>), Failure> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.1 += 1;
        let id = line.1;
        let (sender, receiver) = channel();
        match &mut *lock(&self.waiting) {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(self.ended()),
        };
        let mut text = serde_json::to_vec(&Request { id, ask }).expect("requests serialise");
        text.push(b'\n');
        match line.0.write_all(&text).and_then(|()| line.0.flush()) {
            Ok(()) => Ok((id, receiver)),
            Err(_) => Err(self.ended()),
        }
    }

    /// Every step has a deadline in the probe; the probe's end closes the
    /// channel. So this always returns.
    fn wait(&self, outcome: &Receiver<Outcome>) -> Outcome {
        outcome.recv().unwrap_or_else(|_| Err(self.ended()))
    }

    fn ended(&self) -> Failure {
        self.failure(format!("{} has ended", self.what))
    }

    fn strange(&self, answer: &Answer) -> Failure {
        self.failure(format!("{} answered something else: {answer:?}", self.what))
    }

    fn failure(&self, message: String) -> Failure {
        Failure {
            kind: FailureKind::Other,
            message,
            us: 0,
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        // It may have ended by itself; then there is nothing to kill.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// How a load goes on.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Pause between exchanges.
    pub every: Duration,
    /// When an exchange gives up. Short to measure silences, long to find out
    /// whether anything ever fails.
    pub timeout: Duration,
    /// One connection for all exchanges, or a new one for each.
    pub hold: bool,
}

/// Exchanges that go on until [`Load::stop`].
#[derive(Debug)]
pub struct Load<'a> {
    probe: &'a Probe,
    id: u64,
    outcome: Receiver<Outcome>,
}

impl Load<'_> {
    /// Ends the load and tells what happened.
    ///
    /// # Errors
    /// If the probe has ended.
    pub fn stop(self) -> Result<LoadReport, Failure> {
        self.probe.ask(Ask::Stop { load: self.id })?;
        match self.probe.wait(&self.outcome)? {
            Answer::Load(report) => Ok(report),
            other => Err(self.probe.strange(&other)),
        }
    }
}

fn udp(target: &str, connected: bool) -> Ask {
    Ask::Udp {
        target: target.to_owned(),
        timeout_ms: millis(TIMEOUT),
        connected,
    }
}

fn listen(stdout: ChildStdout, waiting: &Waiting) {
    for line in BufReader::new(stdout).lines() {
        let Some(reply) = line
            .ok()
            .and_then(|line| serde_json::from_str::<Reply>(&line).ok())
        else {
            break;
        };
        let sender = lock(waiting).as_mut().and_then(|all| all.remove(&reply.id));
        if let Some(sender) = sender {
            // Whoever asked may have gone.
            let _ = sender.send(reply.outcome);
        }
    }
    *lock(waiting) = None;
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
