//! A pod's sandbox: namespace, cgroup, attachment, process.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::cni::{Attached, Attachment, Plugin};
use crate::controllers::PodPlan;
use crate::ground::enter::Place;
use crate::ground::{cgroup, netns, random_hex};
use crate::probe::Probe;
use crate::probe::echo::Port;

/// The node that sandboxes are made on.
#[derive(Clone, Debug)]
pub struct NodePlace {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The name of its network namespace.
    pub netns: String,
    /// Its cgroup; pods are below `pods`.
    pub cgroup: PathBuf,
    /// What the names of the lab's namespaces begin with.
    pub prefix: String,
    /// Where logs go.
    pub logs: PathBuf,
    /// The cluster's DNS server, as pods are told.
    pub dns: Ipv4Addr,
    /// The CNI plugin of this node.
    pub plugin: Plugin,
}

/// A pod's sandbox with its running process.
#[derive(Debug)]
pub struct Sandbox {
    /// The name of its network namespace.
    pub netns: String,
    /// Where its processes run.
    pub place: Place,
    /// Address and MAC.
    pub attached: Attached,
    /// Its process.
    pub probe: Probe,
    attachment: Option<Attachment>,
    cgroup: PathBuf,
}

impl Sandbox {
    /// Makes a sandbox and starts the pod's process; returns when it listens
    /// on `ports`. What a failure leaves half made is taken down again.
    ///
    /// # Errors
    /// What the plugin refused, or why the process does not start.
    pub fn start(node: &NodePlace, plan: &PodPlan, uid: &str, ports: &[Port]) -> Result<Self> {
        let cgroup = node.cgroup.join("pods").join(uid);
        cgroup::create(&cgroup)?;
        if plan.spec.host_network {
            let attached = Attached {
                address: IpAddr::V4(node.address),
                mac: None,
            };
            return Self::run(
                node,
                plan,
                cgroup,
                node.netns.clone(),
                None,
                attached,
                ports,
            );
        }
        let name = format!("{}{}", node.prefix, &uid[..8]);
        netns::create(&name)?;
        netns::write_resolv_conf(&name, &pod_resolv_conf(node.dns, &plan.namespace))?;
        let attachment = Attachment {
            container_id: random_hex(32)?,
            netns: netns::path(&name),
            namespace: plan.namespace.clone(),
            name: plan.name.clone(),
            uid: uid.to_owned(),
            annotations: plan.metadata.annotations.clone(),
        };
        let undo = (attachment.clone(), cgroup.clone(), name.clone());
        let made = node.plugin.add(&attachment).and_then(|attached| {
            Self::run(node, plan, cgroup, name, Some(attachment), attached, ports)
        });
        if made.is_err() {
            // As containerd does after a failed start; its own failure would
            // hide the first one.
            let (attachment, cgroup, name) = undo;
            let _ = node.plugin.del(&attachment);
            let _ = cgroup::remove(&cgroup);
            let _ = netns::remove(&name);
        }
        made
    }

    fn run(
        node: &NodePlace,
        plan: &PodPlan,
        cgroup: PathBuf,
        netns: String,
        attachment: Option<Attachment>,
        attached: Attached,
        ports: &[Port],
    ) -> Result<Self> {
        let place = Place {
            cgroup: Some(cgroup.clone()),
            netns: Some(netns::path(&netns)),
            resolv_conf: Some(netns::resolv_conf(&netns)),
        };
        let mut command = place.command(&node.plugin.lab, &node.plugin.lab);
        command
            .arg("pod")
            .args(["--name", &plan.full_name(), "--node", &node.name]);
        for port in ports {
            command.args(["--port", &port.to_string()]);
        }
        let log = node
            .logs
            .join(format!("{}-{}.log", plan.namespace, plan.name));
        let what = format!("pod {}", plan.full_name());
        log_to(&mut command, &log)?;
        let probe = Probe::start(&what, &mut command).with_context(|| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            format!("{} says {:?}", log.display(), said.trim())
        })?;
        Ok(Self {
            netns,
            place,
            attached,
            probe,
            attachment,
            cgroup,
        })
    }

    /// Ends the pod's process, has the plugin take its interface away, and
    /// removes the sandbox.
    ///
    /// # Errors
    /// The first failure; the rest is done all the same.
    pub fn stop(self, node: &NodePlace) -> Result<()> {
        drop(self.probe);
        let ended = cgroup::remove(&self.cgroup);
        let Some(attachment) = &self.attachment else {
            return ended;
        };
        let detached = node.plugin.del(attachment);
        let removed = netns::remove(&self.netns);
        ended.and(detached).and(removed)
    }

    /// The sandbox's container ID; none for a pod in the node's namespace.
    #[must_use]
    pub fn container_id(&self) -> Option<&str> {
        self.attachment.as_ref().map(|a| a.container_id.as_str())
    }
}

/// Sends what a program says on stderr to `log`.
///
/// # Errors
/// If the file cannot be made.
pub fn log_to(command: &mut Command, log: &PathBuf) -> Result<()> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open {}", log.display()))?;
    command.stderr(Stdio::from(file));
    Ok(())
}

/// What kubelet writes for `dnsPolicy: ClusterFirst`.
fn pod_resolv_conf(dns: Ipv4Addr, namespace: &str) -> String {
    format!(
        "search {namespace}.svc.cluster.local svc.cluster.local cluster.local\n\
         nameserver {dns}\n\
         options ndots:5\n"
    )
}
