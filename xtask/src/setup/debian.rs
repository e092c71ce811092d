//! Installing Debian packages without starting what is in them.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::packages::Package;
use crate::progress;

/// Asked by invoke-rc.d and deb-systemd-invoke before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Services of the packages that are only ever run by tests, in namespaces.
const SERVICES: [(&str, &str); 3] = [
    ("bind9", "named"),
    ("etcd-server", "etcd"),
    ("haproxy", "haproxy"),
];

/// Installs `packages`.
///
/// # Errors
/// apt-get fails; what it said is printed.
pub(super) fn install(packages: &[Package]) -> Result<()> {
    progress::run("apt-get update", apt_get().arg("update"))?;
    let policy = PolicyFile::place(Path::new(POLICY))?;
    let names: Vec<_> = packages.iter().map(|package| &*package.name).collect();
    progress::run(
        &format!("installing {} Debian packages", names.len()),
        apt_get()
            .args(["install", "--yes", "--no-install-recommends"])
            // Never at the cost of something that the user has.
            .arg("--no-remove")
            .args(&names),
    )
    .context(
        "if a package was not found: bookworm-security must be among apt's sources; \
         if another would be removed: remove it yourself, or use another machine",
    )?;
    disable_services(&names);
    drop(policy);
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        // Another apt at work, such as unattended-upgrades, is waited for.
        .args(["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Its Perl scripts warn about a locale that the machine does not have.
        .env("LC_ALL", "C.UTF-8");
    command
}

/// Keeps the services of packages that were just installed from starting at
/// the next boot, under systemd and System V init alike.
fn disable_services(installed: &[&str]) {
    for (package, service) in SERVICES {
        if !installed.contains(&package) {
            continue;
        }
        let disabled = Command::new("update-rc.d")
            .args([service, "disable"])
            .output();
        if !disabled.is_ok_and(|output| output.status.success()) {
            eprintln!(
                "warning: {service} starts at the next boot; \
                 to prevent it: update-rc.d {service} disable"
            );
        }
    }
}

/// A policy that forbids to start services, for as long as this value lives.
/// A policy that somebody else put there stays, and is the one that counts.
#[derive(Debug)]
struct PolicyFile {
    path: Option<PathBuf>,
}

impl PolicyFile {
    fn place(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(path);
        match file {
            Ok(mut file) => {
                let placed = Self {
                    path: Some(path.to_owned()),
                };
                file.write_all(policy_script(std::process::id()).as_bytes())
                    .with_context(|| format!("cannot write {}", path.display()))?;
                Ok(placed)
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Ok(Self { path: None })
            }
            Err(error) => Err(error).with_context(|| format!("cannot create {}", path.display())),
        }
    }
}

impl Drop for PolicyFile {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // The script stops forbidding when this process is gone, anyway.
            let _ = fs::remove_file(path);
        }
    }
}

/// Forbids (101) while process `pid` lives. Should that be killed before it
/// removes the file, the first question after it removes it and allows (0).
fn policy_script(pid: u32) -> String {
    format!(
        "#!/bin/sh\n\
         # Placed by Berth's set-up while it installs packages.\n\
         kill -0 {pid} 2>/dev/null && exit 101\n\
         rm -f \"$0\"\n\
         exit 0\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("berth-policy-{name}-{}", std::process::id()))
    }

    #[test]
    fn the_policy_forbids_while_we_live_and_goes_with_us() {
        let path = scratch("ours");
        let policy = PolicyFile::place(&path).unwrap();
        let answer = Command::new("/bin/sh").arg(&path).status().unwrap();
        assert_eq!(answer.code(), Some(101));
        drop(policy);
        assert!(!path.exists());
    }

    #[test]
    fn a_policy_left_behind_allows_and_removes_itself() {
        let path = scratch("stale");
        let mut child = Command::new("/bin/true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        fs::write(&path, policy_script(dead)).unwrap();
        let answer = Command::new("/bin/sh").arg(&path).status().unwrap();
        assert_eq!(answer.code(), Some(0));
        assert!(!path.exists());
    }

    #[test]
    fn somebody_elses_policy_stays() {
        let path = scratch("theirs");
        fs::write(&path, "theirs").unwrap();
        drop(PolicyFile::place(&path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        fs::remove_file(&path).unwrap();
    }
}
