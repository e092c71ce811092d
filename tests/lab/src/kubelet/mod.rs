//! A small stand-in for kubelet and containerd: gives a pod its sandbox, calls
//! the CNI plugin, runs the pod's process, and takes it all down again. A test
//! tool; the plugin that it calls is the real one.

pub mod cni;
pub mod object;
pub mod sandbox;

pub use sandbox::{NodePlace, Sandbox};
