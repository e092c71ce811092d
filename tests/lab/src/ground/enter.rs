//! Becoming a process of a node, a pod or a VM: this process joins a cgroup, a
//! network namespace and a mount namespace of its own, and turns into another
//! program. Runs in a process with one thread.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::SigSet;

use super::cgroup;

/// Where a process runs; what is none stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// cgroup to join.
    pub cgroup: Option<PathBuf>,
    /// Network namespace file to enter.
    pub netns: Option<PathBuf>,
    /// File that the process sees as /etc/resolv.conf.
    pub resolv_conf: Option<PathBuf>,
}

impl Place {
    /// `program` with arguments to come, run in this place through the lab's
    /// own binary `lab`: the caller may have as many threads as it likes.
    #[must_use]
    pub fn command(&self, lab: &Path, program: &Path) -> Command {
        let mut command = Command::new(lab);
        command.arg("exec");
        for (flag, value) in [
            ("--cgroup", &self.cgroup),
            ("--netns", &self.netns),
            ("--resolv-conf", &self.resolv_conf),
        ] {
            if let Some(value) = value {
                command.arg(flag).arg(value);
            }
        }
        command.arg("--").arg(program);
        // Ctrl-C in a terminal is for the lab, which then ends all of these.
        command.process_group(0);
        command
    }

    /// Moves the running process there and turns it into `command`.
    ///
    /// # Errors
    /// Returns only if it could not be done.
    pub fn exec(&self, command: &[OsString]) -> Result<()> {
        if let Some(path) = &self.cgroup {
            cgroup::join(path)?;
        }
        if let Some(path) = &self.netns {
            let file = std::fs::File::open(path)
                .with_context(|| format!("open network namespace {}", path.display()))?;
            setns(file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("enter network namespace {}", path.display()))?;
        }
        if let Some(path) = &self.resolv_conf {
            replace_resolv_conf(path)?;
        }
        // What the lab itself blocks is not for its programs.
        SigSet::empty()
            .thread_set_mask()
            .context("unblock signals")?;
        let (program, arguments) = command.split_first().context("no command was given")?;
        let error = Command::new(program).args(arguments).exec();
        Err(error).with_context(|| format!("run {}", program.display()))
    }
}

fn replace_resolv_conf(path: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    // Slave, not private: what is unmounted outside goes from here too.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_SLAVE | MsFlags::MS_REC,
        None::<&str>,
    )
    .context("keep mounts of this process to itself")?;
    mount(
        Some(path),
        "/etc/resolv.conf",
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .with_context(|| format!("put {} in the place of /etc/resolv.conf", path.display()))
}
