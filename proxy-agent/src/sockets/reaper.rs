//! The thread that lists sockets and destroys the stale ones.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use tracing::{debug, info, warn};

use super::diag::{self, Family, Message, Translated};
use super::namespaces;
use super::tracker::LivePeers;

/// Larger than any datagram that the kernel makes of a list.
const DATAGRAM: usize = 64 << 10;
/// The kernel answers at once; this is for a kernel that does not.
const PATIENCE: TimeVal = TimeVal::new(2, 0);
/// A socket whose port is shared can hide another: then once more.
const ROUNDS: usize = 4;
/// The longest pause between two sweeps: a stale socket is destroyed within a
/// second of its endpoint's end.
const LONGEST_REST: Duration = Duration::from_millis(500);

/// Lists and destroys.
#[derive(Debug)]
pub struct Reaper {
    connected: OwnedFd,
    live: LivePeers,
    destroyed: Arc<AtomicU64>,
}

impl Reaper {
    /// `connected` is the map `CONNECTED`.
    #[must_use]
    pub fn new(connected: OwnedFd, live: LivePeers) -> Self {
        Self {
            connected,
            live,
            destroyed: Arc::default(),
        }
    }

    /// How many sockets were destroyed, for metrics.
    #[must_use]
    pub fn destroyed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.destroyed)
    }

    /// Sweeps when it is woken, until nobody can wake it any more. Endpoints
    /// that go quickly one after another share a sweep, and sweeps never take
    /// more than a fifth of a processor as long as one is short.
    pub fn run(&self, woken: &Receiver<()>) {
        while woken.recv().is_ok() {
            while woken.try_recv().is_ok() {}
            let began = Instant::now();
            self.sweep();
            let took = began.elapsed();
            debug!(?took, "looked at the UDP sockets");
            thread::sleep((took * 4).min(LONGEST_REST));
        }
    }

    /// Looks at every connected UDP socket of the node once.
    pub fn sweep(&self) {
        for netns in namespaces::all() {
            let swept = netns
                .run(|| self.sweep_here())
                .map_err(io::Error::other)
                .flatten();
            match swept {
                Ok(0) => {}
                Ok(count) => {
                    self.destroyed.fetch_add(count, Ordering::Relaxed);
                    info!(
                        count,
                        netns = netns.id(),
                        "destroyed UDP sockets whose endpoint has gone"
                    );
                }
                Err(error) => warn!(
                    netns = netns.id(),
                    %error,
                    "cannot look for UDP sockets whose endpoint has gone; they may wait for \
                     answers that do not come"
                ),
            }
        }
    }

    /// In the calling thread's namespace; says how many were destroyed.
    fn sweep_here(&self) -> io::Result<u64> {
        let mut diag = Diag::open()?;
        let mut destroyed = 0;
        for family in [Family::V4, Family::V6] {
            for _ in 0..ROUNDS {
                let stale: Vec<_> = diag
                    .list(family, &self.connected)?
                    .into_iter()
                    .filter(|socket| !self.live.covers(&socket.translation))
                    .collect();
                if stale.is_empty() {
                    break;
                }
                for socket in &stale {
                    destroyed += u64::from(diag.destroy(socket)?);
                }
            }
        }
        Ok(destroyed)
    }
}

/// A sock_diag socket of one network namespace.
struct Diag {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Diag {
    fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &PATIENCE)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; DATAGRAM],
        })
    }

    /// The translated sockets of one family.
    fn list(&mut self, family: Family, connected: &OwnedFd) -> io::Result<Vec<Translated>> {
        self.sequence += 1;
        let map = connected.as_fd().as_raw_fd().unsigned_abs();
        self.send(&diag::dump(family, map, self.sequence))?;
        let mut found = Vec::new();
        loop {
            for message in self.receive()? {
                match message {
                    Message::Socket(socket) => found.push(socket),
                    Message::Done | Message::Result(0) => return Ok(found),
                    Message::Result(errno) => return Err(io::Error::from_raw_os_error(errno)),
                }
            }
        }
    }

    /// Says whether this very socket was there and is destroyed.
    fn destroy(&mut self, socket: &Translated) -> io::Result<bool> {
        self.sequence += 1;
        self.send(&diag::destroy(socket, self.sequence))?;
        loop {
            for message in self.receive()? {
                if let Message::Result(errno) = message {
                    return match errno {
                        0 => Ok(true),
                        // Closed meanwhile; or another socket has its place.
                        libc::ENOENT | libc::ESTALE => Ok(false),
                        errno => Err(io::Error::from_raw_os_error(errno)),
                    };
                }
            }
        }
    }

    fn send(&self, request: &[u8]) -> io::Result<()> {
        send(self.socket.as_raw_fd(), request, MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self) -> io::Result<Vec<Message>> {
        let length = recv(
            self.socket.as_raw_fd(),
            &mut self.buffer,
            MsgFlags::MSG_TRUNC,
        )?;
        let datagram = self
            .buffer
            .get(..length)
            .ok_or_else(|| io::Error::other("the kernel's answer is longer than 64 KiB"))?;
        diag::parse(datagram, self.sequence).map_err(io::Error::other)
    }
}
