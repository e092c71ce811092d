//! The program that runs inside of a pod, on a node or on a VM: an echo server
//! on the pod's ports, and a client that does what the lab asks, with the
//! namespace, cgroup and resolver of that place.
//!
//! ```text
//! lab: Probe --JSON lines on stdin--> serve --> ask (client)
//!            <--JSON lines on stdout--'    '--> echo (servers)
//! ```

pub mod ask;
pub mod echo;
pub mod load;
pub mod protocol;
pub mod remote;
pub mod repeat;
pub mod serve;

pub use protocol::{Answer, Echo, Exchange, Failure, FailureKind, LoadReport, Resolved};
pub use remote::{Load, Pace, Probe};
pub use repeat::Repeated;
