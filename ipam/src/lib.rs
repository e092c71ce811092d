//! Addresses: which exist, who has one, who may have it next.
//!
//! Three facts are kept apart. A [`Pool`] says which addresses exist. An
//! [`Allocation`], one record per address, says that an address is taken; in it
//! the [`Claim`] says who owns it for long and the [`Holder`] which live
//! sandbox uses it. Creating the record is the lock, because its name is the
//! address.
//!
//! The core is pure: [`Allocation::acquire`] and [`Allocation::release`] look
//! at one record and the time and say what becomes of it. [`Allocator`] runs
//! them against a [`store::Store`]. This crate knows nothing of CNI, netlink or
//! sandboxes beyond their names.
#![forbid(unsafe_code)]

pub mod address;
pub mod allocation;
mod allocator;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod identity;
pub mod keep;
pub mod pool;
pub mod store;
pub mod wishes;

pub use allocation::{Allocation, Claim, Holder, Owner, PodRef, Timestamp};
pub use allocator::{Allocator, Grant, Request, release};
pub use error::Error;
pub use keep::Keep;
pub use pool::{Pool, Pools};
pub use wishes::{Pod, Wishes, Workload};
