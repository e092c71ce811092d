//! One exchange, as an ordinary client has it: the system's resolver, plain
//! sockets.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use super::protocol::{Echo, Exchange, Failure, FailureKind, Resolved};

/// A failure that does not yet know how long it took.
type Fails<T> = Result<T, (FailureKind, String)>;

/// Connects, sends a line, reads a line.
///
/// # Errors
/// The step that failed, and how.
pub fn tcp(target: &str, timeout: Duration) -> Result<Exchange, Failure> {
    timed(|started| {
        let (targets, resolve) = addresses_of(target)?;
        let (stream, target) = connect(&targets, timeout)?;
        let echo = exchange_line(&stream, timeout)?;
        finished(
            started,
            resolve,
            target,
            echo,
            stream.peer_addr(),
            stream.local_addr(),
        )
    })
}

/// Sends a datagram and waits for the answer.
///
/// # Errors
/// The step that failed, and how.
pub fn udp(target: &str, timeout: Duration, connected: bool) -> Result<Exchange, Failure> {
    timed(|started| {
        let (targets, resolve) = addresses_of(target)?;
        let target = targets[0];
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed("bind", target))?;
        socket
            .set_read_timeout(Some(timeout))
            .map_err(failed("set up", target))?;
        let mut buffer = [0; 2048];
        let (length, peer) = if connected {
            socket
                .connect(target)
                .map_err(failed("connect to", target))?;
            socket.send(b"hello").map_err(failed("send to", target))?;
            let length = socket
                .recv(&mut buffer)
                .map_err(failed("hear from", target))?;
            (length, socket.peer_addr())
        } else {
            socket
                .send_to(b"hello", target)
                .map_err(failed("send to", target))?;
            let (length, from) = socket
                .recv_from(&mut buffer)
                .map_err(failed("hear from", target))?;
            (length, Ok(from))
        };
        let echo = read_echo(&buffer[..length], target)?;
        finished(started, resolve, target, echo, peer, socket.local_addr())
    })
}

/// Looks a name up with getaddrinfo.
///
/// # Errors
/// What the resolver says.
pub fn resolve(name: &str) -> Result<Resolved, Failure> {
    timed(|_| {
        let (found, took) = addresses_of(&format!("{name}:0"))?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.iter().map(SocketAddr::ip) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(Resolved {
            addresses,
            us: micros(took),
        })
    })
}

/// Connects to the first address that takes it.
pub(super) fn connect(targets: &[SocketAddr], timeout: Duration) -> Fails<(TcpStream, SocketAddr)> {
    let mut last = (FailureKind::NotResolved, "no address".to_owned());
    for target in targets {
        match TcpStream::connect_timeout(target, timeout) {
            Ok(stream) => return Ok((stream, *target)),
            Err(error) => last = failed("connect to", *target)(error),
        }
    }
    Err(last)
}

/// One line there, one back.
pub(super) fn exchange_line(mut stream: &TcpStream, timeout: Duration) -> Fails<Echo> {
    let peer = stream
        .peer_addr()
        .map_err(|error| (kind_of(&error), format!("getpeername: {error}")))?;
    stream
        .set_read_timeout(Some(timeout))
        .and_then(|()| stream.set_nodelay(true))
        .and_then(|()| stream.write_all(b"hello\n"))
        .map_err(failed("send to", peer))?;
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .map_err(failed("hear from", peer))?;
    if line.is_empty() {
        let text = format!("{peer} closed the connection without an answer");
        return Err((FailureKind::Closed, text));
    }
    read_echo(line.as_bytes(), peer)
}

/// The addresses of `host:port`, IPv4 first, and how long that took.
pub(super) fn addresses_of(target: &str) -> Fails<(Vec<SocketAddr>, Duration)> {
    if let Ok(address) = target.parse() {
        return Ok((vec![address], Duration::ZERO));
    }
    let started = Instant::now();
    let not_found = |why: String| {
        let name = target.rsplit_once(':').map_or(target, |(name, _)| name);
        (
            FailureKind::NotResolved,
            format!("cannot resolve {name}: {why}"),
        )
    };
    let mut found: Vec<_> = target
        .to_socket_addrs()
        .map_err(|error| not_found(error.to_string()))?
        .collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    if found.is_empty() {
        return Err(not_found("it has no address".to_owned()));
    }
    Ok((found, started.elapsed()))
}

fn read_echo(bytes: &[u8], from: SocketAddr) -> Fails<Echo> {
    serde_json::from_slice(bytes).map_err(|_| {
        let text = String::from_utf8_lossy(bytes);
        let message = format!(
            "{from} is not an echo server: it says {:?}",
            text.trim_end()
        );
        (FailureKind::Other, message)
    })
}

fn finished(
    started: Instant,
    resolve: Duration,
    target: SocketAddr,
    echo: Echo,
    peer: io::Result<SocketAddr>,
    local: io::Result<SocketAddr>,
) -> Fails<Exchange> {
    Ok(Exchange {
        echo,
        peer: peer.map_err(failed("name the peer of", target))?,
        local: local.map_err(failed("name the own end of", target))?,
        target,
        resolve_us: micros(resolve),
        total_us: micros(started.elapsed()),
    })
}

fn timed<T>(work: impl FnOnce(Instant) -> Fails<T>) -> Result<T, Failure> {
    let started = Instant::now();
    work(started).map_err(|(kind, message)| Failure {
        kind,
        message,
        us: micros(started.elapsed()),
    })
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn failed(verb: &str, target: SocketAddr) -> impl Fn(io::Error) -> (FailureKind, String) {
    move |error| (kind_of(&error), format!("cannot {verb} {target}: {error}"))
}

fn kind_of(error: &io::Error) -> FailureKind {
    match error.kind() {
        ErrorKind::ConnectionRefused => FailureKind::Refused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => FailureKind::Timeout,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => FailureKind::Unreachable,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            FailureKind::Closed
        }
        _ => FailureKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::probe::echo::{Name, Port, Protocol, listen};

    const PATIENCE: Duration = Duration::from_secs(10);

    fn free_port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    }

    #[test]
    fn the_echo_server_says_who_it_is_and_whom_it_saw() {
        let number = free_port();
        let name = Name {
            pod: "default/web-0".to_owned(),
            node: "node1".to_owned(),
        };
        let ports = [Protocol::Tcp, Protocol::Udp].map(|protocol| Port { protocol, number });
        listen(&name, &ports).unwrap();
        let target = format!("localhost:{number}");
        let told = [
            tcp(&target, PATIENCE).unwrap(),
            udp(&format!("127.0.0.1:{number}"), PATIENCE, true).unwrap(),
            udp(&format!("127.0.0.1:{number}"), PATIENCE, false).unwrap(),
        ];
        for exchange in told {
            assert_eq!(exchange.echo.pod, "default/web-0");
            assert_eq!(exchange.echo.said, "hello");
            assert_eq!(exchange.echo.client.port(), exchange.local.port());
            assert_eq!(exchange.peer, exchange.target);
        }
    }

    #[test]
    fn tells_kinds_of_failure_apart() {
        let closed = format!("127.0.0.1:{}", free_port());
        assert_eq!(
            tcp(&closed, PATIENCE).unwrap_err().kind,
            FailureKind::Refused
        );
        assert_eq!(
            udp(&closed, PATIENCE, true).unwrap_err().kind,
            FailureKind::Refused
        );
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = silent.local_addr().unwrap().to_string();
        let error = udp(&target, Duration::from_millis(1), false).unwrap_err();
        assert_eq!(error.kind, FailureKind::Timeout, "{error}");
    }

    #[test]
    fn a_port_is_written_as_it_is_read() {
        for text in ["TCP:8080", "UDP:53"] {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), text);
        }
        assert!("SCTP:1".parse::<Port>().is_err());
    }
}
