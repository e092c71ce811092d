//! Named network namespaces: mounts under /run/netns, as `ip netns` has them,
//! so that `ip netns exec NAME` works on each.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use berth_netlink::{Handle, Netns};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::mounts;

const FOLDER: &str = "/run/netns";
const CONFIG: &str = "/etc/netns";

/// The file of the namespace called `name`.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// The resolv.conf that `ip netns exec` and the lab give to programs in the
/// namespace called `name`.
#[must_use]
pub fn resolv_conf(name: &str) -> PathBuf {
    Path::new(CONFIG).join(name).join("resolv.conf")
}

/// Makes a namespace with its loopback interface up.
///
/// # Errors
/// Without root, or if the name is taken.
pub fn create(name: &str) -> Result<Netns> {
    prepare_folder()?;
    let path = path(name);
    let made = Netns::create()?;
    File::create_new(&path).with_context(|| format!("make {}", path.display()))?;
    let source = format!("/proc/self/fd/{}", made.as_raw_fd());
    mount(
        Some(source.as_str()),
        &path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .with_context(|| format!("mount the namespace {}", path.display()))?;
    let handle = Handle::in_netns(&made)?;
    handle.set_up(handle.link_by_name("lo")?.index)?;
    Ok(Netns::open(&path)?)
}

/// Writes the resolv.conf of the namespace called `name`.
///
/// # Errors
/// If /etc cannot be written.
pub fn write_resolv_conf(name: &str, text: &str) -> Result<PathBuf> {
    let path = resolv_conf(name);
    let folder = Path::new(CONFIG).join(name);
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&path, text))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Removes the namespace's name and its configuration. The kernel takes the
/// namespace away when the last process in it has gone.
///
/// # Errors
/// If it cannot be unmounted. One that is not there is no error.
pub fn remove(name: &str) -> Result<()> {
    let config = Path::new(CONFIG).join(name);
    match fs::remove_dir_all(&config) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", config.display()));
        }
        _ => {}
    }
    // The folder is left to `ip netns` if that made it; empty, it is nobody's.
    let _ = fs::remove_dir(CONFIG);
    let path = path(name);
    if !path.exists() {
        return Ok(());
    }
    match umount2(&path, MntFlags::MNT_DETACH) {
        // A crash between making the file and mounting on it.
        Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
        Err(errno) => {
            return Err(errno).with_context(|| format!("unmount {}", path.display()));
        }
    }
    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
}

/// The names of all namespaces that begin with `prefix`, and of those that
/// only have a configuration left.
///
/// # Errors
/// If the folders cannot be listed.
pub fn with_prefix(prefix: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in [FOLDER, CONFIG] {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for entry in entries {
            let name = entry.with_context(|| format!("list {folder}"))?.file_name();
            let name = name.to_string_lossy().into_owned();
            if name.starts_with(prefix) && !found.contains(&name) {
                found.push(name);
            }
        }
    }
    Ok(found)
}

/// Makes /run/netns a shared mount, as `ip netns add` does: a namespace that
/// is unmounted here then goes from the private mount namespaces of pods too.
fn prepare_folder() -> Result<()> {
    let is_ready = || -> Result<bool> {
        Ok(mounts::list()?
            .iter()
            .any(|mount| mount.at == Path::new(FOLDER) && mount.shared))
    };
    if is_ready()? {
        return Ok(());
    }
    fs::create_dir_all(FOLDER).with_context(|| format!("make {FOLDER}"))?;
    let folder = File::open(FOLDER).with_context(|| format!("open {FOLDER}"))?;
    let _lock = Flock::lock(folder, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("lock {FOLDER}"))?;
    if is_ready()? {
        return Ok(());
    }
    let flags = [MsFlags::MS_BIND | MsFlags::MS_REC, MsFlags::MS_SHARED];
    for flags in flags {
        mount(Some(FOLDER), FOLDER, None::<&str>, flags, None::<&str>)
            .with_context(|| format!("make {FOLDER} a shared mount"))?;
    }
    Ok(())
}
