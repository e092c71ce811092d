//! bpf-linker, in the cache: a folder per version of it and of LLVM, so that a
//! new one of either is installed beside the old and never half over it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::{paths, progress};

/// The version that goes with aya-ebpf 0.2.
pub(crate) const VERSION: &str = "0.13.0";

fn prefix() -> String {
    format!("bpf-linker-{VERSION}-llvm")
}

/// The folder that `cargo install --root` is given.
pub(super) fn root(llvm_major: u32) -> Result<PathBuf> {
    Ok(paths::cache_dir()?.join(format!("{}{llvm_major}", prefix())))
}

/// The program itself.
pub(super) fn path(llvm_major: u32) -> Result<PathBuf> {
    Ok(root(llvm_major)?.join("bin/bpf-linker"))
}

/// The LLVM majors for which there is a bpf-linker that starts. One whose
/// libLLVM was upgraded away does not.
pub(super) fn usable() -> Result<BTreeSet<u32>> {
    let prefix = prefix();
    let Ok(entries) = fs::read_dir(paths::cache_dir()?) else {
        return Ok(BTreeSet::new());
    };
    let majors = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let major = name.to_str()?.strip_prefix(&prefix)?.parse().ok()?;
        starts(&entry.path().join("bin/bpf-linker")).then_some(major)
    });
    Ok(majors.collect())
}

fn starts(program: &Path) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Builds and installs it with the user's cargo.
///
/// # Errors
/// The build fails; what cargo said is printed.
pub(super) fn install(llvm_major: u32) -> Result<()> {
    let root = root(llvm_major)?;
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    let feature = format!("llvm-{llvm_major}");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["install", "bpf-linker", "--version", VERSION, "--locked"])
        .args(["--no-default-features", "--features", &feature, "--force"])
        .arg("--root")
        .arg(&root)
        .env("LLVM_PREFIX", format!("/usr/lib/{feature}"))
        // Its own flags and target folder, not those of whoever called us.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET")
        // Out of the workspace, whose .cargo/config.toml is not meant for it.
        .current_dir(&root);
    progress::run(
        &format!("installing bpf-linker {VERSION} for LLVM {llvm_major}"),
        &mut command,
    )
}
