//! Describing a lab, and building it.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};

use super::machine::{Binaries, Node, Vm};
use super::objects;
use super::settle::{Beacon, Programs};
use super::store::Store;
use super::{Lab, NETWORK};
use crate::binaries;
use crate::controllers::{self, Manifests, PodPlan};
use crate::ground::record::Record;
use crate::ground::wire::Wire;
use crate::require;

/// Pods that are started at once: their starts wait for the kernel more than
/// for a processor.
const AT_ONCE: usize = 4;
/// Lines of each log that are told if the programs do not follow.
const TAIL: usize = 15;

/// Something that happens while a lab is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What is being done.
    Progress(String),
    /// What people should know; the lab goes on.
    Warning(String),
}

type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// A lab to be: two nodes, one VM, no manifests, agents and DNS servers, unless
/// something else is said.
#[derive(Clone)]
pub struct LabBuilder {
    nodes: usize,
    vms: usize,
    paths: Vec<PathBuf>,
    texts: Vec<(PathBuf, String)>,
    agent: bool,
    dns: bool,
    listener: Listener,
}

impl fmt::Debug for LabBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LabBuilder")
            .field("nodes", &self.nodes)
            .field("vms", &self.vms)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

impl Default for LabBuilder {
    fn default() -> Self {
        Self {
            nodes: 2,
            vms: 1,
            paths: Vec::new(),
            texts: Vec::new(),
            agent: true,
            dns: true,
            listener: Arc::new(|_| {}),
        }
    }
}

impl LabBuilder {
    /// How many nodes: 1 to 39 fit below the pods' addresses.
    #[must_use]
    pub fn nodes(mut self, count: usize) -> Self {
        self.nodes = count;
        self
    }

    /// How many legacy VMs: at most 6 fit below the nodes' addresses.
    #[must_use]
    pub fn vms(mut self, count: usize) -> Self {
        self.vms = count;
        self
    }

    /// A manifest to run.
    #[must_use]
    pub fn manifest(mut self, path: impl Into<PathBuf>) -> Self {
        self.paths.push(path.into());
        self
    }

    /// Manifests to run.
    #[must_use]
    pub fn manifests<P: Into<PathBuf>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.paths.extend(paths.into_iter().map(Into::into));
        self
    }

    /// A manifest to run, as text; `name` stands for its file in messages.
    #[must_use]
    pub fn yaml(mut self, name: &str, text: &str) -> Self {
        self.texts.push((PathBuf::from(name), text.to_owned()));
        self
    }

    /// No agents: Services do not work.
    #[must_use]
    pub fn without_agent(mut self) -> Self {
        self.agent = false;
        self
    }

    /// No DNS servers: names are not found.
    #[must_use]
    pub fn without_dns(mut self) -> Self {
        self.dns = false;
        self
    }

    /// Is told what happens while the lab is built.
    #[must_use]
    pub fn on_event(mut self, listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.listener = Arc::new(listener);
        self
    }

    /// Builds the lab; returns when every pod has started or been refused.
    ///
    /// # Errors
    /// If the lab itself cannot be built: no root, a program missing or not
    /// getting ready, a manifest that is not there. What is wrong inside of a
    /// manifest is in [`Lab::warnings`]; a pod that does not start is in
    /// [`Lab::failed_pods`].
    pub fn start(self) -> Result<Lab> {
        if !require::is_root() {
            bail!("a lab needs root: run it with sudo");
        }
        if !(1..=39).contains(&self.nodes) || self.vms > 6 {
            bail!("a lab has 1 to 39 nodes and at most 6 VMs");
        }
        let binaries = self.find_binaries()?;
        let manifests = self.read_manifests()?;

        self.say(format!("making {} nodes and {} VMs", self.nodes, self.vms));
        let record = Record::create()?;
        let store = Store::create(record.folder.join("objects"))?;
        let wire = Wire::create(&format!("{}wire", record.prefix()), NETWORK)?;
        let nodes = (1..=self.nodes)
            .map(|n| Node::create(n, &record, &wire, &binaries, store.folder()))
            .collect::<Result<Vec<_>>>()?;
        let vms = (1..=self.vms)
            .map(|n| Vm::create(n, &record, &wire, &binaries))
            .collect::<Result<Vec<_>>>()?;
        let beacon = Beacon::start(&record, &binaries.lab, NETWORK.ip())?;
        let mut lab = Lab {
            pods: Mutex::default(),
            vms,
            nodes,
            services: Vec::new(),
            beacon,
            programs: Programs {
                agent: self.agent,
                dns: self.dns,
            },
            store,
            warnings: Mutex::default(),
            failed_pods: Mutex::default(),
            publish: Mutex::default(),
            _wire: wire,
            record,
        };
        let pods = objects::write(&mut lab, &manifests, self.dns)?;
        for warning in lab.warnings() {
            (self.listener)(Event::Warning(warning));
        }

        self.say("starting agents and DNS servers".to_owned());
        for node in &lab.nodes {
            node.launch_agent()?;
            node.launch_dns()?;
        }
        for node in &lab.nodes {
            node.wait_agent()?;
            node.wait_dns()?;
        }
        self.say(format!("starting {} pods", pods.len()));
        self.start_pods(&lab, pods);
        lab.settle()
            .map_err(|error| anyhow!("{error:#}\n{}", lab.log_tails(TAIL)))?;
        Ok(lab)
    }

    fn find_binaries(&self) -> Result<Binaries> {
        let find_if = |wanted: bool, name| wanted.then(|| binaries::find(name)).transpose();
        Ok(Binaries {
            lab: binaries::find("berth-lab")?,
            cni: binaries::find("berth-cni")?,
            agent: find_if(self.agent, "berth-agent")?,
            dns: find_if(self.dns, "berth-dns")?,
        })
    }

    fn read_manifests(&self) -> Result<Manifests> {
        let mut files = Vec::new();
        for path in &self.paths {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("read the manifest {}", path.display()))?;
            files.push((path.clone(), text));
        }
        files.extend(self.texts.clone());
        Ok(controllers::read(&files))
    }

    fn start_pods(&self, lab: &Lab, pods: Vec<PodPlan>) {
        let queue = Mutex::new(pods.into_iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while let Some(plan) = next() {
                        if let Err(error) = lab.start_pod(plan) {
                            let text = lab.store.with_sources(&format!("{error:#}"));
                            let failed = lab.failed_pods.lock();
                            failed
                                .unwrap_or_else(PoisonError::into_inner)
                                .push(text.clone());
                            lab.warn(text.clone());
                            (self.listener)(Event::Warning(text));
                        }
                    }
                });
            }
        });
    }

    fn say(&self, what: String) {
        (self.listener)(Event::Progress(what));
    }
}
