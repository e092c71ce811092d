//! The other programs of a cluster, each started beside an [`ApiServer`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::apiserver::ApiServer;
use crate::binaries::{self, Program};
use crate::client::Client;
use crate::place::{Place, Port};
use crate::process::Process;

const READY_WITHIN: Duration = Duration::from_secs(120);

/// kube-controller-manager: Deployments, StatefulSets, EndpointSlices, garbage
/// collection and the rest. Dropping it ends it.
#[derive(Debug)]
pub struct ControllerManager {
    process: Process,
    _port: Port,
}

impl ControllerManager {
    /// Starts it with all controllers, after building it if need be, and waits
    /// until it is healthy.
    ///
    /// # Errors
    /// If it cannot be built, or is not healthy after two minutes.
    pub fn start(server: &ApiServer) -> Result<Self> {
        Self::start_with(server, &[])
    }

    /// As [`Self::start`], with more arguments; they win over ours.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(server: &ApiServer, arguments: &[&str]) -> Result<Self> {
        let program = Program::KubeControllerManager;
        let user = "system:kube-controller-manager";
        let (process, port) = start_served(server, program, user, |command| {
            command
                .arg("--service-account-private-key-file=tokens.key")
                .arg("--root-ca-file=ca.crt")
                // Each controller has rights of its own; together they have few.
                .arg("--use-service-account-credentials=true")
                .args(arguments);
        })?;
        Ok(Self {
            process,
            _port: port,
        })
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// kube-scheduler. Dropping it ends it.
#[derive(Debug)]
pub struct Scheduler {
    process: Process,
    _port: Port,
}

impl Scheduler {
    /// Starts it, after building it if need be, and waits until it is healthy.
    ///
    /// # Errors
    /// If it cannot be built, or is not healthy after two minutes.
    pub fn start(server: &ApiServer) -> Result<Self> {
        let program = Program::KubeScheduler;
        let (process, port) = start_served(server, program, "system:kube-scheduler", |_| {})?;
        Ok(Self {
            process,
            _port: port,
        })
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// Starts a program that serves `/healthz` over TLS, beside the API server.
fn start_served(
    server: &ApiServer,
    program: Program,
    user: &str,
    add: impl FnOnce(&mut Command),
) -> Result<(Process, Port)> {
    binaries::ensure(&[program])?;
    let kubeconfig = server.kubeconfig_of(user, None)?;
    // Its health is for us alone; the address has to be there in any namespace.
    let place = Place {
        netns: server.place().netns.clone(),
        address: Ipv4Addr::LOCALHOST.into(),
    };
    let port = place.reserve_port()?;
    let address = port.address()?;
    let mut command = place.bound_command(binaries::find(program)?);
    command
        .current_dir(server.folder())
        .arg(flag("--kubeconfig", &kubeconfig))
        .arg("--leader-elect=false")
        .arg("--profiling=false")
        .arg(format!("--bind-address={}", address.ip()))
        .arg(format!("--secure-port={}", address.port()))
        .arg("--permit-port-sharing=true")
        .args([
            "--tls-cert-file=server.crt",
            "--tls-private-key-file=server.key",
        ]);
    add(&mut command);
    let log = server.folder().join(format!("{}.log", program.name()));
    let client = Client::new(&place, address, &server.authority, server.admin())?;
    let mut process = Process::start(program.name(), command, &log)?;
    process.wait_ready(READY_WITHIN, || client.get("/healthz").map(drop))?;
    Ok((process, port))
}

/// How kube-proxy translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// nftables.
    Nftables,
    /// iptables.
    Iptables,
}

/// Which node kube-proxy serves, and how.
#[derive(Clone, Debug)]
pub struct KubeProxyOptions {
    /// The node's name. Without a Node object, see [`ApiServer::add_node`],
    /// kube-proxy looks for it for half a minute before it starts.
    pub node_name: String,
    /// The node's namespace, and its address, from which it must reach the API
    /// server.
    pub place: Place,
    /// How it translates.
    pub mode: ProxyMode,
    /// More arguments; they win over ours.
    pub arguments: Vec<String>,
}

/// kube-proxy on one node. Dropping it ends it; its rules stay in the node's
/// namespace, as they do when it crashes.
#[derive(Debug)]
pub struct KubeProxy {
    process: Process,
}

impl KubeProxy {
    /// Starts it, after building it if need be, and waits until it has written
    /// its rules for the first time.
    ///
    /// # Errors
    /// If it cannot be built, or is not ready after two minutes.
    pub fn start(server: &ApiServer, options: &KubeProxyOptions) -> Result<Self> {
        binaries::ensure(&[Program::KubeProxy])?;
        let kubeconfig = server.kubeconfig_of("system:kube-proxy", None)?;
        let mode = match options.mode {
            ProxyMode::Nftables => "nftables",
            ProxyMode::Iptables => "iptables",
        };
        let place = &options.place;
        let health = SocketAddr::new(place.address, 10256);
        let metrics = SocketAddr::new(place.address, 10249);
        let mut command = place.bound_command(binaries::find(Program::KubeProxy)?);
        command
            .current_dir(server.folder())
            .arg(flag("--kubeconfig", &kubeconfig))
            .arg(format!("--proxy-mode={mode}"))
            .arg(format!("--hostname-override={}", options.node_name))
            .arg(format!("--bind-address={}", wildcard(place.address)))
            .arg(format!("--healthz-bind-address={health}"))
            .arg(format!("--metrics-bind-address={metrics}"))
            // The table of connections is the machine's, not the namespace's.
            .args(["--conntrack-max-per-core=0", "--conntrack-min=0"])
            .args(&options.arguments);
        let log = server
            .folder()
            .join(format!("kube-proxy-{}.log", options.node_name));
        let mut process = Process::start("kube-proxy", command, &log)?;
        process.wait_ready(READY_WITHIN, || {
            let text = Client::get_plain(place, metrics, "/metrics")?;
            has_synced(&text).context("it has written no rules yet")
        })?;
        Ok(Self { process })
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// Whether a sync has succeeded, as kube-proxy's metrics tell it.
fn has_synced(metrics: &str) -> Option<()> {
    metrics
        .lines()
        .filter(|line| line.starts_with("kubeproxy_sync_proxy_rules_last_timestamp_seconds"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .any(|seconds| seconds > 0.0)
        .then_some(())
}

fn wildcard(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn flag(name: &str, path: &Path) -> std::ffi::OsString {
    let mut flag = std::ffi::OsString::from(name);
    flag.push("=");
    flag.push(path);
    flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_is_one_that_has_a_time() {
        let name = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";
        assert_eq!(has_synced(&format!("# HELP {name} x\n{name} 0\n")), None);
        let text = format!("{name}{{ip_family=\"IPv4\"}} 1.7e+09\n");
        assert_eq!(has_synced(&text), Some(()));
    }
}
