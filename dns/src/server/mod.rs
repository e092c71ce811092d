//! Sockets and threads.
//!
//! For each address: one UDP socket and one thread a core, which share the
//! port by SO_REUSEPORT and the table through an ArcSwap, and one TCP
//! listener. Hits never leave their thread; everything rarer becomes a task on
//! the runtime. The answer leaves through the socket that the question came
//! to, so it comes from the address that was asked.

mod bind;
mod tcp;
mod udp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

pub use bind::BindError;

use crate::resolve::Resolver;

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    listeners: Vec<AbortHandle>,
}

impl Server {
    /// Binds every address, for UDP and TCP, and starts to answer; `threads`
    /// of them an address. Port 0 takes a free port.
    ///
    /// # Errors
    /// If an address cannot be bound; nothing is left running then.
    pub fn start(
        runtime: &Handle,
        addresses: &[SocketAddr],
        threads: usize,
        resolver: &Resolver,
    ) -> Result<Self, BindError> {
        let bound = addresses
            .iter()
            .map(|address| bind::bind(*address, threads))
            .collect::<Result<Vec<_>, _>>()?;
        let mut server = Self {
            addresses: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
            listeners: Vec::new(),
        };
        let limits = tcp::Limits::default();
        for bound in bound {
            server.addresses.push(bound.address);
            for (i, socket) in bound.udp.into_iter().enumerate() {
                let worker = udp::Worker::new(socket, resolver.clone(), runtime.clone());
                let stop = Arc::clone(&server.stop);
                let thread = std::thread::Builder::new()
                    .name(format!("udp-{i}"))
                    .spawn(move || worker.run(&stop))
                    .map_err(|error| BindError::new(bound.address, "a thread", error))?;
                server.threads.push(thread);
            }
            let _entered = runtime.enter();
            let listener = tokio::net::TcpListener::from_std(bound.tcp)
                .map_err(|error| BindError::new(bound.address, "TCP", error))?;
            let task = runtime.spawn(tcp::serve(listener, resolver.clone(), limits.clone()));
            server.listeners.push(task.abort_handle());
        }
        Ok(server)
    }

    /// The addresses that are served, with the ports that they got.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for listener in &self.listeners {
            listener.abort();
        }
        for thread in self.threads.drain(..) {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}
