//! `berth-dns`: the command line, start and end. Everything else is the
//! library's.
#![forbid(unsafe_code)]

use std::fs;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use berth_dns::dump::dump;
use berth_dns::feed::Feed;
use berth_dns::forward::{Forwarder, Timing, UpstreamSpec};
use berth_dns::name::Name;
use berth_dns::resolve::Resolver;
use berth_dns::server::Server;
use berth_dns::zone::{CompanyZone, Config, Zones};
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// The node's DNS server: the cluster's names, the company's names for the
/// same Services and pods, and forwarding of everything else.
///
/// It reads Namespaces, Nodes, Pods, Services and EndpointSlices from a folder
/// of ordinary Kubernetes YAML and follows every change in it. An object that
/// is wrong rejects only itself, with a warning on stderr.
///
/// Who asks decides what a company name answers: a pod, a node and this
/// machine get the Service's ClusterIP; anybody else, such as a legacy VM, gets
/// the addresses of its ready pods.
#[derive(Parser, Debug)]
#[command(version, after_help = EXAMPLES)]
struct Args {
    /// The folder of Kubernetes YAML to serve.
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,

    /// An address and port to answer on, over UDP and TCP; may be given several
    /// times. Name each address: answers then come from the one that was asked.
    #[arg(long, value_name = "ADDR:PORT", required_unless_present = "dump")]
    listen: Vec<SocketAddr>,

    /// The cluster's own zone.
    #[arg(long, value_name = "ZONE", default_value = "cluster.local")]
    zone: String,

    /// A company zone, and how a Service's name in it is made from {service}
    /// and {namespace}; may be given several times. A pod with a hostname is
    /// found below its Service's name. The annotation berth.dev/hostname on a
    /// Service or Pod overrides the template.
    #[arg(long, value_name = "ZONE=TEMPLATE")]
    company_zone: Vec<CompanyZone>,

    /// A server to ask for all other names, or, with ZONE= in front, for the
    /// names of that zone; may be given several times. They are asked in order,
    /// the next one when one is silent. Without any, other names are refused.
    #[arg(long, value_name = "[ZONE=]ADDR:PORT")]
    upstream: Vec<UpstreamSpec>,

    /// Seconds for which clients may keep an answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    ttl: u32,

    /// Threads, and sockets, for each --listen; 0 means one for each core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,

    /// A file to create once the sockets are bound and the folder has been read
    /// in full, and to remove at the end.
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,

    /// How to write the log, which goes to stderr. RUST_LOG sets its level.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,

    /// Print every name and answer that follows from the folder, and end.
    #[arg(long)]
    dump: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

const EXAMPLES: &str = "\
Examples:
  Serve a folder on a port that needs no root, and ask it:
    berth-dns --folder objects --listen 127.0.0.1:5300
    dig @127.0.0.1 -p 5300 frontend.default.svc.cluster.local

  With company names for legacy VMs, and the rest from the company's servers:
    berth-dns --folder objects --listen 10.20.0.11:53 \\
        --company-zone 'apps.corp.example={service}-{namespace}' \\
        --upstream 10.0.0.2:53 --upstream 10.0.0.3:53

  See what would be answered, without a server:
    berth-dns --folder objects --company-zone 'apps.corp.example={service}' --dump";

fn main() -> Result<()> {
    let args = Args::parse();
    start_log(args.log_format);
    let cluster = Name::parse(&args.zone).context("--zone")?;
    let mut config = Config::new(cluster, args.company_zone.clone(), args.ttl)?;
    let listens = args.listen.iter().map(SocketAddr::ip);
    config.server_addresses = listens.filter(|ip| !ip.is_unspecified()).collect();
    config.server_addresses.sort();
    config.server_addresses.dedup();
    if !args.folder.is_dir() {
        bail!(
            "--folder {}: is not a folder; create it, or name the one that holds the YAML",
            args.folder.display()
        );
    }
    let zones = Zones::new(config);
    let tables = Arc::new(ArcSwap::new(zones.table()));
    if args.dump {
        feed(&args, zones, &tables)?;
        print!("{}", dump(&tables.load()));
        return Ok(());
    }
    serve(&args, zones, tables)
}

fn feed(args: &Args, zones: Zones, tables: &Arc<ArcSwap<berth_dns::zone::Table>>) -> Result<Feed> {
    Feed::start(args.folder.clone(), zones, Arc::clone(tables))
        .with_context(|| format!("cannot read the folder {}", args.folder.display()))
}

fn serve(args: &Args, zones: Zones, tables: Arc<ArcSwap<berth_dns::zone::Table>>) -> Result<()> {
    let ready = args.ready_file.as_deref().map(ReadyFile::new).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // Before the first answer, so that no signal is lost.
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?,
            signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?,
        )
    };
    let resolver = Resolver {
        tables: Arc::clone(&tables),
        forwarder: Forwarder::new(&args.upstream, Timing::default()),
    };
    let threads = match args.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    // Bound first: until the folder has been read the answer is SERVFAIL, with
    // which clients ask again or elsewhere.
    let server = Server::start(runtime.handle(), &args.listen, threads, &resolver)?;
    let feed = feed(args, zones, &tables)?;
    if let Some(ready) = &ready {
        ready.create()?;
    }
    info!(addresses = ?server.addresses(), threads, "serving");
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    info!("ending");
    drop(ready);
    drop(feed);
    drop(server);
    runtime.shutdown_background();
    Ok(())
}

fn start_log(format: LogFormat) {
    let level = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(level)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// A file that is there while we are ready.
struct ReadyFile(PathBuf);

impl ReadyFile {
    /// One that an earlier run left would be a lie.
    fn new(path: &Path) -> Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("--ready-file {}", path.display()))
            }
            _ => Ok(Self(path.to_owned())),
        }
    }

    fn create(&self) -> Result<()> {
        fs::write(&self.0, "").with_context(|| {
            let path = self.0.display();
            format!("--ready-file {path}: cannot be created; make its folder")
        })
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
