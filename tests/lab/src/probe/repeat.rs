//! The same exchange again and again, as fast as it goes: the client of the
//! benchmarks. It does the least that a client can do, so that what is compared
//! is the path and not the client.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::ask::addresses_of;
use super::echo::Protocol;
use super::protocol::{Failure, FailureKind};

/// What came out, all times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeated {
    /// Exchanges done, none failed.
    pub count: u64,
    /// All of them together.
    pub total_ns: u64,
    /// Half of them took at most this.
    pub p50_ns: u64,
    /// 99 in 100 took at most this.
    pub p99_ns: u64,
}

impl Repeated {
    /// Exchanges a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.count as f64 / Duration::from_nanos(self.total_ns).as_secs_f64()
    }

    fn from_times(mut times: Vec<Duration>, total: Duration) -> Self {
        times.sort_unstable();
        let quantile = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(rank).copied().map_or(0, nanos)
        };
        Self {
            count: times.len() as u64,
            total_ns: nanos(total),
            p50_ns: quantile(50),
            p99_ns: quantile(99),
        }
    }
}

/// Exchanges `count` lines with `target`: over TCP a new connection for each,
/// closed before the next; over UDP one unconnected socket, each datagram
/// addressed.
///
/// # Errors
/// The first exchange that fails ends it.
pub fn run(
    protocol: Protocol,
    target: &str,
    count: u64,
    timeout: Duration,
) -> Result<Repeated, Failure> {
    let started = Instant::now();
    let fail = |kind, message: String| Failure {
        kind,
        message,
        us: super::ask::micros(started.elapsed()),
    };
    let (targets, _) = addresses_of(target).map_err(|(kind, message)| fail(kind, message))?;
    let target = targets[0];
    let times = match protocol {
        Protocol::Tcp => repeat(count, || tcp(target, timeout)),
        Protocol::Udp => {
            udp_socket(timeout).and_then(|socket| repeat(count, || udp(&socket, target)))
        }
    };
    let (times, total) = times.map_err(|error| {
        fail(
            FailureKind::Other,
            format!("cannot exchange with {target} {count} times: {error}"),
        )
    })?;
    Ok(Repeated::from_times(times, total))
}

fn repeat(
    count: u64,
    mut exchange: impl FnMut() -> io::Result<()>,
) -> io::Result<(Vec<Duration>, Duration)> {
    let mut times = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
    let began = Instant::now();
    let mut last = began;
    for _ in 0..count {
        exchange()?;
        let now = Instant::now();
        times.push(now - last);
        last = now;
    }
    Ok((times, last - began))
}

/// Connect, request, answer, close.
fn tcp(target: SocketAddr, timeout: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect(target)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(b"x\n")?;
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length if buffer[..length].ends_with(b"\n") => return Ok(()),
            _ => {}
        }
    }
}

fn udp_socket(timeout: Duration) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(timeout))?;
    Ok(socket)
}

/// A datagram there and one back, from whom it was sent to.
fn udp(socket: &UdpSocket, target: SocketAddr) -> io::Result<()> {
    socket.send_to(b"x", target)?;
    let (_, from) = socket.recv_from(&mut [0; 2048])?;
    if from == target {
        return Ok(());
    }
    Err(io::Error::other(format!("{from} answered")))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::probe::echo::{Name, Port, listen};

    #[test]
    fn quantiles_and_the_rate() {
        let times = (1..=100).rev().map(Duration::from_nanos).collect();
        let repeated = Repeated::from_times(times, Duration::from_micros(10));
        assert_eq!((repeated.p50_ns, repeated.p99_ns), (50, 99));
        assert!((repeated.rate() - 1e7).abs() < 1.0);
    }

    #[test]
    fn counts_exchanges_and_ends_at_the_first_failure() {
        let number = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let target = format!("127.0.0.1:{number}");
        let patience = Duration::from_secs(10);
        assert!(run(Protocol::Tcp, &target, 3, patience).is_err());

        let name = Name {
            pod: "default/web-0".to_owned(),
            node: "node1".to_owned(),
        };
        let ports = [Protocol::Tcp, Protocol::Udp].map(|protocol| Port { protocol, number });
        listen(&name, &ports).unwrap();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let repeated = run(protocol, &target, 20, patience).unwrap();
            assert_eq!(repeated.count, 20);
            assert!(repeated.p50_ns <= repeated.p99_ns);
            assert!(repeated.p99_ns <= repeated.total_ns);
        }
    }
}
