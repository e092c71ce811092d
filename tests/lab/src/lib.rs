//! The lab: nodes, legacy VMs and pods as network namespaces on one wire, for
//! the demo, the tests that need a kernel, and the benchmarks.
//!
//! A test tool: nothing here is part of what Berth installs.
#![forbid(unsafe_code)]

pub mod binaries;
pub mod controllers;
pub mod demo;
pub mod ground;
pub mod kubelet;
pub mod lab;
pub mod probe;
pub mod require;

pub use lab::{Lab, LabBuilder, Node, Pod, Vm};
