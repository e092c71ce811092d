//! A bad line: a TCP relay that cuts its connections, or lets nothing through,
//! when a test wants it to.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use berth_netlink::Netns;
use nix::sys::socket;

/// Listens on 127.0.0.1 of one network namespace and passes everything on to
/// an address of the caller's. Dropping it ends all of its connections.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    listener: TcpListener,
    line: Arc<Line>,
}

#[derive(Debug, Default)]
struct Line {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_held: bool,
    has_ended: bool,
    made: u64,
    /// Both ends of each connection.
    open: HashMap<u64, [TcpStream; 2]>,
}

impl Relay {
    /// Starts it.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn start(netns: &Path, to: SocketAddr) -> Result<Self> {
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = Netns::open(netns)?.run(bind)?.context("listen on lo")?;
        let address = listener.local_addr()?;
        let line = Arc::<Line>::default();
        let (served, accepting) = (Arc::clone(&line), listener.try_clone()?);
        thread::spawn(move || {
            // Ends when the listener is shut down.
            for client in accepting.incoming().map_while(Result::ok) {
                let line = Arc::clone(&served);
                // A server that is away closes the client's connection.
                thread::spawn(move || line.pass(client, to));
            }
        });
        Ok(Self {
            address,
            listener,
            line,
        })
    }

    /// Where it listens, in its namespace.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection that is open; how many.
    pub fn cut(&self) -> usize {
        self.line.lock().cut()
    }

    /// Ends every connection, and lets new ones wait until [`Self::release`].
    pub fn hold(&self) {
        let mut state = self.line.lock();
        state.is_held = true;
        state.cut();
    }

    /// Lets connections through again.
    pub fn release(&self) {
        self.line.lock().is_held = false;
        self.line.released.notify_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // accept() returns with an error then (Linux).
        let _ = socket::shutdown(self.listener.as_raw_fd(), socket::Shutdown::Both);
        let mut state = self.line.lock();
        state.has_ended = true;
        state.is_held = false;
        state.cut();
        self.line.released.notify_all();
    }
}

impl State {
    fn cut(&mut self) -> usize {
        for end in self.open.values().flatten() {
            // The other side may have ended it.
            let _ = end.shutdown(Shutdown::Both);
        }
        self.open.drain().count()
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, client: TcpStream, to: SocketAddr) -> io::Result<()> {
        let held = self
            .released
            .wait_while(self.lock(), |state| state.is_held)
            .unwrap_or_else(PoisonError::into_inner);
        drop(held);
        let server = TcpStream::connect(to)?;
        let number = {
            let mut state = self.lock();
            // It may be held again by now.
            if state.is_held || state.has_ended {
                return Ok(());
            }
            state.made += 1;
            let number = state.made;
            state
                .open
                .insert(number, [client.try_clone()?, server.try_clone()?]);
            number
        };
        thread::scope(|scope| {
            scope.spawn(|| copy(&client, &server));
            copy(&server, &client);
        });
        self.lock().open.remove(&number);
        Ok(())
    }
}

/// Passes on what comes until either side ends, then ends both.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    // Either side may end it, or a cut.
    let _ = io::copy(&mut from, &mut to);
    for end in [from, to] {
        let _ = end.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn echo_server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = io::copy(&mut &stream, &mut &stream);
            }
        });
        address
    }

    fn exchange(stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])
    }

    #[test]
    fn it_passes_cuts_and_holds() {
        // Entering a namespace needs root, even one's own.
        berth_lab::require_root!();
        let relay = Relay::start(Path::new("/proc/self/ns/net"), echo_server()).unwrap();
        let mut stream = TcpStream::connect(relay.address()).unwrap();
        exchange(&mut stream).unwrap();
        assert_eq!(relay.cut(), 1);
        assert!(exchange(&mut stream).is_err());

        relay.hold();
        let mut held = TcpStream::connect(relay.address()).unwrap();
        held.set_read_timeout(Some(std::time::Duration::from_millis(50)))
            .unwrap();
        assert!(exchange(&mut held).is_err(), "nothing passes");
        held.set_read_timeout(None).unwrap();
        relay.release();
        held.read_exact(&mut [0]).unwrap();
    }
}
