//! What load balancers, kubelets and monitors ask a node: is its proxy well,
//! and has it a pod for this Service?
//!
//! [`ProxyHealth`] is the state behind port 10256; [`server`] answers there;
//! [`checks`] keeps one listener for each healthCheckNodePort. Must not know
//! what a map is, nor how the proxy does its work.

pub mod checks;
mod listen;
mod proxy;
pub mod server;

pub use checks::{HealthCheck, HealthChecks};
pub use listen::serve_for_ever;
pub use proxy::{ProxyHealth, Report, STUCK_AFTER};
