//! What the lab and its probes say to each other: one line of JSON each.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::echo::Protocol;
use super::repeat::Repeated;

/// What the echo server answers to each line (TCP) or datagram (UDP).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// `namespace/name` of the pod.
    pub pod: String,
    /// The node it runs on.
    pub node: String,
    /// The client as the server sees it.
    pub client: SocketAddr,
    /// What the client said.
    pub said: String,
}

/// A wish with a number, by which its reply is known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Unique among the open requests of one probe.
    pub id: u64,
    /// What to do.
    pub ask: Ask,
}

/// What a probe can do. Targets are `host:port`; a host that is not an address
/// goes through the system's resolver, search path and all.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// Connect, send one line, read one line, close.
    Tcp {
        /// `host:port`.
        target: String,
        /// For each step.
        timeout_ms: u64,
    },
    /// Send one datagram, wait for one.
    Udp {
        /// `host:port`.
        target: String,
        /// For the answer.
        timeout_ms: u64,
        /// Whether the socket is connected first, or each datagram addressed.
        connected: bool,
    },
    /// Look a name up.
    Resolve {
        /// A host name.
        name: String,
    },
    /// Exchange lines over TCP again and again, until told to stop.
    Load {
        /// `host:port`.
        target: String,
        /// For each exchange.
        timeout_ms: u64,
        /// Pause between exchanges.
        every_ms: u64,
        /// One connection for all exchanges, or a new one for each.
        hold: bool,
    },
    /// Exchange lines as fast as it goes; see [`super::repeat`].
    Repeat {
        /// TCP: a new connection each time. UDP: one unconnected socket.
        protocol: Protocol,
        /// `host:port`.
        target: String,
        /// How many exchanges.
        count: u64,
        /// For each exchange.
        timeout_ms: u64,
    },
    /// Stop the load that the request with this number began.
    Stop {
        /// The load's request.
        load: u64,
    },
}

/// The reply to the request with the same number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The request's number; 0 for the probe's first line, which says that it
    /// is ready.
    pub id: u64,
    /// How it went.
    pub outcome: Result<Answer, Failure>,
}

/// How a wish was fulfilled.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// All servers listen.
    Ready,
    /// To `Tcp` and `Udp`.
    Exchange(Exchange),
    /// To `Resolve`.
    Resolved(Resolved),
    /// To `Load`, after it has been stopped.
    Load(LoadReport),
    /// To `Repeat`.
    Repeated(Repeated),
    /// To `Stop`.
    Stopped,
}

/// One line or datagram there and back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The answer.
    pub echo: Echo,
    /// The other end as the client's socket tells it: getpeername, or for an
    /// unconnected socket the sender of the answer.
    pub peer: SocketAddr,
    /// The client's own address.
    pub local: SocketAddr,
    /// The address that was asked for, after name resolution.
    pub target: SocketAddr,
    /// Name resolution, in microseconds; 0 for an address.
    pub resolve_us: u64,
    /// Everything, name resolution included, in microseconds.
    pub total_us: u64,
}

/// A name's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// In the order in which the resolver gave them, each once.
    pub addresses: Vec<IpAddr>,
    /// How long it took, in microseconds.
    pub us: u64,
}

/// What happened during a load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Exchanges that went well.
    pub succeeded: u64,
    /// Exchanges that did not.
    pub failed: u64,
    /// What the first few failures said.
    pub failures: Vec<String>,
    /// The longest time between two successes, in microseconds.
    pub longest_gap_us: u64,
    /// When that gap ended, in microseconds since 1970.
    pub longest_gap_end_us: u64,
    /// The pods that answered.
    pub pods: Vec<String>,
}

impl LoadReport {
    /// The longest time without a success.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        Duration::from_micros(self.longest_gap_us)
    }
}

/// Why a wish was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The kind, for checks that expect a failure.
    pub kind: FailureKind,
    /// For people.
    pub message: String,
    /// How long it took, in microseconds.
    pub us: u64,
}

/// The kinds of failure that checks tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// ECONNREFUSED.
    Refused,
    /// Nothing came in time.
    Timeout,
    /// EHOSTUNREACH, ENETUNREACH.
    Unreachable,
    /// The resolver found no address, or failed.
    NotResolved,
    /// The other end closed, or reset.
    Closed,
    /// Anything else, the end of the probe itself included.
    Other,
}
