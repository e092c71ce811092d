//! The address service of this node: who gets which address, over the agent's
//! socket.
//!
//! ```text
//! berth-cni, berth -> server -> service -> ipam's allocator -> KubeStore or SqliteStore
//!                                  ^ cluster: pools, pods, namespaces
//! ```
//! [`service`] asks and answers, [`cluster`] keeps up with the API server (one
//! of the two rooms that use `kube`), [`server`] is the HTTP around it. What
//! becomes of a record is decided in `berth_ipam`; nothing here knows the
//! proxy. The shapes are `berth_api::addresses`.

mod cluster;
mod server;
mod service;

pub use cluster::Cluster;
pub use server::router;
pub use service::{Backing, Service};
