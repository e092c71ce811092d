//! The maps and hooks of the kernel, behind one trait. The only room that
//! uses `aya` and system calls; it must not know why an operation is done.

mod entries;
mod fake;
mod hooks;
mod kernel;
mod pins;
#[expect(unsafe_code, reason = "the one file of raw system calls")]
mod sys;

/// The cookie of this thread's network namespace.
///
/// # Errors
/// When the kernel does not tell it (before Linux 5.14).
pub fn netns_cookie() -> io::Result<u64> {
    sys::netns_cookie()
}

mod translated;

pub use fake::FakeDatapath;
pub use kernel::{KernelConfig, KernelDatapath};
pub use pins::cleanup;
pub use translated::TranslatedSockets;

use std::io;
use std::path::PathBuf;

use crate::diff::{Capacity, Dump, Op};

/// Somewhere that frontends, slots and backends are held.
pub trait Datapath: Send {
    /// How much it can hold.
    fn capacity(&self) -> Capacity;

    /// Reads everything that is held.
    ///
    /// # Errors
    /// When the kernel does not let the maps be read.
    fn dump(&mut self) -> Result<Dump, DatapathError>;

    /// Does `ops` in order and says of each whether it was done. A failed one
    /// does not keep the others from being done.
    fn apply(&mut self, ops: &[Op]) -> Vec<Result<(), DatapathError>>;

    /// Puts the programs in charge, once the maps are filled. Again, it puts
    /// back those that somebody has taken from their hooks.
    ///
    /// # Errors
    /// When a program cannot be attached.
    fn activate(&mut self) -> Result<(), DatapathError>;

    /// The counters by name, summed over the CPUs.
    fn counters(&self) -> Vec<(&'static str, u64)>;
}

/// What can go wrong between the agent and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// A system call failed.
    #[error("{what}: {error}{}", hint(.error))]
    Kernel {
        /// The call and the object.
        what: String,
        /// What the kernel said; part of the message, so not its source too.
        error: io::Error,
    },
    /// A map has no room.
    #[error("{map} is full at {capacity} entries; {mend}")]
    Full {
        /// The map's name.
        map: &'static str,
        /// How many entries it has.
        capacity: u32,
        /// What the operator can do.
        mend: &'static str,
    },
    /// The programs could not be loaded.
    #[error("cannot load the eBPF programs: {0}")]
    Load(String),
    /// The agent was built without them.
    #[error(
        "this berth-agent was built without the eBPF programs; build it with `cargo xtask build`"
    )]
    NoObject,
    /// A path that is needed is not there.
    #[error("{path}: {problem}; {mend}")]
    Path {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
        /// What the operator can do.
        mend: &'static str,
    },
}

/// What the operator can do about an errno that has one usual cause here.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => "; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN",
        Some(libc::ENOMEM) => "; the kernel is out of memory for maps",
        _ => "",
    }
}

/// An error with all that caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        told.push_str(": ");
        told.push_str(&error.to_string());
        source = error.source();
    }
    told
}
