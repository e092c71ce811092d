//! What a virtual machine is made of, in the cache: a kernel with its modules,
//! virtme-ng, and a static busybox. Nothing of it is installed on this machine;
//! delete a folder to get a newer one.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::kernels::{self, Series};
use crate::{paths, progress};

/// From the Python package index.
const VIRTME: &str = "virtme-ng==1.42";
/// Says that a folder has all that belongs in it.
const COMPLETE: &str = ".complete";

/// Where the parts are.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    pub(super) vmlinuz: PathBuf,
    pub(super) busybox: PathBuf,
    /// The programs `vng` and `virtme-run`.
    pub(super) virtme_bin: PathBuf,
}

/// Gets what is missing.
///
/// # Errors
/// Debian's archive has no such kernel, or something cannot be downloaded.
pub(super) fn ensure(series: Series) -> Result<Tools> {
    let cache = paths::cache_dir()?.join("vm");
    let kernel = cache.join(format!("linux-{series}"));
    let busybox = cache.join("busybox");
    let virtme = cache.join(VIRTME.replace("==", "-"));

    if !is_complete(&kernel) || !is_complete(&busybox) {
        progress::run("apt-get update", Command::new("apt-get").arg("update"))?;
    }
    complete(&kernel, |folder| {
        unpack(&kernel_package(series)?, folder)?;
        let release = only_entry(&folder.join("lib/modules"))?;
        progress::run(
            &format!("listing the modules of {series}"),
            Command::new("depmod").arg("-b").arg(folder).arg(release),
        )
    })?;
    // Not installed: it would push out a busybox that the user has.
    complete(&busybox, |folder| unpack("busybox-static", folder))?;
    complete(&virtme, |folder| {
        progress::run(
            "making a Python environment",
            Command::new("/usr/bin/python3")
                .args(["-m", "venv"])
                .arg(folder),
        )?;
        progress::run(
            &format!("installing {VIRTME}"),
            Command::new(folder.join("bin/pip")).args(["install", "--quiet", VIRTME]),
        )
    })?;

    let boot = kernel.join("boot");
    let image = fs::read_dir(&boot)
        .with_context(|| format!("cannot read {}", boot.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| file_name(path).starts_with("vmlinuz-"));
    Ok(Tools {
        vmlinuz: image.with_context(|| format!("no kernel in {}", boot.display()))?,
        busybox: busybox.join("bin/busybox"),
        virtme_bin: virtme.join("bin"),
    })
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

fn only_entry(folder: &Path) -> Result<String> {
    let entry = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .flatten()
        .next();
    let name = entry.and_then(|entry| entry.file_name().into_string().ok());
    name.with_context(|| format!("{} is empty", folder.display()))
}

fn is_complete(folder: &Path) -> bool {
    folder.join(COMPLETE).exists()
}

/// Fills `folder` with `fill`, from the beginning if an earlier try ended in
/// the middle.
fn complete(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if is_complete(folder) {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fill(folder)?;
    let mark = folder.join(COMPLETE);
    fs::write(&mark, "").with_context(|| format!("cannot write {}", mark.display()))
}

/// The package that apt's sources have of this series.
fn kernel_package(series: Series) -> Result<String> {
    let output = Command::new("apt-cache")
        .args(["search", "--names-only", r"^linux-image-[0-9]"])
        .output()
        .context("cannot start apt-cache")?;
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = listed.lines().filter_map(|line| line.split(' ').next());
    match kernels::choose(names, series) {
        Some(name) => Ok(name.to_owned()),
        None => bail!(
            "apt's sources have no linux-image-{series}*-amd64; \
             add bookworm-security, or bookworm-backports"
        ),
    }
}

/// Downloads a package of Debian's and unpacks it into `folder`.
fn unpack(package: &str, folder: &Path) -> Result<()> {
    progress::run(
        &format!("downloading {package}"),
        Command::new("apt-get")
            // Only root can write to the folder.
            .args(["-o", "APT::Sandbox::User=root", "download", package])
            .current_dir(folder),
    )?;
    let archive = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get downloaded no {package}"))?;
    progress::run(
        &format!("unpacking {package}"),
        Command::new("dpkg-deb").arg("-x").arg(&archive).arg(folder),
    )?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_filled_once_and_begun_anew_after_a_failure() {
        let root = std::env::temp_dir().join(format!("berth-vm-tools-{}", std::process::id()));
        let folder = root.join("part");
        let broken = complete(&folder, |folder| {
            fs::write(folder.join("half"), "")?;
            bail!("no network")
        });
        assert!(broken.is_err());
        complete(&folder, |folder| Ok(fs::write(folder.join("whole"), "")?)).unwrap();
        assert!(!folder.join("half").exists() && folder.join("whole").exists());
        complete(&folder, |_| bail!("it is there")).unwrap();
        fs::remove_dir_all(&root).unwrap();
    }
}
