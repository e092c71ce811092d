//! The mirror of the maps, and the plan that brings them to the desired state.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use berth_abi::{Backend, ClientKey, Frontend};

use super::backends::Backends;
use super::clients::Clients;
use super::op::{Capacity, Dump, Op};
use super::ports::Ports;
use super::regions::Regions;
use crate::compile::{Desired, DesiredFrontend, FrontendKey};
use crate::model::PortId;

/// How long a region or backend that nothing points at stays as it is. A
/// program reads frontend, slot and backend within microseconds of each other.
const GRACE: Duration = Duration::from_secs(1);

/// What the maps hold, as far as every finished operation says.
#[derive(Debug)]
pub struct Realized {
    frontends: HashMap<FrontendKey, Frontend>,
    /// How many of them are IPv6 ones.
    v6_frontends: usize,
    slots: Vec<u32>,
    regions: Regions,
    backends: Backends,
    ports: Ports,
    clients: Clients,
    /// Regions that no frontend points at any more, oldest first.
    retired: VecDeque<(Instant, Region)>,
    capacity: Capacity,
}

#[derive(Clone, Copy, Debug)]
struct Region {
    first: u32,
    length: u32,
}

/// A frontend that could not be planned because a map is full.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{owner}: frontend {key}: the {map} map is full ({used} of {capacity}); {mend}")]
pub struct Refused {
    /// The frontend.
    pub key: FrontendKey,
    /// Its Service port.
    pub owner: String,
    /// Which map.
    pub map: &'static str,
    /// Entries in use.
    pub used: u32,
    /// Entries there are.
    pub capacity: u32,
    /// What the operator can do.
    pub mend: &'static str,
}

/// Operations in order, and what has no room.
#[derive(Debug, Default)]
pub struct Plan {
    /// To be done in this order; each result goes to [`Realized::settle`].
    pub ops: Vec<Op>,
    /// Frontends that stay as they were.
    pub refused: Vec<Refused>,
}

/// How full the maps are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Frontends of the fuller family.
    pub frontends: u32,
    /// Slots in use or in their grace period.
    pub slots: u32,
    /// Backends.
    pub backends: u32,
    /// What there is.
    pub capacity: Capacity,
}

/// How full one map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapUsage {
    /// `frontends`, `slots` or `backends`.
    pub name: &'static str,
    /// The agent's flag that sets the capacity.
    pub flag: &'static str,
    /// Entries in use.
    pub used: u32,
    /// Entries there are.
    pub capacity: u32,
}

impl MapUsage {
    /// Whether `percent` of the entries are in use, or more.
    #[must_use]
    pub fn is_filled_to(&self, percent: u32) -> bool {
        u64::from(self.used) * 100 >= u64::from(percent) * u64::from(self.capacity)
    }
}

impl Usage {
    /// Map by map.
    #[must_use]
    pub fn maps(&self) -> [MapUsage; 3] {
        let map = |name, flag, used, capacity| MapUsage {
            name,
            flag,
            used,
            capacity,
        };
        let Capacity {
            frontends,
            slots,
            backends,
        } = self.capacity;
        [
            map("frontends", "--max-frontends", self.frontends, frontends),
            map("slots", "--max-slots", self.slots, slots),
            map("backends", "--max-backends", self.backends, backends),
        ]
    }
}

impl Realized {
    /// From what was read from the kernel. A frontend that is not whole (its
    /// region lies outside, overlaps another, or names a free backend) is
    /// remembered as an empty one, so that the next plan writes it anew.
    #[must_use]
    pub fn restore(dump: Dump, capacity: Capacity) -> Self {
        let mut realized = Self {
            frontends: HashMap::with_capacity(dump.frontends.len()),
            v6_frontends: 0,
            slots: dump.slots,
            regions: Regions::new(capacity.slots),
            backends: Backends::restore(&dump.backends, capacity.backends),
            ports: Ports::default(),
            clients: Clients::restore(dump.clients, dump.settings),
            retired: VecDeque::new(),
            capacity,
        };
        let mut frontends = dump.frontends;
        frontends.sort_unstable_by_key(|(key, _)| *key);
        for (key, frontend) in frontends {
            let whole = realized.adopt(&frontend);
            let frontend = if whole { frontend } else { NOT_WHOLE };
            realized.ports.hold(frontend.service);
            realized.v6_frontends += usize::from(key.address.is_ipv6());
            realized.frontends.insert(key, frontend);
        }
        realized
    }

    fn adopt(&mut self, frontend: &Frontend) -> bool {
        let Frontend {
            first_slot,
            slot_count,
            service,
            ..
        } = *frontend;
        let names_written = |slot: &u32| self.backends.get(*slot).is_some();
        let range = first_slot as usize..first_slot as usize + slot_count as usize;
        let whole = service <= 4 * self.capacity.frontends
            && self
                .slots
                .get(range)
                .is_some_and(|slots| slots.iter().all(names_written))
            && self.regions.take_at(first_slot, slot_count);
        if whole {
            for slot in first_slot..first_slot + slot_count {
                self.backends.hold_index(self.slots[slot as usize]);
            }
        }
        whole
    }

    /// Plans what brings `keys` to the desired state.
    pub fn plan<'a>(
        &mut self,
        desired: &Desired,
        keys: impl IntoIterator<Item = &'a FrontendKey>,
    ) -> Plan {
        let mut phases = Phases::default();
        for key in keys {
            match desired.get(key) {
                Some(frontend) => self.plan_one(frontend, &mut phases),
                None => {
                    if let Some(current) = self.frontends.get(key) {
                        phases.deletes.push(Op::DeleteFrontend { key: *key });
                        self.forget(current, &Frontend::default(), &[], &mut phases);
                    }
                }
            }
        }
        phases.into_plan()
    }

    /// Adds to a plan what gives `desired` clients their rights: those that are
    /// let in first of all, those that are shut out last.
    pub fn plan_clients(&self, desired: &BTreeSet<ClientKey>, plan: &mut Plan) {
        let (before, after) = self.clients.plan(desired);
        plan.ops.splice(0..0, before);
        plan.ops.extend(after);
    }

    /// The number of a Service port that has been planned.
    #[must_use]
    pub fn port_number(&self, port: &PortId) -> Option<u32> {
        self.ports.find(port)
    }

    /// Every client entry, sorted.
    #[must_use]
    pub fn clients(&self) -> &BTreeSet<ClientKey> {
        self.clients.entries()
    }

    /// Plans what makes the whole of the maps equal to the desired state.
    pub fn plan_all(&mut self, desired: &Desired) -> Plan {
        let mut keys: Vec<_> = desired.iter().map(|frontend| frontend.key).collect();
        keys.extend(
            self.frontends
                .keys()
                .filter(|key| desired.get(key).is_none()),
        );
        keys.sort_unstable();
        self.plan(desired, &keys)
    }

    fn plan_one(&mut self, desired: &DesiredFrontend, phases: &mut Phases) {
        let key = desired.key;
        let current = self.frontends.get(&key).copied();
        let found = current.filter(|f| *f != NOT_WHOLE).map(|f| f.service);
        let service = self.ports.number(&desired.owner, found);
        let same_backends = current.filter(|f| *f != NOT_WHOLE && self.points_at(f, desired));
        let mut frontend = Frontend {
            first_slot: 0,
            slot_count: u32::try_from(desired.backends.len()).unwrap_or(u32::MAX),
            local_count: desired.local_count,
            affinity_seconds: desired.affinity_seconds,
            service,
            flags: desired.flags,
        };
        if let Some(current) = same_backends {
            frontend.first_slot = current.first_slot;
            if frontend != current {
                self.ports.hold(service);
                phases.frontends.push(Op::SetFrontend { key, frontend });
                self.forget(&current, &frontend, self.region(&current), phases);
            }
            return;
        }
        match self.reserve(&desired.backends, phases) {
            Ok(first_slot) => frontend.first_slot = first_slot,
            Err(full) => {
                self.ports.free_if_unused(service);
                phases.refused.push(full.refuse(desired));
                return;
            }
        }
        // Held from now on: the number must outlive the failure of another
        // frontend of the same port in the same plan.
        self.ports.hold(service);
        phases.frontends.push(Op::SetFrontend { key, frontend });
        if let Some(current) = current {
            let region = &self.slots[frontend.first_slot as usize..];
            let kept = &region[..frontend.slot_count as usize];
            self.forget(&current, &frontend, kept, phases);
        }
    }

    /// Lets clients of `current` be forgotten that are bound to what `next` does
    /// not offer. All of them when affinity ends or the port's number is
    /// another: nobody would take note of endpoints that go from then on, and
    /// what is remembered would lead into whatever has the backend's index when
    /// affinity comes back.
    fn forget(&self, current: &Frontend, next: &Frontend, kept: &[u32], phases: &mut Phases) {
        if current.affinity_seconds == 0 {
            return;
        }
        let goes_on = next.affinity_seconds > 0 && next.service == current.service;
        let is_gone = |backend: &&u32| !goes_on || !kept.contains(backend);
        let mut gone: Vec<_> = self
            .region(current)
            .iter()
            .filter(is_gone)
            .copied()
            .collect();
        if !gone.is_empty() {
            gone.sort_unstable();
            gone.dedup();
            phases.forgets.push(Op::ForgetAffinity {
                service: current.service,
                backends: gone,
            });
        }
    }

    fn points_at(&self, current: &Frontend, desired: &DesiredFrontend) -> bool {
        let region = self.region(current);
        region.len() == desired.backends.len()
            && region
                .iter()
                .zip(&desired.backends)
                .all(|(i, b)| self.backends.get(*i) == Some(b))
    }

    fn region(&self, frontend: &Frontend) -> &[u32] {
        &self.slots[frontend.first_slot as usize..][..frontend.slot_count as usize]
    }

    /// Takes a region and writes it here; the ops write it there.
    fn reserve(&mut self, backends: &[Backend], phases: &mut Phases) -> Result<u32, Full> {
        let length = u32::try_from(backends.len()).unwrap_or(u32::MAX);
        let first = self.regions.take(length).ok_or(Full {
            map: "SLOTS",
            used: self.capacity.slots - self.regions.free(),
            capacity: self.capacity.slots,
            mend: "start the agent with a larger --max-slots",
        })?;
        let mut indices = Vec::with_capacity(backends.len());
        let mut writes = Vec::new();
        for backend in backends {
            let Some((index, is_new)) = self.backends.hold(backend) else {
                for index in indices {
                    self.backends.let_go(index);
                }
                for op in writes {
                    if let Op::WriteBackend { index, .. } = op {
                        self.backends.free_if_unused(index);
                    }
                }
                self.regions.release(first, length);
                return Err(Full {
                    map: "BACKENDS",
                    used: u32::try_from(self.backends.len()).unwrap_or(u32::MAX),
                    capacity: self.capacity.backends,
                    mend: "start the agent with a larger --max-backends",
                });
            };
            if is_new {
                writes.push(Op::WriteBackend {
                    index,
                    backend: *backend,
                });
            }
            indices.push(index);
        }
        phases.backends.append(&mut writes);
        if length > 0 {
            let end = (first + length) as usize;
            if self.slots.len() < end {
                self.slots.resize(end, 0);
            }
            self.slots[first as usize..end].copy_from_slice(&indices);
            phases.slots.push(Op::WriteSlots {
                first,
                backends: indices,
            });
        }
        Ok(first)
    }

    /// Notes how an operation of a plan ended. A frontend that could not be
    /// written stays as it was here too, so the next plan tries again.
    pub fn settle(&mut self, op: &Op, done: bool, now: Instant) {
        match op {
            Op::SetFrontend { key, frontend } if done => {
                if let Some(old) = self.frontends.insert(*key, *frontend) {
                    self.ports.let_go(old.service);
                    if !same_region(&old, frontend) {
                        self.retire(&old, now);
                    }
                } else {
                    self.v6_frontends += usize::from(key.address.is_ipv6());
                }
            }
            Op::SetFrontend { key, frontend } => {
                let kept = self.frontends.get(key);
                if kept.is_none_or(|kept| !same_region(kept, frontend)) {
                    self.retire(frontend, now);
                }
                self.ports.let_go(frontend.service);
            }
            Op::DeleteFrontend { key } if done => {
                if let Some(old) = self.frontends.remove(key) {
                    self.v6_frontends -= usize::from(key.address.is_ipv6());
                    self.ports.let_go(old.service);
                    self.retire(&old, now);
                }
            }
            Op::SetClient { .. } | Op::DeleteClient { .. } | Op::SetSettings { .. } => {
                if done {
                    self.clients.settle(op);
                }
            }
            Op::DeleteFrontend { .. }
            | Op::WriteBackend { .. }
            | Op::WriteSlots { .. }
            | Op::ForgetAffinity { .. }
            | Op::ClearBackend { .. } => {}
        }
    }

    fn retire(&mut self, frontend: &Frontend, now: Instant) {
        let Frontend {
            first_slot: first,
            slot_count: length,
            ..
        } = *frontend;
        if length > 0 {
            self.retired.push_back((now, Region { first, length }));
        }
    }

    /// Takes back what has been unused for the grace period: the operations
    /// empty the backends that no slot names any more.
    pub fn reclaim(&mut self, now: Instant) -> Vec<Op> {
        let mut cleared = Vec::new();
        while let Some((since, region)) = self.retired.front().copied()
            && now.saturating_duration_since(since) >= GRACE
        {
            self.retired.pop_front();
            for slot in region.first..region.first + region.length {
                let index = self.slots[slot as usize];
                self.backends.let_go(index);
                if self.backends.free_if_unused(index) {
                    cleared.push(Op::ClearBackend { index });
                }
            }
            self.regions.release(region.first, region.length);
        }
        cleared
    }

    /// Empties the backends that no slot names: what a run that ended in its
    /// grace period left. Only for right after [`Self::restore`] and a plan,
    /// when no region is retired.
    pub fn sweep(&mut self) -> Vec<Op> {
        let unused = self.backends.unused();
        let free = |index: &u32| self.backends.free_if_unused(*index);
        unused
            .into_iter()
            .filter(free)
            .map(|index| Op::ClearBackend { index })
            .collect()
    }

    /// When [`Self::reclaim`] has something to do again.
    #[must_use]
    pub fn next_reclaim(&self) -> Option<Instant> {
        self.retired.front().map(|(since, _)| *since + GRACE)
    }

    /// How full the maps are.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let v4 = self.frontends.len() - self.v6_frontends;
        let fuller = self.v6_frontends.max(v4);
        Usage {
            frontends: u32::try_from(fuller).unwrap_or(u32::MAX),
            slots: self.capacity.slots - self.regions.free(),
            backends: u32::try_from(self.backends.len()).unwrap_or(u32::MAX),
            capacity: self.capacity,
        }
    }

    /// Every frontend with its backends spelled out, sorted by address; what
    /// identifiers were chosen does not show.
    #[must_use]
    pub fn resolved(&self) -> Vec<(FrontendKey, Frontend, Vec<Backend>)> {
        let mut all: Vec<_> = self
            .frontends
            .iter()
            .map(|(key, frontend)| {
                let backends = self.region(frontend).iter();
                (
                    *key,
                    *frontend,
                    backends
                        .filter_map(|i| self.backends.get(*i).copied())
                        .collect(),
                )
            })
            .collect();
        all.sort_unstable_by_key(|(key, _, _)| *key);
        all
    }

    /// The number of the Service port that `key` belongs to.
    #[must_use]
    pub fn service(&self, key: &FrontendKey) -> Option<u32> {
        self.frontends.get(key).map(|frontend| frontend.service)
    }

    /// The backends that `key` hands out.
    pub fn backends(&self, key: &FrontendKey) -> impl Iterator<Item = &Backend> {
        let region = self.frontends.get(key).map(|f| self.region(f));
        region
            .unwrap_or_default()
            .iter()
            .filter_map(|index| self.backends.get(*index))
    }

    /// The Service port that has this number.
    #[must_use]
    pub fn port(&self, service: u32) -> Option<&PortId> {
        self.ports.owner(service)
    }

    /// Who has a frontend with this number.
    #[must_use]
    pub fn owner(&self, service: u32) -> Option<String> {
        self.ports.owner(service).map(ToString::to_string)
    }
}

/// No two frontends share a region, so its start tells it from all others.
fn same_region(a: &Frontend, b: &Frontend) -> bool {
    a.slot_count > 0 && b.slot_count > 0 && a.first_slot == b.first_slot
}

/// Stands for a frontend whose slots could not be believed.
const NOT_WHOLE: Frontend = Frontend {
    first_slot: 0,
    slot_count: 0,
    local_count: u32::MAX,
    affinity_seconds: 0,
    service: 0,
    flags: 0,
};

#[derive(Debug, Default)]
struct Phases {
    backends: Vec<Op>,
    slots: Vec<Op>,
    frontends: Vec<Op>,
    deletes: Vec<Op>,
    forgets: Vec<Op>,
    refused: Vec<Refused>,
}

impl Phases {
    fn into_plan(self) -> Plan {
        let mut ops = self.backends;
        ops.extend(self.slots);
        ops.extend(self.frontends);
        ops.extend(self.deletes);
        ops.extend(self.forgets);
        Plan {
            ops,
            refused: self.refused,
        }
    }
}

struct Full {
    map: &'static str,
    used: u32,
    capacity: u32,
    mend: &'static str,
}

impl Full {
    fn refuse(self, desired: &DesiredFrontend) -> Refused {
        let Self {
            map,
            used,
            capacity,
            mend,
        } = self;
        Refused {
            key: desired.key,
            owner: desired.owner.to_string(),
            map,
            used,
            capacity,
            mend,
        }
    }
}
