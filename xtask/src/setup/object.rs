//! The eBPF object: `proxy-ebpf/`, compiled by Debian's toolchain for the bpf
//! target and put where berth-agent's build script finds it.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::linker;
use crate::{paths, progress, toolchain};

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "berth-proxy-ebpf";
const BINARY: &str = "berth-proxy";

/// The object that the user built elsewhere, if BERTH_EBPF_OBJECT names one.
/// berth-agent's build script reads the same variable.
pub(super) fn given() -> Option<OsString> {
    std::env::var_os("BERTH_EBPF_OBJECT").filter(|path| !path.is_empty())
}

/// Builds the object. Cargo finds out by itself whether there is anything to
/// do, which takes a third of a second.
///
/// # Errors
/// The build fails, or the result cannot be copied.
pub(super) fn build(llvm_major: u32) -> Result<()> {
    let target_dir = paths::ebpf_target_dir();
    let mut command = toolchain::ebpf_cargo();
    command
        .args(["build", "--release", "-Zbuild-std=core"])
        .args(["--target", TARGET, "--package", PACKAGE, "--target-dir"])
        .arg(&target_dir)
        .env(
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER",
            linker::path(llvm_major)?,
        )
        // Debug information and --btf together give the maps and programs
        // their BTF; without it the kernel refuses some of them.
        .env(
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS",
            "-C debuginfo=2 -C link-arg=--btf",
        );
    progress::run("building the eBPF object", &mut command)?;
    let built = target_dir.join(TARGET).join("release").join(BINARY);
    replace_if_changed(&built, &paths::ebpf_object())?;
    Ok(())
}

/// Copies `from` to `to` unless both hold the same bytes: cargo looks at the
/// time of a file, and would build everything that embeds it again. Returns
/// whether it was copied.
fn replace_if_changed(from: &Path, to: &Path) -> Result<bool> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(false);
    }
    // Renamed into place, so that no build ever embeds half of it.
    let temporary = to.with_extension("o.new");
    fs::write(&temporary, new)
        .and_then(|()| fs::rename(&temporary, to))
        .with_context(|| format!("cannot write {}", to.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_touched_only_when_the_bytes_changed() {
        let dir = std::env::temp_dir().join(format!("berth-xtask-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (from, to) = (dir.join("built"), dir.join("object.o"));
        fs::write(&from, "one").unwrap();
        assert!(replace_if_changed(&from, &to).unwrap());
        let written = fs::metadata(&to).unwrap().modified().unwrap();
        assert!(!replace_if_changed(&from, &to).unwrap());
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), written);
        fs::write(&from, "two").unwrap();
        assert!(replace_if_changed(&from, &to).unwrap());
        assert_eq!(fs::read(&to).unwrap(), b"two");
        fs::remove_dir_all(&dir).unwrap();
    }
}
