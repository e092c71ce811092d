//! The virtual machine itself: what a booted node would have.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use berth_netlink::Handle;
use nix::mount::{MsFlags, mount};

/// Where bpffs is mounted.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";
/// Where the machine's init mounts cgroup2.
pub(crate) const CGROUP2: &str = "/sys/fs/cgroup";

/// Whether this is a machine that virtme booted for us: it puts its own words
/// on the kernel's command line.
pub(crate) fn is_virtual() -> bool {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    line.split_whitespace()
        .any(|word| word.starts_with("virtme_"))
}

/// Mounts bpffs, and brings the loopback interface up.
pub(crate) fn prepare() -> Result<()> {
    mount(
        Some("bpf"),
        BPFFS,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .context("mount bpffs")?;
    if !Path::new(CGROUP2).join("cgroup.procs").exists() {
        bail!("cgroup2 is not mounted on {CGROUP2}");
    }
    let handle = Handle::new()?;
    handle.set_up(handle.link_by_name("lo")?.index)?;
    Ok(())
}

/// Loads a kernel module.
pub(crate) fn load(module: &str) -> Result<()> {
    run(Command::new("modprobe").arg(module)).map(drop)
}

/// Runs a program to its end; what it prints on standard output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command
        .output()
        .with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
