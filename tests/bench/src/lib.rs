//! The frame of the benchmarks: each compares Berth with a peer in one run, on
//! one machine, the sides in turn, and reports the medians.
//!
//! [`in_turn`] measures, a [`Row`] says what came out, [`table`] shows it to
//! people. It must not know what is measured, or how.
#![forbid(unsafe_code)]

mod measure;
mod row;
mod table;

pub use measure::{Samples, all_in_turn, in_turn};
pub use row::{Row, Target};
pub use table::table;
