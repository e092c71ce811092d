//! cgroups of the unified hierarchy (cgroup v2): one subtree a lab.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::mounts;

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the unified hierarchy is mounted: /sys/fs/cgroup on most machines,
/// /sys/fs/cgroup/unified on some.
///
/// # Errors
/// If it is not mounted.
pub fn root() -> Result<PathBuf> {
    mounts::list()?
        .into_iter()
        .find(|mount| mount.kind == "cgroup2")
        .map(|mount| mount.at)
        .context("no cgroup2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

/// The subtree of the lab called `name`.
///
/// # Errors
/// If the unified hierarchy is not mounted.
pub fn of_lab(name: &str) -> Result<PathBuf> {
    Ok(root()?.join(format!("berth-{name}")))
}

/// Makes a cgroup, and those above it.
///
/// # Errors
/// Without root.
pub fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("make cgroup {}", path.display()))
}

/// Moves the running process there.
///
/// # Errors
/// If there is no such cgroup.
pub fn join(path: &Path) -> Result<()> {
    let procs = path.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("join cgroup {}", path.display()))
}

/// Ends every process in the cgroup and below, and removes it. One that is
/// not there is no error.
///
/// # Errors
/// If its processes do not end, or it cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    match fs::write(path.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        done => done.with_context(|| format!("kill cgroup {}", path.display()))?,
    }
    wait_until_empty(path)?;
    remove_tree(path).with_context(|| format!("remove cgroup {}", path.display()))
}

/// The kernel marks `cgroup.events` as changed when the last process goes.
fn wait_until_empty(path: &Path) -> Result<()> {
    let name = path.join("cgroup.events");
    let mut events = File::open(&name).with_context(|| format!("open {}", name.display()))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if text.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!(
                "the processes in cgroup {} have not ended within {} s",
                path.display(),
                PATIENCE.as_secs()
            );
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        poll(
            &mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)],
            timeout,
        )?;
    }
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
