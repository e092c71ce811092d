//! What the lab takes from the kernel: namespaces, cgroups, a bridge, mounts;
//! and the giving back of all of it.
//!
//! Everything is named after the lab, so that [`record::remove`] finds it by
//! name alone, in the process that made it or in any later one. This room
//! knows nothing of Kubernetes.

pub mod cgroup;
pub mod enter;
pub mod mounts;
pub mod netns;
pub mod record;
pub mod wire;

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result};

/// `count` random bytes in hexadecimal, two digits a byte.
///
/// # Errors
/// If /dev/urandom cannot be read.
pub fn random_hex(count: usize) -> Result<String> {
    let mut bytes = vec![0; count];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
