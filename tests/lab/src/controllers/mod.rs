//! A small stand-in for Kubernetes' controllers and API server: turns
//! manifests into the pods, Services and EndpointSlices that a cluster would
//! have. A test tool, and pure: objects in, objects out, no kernel, no files.
//!
//! ```text
//! files -> manifests::read -> workloads::plan -> pods to start
//!                        '--> services::Allocator -> Services with addresses
//!          running pods + Services -> slices::slices -> EndpointSlices
//! ```

pub mod manifests;
pub mod names;
#[cfg(test)]
mod realworld;
pub mod services;
pub mod shapes;
pub mod slices;
pub mod workloads;

pub use manifests::{Manifests, read};
pub use services::{Allocator, Service};
pub use workloads::{PodPlan, plan};
