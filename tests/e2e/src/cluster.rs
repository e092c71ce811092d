//! A node with a real API server: the agent in cluster mode, on a line that a
//! test can cut.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use berth_kube::{ApiServer, Options};
use berth_lab::ground::enter::Place;
use berth_lab::ground::netns;
use berth_lab::lab::Node;
use berth_lab::probe::Probe;
use berth_lab::{Lab, binaries};
use berth_netlink::{AddressFlags, Handle, Netns};

use crate::agent::{Agent, Home};
use crate::relay::Relay;

/// What the agent may do: the very file that is installed.
pub const RBAC: &str = include_str!("../../../manifests/rbac/agent.yaml");
/// As whom it does it.
pub const ACCOUNT: &str = "system:serviceaccount:kube-system:berth-agent";
/// The node's name, and its zone.
pub const NODE: &str = "node1";
const ZONE: &str = "east";

/// Services answer here: addresses of the node, all of them on port 8080.
pub const ENDPOINTS: [&str; 4] = ["10.20.0.21", "10.20.0.22", "10.20.0.23", "10.20.0.24"];
/// Nobody is here (RFC 5737).
pub const NOBODY: &str = "192.0.2.1";

/// How long a change may take to be seen: a watch that broke pauses for at
/// most 30 s before it is taken up again.
pub const WITHIN: Duration = Duration::from_secs(90);

/// The API server on loopback, the node in a namespace, and a relay between.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: whoever uses the lab before it.
    _echo: Probe,
    /// The line between the agent and the API server.
    pub relay: Relay,
    /// The API server.
    pub server: ApiServer,
    /// One node without an agent.
    pub lab: Lab,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// Starts everything but the agent.
    ///
    /// # Errors
    /// If a program is missing.
    pub fn start() -> Result<Self> {
        let lab = Lab::builder()
            .nodes(1)
            .vms(0)
            .without_agent()
            .without_dns()
            .start()?;
        let node = lab.node(1);
        let file = netns::path(node.netns());
        let handle = Handle::in_netns(&Netns::open(&file)?)?;
        let link = handle.link_by_name("eth0")?;
        for address in ENDPOINTS {
            let network = format!("{address}/24").parse()?;
            handle.add_address(link.index, network, AddressFlags::default())?;
        }
        let place = Place {
            cgroup: Some(node.cgroup().join("host")),
            netns: Some(file.clone()),
            resolv_conf: None,
        };
        let berth_lab = binaries::find("berth-lab")?;
        let mut command = place.command(&berth_lab, &berth_lab);
        command.args(["pod", "--name", "churn/echo", "--node", NODE]);
        let echo = Probe::start("the endpoints", command.args(["--port", "TCP:8080"]))?;

        let server = ApiServer::start(Options::default())?;
        server.apply(RBAC)?;
        server.add_node(NODE, IpAddr::V4(node.address()), Some(ZONE))?;
        let kubeconfig = server.kubeconfig_of(ACCOUNT, None)?;
        let relay = Relay::start(&file, server.address())?;
        Ok(Self {
            _echo: echo,
            relay,
            server,
            lab,
            kubeconfig,
        })
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        self.lab.node(1)
    }

    /// Starts the node's agent as its service account, and waits until it is
    /// ready.
    ///
    /// # Errors
    /// If it is not ready within 30 s.
    pub fn agent(&self) -> Result<Agent> {
        let home = Home::of(self.node())?;
        Agent::start(&home, &self.arguments(&self.kubeconfig))
    }

    /// Starts an agent of the same node with maps of its own and as another
    /// user, or the same.
    ///
    /// # Errors
    /// If it does not start.
    pub fn another_agent(&self, name: &str, kubeconfig: Option<&Path>) -> Result<Agent> {
        let home = Home::beside(&self.lab, self.node(), name)?;
        let kubeconfig = kubeconfig.unwrap_or(&self.kubeconfig);
        Agent::launch(&home, &self.arguments(kubeconfig))
    }

    fn arguments(&self, kubeconfig: &Path) -> [OsString; 4] {
        let line = format!("https://{}", self.relay.address());
        [
            "--kubeconfig".into(),
            kubeconfig.into(),
            "--apiserver".into(),
            line.into(),
        ]
    }
}
