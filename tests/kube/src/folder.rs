//! A cluster's folder: everything that it writes is in it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

const PREFIX: &str = "berth-kube-";
const LOCK: &str = "lock";

/// A folder that is removed on drop, or, if this process was killed, by the
/// next one that makes such a folder: its lock goes with its process.
#[derive(Debug)]
pub(crate) struct Folder {
    path: tempfile::TempDir,
    _lock: Flock<File>,
}

impl Folder {
    pub(crate) fn create() -> Result<Self> {
        let parent = parent();
        sweep(&parent);
        let path = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&parent)
            .with_context(|| format!("make a folder in {}", parent.display()))?;
        let lock = path.path().join(LOCK);
        let file = File::create_new(&lock).with_context(|| format!("make {}", lock.display()))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| errno)
            .with_context(|| format!("lock {}", lock.display()))?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        self.path.path()
    }
}

/// In memory if that is possible: etcd flushes every write to its disk.
fn parent() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if nix::unistd::access(memory, nix::unistd::AccessFlags::W_OK).is_ok() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// Removes the folders whose process has gone. What cannot be removed, somebody
/// else's for instance, is left.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // One without a lock is just being made.
        let Ok(file) = File::open(entry.path().join(LOCK)) else {
            continue;
        };
        if Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_stays_and_a_dead_ones_goes() {
        let ours = Folder::create().unwrap();
        let parent = ours.path().parent().unwrap();
        let dead = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(parent)
            .unwrap();
        fs::write(dead.path().join(LOCK), "").unwrap();
        sweep(parent);
        assert!(ours.path().exists());
        assert!(!dead.path().exists());
    }
}
