//! What Berth's programs say to each other and to their users: annotation
//! names, custom resources, the folder of Kubernetes YAML that stands in for
//! an API server, and the rule that makes a MAC address from an IP address.
//!
//! Plain data and pure functions, but for [`folder`], which reads files, and
//! [`client`], which speaks to the agent. This
//! crate knows nothing of the kernel, of netlink or of `kube`.
#![forbid(unsafe_code)]

pub mod addresses;
pub mod agent;
pub mod annotations;
pub mod client;
pub mod folder;
pub mod mac;
pub mod object;
pub mod pool;

pub use object::{Object, ObjectKey, Rejected, Source};
