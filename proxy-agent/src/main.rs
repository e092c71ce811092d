//! `berth-agent`: the command line around the library's rooms.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use berth_agent::agent::{self, Controller, Input, Status};
use berth_agent::datapath::{self, KernelConfig, KernelDatapath};
use berth_agent::diff::Capacity;
use berth_agent::model::{Change, SourceKind};
use berth_agent::sockets::{LivePeers, Reaper, Tracker};
use berth_agent::{node, reflector};
use clap::{Args, Parser, Subcommand, ValueEnum};
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};
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
    let removed = datapath::cleanup(&options.bpffs)?;
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
    let cgroup_root = match &options.cgroup_root {
        Some(path) => path.clone(),
        None => cgroup2_mount(Path::new("/proc/self/mountinfo"))?,
    };
    info!(node = options.node_name, cgroup_root = %cgroup_root.display(), "starting");
    let datapath = KernelDatapath::open(&KernelConfig {
        cgroup_root,
        bpffs: options.bpffs.clone(),
        capacity: Capacity {
            frontends: options.max_frontends,
            slots: options.max_slots,
            backends: options.max_backends,
        },
    })?;
    let live = LivePeers::default();
    let (wake, woken) = mpsc::channel();
    let reaper = Reaper::new(datapath.connected()?, live.clone());
    let controller =
        Controller::new(datapath, &options.node_name)?.with_sockets(Tracker::new(live, wake));
    spawn("sockets", move || reaper.run(&woken))?;
    let status = Status::starting();
    let (inputs, received) = mpsc::channel();

    let told = status.clone();
    spawn("controller", move || {
        agent::run(controller, &received, &told)
    })?;
    let to_controller = inputs.clone();
    spawn("node", move || watch_addresses(&to_controller))?;
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

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let to_controller = inputs.clone();
        let cluster = async {
            if !is_cluster {
                return std::future::pending().await;
            }
            let (kubeconfig, apiserver) = (&options.kubeconfig, &options.apiserver);
            let client =
                reflector::kube::connect(kubeconfig.as_deref(), apiserver.as_deref()).await?;
            let tell = |changes| to_controller.send(Input::Changes(changes)).is_ok();
            reflector::kube::watch(client, &options.node_name, tell).await
        };
        tokio::select! {
            served = agent::serve(&options.socket, status, inputs) => served,
            watched = cluster => watched,
            Ok(error) = failure => Err(error),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
        .inspect(|()| info!("stopping; what is pinned goes on"))
    })
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

fn watch_addresses(inputs: &Sender<Input>) {
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
