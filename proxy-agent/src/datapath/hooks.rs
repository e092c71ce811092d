//! The programs' places at the root of the node's cgroups.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::pins::kernel_error;
use super::{DatapathError, sys};

/// A program and the hook that it belongs to, by its number in
/// `enum bpf_attach_type` of linux/bpf.h.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook {
    /// The program's name, and its link's.
    pub(super) name: &'static str,
    attach_type: u32,
}

/// In the order in which they are attached. Whoever asks for the peer is
/// served first, so that no application sees an endpoint in place of a Service.
pub(super) const HOOKS: [Hook; 10] = [
    Hook {
        name: "post_bind4",
        attach_type: 12,
    },
    Hook {
        name: "post_bind6",
        attach_type: 13,
    },
    Hook {
        name: "recvmsg4",
        attach_type: 19,
    },
    Hook {
        name: "recvmsg6",
        attach_type: 20,
    },
    Hook {
        name: "getpeername4",
        attach_type: 29,
    },
    Hook {
        name: "getpeername6",
        attach_type: 30,
    },
    Hook {
        name: "sendmsg4",
        attach_type: 14,
    },
    Hook {
        name: "sendmsg6",
        attach_type: 15,
    },
    Hook {
        name: "connect4",
        attach_type: 10,
    },
    Hook {
        name: "connect6",
        attach_type: 11,
    },
];

/// How a program came to its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// In the place of another, or of itself.
    InPlace,
    /// There was no link to this cgroup.
    Anew,
}

/// The cgroup that the hooks are attached to.
#[derive(Debug)]
pub(super) struct CgroupRoot {
    path: PathBuf,
    folder: File,
    id: u64,
}

impl CgroupRoot {
    pub(super) fn open(path: &Path) -> Result<Self, DatapathError> {
        let fail = |e| kernel_error("open the cgroup", path, e);
        let folder = File::open(path).map_err(fail)?;
        if !path.join("cgroup.procs").exists() {
            return Err(DatapathError::Path {
                path: path.to_owned(),
                problem: "is not a cgroup v2 folder",
                mend: "mount cgroup2 there, or name its root with --cgroup-root",
            });
        }
        let id = folder.metadata().map_err(fail)?.ino();
        Ok(Self {
            path: path.to_owned(),
            folder,
            id,
        })
    }

    /// Makes `program` the one that runs at `hook`. A link that is pinned and
    /// attached to this cgroup gets the program in one step; otherwise a new
    /// link is made before the old one goes.
    pub(super) fn attach(
        &self,
        hook: Hook,
        program: BorrowedFd<'_>,
        links: &Path,
    ) -> Result<Attached, DatapathError> {
        let pin = links.join(hook.name);
        if let Some(link) = self.pinned(&pin)? {
            return sys::link_update(link.as_fd(), program)
                .map(|()| Attached::InPlace)
                .map_err(|e| kernel_error("update the link", &pin, e));
        }
        let link =
            sys::link_create(program, self.folder.as_fd(), hook.attach_type).map_err(|error| {
                DatapathError::Kernel {
                    what: format!("attach {} to the cgroup {}", hook.name, self.path.display()),
                    error,
                }
            })?;
        let fresh = links.join(format!("{}-new", hook.name));
        let pin_it = || -> io::Result<()> {
            match fs::remove_file(&fresh) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            sys::obj_pin(link.as_fd(), &fresh)?;
            // bpffs does not rename over something.
            match fs::remove_file(&pin) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            fs::rename(&fresh, &pin)
        };
        pin_it()
            .map(|()| Attached::Anew)
            .map_err(|e| kernel_error("pin the link", &pin, e))
    }

    /// The pinned link, if it is attached to this very cgroup; one that was
    /// detached (BPF_LINK_DETACH) has the cgroup 0.
    fn pinned(&self, pin: &Path) -> Result<Option<OwnedFd>, DatapathError> {
        let link = match sys::obj_get(pin) {
            Ok(link) => link,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(kernel_error("open the link", pin, e)),
        };
        let cgroup = sys::link_cgroup_id(link.as_fd())
            .map_err(|e| kernel_error("look at the link", pin, e))?;
        Ok((cgroup == self.id).then_some(link))
    }
}
