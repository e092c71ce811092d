//! The proof that Services work on this node: a connection, made every few
//! seconds by a process of its own in a cgroup below the cgroup root, to an
//! address that only the programs can turn into something.
//!
//! ```text
//! child in <cgroup root>/berth-canary --connect 192.0.0.8:7--> programs and maps
//!                                                                    |
//! agent's listener on 127.0.0.1 <-- accepts, says a secret word -----'
//! ```
//! The canary is an ordinary Service, `berth/canary`, with the agent's own
//! listeners as endpoints: it goes through compile, diff and maps like any
//! other. It passes when the child was told the word and sees the Service's
//! address as its peer, over IPv4 and, where there is one, over IPv6. Until it
//! has passed, and whenever it does not, the agent is not ready and says which
//! cgroup root it uses: that one is the usual mistake, and the agent's own
//! connections would prove nothing about it, since the agent may run outside.
//!
//! The addresses are reserved and never routed: `192.0.0.8`, the IPv4 dummy
//! address (RFC 7600), and one of the discard-only block `100::/64` (RFC 6666).
//!
//! This room must not know how an address becomes another.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tracing::{info, warn};

use crate::model::{
    Change, Endpoint, EndpointPort, EndpointSlice, NamespacedName, Protocol, Service, ServicePort,
    SliceKey, TrafficPolicy,
};

/// The canary's address over IPv4.
pub const ADDRESS4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// The canary's address over IPv6.
pub const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 8);
/// The canary's port: echo's, which is reserved too.
pub const PORT: u16 = 7;

const NAMESPACE: &str = "berth";
const NAME: &str = "canary";
/// The child's cgroup, below the cgroup root.
const CGROUP: &str = "berth-canary";

/// Between two that pass.
const EVERY: Duration = Duration::from_secs(5);
/// After one that did not.
const RETRY: Duration = Duration::from_millis(500);
/// Each step of the child, on loopback.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the start is waited for.
const POLL: Duration = Duration::from_millis(5);

/// The name of the Service that the canary is.
#[must_use]
pub fn service_name() -> NamespacedName {
    NamespacedName::new(NAMESPACE, NAME)
}

/// The agent's listeners, and where the child runs.
#[derive(Debug)]
pub struct Canary {
    root: PathBuf,
    word: String,
    targets: Vec<(IpAddr, SocketAddr)>,
    passing: Arc<AtomicBool>,
}

impl Canary {
    /// Listens on loopback. IPv6 is left out where the node has none.
    ///
    /// # Errors
    /// When not even 127.0.0.1 can be listened on.
    pub fn start(cgroup_root: &Path) -> anyhow::Result<Self> {
        let word = format!("{:016x}", RandomState::new().build_hasher().finish());
        let mut targets = Vec::new();
        let loopbacks = [
            (IpAddr::V4(ADDRESS4), IpAddr::V4(Ipv4Addr::LOCALHOST)),
            (IpAddr::V6(ADDRESS6), IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ];
        for (address, loopback) in loopbacks {
            let listener = match TcpListener::bind((loopback, 0)) {
                Err(error)
                    if loopback.is_ipv6()
                        && matches!(
                            error.raw_os_error(),
                            Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)
                        ) =>
                {
                    info!("the node has no ::1: no canary over IPv6");
                    continue;
                }
                listener => listener.with_context(|| {
                    format!("cannot listen on {loopback} for the canary; set the interface lo up")
                })?,
            };
            targets.push((address, listener.local_addr()?));
            let word = word.clone();
            thread::Builder::new()
                .name("canary-listen".to_owned())
                .spawn(move || answer(&listener, &word))
                .context("cannot start the canary's listener")?;
        }
        Ok(Self {
            root: cgroup_root.to_owned(),
            word,
            targets,
            passing: Arc::default(),
        })
    }

    /// Whether the last one passed, for metrics.
    #[must_use]
    pub fn passing(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.passing)
    }

    /// The Service and its endpoints on the node called `node`.
    #[must_use]
    pub fn changes(&self, node: &str) -> Vec<Change> {
        let service = Change::Service(Box::new(Service {
            name: service_name(),
            cluster_ips: self.targets.iter().map(|(address, _)| *address).collect(),
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            ports: vec![ServicePort {
                name: "".into(),
                protocol: Protocol::Tcp,
                port: PORT,
                node_port: None,
            }],
            affinity: None,
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Cluster,
            source_ranges: Vec::new(),
            health_check_node_port: None,
        }));
        let slices = self.targets.iter().map(|(_, listener)| {
            let family = if listener.is_ipv4() { "ipv4" } else { "ipv6" };
            Change::Slice(Box::new(EndpointSlice {
                key: SliceKey {
                    service: service_name(),
                    slice: format!("{NAME}-{family}").into(),
                },
                ports: vec![EndpointPort {
                    name: "".into(),
                    protocol: Protocol::Tcp,
                    port: listener.port(),
                }],
                endpoints: vec![Endpoint {
                    address: listener.ip(),
                    ready: true,
                    serving: true,
                    terminating: false,
                    node: Some(node.into()),
                    hint_nodes: Vec::new(),
                    hint_zones: Vec::new(),
                }],
                triggered: None,
            }))
        });
        [service].into_iter().chain(slices).collect()
    }

    /// Makes the child's cgroup; dropping what is returned removes it.
    ///
    /// # Errors
    /// When the cgroup root cannot be written to.
    pub fn cgroup(&self) -> anyhow::Result<CgroupGuard> {
        let path = self.root.join(CGROUP);
        match fs::create_dir(&path) {
            // An agent that was killed left it.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).with_context(|| {
                    format!(
                        "cannot make the canary's cgroup {}; mount cgroup2 writable, and name its \
                         root with --cgroup-root",
                        path.display()
                    )
                })
            }
            _ => Ok(CgroupGuard { path }),
        }
    }

    /// Connects again and again. `is_serving` says whether the programs and
    /// maps are in place, so that nothing is sent before; `report` is told why
    /// the canary does not pass, or `None` when it does, after each attempt.
    pub fn run(&self, is_serving: impl Fn() -> bool, report: impl Fn(Option<String>)) -> ! {
        while !is_serving() {
            thread::sleep(POLL);
        }
        let mut told = None;
        loop {
            let failure = self.connect().err().map(|error| self.explain(&error));
            self.passing.store(failure.is_none(), Ordering::Relaxed);
            match &failure {
                Some(why) if told.as_ref() != Some(why) => warn!("{why}"),
                None if told.is_some() => info!("the canary passes again"),
                _ => {}
            }
            let pause = if failure.is_none() { EVERY } else { RETRY };
            told.clone_from(&failure);
            report(failure);
            thread::sleep(pause);
        }
    }

    fn explain(&self, error: &anyhow::Error) -> String {
        let root = self.root.display();
        format!(
            "the canary does not pass: {error:#}. Connections from the cgroups below {root} are \
             not translated, or not all of them. Programs that were taken from their hooks are \
             attached again; if this stays, see that {root} is the root of the cgroups of all pods \
             (--cgroup-root)"
        )
    }

    /// One child, one connection over each family.
    fn connect(&self) -> anyhow::Result<()> {
        // This very program, even if its file has been replaced meanwhile.
        let mut child = Command::new("/proc/self/exe");
        child
            .arg("canary")
            .arg(self.root.join(CGROUP))
            .arg(&self.word);
        for (address, _) in &self.targets {
            child.arg(SocketAddr::new(*address, PORT).to_string());
        }
        let done = child
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .context("cannot start its process")?;
        if done.status.success() {
            return Ok(());
        }
        let told = String::from_utf8_lossy(&done.stdout);
        if told.trim().is_empty() {
            bail!("its process ended with {}", done.status);
        }
        bail!("{}", told.trim());
    }
}

/// The child's cgroup, removed on drop.
#[derive(Debug)]
pub struct CgroupGuard {
    path: PathBuf,
}

impl Drop for CgroupGuard {
    fn drop(&mut self) {
        // A child that is there now would keep it. What stays after all is
        // empty, and the next agent takes it over.
        for _ in 0..20 {
            let kill = fs::File::options()
                .write(true)
                .open(self.path.join("cgroup.kill"));
            let _ = kill.and_then(|mut file| file.write_all(b"1"));
            match fs::remove_dir(&self.path) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => thread::sleep(POLL),
                _ => return,
            }
        }
    }
}

/// Whether `cgroup_root` is the root of all cgroups of the node. In a container
/// with a cgroup namespace of its own, the root of the mount is the container's
/// cgroup: a canary below it would pass, and nobody else be served.
///
/// # Errors
/// When it is not, with the mend.
pub fn check_whole(cgroup_root: &Path) -> anyhow::Result<()> {
    let root = cgroup_root.display();
    let metadata = fs::metadata(cgroup_root).with_context(|| format!("cannot look at {root}"))?;
    // cgroup v2 gives its root the inode 1, and nobody else.
    if metadata.ino() != 1 {
        bail!(
            "{root} is not the root of the node's cgroups but the root of a cgroup namespace, so \
             that only the agent itself would be served; mount the host's cgroup2 folder into the \
             container and name it with --cgroup-root, or name this one to serve only what is \
             below it"
        );
    }
    Ok(())
}

/// Removes what an agent that was killed left below its cgroup root; says what.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn cleanup(cgroup_root: &Path) -> io::Result<Option<PathBuf>> {
    let path = cgroup_root.join(CGROUP);
    match fs::remove_dir(&path) {
        Ok(()) => Ok(Some(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn answer(listener: &TcpListener, word: &str) {
    for mut stream in listener.incoming().flatten() {
        // The word fits into any socket's buffer: this does not wait.
        let _ = writeln!(stream, "{word}");
    }
}

/// The child's whole life: into the cgroup, and a connection to each target.
/// What went wrong is the last line on standard output.
#[must_use]
pub fn child(cgroup: &Path, word: &str, targets: &[SocketAddr]) -> ExitCode {
    let connect_all = || -> anyhow::Result<()> {
        let procs = cgroup.join("cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("cannot join {}", procs.display()))?;
        targets
            .iter()
            .try_for_each(|target| connect(*target, word))
            .map_err(|why| anyhow::anyhow!("{why}"))
    };
    match connect_all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn connect(target: SocketAddr, word: &str) -> Result<(), String> {
    let stream = TcpStream::connect_timeout(&target, PATIENCE)
        .map_err(|error| format!("a connection to {target} failed: {error}"))?;
    let told = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| {
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).map(|_| line)
        })
        .map_err(|error| format!("{target} said nothing: {error}"))?;
    if told.trim_end() != word {
        return Err(format!("{target} was answered by somebody else"));
    }
    match stream.peer_addr() {
        Ok(peer) if peer == target => Ok(()),
        Ok(peer) => Err(format!(
            "a connection to {target} shows its endpoint {peer} as the peer"
        )),
        Err(error) => Err(format!(
            "a connection to {target} does not tell its peer: {error}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listener_is_told_from_somebody_else() {
        let canary = Canary::start(Path::new("/nowhere")).unwrap();
        let (_, listener) = canary.targets[0];
        // Connected without translation, the peer is the listener itself.
        assert_eq!(connect(listener, &canary.word), Ok(()));
        let error = connect(listener, "another word").unwrap_err();
        assert!(error.contains("somebody else"), "{error}");
        let told = canary.explain(&anyhow::anyhow!("x"));
        assert!(told.contains("below /nowhere are not translated"), "{told}");
    }

    #[test]
    fn a_folder_that_is_not_the_root_of_all_cgroups_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = check_whole(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("is not the root of the node's cgroups"),
            "{error}"
        );
        assert!(error.contains("--cgroup-root"), "{error}");
    }

    #[test]
    fn it_is_a_service_with_an_endpoint_in_each_family() {
        let canary = Canary::start(Path::new("/nowhere")).unwrap();
        let changes = canary.changes("n1");
        let [Change::Service(service), slices @ ..] = &changes[..] else {
            panic!("{changes:?}");
        };
        assert_eq!(service.name.to_string(), "berth/canary");
        assert_eq!(service.cluster_ips.len(), slices.len());
        assert_eq!(service.cluster_ips[0], IpAddr::V4(ADDRESS4));
    }

    #[test]
    fn the_cgroup_goes_with_its_guard_and_what_is_left_is_taken_over() {
        let root = tempfile::tempdir().unwrap();
        let canary = Canary::start(root.path()).unwrap();
        let left = root.path().join(CGROUP);
        fs::create_dir(&left).unwrap();
        let guard = canary.cgroup().unwrap();
        drop(guard);
        assert!(!left.exists());
        assert_eq!(cleanup(root.path()).unwrap(), None);
        fs::create_dir(&left).unwrap();
        assert_eq!(cleanup(root.path()).unwrap(), Some(left));
        let missing = Canary::start(&root.path().join("no")).unwrap();
        let error = missing.cgroup().unwrap_err().to_string();
        assert!(error.contains("--cgroup-root"), "{error}");
    }
}
