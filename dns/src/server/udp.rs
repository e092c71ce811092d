//! One thread, one socket: receive, answer, send.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::Cache;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::resolve::{Asked, Resolver};
use crate::wire::{Outcome, Query, Transport, failure, rcode, respond};

/// Largest query that is read. Real ones have less than 512 octets.
const LARGEST_QUERY: usize = 4096;
/// After an error, so that one that stays does not fill the log.
const PAUSE: Duration = Duration::from_millis(100);
/// Questions that one socket has on the slow path at once.
const MAX_SLOW: usize = 4096;

pub(super) struct Worker {
    socket: Arc<UdpSocket>,
    resolver: Resolver,
    runtime: Handle,
    slow: Arc<Semaphore>,
}

impl Worker {
    pub(super) fn new(socket: UdpSocket, resolver: Resolver, runtime: Handle) -> Self {
        Self {
            socket: Arc::new(socket),
            resolver,
            runtime,
            slow: Arc::new(Semaphore::new(MAX_SLOW)),
        }
    }

    /// Until `stop`. Nothing in this loop allocates for a hit.
    pub(super) fn run(&self, stop: &AtomicBool) {
        let mut tables = Cache::new(Arc::clone(&self.resolver.tables));
        let recursion = self.resolver.recursion();
        // One octet more, so that a query that is too long shows.
        let mut packet = [0; LARGEST_QUERY + 1];
        let mut out = Vec::with_capacity(usize::from(u16::MAX));
        while !stop.load(Ordering::Relaxed) {
            let (len, client) = match self.socket.recv_from(&mut packet) {
                Ok(received) => received,
                Err(error) if is_idle(&error) => continue,
                Err(error) => {
                    warn!(%error, "cannot receive");
                    std::thread::sleep(PAUSE);
                    continue;
                }
            };
            if len > LARGEST_QUERY {
                continue;
            }
            let packet = &packet[..len];
            let table = tables.load();
            match respond(
                packet,
                Transport::Udp,
                client.ip(),
                table,
                recursion,
                &mut out,
            ) {
                Outcome::Drop => {}
                Outcome::Reply => self.send(&out, client),
                Outcome::Forward(query) => self.slow(packet, query, client, false, &mut out),
                Outcome::Chase(query) => self.slow(packet, query, client, true, &mut out),
            }
        }
    }

    fn send(&self, message: &[u8], client: SocketAddr) {
        // The client asks again if this is lost; there is nothing to mend.
        let _ = self.socket.send_to(message, client);
    }

    fn slow(
        &self,
        packet: &[u8],
        query: Query,
        client: SocketAddr,
        chase: bool,
        out: &mut Vec<u8>,
    ) {
        let Ok(permit) = Arc::clone(&self.slow).try_acquire_owned() else {
            failure(packet, &query, rcode::SERVFAIL, out);
            self.send(out, client);
            return;
        };
        let (packet, resolver) = (packet.to_vec(), self.resolver.clone());
        let socket = Arc::clone(&self.socket);
        self.runtime.spawn(async move {
            let asked = Asked {
                packet: &packet,
                query: &query,
                transport: Transport::Udp,
                client: client.ip(),
            };
            let answer = if chase {
                resolver.chase(asked).await
            } else {
                resolver.forward(asked).await
            };
            let _ = socket.send_to(&answer, client);
            drop(permit);
        });
    }
}

/// The time-out of the socket, which is our look at `stop`.
fn is_idle(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
