//! Model, compile, diff and apply, one step at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use tracing::{debug, info, warn};

use super::udp::UdpPorts;
use crate::clients::Wanted;
use crate::compile::{Conflict, Desired, FrontendKey, Update, clients, compile};
use crate::datapath::{Datapath, DatapathError};
use crate::diff::{Op, Plan, Realized, Usage};
use crate::model::{Change, ClusterState, Dirty, Owner, SourceKind};
use crate::sockets::Tracker;

/// The agent's whole state, and the steps that move it.
#[derive(Debug)]
pub struct Controller<D> {
    node: String,
    state: ClusterState,
    dirty: Dirty,
    desired: Desired,
    realized: Realized,
    datapath: D,
    /// Frontends that are not as desired, and why; tried again each round.
    failing: BTreeMap<FrontendKey, String>,
    /// Addresses that two claim.
    conflicts: BTreeSet<String>,
    /// Every operation of the last round was done that there was room for.
    is_done: bool,
    is_started: bool,
    sockets: Tracker,
    clients_wanted: Wanted,
}

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Operations done.
    pub done: usize,
    /// Frontends that are not as desired.
    pub failing: usize,
}

impl<D: Datapath> Controller<D> {
    /// Starts from what the datapath holds.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn new(mut datapath: D, node: &str) -> Result<Self, DatapathError> {
        let dump = datapath.dump()?;
        info!(frontends = dump.frontends.len(), "read what the maps hold");
        let realized = Realized::restore(dump, datapath.capacity());
        Ok(Self {
            node: node.to_owned(),
            state: ClusterState::default(),
            dirty: Dirty::default(),
            desired: Desired::default(),
            realized,
            datapath,
            failing: BTreeMap::new(),
            conflicts: BTreeSet::new(),
            is_done: true,
            is_started: false,
            sockets: Tracker::default(),
            clients_wanted: Wanted::default(),
        })
    }

    /// Tells `sockets` from now on which UDP endpoints are alive.
    #[must_use]
    pub fn with_sockets(mut self, sockets: Tracker) -> Self {
        self.sockets = sockets;
        self
    }

    /// Says through `wanted` from now on whether namespaces have to be known.
    #[must_use]
    pub fn with_clients_wanted(mut self, wanted: Wanted) -> Self {
        self.clients_wanted = wanted;
        self
    }

    /// Takes changes in. Nothing is written before [`Self::sync`].
    pub fn take(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.state.apply(change, &mut self.dirty);
        }
    }

    /// Brings the maps to the desired state, as far as it is known. Before
    /// every source has been heard in full it does nothing: what the maps say
    /// from before is truer than half a list.
    pub fn sync(&mut self, now: Instant) -> SyncReport {
        if !self.state.is_synced() {
            return SyncReport::default();
        }
        let update = self.compile_dirty();
        let mut keys = update.touched;
        let plan = if self.is_started {
            keys.extend(self.failing.keys().copied());
            self.realized.plan(&self.desired, &keys)
        } else {
            self.realized.plan_all(&self.desired)
        };
        let plan = self.with_clients(plan);
        self.note_conflicts(&update.conflicts);
        let mut report = self.carry_out(plan, &keys, now);
        let mut chores = self.realized.reclaim(now);
        if !self.is_started {
            chores.extend(self.realized.sweep());
        }
        report.done += self.datapath.apply(&chores).len();
        self.start(&mut report);
        report
    }

    /// Compares everything with everything: for what a lost event left behind.
    pub fn prune(&mut self, now: Instant) -> SyncReport {
        if !self.is_started {
            return SyncReport::default();
        }
        self.dirty.all = true;
        let update = self.compile_dirty();
        self.note_conflicts(&update.conflicts);
        let plan = self.realized.plan_all(&self.desired);
        let plan = self.with_clients(plan);
        let report = self.carry_out(plan, &update.touched, now);
        self.sockets.sweep();
        self.heal();
        report
    }

    /// Puts back the programs that somebody has taken from their hooks, if
    /// they were in charge.
    pub fn heal(&mut self) {
        if self.is_started
            && let Err(error) = self.datapath.activate()
        {
            warn!(%error, "the programs could not be attached again");
        }
    }

    /// The plan, with the rights of this node's namespaces.
    fn with_clients(&self, mut plan: Plan) -> Plan {
        let some_opted_out = !self.state.opted_out_pods().is_empty();
        self.clients_wanted
            .set(some_opted_out || self.state.restricted().next().is_some());
        let wanted = clients(&self.state, |port| self.realized.port_number(port));
        self.realized.plan_clients(&wanted, &mut plan);
        plan
    }

    fn compile_dirty(&mut self) -> Update {
        let dirty = std::mem::take(&mut self.dirty);
        let (mut services, mut pods) = (dirty.services, dirty.pods);
        if dirty.all {
            services.extend(self.state.services().map(|service| service.name.clone()));
            pods.extend(self.state.pods().map(|pod| pod.name.clone()));
        }
        let services = services.into_iter().map(Owner::Service);
        let mut update = Update::default();
        for owner in services.chain(pods.into_iter().map(Owner::Pod)) {
            let frontends = compile(&self.state, &self.node, &owner);
            self.desired.replace(&owner, frontends, &mut update);
        }
        update
    }

    fn carry_out(
        &mut self,
        plan: Plan,
        touched: &BTreeSet<FrontendKey>,
        now: Instant,
    ) -> SyncReport {
        let mut failing = BTreeMap::new();
        let udp = UdpPorts::before(
            &self.sockets,
            &self.desired,
            &self.realized,
            touched,
            &plan.ops,
        );
        for refused in plan.refused {
            failing.insert(refused.key, refused.to_string());
        }
        let results = self.datapath.apply(&plan.ops);
        let mut done = 0;
        self.is_done = true;
        for (op, result) in plan.ops.iter().zip(results) {
            self.realized.settle(op, result.is_ok(), now);
            match result {
                Ok(()) => done += 1,
                Err(error) => {
                    self.is_done &= matches!(error, DatapathError::Full { .. });
                    if let Some(key) = key_of(op) {
                        failing.insert(key, format!("frontend {key}: {error}"));
                    } else {
                        warn!(%error, ?op, "an operation failed");
                    }
                }
            }
        }
        let (state, desired, realized) = (&self.state, &self.desired, &self.realized);
        if udp.after(&self.sockets, state, desired, realized, touched) {
            self.sockets.sweep();
        }
        for (key, why) in &failing {
            if self.failing.get(key) != Some(why) {
                warn!("{why}");
            }
        }
        debug!(done, failing = failing.len(), "synchronised");
        let failed = failing.len();
        self.failing = failing;
        SyncReport {
            done,
            failing: failed,
        }
    }

    fn note_conflicts(&mut self, conflicts: &[Conflict]) {
        for conflict in conflicts {
            let told = format!(
                "{}: frontend {} belongs to {} already; give one of them another address or port",
                claimant(&conflict.loser),
                conflict.key,
                claimant(&conflict.winner)
            );
            if self.conflicts.insert(told.clone()) {
                warn!("{told}");
            }
        }
    }

    fn start(&mut self, report: &mut SyncReport) {
        if self.is_started {
            return;
        }
        match self.datapath.activate() {
            Ok(()) => {
                self.is_started = true;
                // An endpoint may have gone while no agent ran.
                self.sockets.sweep();
                info!(
                    services = self.state.services().count(),
                    frontends = self.desired.len(),
                    operations = report.done,
                    "the proxy serves"
                );
            }
            Err(error) => {
                report.failing += 1;
                warn!(%error, "the programs could not be attached; trying again");
            }
        }
    }

    /// Why this node should not be sent traffic; empty when it can.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons: Vec<_> = self
            .state
            .unsynced()
            .map(|source| match source {
                SourceKind::Services => "Services have not been listed yet".to_owned(),
                SourceKind::EndpointSlices => "EndpointSlices have not been listed yet".to_owned(),
                SourceKind::Pods => "this node's pods have not been listed yet".to_owned(),
                SourceKind::Namespaces => "Namespaces have not been listed yet".to_owned(),
                SourceKind::Node => "this node's addresses have not been read yet".to_owned(),
            })
            .collect();
        if reasons.is_empty() && !self.is_started {
            reasons.push("the programs are not attached".to_owned());
        }
        reasons.extend(self.failing.values().take(10).cloned());
        if self.failing.len() > 10 {
            reasons.push(format!("and {} more frontends", self.failing.len() - 10));
        }
        reasons
    }

    /// When [`Self::sync`] should be called next, if nothing changes.
    #[must_use]
    pub fn next_chore(&self) -> Option<Instant> {
        self.realized.next_reclaim()
    }

    /// Whether something has to be tried again.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        !self.failing.is_empty() || (self.state.is_synced() && !self.is_started)
    }

    /// Whether the maps are up to date with everything that was taken in, but
    /// for what they have no room for: that is told in other places, and is
    /// no reason to think that the proxy hangs.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.is_started && self.is_done && self.state.is_synced()
    }

    /// Frontends that are not as desired, and why.
    #[must_use]
    pub fn failing(&self) -> &BTreeMap<FrontendKey, String> {
        &self.failing
    }

    /// The name of the node that this is.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The cluster as heard.
    #[must_use]
    pub fn state(&self) -> &ClusterState {
        &self.state
    }

    /// What the maps should say.
    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What the maps say.
    #[must_use]
    pub fn realized(&self) -> &Realized {
        &self.realized
    }

    /// How full the maps are.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.realized.usage()
    }

    /// The datapath.
    #[must_use]
    pub fn datapath(&self) -> &D {
        &self.datapath
    }

    /// The datapath, to let it fail in a test.
    pub fn datapath_mut(&mut self) -> &mut D {
        &mut self.datapath
    }

    /// Ends, and gives the datapath to whoever comes next.
    #[must_use]
    pub fn into_datapath(self) -> D {
        self.datapath
    }
}

fn claimant(owner: &Owner) -> String {
    match owner {
        Owner::Service(name) => format!("Service {name}"),
        Owner::Pod(name) => format!("the hostPort of pod {name}"),
    }
}

fn key_of(op: &Op) -> Option<FrontendKey> {
    match op {
        Op::SetFrontend { key, .. } | Op::DeleteFrontend { key } => Some(*key),
        _ => None,
    }
}
