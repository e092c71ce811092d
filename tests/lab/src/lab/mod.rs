//! A whole lab: built, running, changed, removed on drop.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let lab = berth_lab::Lab::builder().nodes(2).vms(1).manifest("shop.yaml").start()?;
//! let answer = lab.pod("default/web")?.tcp("cache:6379")?;
//! assert_eq!(answer.echo.pod, "default/cache-0");
//! # Ok(())
//! # }
//! ```

mod builder;
mod machine;
mod objects;
mod pod;
pub mod programs;
mod settle;
mod store;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use ipnetwork::Ipv4Network;
use serde_json::Value;

pub use builder::{Event, LabBuilder};
pub use machine::{Node, Vm};
pub use pod::Pod;
use settle::{Beacon, Programs};
pub use store::Store;

use crate::controllers::slices::{Running, open_ports, slices};
use crate::controllers::{PodPlan, Service, names};
use crate::ground::record::Record;
use crate::ground::wire::Wire;
use crate::kubelet::object::{self, Status};
use crate::kubelet::sandbox::Sandbox;

/// The wire's network; the first address is the router's.
pub const NETWORK: Ipv4Network =
    Ipv4Network::new_checked(Ipv4Addr::new(10, 20, 0, 1), 24).expect("24 is at most 32");
/// ClusterIPs.
pub const SERVICES: Ipv4Network =
    Ipv4Network::new_checked(Ipv4Addr::new(10, 96, 0, 0), 16).expect("16 is at most 32");
/// The cluster's DNS Service.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The zone of the company's names.
pub const COMPANY_ZONE: &str = "apps.corp.example";

/// A running lab. Dropping it removes everything that it made.
#[derive(Debug)]
pub struct Lab {
    // Fields are dropped in this order: processes before what they run in.
    pods: Mutex<BTreeMap<String, Arc<Pod>>>,
    vms: Vec<Vm>,
    nodes: Vec<Node>,
    services: Vec<Service>,
    beacon: Beacon,
    programs: Programs,
    store: Store,
    warnings: Mutex<Vec<String>>,
    failed_pods: Mutex<Vec<String>>,
    publish: Mutex<()>,
    _wire: Wire,
    record: Record,
}

impl Lab {
    /// A lab to be described.
    #[must_use]
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    /// The lab's name, which is in the names of all that it makes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// The lab's folder: logs, sockets, the database, the objects.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.record.folder
    }

    /// The folder of objects that stands in for the API server.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// All nodes, in order.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Node `number`, counted from 1.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    /// All VMs, in order.
    #[must_use]
    pub fn vms(&self) -> &[Vm] {
        &self.vms
    }

    /// VM `number`, counted from 1.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn vm(&self, number: usize) -> &Vm {
        &self.vms[number - 1]
    }

    /// The Services that the manifests have, in the order they were admitted.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// All running pods, ordered by name.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.lock().values().cloned().collect()
    }

    /// The pod called `namespace/name`, or the first whose name begins with
    /// that and a dash: `default/web` finds `default/web-5d4f-x2b9z`.
    ///
    /// # Errors
    /// If there is none.
    pub fn pod(&self, name: &str) -> Result<Arc<Pod>> {
        let pods = self.lock();
        let begins = format!("{name}-");
        pods.get(name)
            .or_else(|| {
                pods.values()
                    .find(|pod| pod.full_name().starts_with(&begins))
            })
            .cloned()
            .with_context(|| {
                let all: Vec<_> = pods.keys().map(String::as_str).collect();
                format!("no pod {name} is running; these are: {}", all.join(", "))
            })
    }

    /// The running pods behind a Service.
    #[must_use]
    pub fn pods_of(&self, service: &Service) -> Vec<Arc<Pod>> {
        let Some(selector) = &service.spec.selector else {
            return Vec::new();
        };
        let all = self.pods();
        all.into_iter()
            .filter(|pod| {
                pod.plan.namespace == service.namespace
                    && crate::controllers::shapes::selects(selector, &pod.plan.metadata.labels)
            })
            .collect()
    }

    /// What people should know about the manifests and the pods.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn warn(&self, what: String) {
        let warnings = self.warnings.lock();
        warnings.unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// The pods that did not start, each with the reason.
    #[must_use]
    pub fn failed_pods(&self) -> Vec<String> {
        self.failed_pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until every agent and DNS server serves what is in the folder now.
    /// The lab has settled when it is built; after a change, callers that
    /// depend on its effect call this.
    ///
    /// # Errors
    /// If one has not followed within 10 s, with what was seen instead.
    pub fn settle(&self) -> Result<()> {
        self.beacon.settle(&self.store, &self.nodes, self.programs)
    }

    /// Starts a pod; its Services' slices have it when this returns.
    ///
    /// # Errors
    /// What the plugin refused, or why the process does not start. The Pod
    /// object stays, pending, as it would in a cluster.
    pub fn start_pod(&self, plan: PodPlan) -> Result<Arc<Pod>> {
        let node = &self.nodes[plan.node];
        let uid = names::uid()?;
        let show = |status: Status| {
            let node_ip = IpAddr::V4(node.address());
            self.store
                .apply(&object::pod(&plan, &uid, node.name(), node_ip, status))
        };
        show(Status::default())?;
        let ports = open_ports(&plan, &self.services);
        let sandbox = Sandbox::start(node.place(), &plan, &uid, &ports)
            .with_context(|| format!("pod {} on {}", plan.full_name(), node.name()))?;
        show(Status {
            address: Some(sandbox.attached.address),
            ready: true,
        })?;
        let pod = Arc::new(Pod::new(plan, uid, node.name(), ports, sandbox));
        self.lock().insert(pod.full_name(), Arc::clone(&pod));
        self.publish_slices(&pod.plan)?;
        Ok(pod)
    }

    /// Deletes a pod: out of the endpoints first, then its process, sandbox
    /// and object. Returns what it was made from.
    ///
    /// # Errors
    /// If somebody still holds the pod, or the plugin refuses.
    pub fn delete_pod(&self, name: &str) -> Result<PodPlan> {
        let pod = {
            let mut pods = self.lock();
            let pod = pods
                .remove(name)
                .with_context(|| format!("no pod {name} is running"))?;
            match Arc::try_unwrap(pod) {
                Ok(pod) => pod,
                Err(pod) => {
                    pods.insert(name.to_owned(), pod);
                    bail!("pod {name} is still in use: drop what lab.pod() gave first");
                }
            }
        };
        self.publish_slices(&pod.plan)?;
        let (plan, sandbox) = pod.into_parts();
        let stopped = sandbox.stop(self.nodes[plan.node].place());
        self.store.remove("Pod", &plan.namespace, &plan.name)?;
        stopped.with_context(|| format!("delete pod {name}"))?;
        Ok(plan)
    }

    /// Deletes a StatefulSet's or bare pod and starts it again under the same
    /// name on node `number`, counted from 1.
    ///
    /// # Errors
    /// As [`Lab::delete_pod`] and [`Lab::start_pod`].
    pub fn move_pod(&self, name: &str, number: usize) -> Result<Arc<Pod>> {
        let mut plan = self.delete_pod(name)?;
        plan.node = number - 1;
        self.start_pod(plan)
    }

    /// Writes the slices of the Services that select `changed`.
    fn publish_slices(&self, changed: &PodPlan) -> Result<()> {
        // One at a time: an older list must not be written over a newer one.
        let _one = self.publish.lock().unwrap_or_else(PoisonError::into_inner);
        let pods = self.pods();
        let running: Vec<_> = pods
            .iter()
            .map(|pod| Running {
                plan: &pod.plan,
                uid: pod.uid(),
                address: pod.address(),
                node: pod.node(),
                zone: objects::ZONE,
                ready: true,
            })
            .collect();
        let selecting = self.services.iter().filter(|service| {
            service.namespace == changed.namespace
                && service.spec.selector.as_ref().is_some_and(|selector| {
                    crate::controllers::shapes::selects(selector, &changed.metadata.labels)
                })
        });
        for service in selecting {
            self.write_slices(service, &slices(service, &running))?;
        }
        Ok(())
    }

    fn write_slices(&self, service: &Service, slices: &[Value]) -> Result<()> {
        for slice in slices {
            self.store.apply(slice)?;
        }
        // Fewer than before: the last pod with another port number has gone.
        let mut index = slices.len();
        while self.store.remove(
            "EndpointSlice",
            &service.namespace,
            &format!("{}-{index}", service.name),
        )? {
            index += 1;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Pod>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last `lines` lines of every agent's and DNS server's log.
    #[must_use]
    pub fn log_tails(&self, lines: usize) -> String {
        let logs = self.nodes.iter().flat_map(Node::logs);
        logs.map(|log| programs::tail(&log, lines)).collect()
    }

    /// What agents and DNS servers warned about, each once, with the files of
    /// the lab's own folder replaced by the manifests they came from.
    #[must_use]
    pub fn program_warnings(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for log in self.nodes.iter().flat_map(Node::logs) {
            for line in programs::warnings(&log) {
                let line = self.store.with_sources(&line);
                if !found.contains(&line) {
                    found.push(line);
                }
            }
        }
        found
    }
}
