//! The two Rust toolchains: the user's, which runs xtask and builds what runs
//! in user space, and Debian's, which builds the eBPF object.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::paths;

/// Debian's own (`cargo-web`, `rustc-web`). They match each other and the
/// source of `core` that `rust-web-src` installs.
pub(crate) const EBPF_CARGO: &str = "/usr/bin/cargo";
pub(crate) const EBPF_RUSTC: &str = "/usr/bin/rustc";

/// The cargo that started xtask, in the workspace's folder.
pub(crate) fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(paths::workspace());
    command
}

/// Debian's cargo and rustc with nothing of the user's toolchain in their
/// environment: `cargo run` exports RUSTUP_TOOLCHAIN, CARGO, LD_LIBRARY_PATH
/// and more, which would make /usr/bin/cargo run the other compiler.
pub(crate) fn ebpf_cargo() -> Command {
    let mut command = Command::new(EBPF_CARGO);
    scrub(&mut command);
    command
        .env("RUSTC", EBPF_RUSTC)
        // build-std and the bpf target are unstable; Debian has no nightly.
        .env("RUSTC_BOOTSTRAP", "1")
        .current_dir(paths::workspace());
    command
}

/// Removes the user's toolchain from a command's environment.
pub(crate) fn scrub(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if belongs_to_toolchain(&name) {
            command.env_remove(name);
        }
    }
}

/// Whether a variable steers a Rust toolchain. How cargo reaches its registry
/// and its home is the machine's, and stays.
fn belongs_to_toolchain(name: &OsStr) -> bool {
    const KEPT: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    let Some(name) = name.to_str() else {
        return false;
    };
    let cargo = name == "CARGO" || name.starts_with("CARGO_");
    let rust = name.starts_with("RUSTC") || name.starts_with("RUSTDOC");
    (cargo && !KEPT.iter().any(|kept| name.starts_with(kept)))
        || rust
        || matches!(name, "RUSTFLAGS" | "RUSTUP_TOOLCHAIN" | "LD_LIBRARY_PATH")
}

/// What `rustc -vV` says, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RustVersion {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) llvm_major: u32,
}

impl RustVersion {
    /// Parses the output of `rustc -vV`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut numbers = text
                .lines()
                .find_map(|line| line.strip_prefix(name))?
                .trim()
                .split('.')
                .map(|part| part.parse::<u32>().ok());
            Some((numbers.next()??, numbers.next().flatten()))
        };
        let (major, minor) = field("release:")?;
        let (llvm_major, _) = field("LLVM version:")?;
        Some(Self {
            major,
            minor: minor?,
            llvm_major,
        })
    }
}

/// The version of the user's compiler.
///
/// # Errors
/// There is no rustc beside the cargo that started xtask, or it is odd.
pub(crate) fn user_rust() -> Result<RustVersion> {
    let rustc = std::env::var_os("CARGO")
        .map(|cargo| PathBuf::from(cargo).with_file_name("rustc"))
        .filter(|rustc| rustc.exists())
        .map_or_else(|| OsString::from("rustc"), PathBuf::into_os_string);
    version_of(&mut Command::new(&rustc))
        .with_context(|| format!("{} -vV says nothing useful", rustc.to_string_lossy()))
}

/// The version of Debian's compiler, if it is installed.
pub(crate) fn ebpf_rust() -> Option<RustVersion> {
    if !Path::new(EBPF_RUSTC).exists() {
        return None;
    }
    let mut command = Command::new(EBPF_RUSTC);
    scrub(&mut command);
    version_of(&mut command)
}

fn version_of(rustc: &mut Command) -> Option<RustVersion> {
    let output = rustc.arg("-vV").output().ok()?;
    RustVersion::parse(&String::from_utf8_lossy(&output.stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_of_rust_and_llvm_are_read() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\n\
                    host: x86_64-unknown-linux-gnu\nrelease: 1.96.0-nightly\nLLVM version: 22.1.8\n";
        assert_eq!(
            RustVersion::parse(text),
            Some(RustVersion {
                major: 1,
                minor: 96,
                llvm_major: 22
            })
        );
        assert_eq!(RustVersion::parse("release: 1.96.0\n"), None);
        assert_eq!(RustVersion::parse(""), None);
    }

    #[test]
    fn the_toolchain_is_scrubbed_and_the_machines_settings_stay() {
        for name in [
            "CARGO",
            "CARGO_MANIFEST_DIR",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_DIR",
            "CARGO_PROFILE_RELEASE_LTO",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "LD_LIBRARY_PATH",
        ] {
            assert!(belongs_to_toolchain(name.as_ref()), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_REGISTRIES_COMPANY_TOKEN",
            "CARGO_SOURCE_COMPANY_DIRECTORY",
            "RUSTUP_HOME",
            "RUST_BACKTRACE",
            "PATH",
            "HOME",
        ] {
            assert!(!belongs_to_toolchain(name.as_ref()), "{name}");
        }
    }
}
