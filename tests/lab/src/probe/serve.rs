//! The probe's own main loop: ports first, then requests until stdin ends.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::echo::{Name, Port, listen};
use super::protocol::{Answer, Ask, Reply, Request};
use super::{ask, load, repeat};

type Loads = Arc<Mutex<HashMap<u64, Sender<()>>>>;

/// Listens, says that it is ready, and does what stdin asks until that ends.
/// Requests run side by side, each answered when it is done.
///
/// # Errors
/// If a port is taken, or a request cannot be read.
pub fn serve(name: &Name, ports: &[Port]) -> Result<()> {
    listen(name, ports)?;
    say(&Reply {
        id: 0,
        outcome: Ok(Answer::Ready),
    })?;
    let loads = Loads::default();
    for line in std::io::stdin().lock().lines() {
        let line = line.context("read stdin")?;
        let request: Request =
            serde_json::from_str(&line).with_context(|| format!("read the request {line:?}"))?;
        let loads = Arc::clone(&loads);
        if let Ask::Load { .. } = request.ask {
            let (stop, stopped) = channel();
            lock(&loads).insert(request.id, stop);
            thread::spawn(move || answer(request, |ask| run_load(ask, &stopped)));
        } else {
            thread::spawn(move || answer(request, |ask| run(ask, &loads)));
        }
    }
    Ok(())
}

fn answer(
    request: Request,
    work: impl FnOnce(Ask) -> Result<Answer, super::Failure>,
) -> Result<()> {
    say(&Reply {
        id: request.id,
        outcome: work(request.ask),
    })
}

fn run(ask: Ask, loads: &Loads) -> Result<Answer, super::Failure> {
    let millis = Duration::from_millis;
    match ask {
        Ask::Tcp { target, timeout_ms } => {
            ask::tcp(&target, millis(timeout_ms)).map(Answer::Exchange)
        }
        Ask::Udp {
            target,
            timeout_ms,
            connected,
        } => ask::udp(&target, millis(timeout_ms), connected).map(Answer::Exchange),
        Ask::Resolve { name } => ask::resolve(&name).map(Answer::Resolved),
        Ask::Repeat {
            protocol,
            target,
            count,
            timeout_ms,
        } => repeat::run(protocol, &target, count, millis(timeout_ms)).map(Answer::Repeated),
        // Dropping the sender ends the load.
        Ask::Stop { load } => {
            lock(loads).remove(&load);
            Ok(Answer::Stopped)
        }
        Ask::Load { .. } => unreachable!("loads are begun by the main loop"),
    }
}

fn run_load(ask: Ask, stopped: &std::sync::mpsc::Receiver<()>) -> Result<Answer, super::Failure> {
    let Ask::Load {
        target,
        timeout_ms,
        every_ms,
        hold,
    } = ask
    else {
        unreachable!("only loads come here")
    };
    let plan = load::Plan {
        target,
        timeout: Duration::from_millis(timeout_ms),
        every: Duration::from_millis(every_ms),
        hold,
    };
    Ok(Answer::Load(load::run(&plan, stopped)))
}

/// One write a line: replies of different threads do not mix.
fn say(reply: &Reply) -> Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)
        .and_then(|()| out.flush())
        .context("write to stdout")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
