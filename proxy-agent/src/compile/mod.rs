//! From the cluster's state to what the maps should say, one Service or pod at
//! a time. Pure: it must not know what is in the kernel now.
//!
//! [`compile`] gives the frontends of one [`Owner`](crate::model::Owner);
//! [`Desired`] holds those of all and settles who gets an address that two of
//! them claim.

mod clients;
mod desired;
mod endpoints;
mod explain;
mod frontends;
mod host_ports;
mod local;
mod serving;

pub use clients::clients;
pub use desired::{Conflict, Desired, Update};
pub use endpoints::{Choice, NodeView, choose};
pub use explain::{Explanation, Kind, Reason, explain, explain_service};
pub use frontends::{DesiredFrontend, FrontendKey, compile};
pub use local::{local_endpoints, without_local};
pub use serving::serving;
