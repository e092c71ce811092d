//! The one thread that takes changes in and keeps the maps true, and what it
//! tells others about itself.
//!
//! [`Controller`] is the work without the waiting: a test drives it with a
//! fake datapath. [`run`] is the loop around it.

mod alarm;
mod answers;
mod controller;
mod dump;
mod input;
mod observer;
mod run;
mod server;
mod trace;
mod udp;

pub use answers::{service, services};
pub use controller::{Controller, SyncReport};
pub use dump::show;
pub use input::{Connection, Input, Question, Stage};
pub use observer::{Inputs, Observer};
pub use run::{Status, run};
pub use server::{refresh, router, serve, serve_all};
pub use trace::trace;
