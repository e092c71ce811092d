//! Mount points, as /proc/self/mountinfo lists them (`man 5 proc`).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub at: PathBuf,
    /// `cgroup2`, `bpf`, `nsfs`, ...
    pub kind: String,
    /// Whether mounts below it show in copies of this mount namespace.
    pub shared: bool,
}

/// All mounts of this mount namespace, oldest first.
///
/// # Errors
/// If /proc is not mounted.
pub fn list() -> Result<Vec<Mount>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(text.lines().filter_map(parse).collect())
}

/// Unmounts everything below `folder`, the newest first.
///
/// # Errors
/// The first that could not be unmounted; the others are.
pub fn unmount_below(folder: &Path) -> Result<()> {
    let mut outcome = Ok(());
    for mount in list()?.iter().rev() {
        if mount.at.starts_with(folder) {
            let done = umount2(&mount.at, MntFlags::MNT_DETACH)
                .with_context(|| format!("unmount {}", mount.at.display()));
            outcome = outcome.and(done);
        }
    }
    outcome
}

/// Mounts a new bpf file system at `folder`, which is made.
///
/// # Errors
/// Without root, or in a kernel without BPF.
pub fn mount_bpffs(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    mount(
        Some("bpf"),
        folder,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("mount a bpf file system at {}", folder.display()))
}

fn parse(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let mut fields = front.split(' ').skip(4);
    let at = PathBuf::from(unescape(fields.next()?));
    Some(Mount {
        at,
        kind: back.split(' ').next()?.to_owned(),
        shared: fields.any(|field| field.starts_with("shared:")),
    })
}

/// Blanks and backslashes are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out += &rest[..at];
        let octal = rest.get(at + 1..at + 4);
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line_of_mountinfo() {
        let line = "41 31 0:29 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        let mount = parse(line).unwrap();
        assert_eq!(mount.at, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mount.kind, "cgroup2");
        assert!(mount.shared);
        let line = r"41 31 0:29 / /a\040b\134c rw - bpf none rw";
        let mount = parse(line).unwrap();
        assert_eq!(mount.at, Path::new(r"/a b\c"));
        assert!(!mount.shared);
    }
}
