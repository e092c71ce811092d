//! The one thread that takes changes in and keeps the maps true, and what it
//! tells others about itself.
//!
//! [`Controller`] is the work without the waiting: a test drives it with a
//! fake datapath. [`run`] is the loop around it.

mod controller;
mod dump;
mod run;
mod server;
mod udp;

pub use controller::{Controller, SyncReport};
pub use dump::show;
pub use run::{Input, Stage, Status, run};
pub use server::serve;
