//! What can be said to the loop, and asked of it.

use std::net::SocketAddr;

use berth_api::agent::{Dump, ServiceDetail, ServiceSummary, Trace};
use tokio::sync::oneshot;

use crate::model::{Change, NamespacedName, Protocol};

/// What reaches the loop.
#[derive(Debug)]
pub enum Input {
    /// A source has something to say.
    Changes(Vec<Change>),
    /// The canary does not pass.
    CanaryFailed,
    /// Somebody wants to know something.
    Ask(Question),
}

/// What can be asked; each names where the answer goes.
#[derive(Debug)]
pub enum Question {
    /// A stage as text.
    Text(Stage, oneshot::Sender<String>),
    /// A stage as data.
    Dump(Stage, oneshot::Sender<Dump>),
    /// Every Service.
    Services(oneshot::Sender<Vec<ServiceSummary>>),
    /// One Service, if it is there.
    Service(NamespacedName, oneshot::Sender<Option<ServiceDetail>>),
    /// Where a connection would go.
    Trace(Connection, oneshot::Sender<Trace>),
    /// That the loop's own numbers be left for the metrics.
    Numbers(oneshot::Sender<()>),
}

/// A stage of the agent that can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The cluster as heard.
    Model,
    /// What the maps should say.
    Desired,
    /// What the maps say.
    Realized,
    /// The programs' counters.
    Counters,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// A pod, `namespace/name`, or an address.
    pub from: String,
    /// The address that is connected to.
    pub to: SocketAddr,
    /// The protocol.
    pub protocol: Protocol,
}
