//! `berth-lab`: the lab's own program. People use `demo` and `sweep`; the
//! other commands are how the lab starts things inside of nodes, pods and VMs.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use berth_lab::demo;
use berth_lab::ground::enter::Place;
use berth_lab::ground::record;
use berth_lab::probe::echo::{Name, Port};
use berth_lab::probe::serve::serve;
use clap::{Parser, Subcommand};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// A lab of nodes, pods and legacy VMs in network namespaces.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs manifests on two nodes beside a legacy VM, shows what is there,
    /// and checks that it works.
    Demo {
        /// Kubernetes manifests; without any, the demo's own example.
        manifests: Vec<PathBuf>,
        /// How many nodes.
        #[arg(long, default_value_t = 2)]
        nodes: usize,
        /// Leave the lab running until Ctrl-C.
        #[arg(long)]
        keep: bool,
    },
    /// Removes what crashed labs have left behind.
    Sweep,
    /// Runs a program in a cgroup, a network namespace, with a resolv.conf.
    Exec {
        /// cgroup to join.
        #[arg(long)]
        cgroup: Option<PathBuf>,
        /// Network namespace file to enter, such as /run/netns/NAME.
        #[arg(long)]
        netns: Option<PathBuf>,
        /// File to show as /etc/resolv.conf.
        #[arg(long)]
        resolv_conf: Option<PathBuf>,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// The process of a pod: echo server, and client on request.
    Pod {
        /// namespace/name of the pod.
        #[arg(long)]
        name: String,
        /// The node it runs on.
        #[arg(long)]
        node: String,
        /// Port to answer on, such as TCP:8080.
        #[arg(long = "port")]
        ports: Vec<Port>,
    },
    /// What an interrupted demo turns into: removes the labs of this process.
    End {
        /// Exit code.
        #[arg(long)]
        code: u8,
    },
    /// A client on a node or a VM: does what JSON lines on stdin ask.
    Client,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("berth-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Takes leave of the children that have ended: not every machine has an init
/// that does.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}

fn run() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Demo {
            manifests,
            nodes,
            keep,
        } => {
            return demo::run(&demo::Options {
                manifests,
                nodes,
                keep,
            });
        }
        Command::Sweep => {
            for name in record::sweep()? {
                println!("removed what lab {name} had left");
            }
        }
        Command::End { code } => {
            record::remove_own().context("`berth-lab sweep` tries again")?;
            reap();
            return Ok(ExitCode::from(code));
        }
        Command::Exec {
            cgroup,
            netns,
            resolv_conf,
            command,
        } => Place {
            cgroup,
            netns,
            resolv_conf,
        }
        .exec(&command)?,
        Command::Pod { name, node, ports } => {
            let pod = name.clone();
            serve(&Name { pod, node }, &ports).with_context(|| format!("pod {name}"))?;
        }
        Command::Client => {
            let name = Name {
                pod: String::new(),
                node: String::new(),
            };
            serve(&name, &[])?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
