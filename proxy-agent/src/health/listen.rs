//! Listening where somebody else may listen already.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tracing::{info, warn};

/// How long after a failure it is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// Serves `router` at `address`. If the port is taken, says so once and tries
/// again until it is free: the agent's work does not depend on it.
pub async fn serve_for_ever(what: &str, address: SocketAddr, router: Router) {
    let mut told = String::new();
    loop {
        let error = match listen(address) {
            Ok(listener) => {
                info!(%address, "{what} answers");
                told.clear();
                match axum::serve(listener, router.clone()).await {
                    Ok(()) => continue,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        let error = error.to_string();
        if error != told {
            warn!(
                %address, error,
                "{what} cannot listen; trying again. Stop what has the port, or choose another \
                 address"
            );
            told = error;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Listens. `0.0.0.0` is every address of both families, as it is to
/// kube-proxy, but on a node without IPv6.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if address.ip() != Ipv4Addr::UNSPECIFIED {
        return bind(address);
    }
    match bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()))) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => bind(address),
        result => result,
    }
}

/// An IPv6 wildcard takes IPv4 too, whatever the system's default.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}
