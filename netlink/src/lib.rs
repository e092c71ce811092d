//! Links, addresses, routes and neighbours of a network namespace, over
//! rtnetlink (`man 7 rtnetlink`), synchronously.
//!
//! A [`Handle`] is one route socket; it stays in the namespace that it was
//! opened in, whatever its thread does later. [`Netns`] is an open namespace.
//! Every refusal by the kernel is an [`Error`] that names the object.
//!
//! This crate knows nothing of pods, pools or Berth: it says to the kernel
//! what it is told, and reads back what is there.
#![forbid(unsafe_code)]

mod address;
mod error;
mod link;
mod neighbour;
mod netns;
mod route;
mod socket;

pub use address::{Address, AddressFlags};
pub use error::Error;
pub use link::{Link, MacvlanMode, NewMacvlan};
pub use neighbour::Neighbour;
pub use netns::Netns;
pub use route::{MAIN_TABLE, Route, Scope};
pub use socket::Handle;

/// A MAC address as the kernel takes it.
pub type Mac = [u8; 6];

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
