//! Numbers for monitors, in the text format of Prometheus.
//!
//! [`Metrics`] is where the agent's threads leave their numbers; [`server`]
//! answers port 10249. kube-proxy's names are used where the meaning is the
//! same, so that its dashboards go on working; all others begin with `berth_`.
//! Must not know where a number comes from.
//!
//! One pass of Berth's loop brings both IP families up to date, where
//! kube-proxy has a loop for each. What kube-proxy labels with `ip_family`
//! therefore says the same for both, but for what belongs to one family.

mod histogram;
mod page;
mod process;
mod registry;
pub mod server;
mod text;

pub use registry::{Metrics, NoLocalEndpoints, Probe, Queued, View};
