//! A real Kubernetes API server for tests, and the programs around it: built
//! from their published Go modules (`go/`), kept in a cache, started in a
//! folder and, if asked for, a network namespace of their own, ended and
//! removed on drop.
//!
//! ```no_run
//! use berth_kube::{ApiServer, Options};
//!
//! # fn main() -> anyhow::Result<()> {
//! berth_kube::available()?; // why not, if not: for a test's SKIP
//! let server = ApiServer::start(Options::default())?;
//! server.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")?;
//! let services = server.kubectl_json(["get", "services", "--all-namespaces"])?;
//! let kubeconfig = server.kubeconfig(); // for a client of your own
//! # let _ = (services, kubeconfig);
//! # Ok(())
//! # }
//! ```
//!
//! A test tool: it knows nothing of Berth's own programs.
#![forbid(unsafe_code)]

mod apiserver;
pub mod binaries;
mod client;
mod components;
mod etcd;
mod faults;
mod folder;
mod kubeconfig;
mod pki;
pub mod place;
pub mod process;
mod standin;
mod wait;

pub use apiserver::{ApiServer, Options, Refused};
pub use binaries::Program;
pub use components::{ControllerManager, KubeProxy, KubeProxyOptions, ProxyMode, Scheduler};
pub use place::Place;
pub use process::Process;
pub use wait::eventually;

use anyhow::Result;

/// Whether an API server can be started here: etcd is installed, and its
/// programs have been built, or can be: then that is done, which takes minutes.
///
/// # Errors
/// Says what is missing, and how to get it.
pub fn available() -> Result<()> {
    etcd::binary()?;
    binaries::ensure(&[Program::KubeApiserver, Program::Kubectl]).map(drop)
}
