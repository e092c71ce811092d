//! The lab's machines: nodes with the programs under test, and legacy VMs.

use std::fs;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::programs::{Program, Readiness};
use super::{COMPANY_ZONE, DNS_SERVICE, NETWORK};
use crate::ground::enter::Place;
use crate::ground::record::Record;
use crate::ground::wire::Wire;
use crate::ground::{cgroup, mounts, netns};
use crate::kubelet::cni::Plugin;
use crate::kubelet::sandbox::{NodePlace, log_to};
use crate::probe::Probe;

/// The binaries that a lab runs.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    pub(super) lab: PathBuf,
    pub(super) cni: PathBuf,
    pub(super) agent: Option<PathBuf>,
    pub(super) dns: Option<PathBuf>,
}

/// A node. What a [`Probe`] can do, a process on the node can:
/// `node.tcp("10.20.0.57:8080")`.
#[derive(Debug)]
pub struct Node {
    agent: Mutex<Option<Program>>,
    dns: Mutex<Option<Program>>,
    probe: Probe,
    place: NodePlace,
    host: Place,
    binaries: Binaries,
    objects: PathBuf,
    folder: PathBuf,
}

impl Node {
    pub(super) fn create(
        number: usize,
        record: &Record,
        wire: &Wire,
        binaries: &Binaries,
        objects: &Path,
    ) -> Result<Self> {
        let name = format!("node{number}");
        let address = address(10 + number)?;
        let netns = format!("{}{name}", record.prefix());
        wire.attach(&netns, &name, address)?;
        netns::write_resolv_conf(&netns, &format!("nameserver {address}\n"))?;
        let cgroup = cgroup::of_lab(&record.name)?.join(&name);
        let host = Place {
            cgroup: Some(cgroup.join("host")),
            netns: Some(netns::path(&netns)),
            resolv_conf: Some(netns::resolv_conf(&netns)),
        };
        cgroup::create(&cgroup.join("host"))?;
        cgroup::create(&cgroup.join("pods"))?;
        let folder = record.folder.join(&name);
        let logs = folder.join("pods");
        fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
        if binaries.agent.is_some() {
            mounts::mount_bpffs(&folder.join("bpf"))?;
        }
        let config = json!({
            "type": "berth",
            "capabilities": {
                "io.kubernetes.cri.pod-annotations": true, "ips": true, "mac": true,
                "portMappings": true, "bandwidth": true,
            },
            "mode": "embedded",
            "folder": objects,
            "database": record.folder.join("ipam.db"),
            "stateDir": folder.join("cni"),
            "nodeName": name,
        });
        // The plugin has no use for the node's resolver, and a mount namespace
        // for each call costs more than the call.
        let plugin = Plugin {
            lab: binaries.lab.clone(),
            binary: binaries.cni.clone(),
            place: Place {
                resolv_conf: None,
                ..host.clone()
            },
            config,
        };
        let probe = client(&name, &host, &binaries.lab, &folder.join("client.log"))?;
        Ok(Self {
            agent: Mutex::default(),
            dns: Mutex::default(),
            probe,
            place: NodePlace {
                name,
                address,
                netns,
                cgroup,
                prefix: record.prefix(),
                logs,
                dns: DNS_SERVICE,
                plugin,
            },
            host,
            binaries: binaries.clone(),
            objects: objects.to_owned(),
            folder,
        })
    }

    /// `node1`, ...
    #[must_use]
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// Its address on the wire.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.place.address
    }

    /// The name of its network namespace, for `ip netns exec`.
    #[must_use]
    pub fn netns(&self) -> &str {
        &self.place.netns
    }

    /// Its cgroup: `host` below it is the node's own processes, `pods/UID` a
    /// pod's.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.place.cgroup
    }

    /// Its folder: logs, the agent's socket and state, its bpf file system.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The agent's socket.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.folder.join("agent.sock")
    }

    /// The logs of the programs under test.
    pub fn logs(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let logs = [
            self.binaries.agent.as_ref().map(|_| self.log("agent")),
            self.binaries.dns.as_ref().map(|_| self.log("dns")),
        ];
        logs.into_iter().flatten()
    }

    /// A command that will run on the node, outside of any pod.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        self.host.command(&self.binaries.lab, program)
    }

    pub(super) fn place(&self) -> &NodePlace {
        &self.place
    }

    /// Starts the agent and waits until it is ready.
    ///
    /// # Errors
    /// If it runs already, ends, or does not become ready.
    pub fn start_agent(&self) -> Result<()> {
        self.launch_agent()?;
        self.wait_agent()
    }

    /// Kills the agent (SIGKILL): its maps and programs stay in the kernel.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill_agent(&self) -> Result<()> {
        kill(&self.agent, "agent", self.name())
    }

    /// Kills the DNS server (SIGKILL).
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill_dns(&self) -> Result<()> {
        kill(&self.dns, "DNS server", self.name())
    }

    pub(super) fn launch_agent(&self) -> Result<()> {
        let Some(binary) = &self.binaries.agent else {
            return Ok(());
        };
        let mut command = self.command(binary);
        command
            .arg("run")
            .args(["--node-name", self.name()])
            .arg("--folder")
            .arg(&self.objects)
            .arg("--cgroup-root")
            .arg(self.cgroup())
            .arg("--bpffs")
            .arg(self.folder.join("bpf"))
            .arg("--state-dir")
            .arg(self.folder.join("agent"))
            .arg("--socket")
            .arg(self.agent_socket())
            .args(["--log-format", "text"]);
        let readiness = Readiness::Http(self.agent_socket());
        self.launch(&self.agent, "agent", &mut command, readiness)
    }

    /// Starts the DNS server; [`Node::wait_dns`] waits for it.
    pub(super) fn launch_dns(&self) -> Result<()> {
        let Some(binary) = &self.binaries.dns else {
            return Ok(());
        };
        let ready = self.folder.join("dns.ready");
        let mut command = self.command(binary);
        command
            .arg("--folder")
            .arg(&self.objects)
            .args(["--listen", &format!("{}:53", self.address())])
            .args(["--zone", "cluster.local"])
            .args([
                "--company-zone",
                &format!("{COMPANY_ZONE}={{service}}-{{namespace}}"),
            ])
            .arg("--ready-file")
            .arg(&ready);
        self.launch(&self.dns, "dns", &mut command, Readiness::File(ready))
    }

    pub(super) fn wait_agent(&self) -> Result<()> {
        wait(&self.agent)
    }

    pub(super) fn wait_dns(&self) -> Result<()> {
        wait(&self.dns)
    }

    fn launch(
        &self,
        slot: &Mutex<Option<Program>>,
        what: &str,
        command: &mut Command,
        readiness: Readiness,
    ) -> Result<()> {
        let name = format!("berth-{what} on {}", self.name());
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() {
            bail!("{name} runs already");
        }
        *slot = Some(Program::start(&name, command, readiness, &self.log(what))?);
        Ok(())
    }

    fn log(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{what}.log"))
    }
}

impl Deref for Node {
    type Target = Probe;

    fn deref(&self) -> &Probe {
        &self.probe
    }
}

/// A legacy VM: a machine on the wire that knows nothing of Kubernetes, with
/// node 1's DNS server as its resolver.
#[derive(Debug)]
pub struct Vm {
    probe: Probe,
    name: String,
    address: Ipv4Addr,
    netns: String,
}

impl Vm {
    pub(super) fn create(
        number: usize,
        record: &Record,
        wire: &Wire,
        binaries: &Binaries,
    ) -> Result<Self> {
        let name = format!("vm{number}");
        let address = address(4 + number)?;
        let netns = format!("{}{name}", record.prefix());
        wire.attach(&netns, &name, address)?;
        let resolver = self::address(11)?;
        let resolv_conf = netns::write_resolv_conf(&netns, &format!("nameserver {resolver}\n"))?;
        let cgroup = cgroup::of_lab(&record.name)?.join(&name);
        cgroup::create(&cgroup)?;
        let place = Place {
            cgroup: Some(cgroup),
            netns: Some(netns::path(&netns)),
            resolv_conf: Some(resolv_conf),
        };
        let log = record.folder.join(format!("{name}.log"));
        Ok(Self {
            probe: client(&name, &place, &binaries.lab, &log)?,
            name,
            address,
            netns,
        })
    }

    /// `vm1`, ...
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the wire.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The name of its network namespace, for `ip netns exec`.
    #[must_use]
    pub fn netns(&self) -> &str {
        &self.netns
    }
}

impl Deref for Vm {
    type Target = Probe;

    fn deref(&self) -> &Probe {
        &self.probe
    }
}

fn client(name: &str, place: &Place, lab: &Path, log: &PathBuf) -> Result<Probe> {
    let mut command = place.command(lab, lab);
    command.arg("client");
    log_to(&mut command, log)?;
    Probe::start(name, &mut command)
}

fn kill(slot: &Mutex<Option<Program>>, what: &str, node: &str) -> Result<()> {
    let taken = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    taken
        .with_context(|| format!("no {what} runs on {node}"))?
        .kill()
}

fn wait(slot: &Mutex<Option<Program>>) -> Result<()> {
    match &mut *slot.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(program) => program.wait_ready(),
        None => Ok(()),
    }
}

/// The address with this number in the wire's network.
fn address(number: usize) -> Result<Ipv4Addr> {
    u32::try_from(number)
        .ok()
        .and_then(|number| NETWORK.nth(number))
        .with_context(|| format!("{NETWORK} has no address number {number}"))
}
