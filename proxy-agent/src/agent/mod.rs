//! The one thread that takes changes in and keeps the maps true, and what it
//! tells others about itself.
//!
//! [`Controller`] is the work without the waiting: a test drives it with a
//! fake datapath. [`run`] is the loop around it.

mod alarm;
mod answers;
mod controller;
mod dump;
mod observer;
mod run;
mod server;
mod trace;
mod udp;

pub use answers::{service, services};
pub use controller::{Controller, SyncReport};
pub use dump::show;
pub use observer::{Inputs, Observer};
pub use run::{Input, Question, Stage, Status, run};
pub use server::{refresh, router, serve, serve_all};
pub use trace::{Connection, trace};
