//! `berth-kube`: the same for people. See `--help`.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use berth_kube::{
    ApiServer, ControllerManager, Options, Place, Program, Scheduler, available, binaries,
};
use clap::{Args, Parser, Subcommand};
use nix::sys::signal::{SigSet, Signal};

/// A real Kubernetes API server for trying things out.
///
/// The programs are built from Kubernetes' published Go modules the first time
/// (minutes, with Go 1.24 or later) and kept in ~/.cache/berth/kube, or in
/// $BERTH_CACHE_DIR/kube. etcd is Debian's (etcd-server).
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
    berth-kube build                     build everything now\n  \
    berth-kube build kubelet kube-proxy  build these two\n  \
    berth-kube up                        start an API server, in the foreground\n  \
    berth-kube up --controllers          ... with Deployments, EndpointSlices and so on\n  \
    berth-kube path kubectl              where kubectl is"
)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build programs that have not been built yet, and say how long it took.
    Build {
        /// Which, by name; without any, all.
        #[arg(value_parser = program)]
        programs: Vec<Program>,
    },
    /// Start etcd and kube-apiserver, print the path of an administrator's
    /// kubeconfig, and run until Ctrl-C. Everything is removed then.
    Up(Up),
    /// Print where a program is; it must have been built.
    Path {
        /// Which, by name.
        #[arg(value_parser = program)]
        program: Program,
    },
}

#[derive(Debug, Args)]
struct Up {
    /// Network namespace file to run in, such as /run/netns/NAME.
    #[arg(long, value_name = "FILE", requires = "address")]
    netns: Option<PathBuf>,
    /// Address to listen on; in --netns it is added to the interface that is
    /// on its subnet, if it is missing.
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// Run kube-controller-manager too; pods then need service accounts, which
    /// it makes.
    #[arg(long)]
    controllers: bool,
    /// Run kube-scheduler too.
    #[arg(long)]
    scheduler: bool,
}

fn program(name: &str) -> Result<Program, String> {
    Program::from_name(name).ok_or_else(|| {
        let all: Vec<_> = Program::ALL.iter().map(|program| program.name()).collect();
        format!("there is {}", all.join(", "))
    })
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Verb::Build { programs } => build(&programs),
        Verb::Up(up) => run(up),
        Verb::Path { program } => {
            println!("{}", binaries::find(program)?.display());
            Ok(())
        }
    }
}

fn build(programs: &[Program]) -> Result<()> {
    let all = Program::ALL;
    let wanted = if programs.is_empty() { &all } else { programs };
    let built = binaries::ensure(wanted)?;
    println!(
        "Kubernetes {} in {}: {} built now, {} were there",
        binaries::kubernetes_version(),
        binaries::folder()?.display(),
        built.len(),
        wanted.len() - built.len()
    );
    Ok(())
}

fn run(up: Up) -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    // Before there is a second thread, so that it holds for all of them.
    signals.thread_block().context("block Ctrl-C")?;
    available()?;
    let server = ApiServer::start(Options {
        place: Place {
            netns: up.netns,
            address: up.address,
        },
        service_accounts: up.controllers,
        ..Options::default()
    })?;
    eprintln!(
        "kube-apiserver {} on {}, ready after {:.1} s; Ctrl-C ends it",
        binaries::kubernetes_version(),
        server.url(),
        server.took().as_secs_f32()
    );
    let controllers = up
        .controllers
        .then(|| ControllerManager::start(&server))
        .transpose()?;
    let scheduler = up
        .scheduler
        .then(|| Scheduler::start(&server))
        .transpose()?;
    println!("{}", server.kubeconfig().display());
    signals.wait().context("wait for Ctrl-C")?;
    drop((controllers, scheduler));
    Ok(())
}
