//! `berth-agent`: the command line around the library's rooms.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use berth_agent::addresses::{self, Backing, Cluster};
use berth_agent::agent::{self, Controller, Input, Inputs, Observer, Status};
use berth_agent::canary::{self, Canary};
use berth_agent::clients::{self, Wanted};
use berth_agent::datapath::{self, KernelConfig, KernelDatapath};
use berth_agent::diff::Capacity;
use berth_agent::health::{self, HealthChecks, ProxyHealth};
use berth_agent::metrics::{self, Metrics};
use berth_agent::model::{Change, SourceKind};
use berth_agent::redirect::LocalRedirect;
use berth_agent::sockets::{LivePeers, Reaper, Tracker};
use berth_agent::{node, redirect, reflector};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnetwork::IpNetwork;
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

/// How often the node's addresses are looked at.
const ADDRESSES: Duration = Duration::from_secs(1);

/// Berth's node agent: keeps the kernel's Service tables true.
///
/// It watches Services and EndpointSlices and writes them into eBPF maps that
/// programs at the root of the node's cgroups read on every connect(). Maps
/// and programs are pinned: they go on while the agent is away.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve this node.
    Run(Box<Run>),
    /// Take the programs from their hooks and remove every pin. Service
    /// addresses stop working on this node.
    Cleanup(Cleanup),
    /// What the agent starts every few seconds to prove that Services work.
    #[command(hide = true)]
    Canary(CanaryChild),
}

#[derive(Debug, Args)]
struct Run {
    /// This node's name, as Node objects and EndpointSlices call it.
    #[arg(long, env = "NODE_NAME")]
    node_name: String,

    /// A folder of Kubernetes YAML (Services, EndpointSlices, Nodes), watched
    /// in the place of an API server.
    #[arg(long, default_value = "/etc/berth/objects", conflicts_with_all = ["kubeconfig", "apiserver"])]
    folder: PathBuf,

    /// Watch the API server that this kubeconfig names, as whom it says.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,

    /// Watch the API server at this URL; without a --kubeconfig as the pod's
    /// service account. Never the address of a Service.
    #[arg(long)]
    apiserver: Option<String>,

    /// The cgroup v2 folder whose sockets are served. The default is the root
    /// of the cgroup2 mount, so that every process on the node is.
    #[arg(long)]
    cgroup_root: Option<PathBuf>,

    /// A mounted bpf file system; pins go to its folder `berth`.
    #[arg(long, default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,

    /// What has to survive a restart and is not in the kernel.
    #[arg(long, default_value = "/var/lib/berth")]
    state_dir: PathBuf,

    /// The agent's own socket: HTTP for `berth` and for `curl --unix-socket`.
    #[arg(long, default_value = "/run/berth/agent.sock")]
    socket: PathBuf,

    /// Where load balancers and kubelet ask for the proxy's health (`/healthz`,
    /// `/livez`); 0.0.0.0 is every address of both families. Empty: nowhere.
    #[arg(long, default_value = "0.0.0.0:10256", value_name = "ADDRESS:PORT")]
    healthz_bind_address: Bind,

    /// Where monitors find the metrics (`/metrics`, `/proxyMode`). Empty:
    /// nowhere.
    #[arg(long, default_value = "127.0.0.1:10249", value_name = "ADDRESS:PORT")]
    metrics_bind_address: Bind,

    /// Send this node's connections to a Service to an address of the node,
    /// while a DNS server answers there: kube-system/kube-dns=10.20.0.11. While
    /// none does, the Service's own endpoints serve.
    #[arg(long)]
    local_redirect: Option<LocalRedirect>,

    /// Leave the sockets of processes in this cgroup, and below it, alone: for
    /// sandboxes that bring a proxy of their own. May be given more than once,
    /// and need not exist yet. Pods opt out by the annotation
    /// berth.dev/service-proxy: disabled, on themselves or their namespace.
    #[arg(long, value_name = "CGROUP")]
    opt_out_cgroup: Vec<PathBuf>,

    /// Networks, separated by commas: NodePorts are on this node's addresses in
    /// them alone. Without one of a family, on all of that family. If
    /// 127.0.0.0/8 is not among them, NodePorts are not on 127.0.0.1, and the
    /// node's own processes can bind them; so with ::1/128.
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',', value_parser = network)]
    nodeport_addresses: Vec<IpNetwork>,

    /// With a --folder: the SQLite file of allocations that berth-cni writes,
    /// for `berth ip`. With an API server the allocations are there.
    #[arg(long, default_value = "/var/lib/berth/ipam.db")]
    database: PathBuf,

    /// How the log, on standard error, is written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    /// Frontends (address, port, protocol) that fit, for each IP family.
    #[arg(long, default_value_t = berth_abi::maps::DEFAULT_FRONTENDS)]
    max_frontends: u32,

    /// Slots that fit: for each frontend as many as it has endpoints.
    #[arg(long, default_value_t = berth_abi::maps::DEFAULT_SLOTS)]
    max_slots: u32,

    /// Different endpoints (address, port) that fit.
    #[arg(long, default_value_t = berth_abi::maps::DEFAULT_BACKENDS)]
    max_backends: u32,
}

#[derive(Debug, Args)]
struct Cleanup {
    /// The bpf file system that the agent was started with.
    #[arg(long, default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,

    /// The cgroup root that the agent was started with.
    #[arg(long)]
    cgroup_root: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CanaryChild {
    cgroup: PathBuf,
    word: String,
    targets: Vec<SocketAddr>,
}

/// Where to listen, if anywhere.
#[derive(Clone, Copy, Debug)]
struct Bind(Option<SocketAddr>);

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let address = text.parse().map_err(|_| {
            "write an address and port such as 0.0.0.0:10256 or [::1]:10256, or nothing".to_owned()
        })?;
        Ok(Self(Some(address)))
    }
}

fn network(text: &str) -> Result<IpNetwork, String> {
    let parsed = text.contains('/').then(|| text.parse().ok()).flatten();
    parsed.ok_or_else(|| "write a network such as 10.20.0.0/24 or fd20::/64".to_owned())
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(options) => {
            start_log(options.log_format);
            run(*options)
        }
        Command::Cleanup(options) => cleanup(&options),
        Command::Canary(options) => {
            return canary::child(&options.cgroup, &options.word, &options.targets);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,berth_agent=info".into());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_target(false).with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
}

fn cleanup(options: &Cleanup) -> anyhow::Result<()> {
    let mut removed = datapath::cleanup(&options.bpffs)?;
    // Without a cgroup2 mount there is no cgroup to be removed.
    if let Ok(root) = cgroup_root(options.cgroup_root.as_deref()) {
        let left = canary::cleanup(&root).with_context(|| {
            format!(
                "cannot remove the canary's cgroup below {}; stop the agent first",
                root.display()
            )
        })?;
        removed.extend(left);
    }
    for path in &removed {
        println!("removed {}", path.display());
    }
    if removed.is_empty() {
        println!("nothing is pinned below {}", options.bpffs.display());
    }
    Ok(())
}

fn run(options: Run) -> anyhow::Result<()> {
    // Two agents on the same maps would each undo what the other does.
    let _lock = lock(&options.state_dir)?;
    let cgroup_root = cgroup_root(options.cgroup_root.as_deref())?;
    // Whoever names a root may mean a part of the node.
    if options.cgroup_root.is_none() {
        canary::check_whole(&cgroup_root)?;
    }
    info!(node = options.node_name, cgroup_root = %cgroup_root.display(), "starting");
    let canary = Canary::start(&cgroup_root)?;
    let mut datapath = KernelDatapath::open(&KernelConfig {
        cgroup_root,
        bpffs: options.bpffs.clone(),
        capacity: Capacity {
            frontends: options.max_frontends,
            slots: options.max_slots,
            backends: options.max_backends,
        },
    })?;
    let wanted = Wanted::default();
    let live = LivePeers::default();
    let (wake, woken) = mpsc::channel();
    let translated = datapath.take_translated();
    let reaper = translated.map(|translated| Reaper::new(translated, live.clone()));
    let controller = Controller::new(datapath, &options.node_name)?
        .with_sockets(Tracker::new(live, wake))
        .with_clients_wanted(wanted.clone());
    let status = Status::starting();
    let (health, metrics) = (ProxyHealth::default(), Metrics::default());
    if let Some(reaper) = reaper {
        let counted = metrics.clone();
        spawn("sockets", move || {
            reaper.run(&woken, |count| counted.sockets_destroyed(count));
        })?;
    }
    let (inputs, received, observer) = Observer::new(&health, &metrics);
    let checks = observer.health_checks();
    let _canary_cgroup = canary.cgroup()?;
    inputs.send(Input::Changes(canary.changes(&options.node_name)))?;
    let networks = options.nodeport_addresses.clone();
    inputs.send(Input::Changes(vec![Change::NodePortNetworks(networks)]))?;
    let (told, counted) = (status.clone(), metrics.clone());
    let to_controller = inputs.clone();
    spawn("canary", move || {
        let tell = |reason: Option<String>| {
            counted.canary(reason.is_none());
            if reason.is_some() {
                // The usual cause is a program that was taken from its hook.
                let _ = to_controller.send(Input::CanaryFailed);
            }
            told.set_canary(reason);
        };
        canary.run(|| told.is_serving(), tell);
    })?;

    let told = status.clone();
    spawn("controller", move || {
        agent::run(controller, &received, &told, observer);
    })?;
    let to_controller = inputs.clone();
    spawn("node", move || watch_addresses(&to_controller))?;
    if let Some(redirect) = options.local_redirect.clone() {
        let to_controller = inputs.clone();
        let tell = move |change| to_controller.send(Input::Changes(vec![change])).is_ok();
        spawn("redirect", move || redirect::watch(&redirect, tell))?;
    }
    let to_controller = inputs.clone();
    let tell = move |change| to_controller.send(Input::Changes(vec![change])).is_ok();
    let opt_out = options.opt_out_cgroup.clone();
    spawn("clients", move || clients::watch(&wanted, &opt_out, tell))?;
    let (failed, failure) = tokio::sync::oneshot::channel();
    let is_cluster = options.kubeconfig.is_some() || options.apiserver.is_some();
    if !is_cluster {
        let (to_controller, folder, name) = (
            inputs.clone(),
            options.folder.clone(),
            options.node_name.clone(),
        );
        spawn("folder", move || {
            let tell = |changes| to_controller.send(Input::Changes(changes)).is_ok();
            if let Err(error) = reflector::folder::watch(folder, &name, tell) {
                drop(failed.send(error));
            }
        })?;
    }

    // The watch of an API server decodes on this thread. What answers probes
    // has one of its own, since a long list takes longer than a probe waits.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        answer_monitors(&options, &inputs, health, metrics.clone(), checks);
        let to_controller = inputs.clone();
        let (kubeconfig, apiserver) = (&options.kubeconfig, &options.apiserver);
        let client = if is_cluster {
            Some(reflector::kube::connect(kubeconfig.as_deref(), apiserver.as_deref()).await?)
        } else {
            None
        };
        let backing = match &client {
            Some(client) => {
                Backing::Cluster(Box::new(Cluster::start(client.clone(), &options.node_name)))
            }
            None => Backing::Embedded(options.database.clone()),
        };
        let addresses = addresses::Service::new(backing, &options.node_name, metrics);
        let cluster = async {
            let Some(client) = client else {
                return std::future::pending().await;
            };
            let tell = |changes| to_controller.send(Input::Changes(changes)).is_ok();
            reflector::kube::watch(client, &options.node_name, tell).await
        };
        let router = agent::router(status, inputs).merge(addresses::router(addresses));
        tokio::select! {
            served = agent::serve_all(&options.socket, router) => served,
            watched = cluster => watched,
            Ok(error) = failure => Err(error),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
        .inspect(|()| info!("stopping; what is pinned goes on"))
    })
}

/// Starts what answers on the node's ports. None of it ends the agent: one
/// that cannot listen says so and tries again.
fn answer_monitors(
    options: &Run,
    inputs: &Inputs,
    health: ProxyHealth,
    metrics: Metrics,
    checks: watch::Receiver<HealthChecks>,
) {
    tokio::spawn(health::checks::serve(checks, health.clone()));
    if let Bind(Some(address)) = options.healthz_bind_address {
        let router = health::server::router(health, metrics.clone());
        tokio::spawn(health::serve_for_ever("the health server", address, router));
    }
    if let Bind(Some(address)) = options.metrics_bind_address {
        let inputs = inputs.clone();
        let router = metrics::server::router(metrics, move || agent::refresh(inputs.clone()));
        tokio::spawn(health::serve_for_ever(
            "the metrics server",
            address,
            router,
        ));
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // A thread that panicked would leave an agent that looks alive.
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            if ended.is_err() {
                error!("a thread of the agent panicked; ending, to be started again");
                std::process::exit(70);
            }
        })
        .with_context(|| format!("cannot start the thread {name}"))?;
    Ok(())
}

fn cgroup_root(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    match given {
        Some(path) => Ok(path.to_owned()),
        None => cgroup2_mount(Path::new("/proc/self/mountinfo")),
    }
}

fn watch_addresses(inputs: &Inputs) {
    let mut last = None;
    let mut failed = String::new();
    loop {
        match node::addresses() {
            Ok(addresses) if last.as_ref() != Some(&addresses) => {
                let mut changes = vec![Change::NodeAddresses(addresses.clone())];
                if last.is_none() {
                    changes.push(Change::Synced(SourceKind::Node));
                }
                last = Some(addresses);
                if inputs.send(Input::Changes(changes)).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => {
                let error = error.to_string();
                if error != failed {
                    warn!(
                        error,
                        "cannot read this node's addresses; keeping the last ones"
                    );
                    failed = error;
                }
            }
        }
        thread::sleep(ADDRESSES);
    }
}

fn lock(state_dir: &Path) -> anyhow::Result<Flock<File>> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)
        .with_context(|| format!("cannot make the folder {}", state_dir.display()))?;
    let path = state_dir.join("agent.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        anyhow::anyhow!(
            "{} is held by another berth-agent ({error}); stop it first, or give this one another \
             --state-dir",
            path.display()
        )
    })
}

/// Where cgroup2 is mounted; on hosts with both versions it is not
/// /sys/fs/cgroup.
fn cgroup2_mount(mountinfo: &Path) -> anyhow::Result<PathBuf> {
    let text = std::fs::read_to_string(mountinfo)
        .with_context(|| format!("cannot read {}", mountinfo.display()))?;
    for line in text.lines() {
        // "... 4: root, 5: mount point ... - type source options" (proc(5))
        let Some((mount, kind)) = line.split_once(" - ") else {
            continue;
        };
        if kind.starts_with("cgroup2 ")
            && let Some(point) = mount.split(' ').nth(4)
        {
            return Ok(PathBuf::from(point));
        }
    }
    bail!("cgroup2 is not mounted; run `mount -t cgroup2 none /sys/fs/cgroup/unified`")
}
