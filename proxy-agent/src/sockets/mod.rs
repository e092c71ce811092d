//! Connected UDP sockets whose endpoint has gone.
//!
//! connect() of a UDP socket is translated once; afterwards the kernel sends
//! every datagram to that endpoint, whatever the maps say. TCP notices a dead
//! peer, UDP does not: a client would send into nothing for ever. So when an
//! endpoint goes from a UDP Service port, the sockets that Berth connected to
//! it are destroyed (`SOCK_DESTROY` of sock_diag(7)). The application gets
//! ECONNABORTED and connects again, to an endpoint that lives.
//!
//! ```text
//! controller --> Tracker --wake--> reaper: list CONNECTED (all namespaces)
//!                   |                which of these endpoints are not alive?
//!                   '-- live peers ----^
//!                                    in each network namespace, list connected
//!                                    UDP sockets and destroy those, by cookie
//! ```
//!
//! **Those and no others.** A socket is Berth's if it has an entry in the map
//! `CONNECTED`, which only Berth's connect() programs write, and is still
//! connected to the peer in that entry. An eBPF iterator lists the entries with
//! the cookies of their sockets; sock_diag lists sockets with cookie and peer,
//! but shows such entries for TCP sockets alone (seen on Linux 6.18), so the
//! two lists are joined. A socket that the application itself connected is not
//! in both, even if its peer is the very same pod; and as the cookie names one
//! socket for ever, a port number that is used again meanwhile hits nobody.
//!
//! **What is alive.** Per Service port, every endpoint that serves, wherever
//! it is, and whatever the maps still hand out. An endpoint that terminates
//! and still serves keeps its sockets, and so does one that only a changed
//! policy or topology takes from new connections. An endpoint is added before
//! the maps can name it and removed after they cannot any more, and sockets are
//! listed before they are judged: so a socket that is judged stale was
//! connected before its endpoint went, and has nothing to come back to.
//!
//! **When.** At the first synchronisation (the endpoint may have gone while no
//! agent ran), whenever an endpoint leaves the live peers, and at each prune.
//! There is one kind of sweep, over everything: an event is cheap and a lost
//! one is made up for by the next.
//!
//! **Where.** Every network namespace that a process is in, and those with a
//! name in /run/netns. A namespace that neither shows, held by nothing but a
//! file descriptor in flight, is found when a process enters it.
//!
//! This room must not know what a Service is, nor how the maps are written.

mod diag;
pub(crate) mod namespaces;
mod reaper;
mod tracker;

pub use reaper::Reaper;
pub use tracker::{LivePeers, Peer, Tracker};
