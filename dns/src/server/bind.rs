//! Binding, and what to do when it fails.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// How often a thread looks whether it shall stop.
const STOP_INTERVAL: Duration = Duration::from_millis(100);
/// A burst waits here instead of being lost; the kernel may give less.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// With port 0, TCP must get the port that UDP got; another may have it.
const FREE_PORT_TRIES: usize = 16;

/// The sockets of one address.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) address: SocketAddr,
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: TcpListener,
}

/// An address that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve {what} on {address}: {error}; {mend}")]
pub struct BindError {
    address: SocketAddr,
    what: &'static str,
    #[source]
    error: io::Error,
    mend: &'static str,
}

impl BindError {
    pub(super) fn new(address: SocketAddr, what: &'static str, error: io::Error) -> Self {
        let mend = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE"
            }
            io::ErrorKind::AddrInUse => {
                "another server has this port: `ss -lnptu` tells which; stop it, or listen on \
                 another address"
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine does not have the address: `ip addr` lists those that it has"
            }
            _ => "correct --listen",
        };
        Self {
            address,
            what,
            error,
            mend,
        }
    }

    /// Whether another process has the port.
    fn is_taken(&self) -> bool {
        self.error.kind() == io::ErrorKind::AddrInUse
    }
}

pub(super) fn bind(address: SocketAddr, threads: usize) -> Result<Bound, BindError> {
    let mut tries = if address.port() == 0 {
        FREE_PORT_TRIES
    } else {
        1
    };
    loop {
        tries -= 1;
        match try_bind(address, threads) {
            Err(error) if error.is_taken() && tries > 0 => {}
            result => return result,
        }
    }
}

fn try_bind(address: SocketAddr, threads: usize) -> Result<Bound, BindError> {
    let mut udp = Vec::new();
    let mut actual = address;
    for _ in 0..threads.max(1) {
        let socket = udp_socket(actual).map_err(|e| BindError::new(address, "UDP", e))?;
        actual = socket
            .local_addr()
            .map_err(|e| BindError::new(address, "UDP", e))?;
        udp.push(socket);
    }
    let tcp = tcp_socket(actual).map_err(|e| BindError::new(address, "TCP", e))?;
    Ok(Bound {
        address: actual,
        udp,
        tcp,
    })
}

fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    prepare(&socket, address)?;
    // A smaller buffer than asked for still works.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.set_read_timeout(Some(STOP_INTERVAL))?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn tcp_socket(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    prepare(&socket, address)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// SO_REUSEPORT lets threads share a port, and a new process take over before
/// the old one has gone.
fn prepare(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_with_the_mend() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let told = bind(address, 1).unwrap_err().to_string();
        assert!(told.contains(&address.to_string()), "{told}");
        assert!(told.contains("ss -lnptu"), "{told}");
    }

    #[test]
    fn a_foreign_address_is_told_with_the_mend() {
        // TEST-NET-1 (RFC 5737) is on no machine.
        let told = bind("192.0.2.1:0".parse().unwrap(), 1)
            .unwrap_err()
            .to_string();
        assert!(told.contains("ip addr"), "{told}");
    }

    #[test]
    fn threads_share_one_port() {
        let bound = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_eq!(bound.udp.len(), 3);
        assert!(
            bound
                .udp
                .iter()
                .all(|s| s.local_addr().unwrap() == bound.address)
        );
        assert_eq!(bound.tcp.local_addr().unwrap(), bound.address);
    }
}
