//! Tests that need root and a kernel: see the files in `tests/`.
//!
//! Each makes namespaces, cgroups and files of its own and removes them, so
//! that they do not disturb each other. Without root they print `SKIP` and
//! why; with `BERTH_REQUIRE_ALL=1` that is a failure.
#![forbid(unsafe_code)]

pub mod agent;
pub mod cluster;
pub mod cni;
pub mod proxy;
pub mod relay;
pub mod socket;
