//! Where things are: the workspace, what was built, and the cache.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The workspace's folder. It is compiled in: xtask is built where it is run.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace")
}

/// Where cargo puts the user-space programs.
pub(crate) fn target_dir() -> PathBuf {
    // A relative CARGO_TARGET_DIR is relative to where cargo was called.
    match env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => env::current_dir().unwrap_or_default().join(dir),
        None => workspace().join("target"),
    }
}

/// Where the eBPF object is built. Another compiler builds it, so it has a
/// target folder of its own: the two would throw away each other's work.
pub(crate) fn ebpf_target_dir() -> PathBuf {
    workspace().join("target/ebpf")
}

/// Where berth-agent's build script looks for the eBPF object.
pub(crate) fn ebpf_object() -> PathBuf {
    workspace().join("target/berth-proxy-ebpf.o")
}

/// The folder for tools that outlive `cargo clean`.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let from_env = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    from_env("BERTH_CACHE_DIR")
        .map(PathBuf::from)
        .or_else(|| from_env("XDG_CACHE_HOME").map(|dir| Path::new(&dir).join("berth")))
        .or_else(|| from_env("HOME").map(|dir| Path::new(&dir).join(".cache/berth")))
        .context("no place for the tools' cache: set HOME or BERTH_CACHE_DIR")
}
