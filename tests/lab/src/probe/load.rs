//! Exchanges one after the other until told to stop, with the longest silence.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use super::ask::{addresses_of, connect, exchange_line, micros};
use super::protocol::{Echo, LoadReport};

/// How many failures are told word for word.
const TOLD: usize = 5;
/// How long a stopped load waits for a success.
const LAST_SILENCE: Duration = Duration::from_secs(2);

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

/// Goes on until `stop` is dropped. If the last exchange has failed then, it
/// goes on to the next success, for a while: the last silence has an end too.
pub fn run(plan: &Plan, stop: &Receiver<()>) -> LoadReport {
    let mut tally = Tally::default();
    let mut held = None;
    let mut deadline = None;
    loop {
        let succeeded = match exchange(plan, &mut held) {
            Ok(echo) => {
                tally.success(Instant::now(), echo.pod);
                true
            }
            Err(message) => {
                tally.failure(message);
                false
            }
        };
        if let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(plan.every) {
            continue;
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + LAST_SILENCE);
        if succeeded || Instant::now() > deadline {
            return tally.report();
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
    fn a_stopped_load_ends_with_a_success() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let plan = Plan {
            target: address.to_string(),
            timeout: Duration::from_secs(5),
            every: Duration::ZERO,
            hold: false,
        };
        let (stop, stopped) = std::sync::mpsc::channel();
        drop(stop);
        let server = std::thread::spawn(move || {
            let name = crate::probe::echo::Name {
                pod: "default/late".to_owned(),
                node: "node1".to_owned(),
            };
            let port = format!("TCP:{}", address.port()).parse().unwrap();
            crate::probe::echo::listen(&name, &[port]).unwrap();
        });
        let report = run(&plan, &stopped);
        server.join().unwrap();
        assert_eq!(report.succeeded, 1, "{report:?}");
        assert_eq!(report.pods, ["default/late"]);
    }

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
