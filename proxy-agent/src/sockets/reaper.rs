//! The thread that lists sockets and destroys the stale ones.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use tracing::{debug, info, warn};

use super::diag::{self, Family, Listed, Message};
use super::namespaces;
use super::tracker::{LivePeers, Peer};
use crate::datapath::TranslatedSockets;

/// Larger than any datagram that the kernel makes of a list.
const DATAGRAM: usize = 64 << 10;
/// The kernel answers at once; this is for a kernel that does not.
const PATIENCE: TimeVal = TimeVal::new(2, 0);
/// A socket whose port is shared can hide another: then once more.
const ROUNDS: usize = 4;
/// The longest pause between two sweeps: a stale socket is destroyed within a
/// second of its endpoint's end.
const LONGEST_REST: Duration = Duration::from_millis(500);

/// What it means when it cannot be done.
const CONSEQUENCE: &str = "clients of UDP Services may wait for an endpoint that has gone";

/// Lists and destroys.
#[derive(Debug)]
pub struct Reaper {
    translated: TranslatedSockets,
    live: LivePeers,
}

impl Reaper {
    /// Compares what the programs have `translated` with what is `live`.
    #[must_use]
    pub fn new(translated: TranslatedSockets, live: LivePeers) -> Self {
        Self { translated, live }
    }

    /// Sweeps when it is woken, until nobody can wake it any more, and tells
    /// `count` how many sockets each sweep has destroyed. Endpoints
    /// that go quickly one after another share a sweep, and sweeps never take
    /// more than a fifth of a processor as long as one is short.
    pub fn run(&self, woken: &Receiver<()>, count: impl Fn(u64)) {
        while woken.recv().is_ok() {
            while woken.try_recv().is_ok() {}
            let began = Instant::now();
            count(self.sweep());
            let took = began.elapsed();
            debug!(?took, "looked at the UDP sockets");
            thread::sleep((took * 4).min(LONGEST_REST));
        }
    }

    /// Looks at every translated socket of the node once; says how many were
    /// destroyed.
    pub fn sweep(&self) -> u64 {
        let translated = match self.translated.list() {
            Ok(translated) => translated,
            Err(error) => {
                warn!(%error, "cannot list the translated sockets; {}", CONSEQUENCE);
                return 0;
            }
        };
        // TCP sockets are among them, and stay: no list of UDP sockets has them.
        let stale: HashMap<u64, Peer> = translated
            .into_iter()
            .filter(|(_, translation)| !self.live.covers(translation))
            .map(|(cookie, t)| (cookie, (t.backend, t.backend_port_be)))
            .collect();
        if stale.is_empty() {
            return 0;
        }
        let mut destroyed = 0;
        for netns in namespaces::all() {
            let swept = netns
                .run(|| destroy_here(&stale))
                .map_err(io::Error::other)
                .flatten();
            let netns = netns.id();
            match swept {
                Ok(0) => {}
                Ok(count) => {
                    destroyed += count;
                    info!(
                        count,
                        netns, "destroyed UDP sockets whose endpoint has gone"
                    );
                }
                Err(error) => warn!(netns, %error, "cannot destroy UDP sockets; {}", CONSEQUENCE),
            }
        }
        destroyed
    }
}

/// Destroys those of `stale` that are UDP sockets in the calling thread's
/// namespace and still connected to the same peer; says how many it were.
fn destroy_here(stale: &HashMap<u64, Peer>) -> io::Result<u64> {
    let mut diag = Diag::open()?;
    let mut destroyed = 0;
    for family in [Family::V4, Family::V6] {
        for _ in 0..ROUNDS {
            let mut found = diag.list(family)?;
            // A peer of port 0 is what a translation says that is over.
            found.retain(|socket| stale.get(&socket.cookie()) == Some(&socket.peer()));
            if found.is_empty() {
                break;
            }
            for socket in &found {
                destroyed += u64::from(diag.destroy(socket)?);
            }
        }
    }
    Ok(destroyed)
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

    /// The connected UDP sockets of one family.
    fn list(&mut self, family: Family) -> io::Result<Vec<Listed>> {
        self.sequence += 1;
        self.send(&diag::dump(family, self.sequence))?;
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
    fn destroy(&mut self, socket: &Listed) -> io::Result<bool> {
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
