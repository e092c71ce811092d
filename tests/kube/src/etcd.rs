//! etcd, as one member, reached through a unix socket in the cluster's folder:
//! no port to choose, and nobody else can read it.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::place::Place;
use crate::process::Process;

/// What etcd and the API server call the socket. etcd wants `host:port` and
/// makes a socket file of that name in the folder that it runs in, so both
/// have to run in the same.
pub(crate) const ENDPOINT: &str = "unix://etcd:1";
const SOCKET: &str = "etcd:1";
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The etcd of PATH.
///
/// # Errors
/// Says which package has it.
pub(crate) fn binary() -> Result<PathBuf> {
    // Debian's is in /usr/bin; /usr/sbin is not in everybody's PATH.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("etcd"))
        .find(|file| file.is_file());
    match found {
        Some(file) => Ok(file),
        None => bail!("etcd is not in PATH: `cargo xtask setup`, or apt-get install etcd-server"),
    }
}

pub(crate) fn start(folder: &Path) -> Result<Process> {
    let peer = "unix://peer:1";
    // Sockets of an earlier run in this folder keep it from listening.
    for socket in [SOCKET, "peer:1"] {
        let _ = fs::remove_file(folder.join(socket));
    }
    let mut command = Place::loopback().bound_command(binary()?);
    command
        .current_dir(folder)
        .args(["--data-dir", "etcd"])
        .args(["--listen-client-urls", ENDPOINT])
        .args(["--advertise-client-urls", ENDPOINT])
        .args(["--listen-peer-urls", peer])
        .args(["--initial-advertise-peer-urls", peer])
        .arg(format!("--initial-cluster=default={peer}"))
        // The history of a cluster that does not last is not needed.
        .args(["--auto-compaction-mode", "periodic"])
        .args(["--auto-compaction-retention", "5m"])
        .args(["--quota-backend-bytes", "4294967296"])
        .args(["--logger", "zap", "--log-level", "warn"]);
    // Configuration of the machine's own etcd, which Debian's service uses.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD_") {
            command.env_remove(name);
        }
    }
    let mut etcd = Process::start("etcd", command, &folder.join("etcd.log"))?;
    etcd.wait_ready(READY_WITHIN, || {
        UnixStream::connect(folder.join(SOCKET))
            .map(drop)
            .context("connect to its socket")
    })?;
    Ok(etcd)
}
