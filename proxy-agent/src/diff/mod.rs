//! Desired state against realized state, to an ordered list of operations.
//!
//! Pure. Must not know how an operation is done. The order is the contract:
//! backends, then slots, then the frontend that points at them, then deletes.
//! After every prefix of the list each frontend is whole: the old one or the
//! new one, and every backend that it can reach is written.
//!
//! [`Realized`] mirrors what the kernel holds. It is restored from a dump, so
//! a restart finds its own identifiers again and finds nothing to do.

mod backends;
mod clients;
mod op;
mod ports;
mod realized;
mod regions;

pub use op::{Capacity, Dump, Op};
pub use realized::{MapUsage, Plan, Realized, Refused, Usage};
