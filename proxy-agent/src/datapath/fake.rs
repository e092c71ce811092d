//! A datapath in memory that checks the contract after every operation. The
//! kernel's own maps are held to the same golden cases.

use std::collections::{BTreeMap, BTreeSet};

use berth_abi::{Backend, ClientKey, Frontend};

use super::{Datapath, DatapathError};
use crate::compile::FrontendKey;
use crate::diff::{Capacity, Dump, Op};

/// Holds what the kernel would hold.
#[derive(Clone, Debug)]
pub struct FakeDatapath {
    capacity: Capacity,
    frontends: BTreeMap<FrontendKey, Frontend>,
    slots: Vec<u32>,
    backends: Vec<Backend>,
    clients: BTreeSet<ClientKey>,
    /// Service ports and backends that some client is bound to: as if clients
    /// came to every frontend with affinity after every round.
    affinity: BTreeSet<(u32, u32)>,
    settings: u32,
    operations: u64,
    failing: BTreeSet<u64>,
    is_active: bool,
}

impl FakeDatapath {
    /// Empty maps of this size.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            frontends: BTreeMap::new(),
            slots: vec![0; capacity.slots as usize],
            backends: vec![Backend::default(); capacity.backends as usize],
            clients: BTreeSet::new(),
            affinity: BTreeSet::new(),
            settings: 0,
            operations: 0,
            failing: BTreeSet::new(),
            is_active: false,
        }
    }

    /// Lets the operations with these numbers, counted from now, fail if they
    /// are of a kind that can fail in the kernel.
    pub fn fail(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let from = self.operations;
        self.failing
            .extend(numbers.into_iter().map(|number| from + number));
    }

    /// Whether the programs are at their hooks: see [`Datapath::activate`].
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.is_active
    }

    /// Takes the programs from their hooks, as somebody with `bpftool` might.
    pub fn detach(&mut self) {
        self.is_active = false;
    }

    fn one(&mut self, op: &Op) -> Result<(), DatapathError> {
        self.operations += 1;
        let fails = self.failing.remove(&self.operations);
        let full = DatapathError::Full {
            map: "FRONTENDS4",
            capacity: self.capacity.frontends,
            mend: "start the agent with a larger --max-frontends",
        };
        match op {
            Op::WriteBackend { index, backend } => self.backends[*index as usize] = *backend,
            Op::ClearBackend { index } => self.backends[*index as usize] = Backend::default(),
            Op::WriteSlots { first, backends } => {
                self.slots[*first as usize..][..backends.len()].copy_from_slice(backends);
            }
            Op::SetFrontend { key, frontend } => {
                let is_new = !self.frontends.contains_key(key);
                let is_full = is_new && self.frontends.len() >= self.capacity.frontends as usize;
                if fails || is_full {
                    return Err(full);
                }
                self.frontends.insert(*key, *frontend);
            }
            Op::DeleteFrontend { .. } if fails => return Err(full),
            Op::DeleteFrontend { key } => drop(self.frontends.remove(key)),
            Op::ForgetAffinity { service, backends } => {
                self.affinity
                    .retain(|(s, b)| s != service || !backends.contains(b));
            }
            Op::SetClient { .. } | Op::DeleteClient { .. } | Op::SetSettings { .. } if fails => {
                return Err(full);
            }
            Op::SetClient { key } => drop(self.clients.insert(*key)),
            Op::DeleteClient { key } => drop(self.clients.remove(key)),
            Op::SetSettings { bits } => self.settings = *bits,
        }
        self.check(op);
        Ok(())
    }

    /// No client is bound to a backend that its Service port does not have any
    /// more; then clients come to everything that there is.
    ///
    /// # Panics
    /// If one is.
    fn check_affinity(&mut self) {
        let mut offered = BTreeSet::new();
        for frontend in self.frontends.values().filter(|f| f.affinity_seconds > 0) {
            let slots = &self.slots[frontend.first_slot as usize..];
            let slots = &slots[..frontend.slot_count as usize];
            offered.extend(slots.iter().map(|backend| (frontend.service, *backend)));
        }
        for (service, backend) in &self.affinity {
            assert!(
                offered.contains(&(*service, *backend)),
                "a client of Service port {service} is still bound to backend {backend}"
            );
        }
        self.affinity = offered;
    }

    /// Every frontend is whole: its slots are inside, and name written backends.
    ///
    /// # Panics
    /// If one is not, with the operation after which that was so.
    fn check(&self, op: &Op) {
        for (key, frontend) in &self.frontends {
            let range = frontend.first_slot as usize..;
            let slots = &self.slots[range][..frontend.slot_count as usize];
            for slot in slots {
                let backend = &self.backends[*slot as usize];
                assert!(
                    backend.port_be != 0,
                    "{key}: backend {slot} is missing after {op:?}"
                );
            }
        }
    }
}

impl Datapath for FakeDatapath {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn dump(&mut self) -> Result<Dump, DatapathError> {
        Ok(Dump {
            frontends: self
                .frontends
                .iter()
                .map(|(key, value)| (*key, *value))
                .collect(),
            slots: self.slots.clone(),
            backends: self.backends.clone(),
            clients: self.clients.iter().copied().collect(),
            settings: self.settings,
        })
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Result<(), DatapathError>> {
        let results = ops.iter().map(|op| self.one(op)).collect();
        self.check_affinity();
        results
    }

    fn activate(&mut self) -> Result<(), DatapathError> {
        self.is_active = true;
        Ok(())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
