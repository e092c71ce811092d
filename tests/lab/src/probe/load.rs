//! Exchanges one after the other until told to stop, with the longest silence.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use super::ask::{addresses_of, connect, exchange_line, micros};
use super::protocol::{Echo, LoadReport};

/// How many failures are told word for word.
const TOLD: usize = 5;

/// What to do, as [`super::protocol::Ask::Load`] says it.
#[derive(Debug)]
pub struct Plan {
    /// `host:port`.
    pub target: String,
    /// For each exchange.
    pub timeout: Duration,
    /// Pause between exchanges.
    pub every: Duration,
    /// One connection for all exchanges, or a new one for each.
    pub hold: bool,
}

/// Goes on until `stop` says something or is dropped.
pub fn run(plan: &Plan, stop: &Receiver<()>) -> LoadReport {
    let mut tally = Tally::default();
    let mut held = None;
    loop {
        match exchange(plan, &mut held) {
            Ok(echo) => tally.success(Instant::now(), echo.pod),
            Err(message) => tally.failure(message),
        }
        match stop.recv_timeout(plan.every) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return tally.report(),
        }
    }
}

fn exchange(plan: &Plan, held: &mut Option<TcpStream>) -> Result<Echo, String> {
    let stream = match held.take() {
        Some(stream) => stream,
        None => {
            let (targets, _) = addresses_of(&plan.target).map_err(|(_, message)| message)?;
            connect(&targets, plan.timeout)
                .map_err(|(_, message)| message)?
                .0
        }
    };
    let echo = exchange_line(&stream, plan.timeout).map_err(|(_, message)| message)?;
    if plan.hold {
        *held = Some(stream);
    }
    Ok(echo)
}

#[derive(Default)]
struct Tally {
    report: LoadReport,
    pods: BTreeSet<String>,
    last: Option<Instant>,
}

impl Tally {
    fn success(&mut self, now: Instant, pod: String) {
        self.report.succeeded += 1;
        self.pods.insert(pod);
        if let Some(last) = self.last.replace(now) {
            let gap = micros(now - last);
            if gap > self.report.longest_gap_us {
                self.report.longest_gap_us = gap;
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                self.report.longest_gap_end_us = micros(now.unwrap_or_default());
            }
        }
    }

    fn failure(&mut self, message: String) {
        self.report.failed += 1;
        if self.report.failures.len() < TOLD {
            self.report.failures.push(message);
        }
    }

    fn report(mut self) -> LoadReport {
        self.report.pods = self.pods.into_iter().collect();
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_is_between_successes() {
        let start = Instant::now();
        let mut tally = Tally::default();
        tally.success(start, "b".to_owned());
        tally.success(start + Duration::from_millis(5), "a".to_owned());
        tally.failure("refused".to_owned());
        tally.success(start + Duration::from_millis(305), "a".to_owned());
        tally.success(start + Duration::from_millis(310), "a".to_owned());
        let report = tally.report();
        assert_eq!(report.longest_gap(), Duration::from_millis(300));
        assert_eq!((report.succeeded, report.failed), (4, 1));
        assert_eq!(report.pods, ["a", "b"]);
        assert_eq!(report.failures, ["refused"]);
    }
}
