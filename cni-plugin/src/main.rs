//! The CNI binary, under the names `berth-cni`, `berth` and `berth-ipam`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    berth_cni::run(&|_| {})
}
