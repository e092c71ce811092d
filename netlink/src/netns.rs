//! An open network namespace, and doing something inside it.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{io, panic, thread};

use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, Result};

/// A network namespace. It lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    file: File,
    name: String,
    inode: u64,
}

impl Netns {
    /// Opens a namespace file: `/run/netns/NAME`, `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let what = || format!("open network namespace {}", path.display());
        let file = File::open(path).map_err(|error| Error::io(what(), error))?;
        let inode = file
            .metadata()
            .map_err(|error| Error::io(what(), error))?
            .ino();
        Ok(Self {
            file,
            name: path.display().to_string(),
            inode,
        })
    }

    /// Makes a namespace without a name: it lives as long as this value and
    /// whatever runs in it. It holds a loopback interface that is down.
    ///
    /// # Errors
    /// EPERM without the right to make namespaces (`CAP_SYS_ADMIN`).
    pub fn create() -> Result<Self> {
        let failed = |error| Error::io("make a network namespace", error);
        thread::scope(|scope| {
            let maker = thread::Builder::new().spawn_scoped(scope, || {
                unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
                Self::current()
            });
            match maker.map_err(failed)?.join() {
                Ok(made) => made,
                Err(cause) => panic::resume_unwind(cause),
            }
        })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// If /proc is not mounted.
    pub fn current() -> Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// The namespace's inode number: equal for two handles on one namespace.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inode
    }

    /// Runs `f` inside the namespace, on a thread made for it, so that the
    /// caller's own namespace never changes, even if `f` panics.
    ///
    /// # Errors
    /// If the thread cannot be made, or may not enter the namespace.
    pub fn run<T, F>(&self, f: F) -> Result<T>
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        let failed =
            |error: io::Error| Error::io(format!("enter network namespace {}", self.name), error);
        thread::scope(|scope| {
            let worker = thread::Builder::new().spawn_scoped(scope, || {
                setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                Ok(f())
            });
            match worker.map_err(failed)?.join() {
                Ok(done) => done.map_err(|errno: nix::errno::Errno| failed(errno.into())),
                Err(cause) => panic::resume_unwind(cause),
            }
        })
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_namespace_is_named() {
        let error = Netns::open("/run/netns/berth-no-such").unwrap_err();
        assert!(error.is_not_found());
        assert!(
            error
                .to_string()
                .starts_with("cannot open network namespace /run/netns/berth-no-such:"),
            "{error}"
        );
    }

    #[test]
    fn the_current_namespace_has_one_identity() {
        assert_eq!(
            Netns::current().unwrap().id(),
            Netns::open("/proc/self/ns/net").unwrap().id()
        );
    }
}
