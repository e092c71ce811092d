//! The agent of one node: it watches Services and endpoints and keeps the
//! kernel's maps true.
//!
//! ```text
//! reflector -> model -> compile -> diff -> datapath
//! ```
//! Each room opens with what it owns. Only `reflector` knows Kubernetes'
//! objects, only `datapath` knows the kernel; between them is plain data.
#![deny(unsafe_code)]

pub mod addresses;
pub mod agent;
pub mod canary;
pub mod clients;
pub mod compile;
pub mod datapath;
pub mod diff;
pub mod health;
pub mod metrics;
pub mod model;
pub mod node;
pub mod redirect;
pub mod reflector;
pub mod sockets;
