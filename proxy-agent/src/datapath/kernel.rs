//! The real maps and programs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use aya::maps::{Map, MapData};
use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};
use berth_abi::{
    AffinityKey, AffinityValue, Backend, ClientKey, Counter, Frontend, FrontendKey4, FrontendKey6,
    maps,
};
use tracing::{info, warn};
use zerocopy::IntoBytes;

use super::entries::{Batch, Key, Raw};
use super::hooks::{Attached, CgroupRoot, HOOKS};
use super::pins::{Pins, specs};
use super::sys::{self, MappedArray};
use super::translated::TranslatedSockets;
use super::{Datapath, DatapathError, chain};
use crate::compile::FrontendKey;
use crate::diff::{Capacity, Dump, Op};

/// The programs, as `cargo xtask build` made them; empty without it.
static OBJECT: &[u8] = include_bytes!(env!("BERTH_EBPF_OBJECT_EMBEDDED"));

/// Where the programs and maps of one node are.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// The root of the node's cgroups.
    pub cgroup_root: PathBuf,
    /// A mounted bpf file system.
    pub bpffs: PathBuf,
    /// The sizes of the maps.
    pub capacity: Capacity,
}

/// The maps and hooks of this node's kernel.
pub struct KernelDatapath {
    capacity: Capacity,
    pins: Pins,
    cgroup: CgroupRoot,
    /// The maps are new: the programs wait until they are filled.
    is_fresh: bool,
    is_active: bool,
    programs: Vec<OwnedFd>,
    frontends4: OwnedFd,
    frontends6: OwnedFd,
    affinity: OwnedFd,
    clients: OwnedFd,
    settings: OwnedFd,
    translated: Option<TranslatedSockets>,
    counters: aya::maps::PerCpuArray<MapData, u64>,
    slots: MappedArray,
    backends: MappedArray,
}

impl std::fmt::Debug for KernelDatapath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelDatapath")
            .field("capacity", &self.capacity)
            .field("cgroup", &self.cgroup)
            .field("is_active", &self.is_active)
            .finish_non_exhaustive()
    }
}

impl KernelDatapath {
    /// Loads the programs against the pinned maps, if those fit, or against
    /// new ones.
    ///
    /// # Errors
    /// When a path is missing, a right is missing, or the kernel refuses a
    /// program; the message says which and what to do.
    pub fn open(config: &KernelConfig) -> Result<Self, DatapathError> {
        if OBJECT.is_empty() {
            return Err(DatapathError::NoObject);
        }
        let cgroup = CgroupRoot::open(&config.cgroup_root)?;
        let pins = Pins::new(&config.bpffs);
        pins.ensure()?;
        let specs = specs(config.capacity);
        let (folder, is_fresh) = match pins.fit(&specs) {
            Ok(()) => (pins.maps(), false),
            Err(why) => {
                info!(reason = why, "starting with new maps");
                (pins.begin_next()?, true)
            }
        };
        let load = |error: &dyn std::error::Error| DatapathError::Load(chain(error));
        let mut loader = EbpfLoader::new();
        for spec in &specs {
            loader.map_pin_path(spec.name, folder.join(spec.name));
            if spec.max_entries > 0 {
                loader.map_max_entries(spec.name, spec.max_entries);
            }
        }
        let host_netns = sys::netns_cookie().map_err(|error| DatapathError::Kernel {
            what: "read the netns cookie".to_owned(),
            error,
        })?;
        loader.override_global("HOST_NETNS", &host_netns, true);
        let mut object = loader.load(OBJECT).map_err(|e| load(&e))?;
        let mut programs = Vec::with_capacity(HOOKS.len());
        for hook in HOOKS {
            let program = object
                .program_mut(hook.name)
                .ok_or_else(|| DatapathError::Load(format!("no program {}", hook.name)))?;
            let fd = match program {
                Program::CgroupSockAddr(program) => program.load().and_then(|()| program.fd()),
                Program::CgroupSock(program) => program.load().and_then(|()| program.fd()),
                _ => {
                    return Err(DatapathError::Load(format!(
                        "{} is no socket hook",
                        hook.name
                    )));
                }
            }
            .map_err(|e| load(&e))?;
            programs.push(duplicate(fd.as_fd())?);
        }
        // Everything else works without.
        let translated = connected(&mut object)
            .inspect_err(|error| {
                warn!(
                    %error,
                    "translated sockets cannot be listed; UDP clients may wait for an endpoint \
                     that has gone"
                );
            })
            .ok();
        let slots = map_data(&mut object, maps::SLOTS)?;
        let backends = map_data(&mut object, maps::BACKENDS)?;
        let mmap = |error| DatapathError::Kernel {
            what: "map an array".to_owned(),
            error,
        };
        let capacity = config.capacity;
        Ok(Self {
            capacity,
            pins,
            cgroup,
            is_fresh,
            is_active: false,
            programs,
            frontends4: duplicate(map_data(&mut object, maps::FRONTENDS4)?.fd().as_fd())?,
            frontends6: duplicate(map_data(&mut object, maps::FRONTENDS6)?.fd().as_fd())?,
            affinity: duplicate(map_data(&mut object, maps::AFFINITY)?.fd().as_fd())?,
            clients: duplicate(map_data(&mut object, maps::CLIENTS)?.fd().as_fd())?,
            settings: duplicate(map_data(&mut object, maps::SETTINGS)?.fd().as_fd())?,
            translated,
            counters: object
                .take_map(maps::COUNTERS)
                .ok_or_else(|| DatapathError::Load("no map COUNTERS".to_owned()))?
                .try_into()
                .map_err(|e: aya::maps::MapError| load(&e))?,
            slots: MappedArray::new(slots.fd().as_fd(), size_of::<u32>(), capacity.slots)
                .map_err(mmap)?,
            backends: MappedArray::new(
                backends.fd().as_fd(),
                size_of::<Backend>(),
                capacity.backends,
            )
            .map_err(mmap)?,
        })
    }

    /// The list of the sockets that the programs have connected. `None` if this
    /// kernel does not give it, and the second time.
    pub fn take_translated(&mut self) -> Option<TranslatedSockets> {
        self.translated.take()
    }

    fn write_one(&mut self, op: &Op) -> Result<(), DatapathError> {
        match op {
            Op::WriteBackend { index, backend } => {
                self.backends.write(*index, backend.as_bytes());
            }
            Op::ClearBackend { index } => {
                self.backends.write(*index, Backend::default().as_bytes());
            }
            Op::WriteSlots { first, backends } => {
                for (slot, backend) in (*first..).zip(backends) {
                    self.slots.write(slot, backend.as_bytes());
                }
            }
            Op::SetFrontend { key, frontend } => {
                return self.set_frontends(&[(*key, *frontend)]).remove(0);
            }
            Op::DeleteFrontend { key } => {
                let deleted = match Key::of(key) {
                    Key::V4(key) => sys::delete(self.frontends4.as_fd(), &key),
                    Key::V6(key) => sys::delete(self.frontends6.as_fd(), &key),
                };
                deleted.map_err(|error| DatapathError::Kernel {
                    what: format!("delete the frontend {key}"),
                    error,
                })?;
            }
            Op::ForgetAffinity { service, backends } => self.forget(*service, backends)?,
            Op::SetClient { key } => {
                let (_, result) = sys::update_batch(self.clients.as_fd(), &[*key], &[1_u32]);
                result.map_err(|error| match error.raw_os_error() {
                    Some(libc::E2BIG) => DatapathError::Full {
                        map: maps::CLIENTS,
                        capacity: maps::DEFAULT_CLIENTS,
                        mend: "restrict fewer Services by source ranges, or run fewer pods on this node",
                    },
                    _ => kernel("write to CLIENTS", error),
                })?;
            }
            Op::DeleteClient { key } => {
                sys::delete(self.clients.as_fd(), key)
                    .map_err(|error| kernel("delete from CLIENTS", error))?;
            }
            Op::SetSettings { bits } => {
                let (_, result) = sys::update_batch(self.settings.as_fd(), &[0_u32], &[*bits]);
                result.map_err(|error| kernel("write to SETTINGS", error))?;
            }
        }
        Ok(())
    }

    /// Writes frontends with one system call for each family, as long as
    /// nothing fails.
    fn set_frontends(&self, entries: &[(FrontendKey, Frontend)]) -> Vec<Result<(), DatapathError>> {
        let mut results: Vec<_> = entries.iter().map(|_| Ok(())).collect();
        let mut v4 = Batch::default();
        let mut v6 = Batch::default();
        for (position, (key, frontend)) in entries.iter().enumerate() {
            match Key::of(key) {
                Key::V4(key) => v4.push(key, *frontend, position),
                Key::V6(key) => v6.push(key, *frontend, position),
            }
        }
        let capacity = self.capacity.frontends;
        v4.write(
            self.frontends4.as_fd(),
            maps::FRONTENDS4,
            capacity,
            &mut results,
        );
        v6.write(
            self.frontends6.as_fd(),
            maps::FRONTENDS6,
            capacity,
            &mut results,
        );
        results
    }

    fn forget(&self, service: u32, backends: &[u32]) -> Result<(), DatapathError> {
        let fail = |error| DatapathError::Kernel {
            what: "read AFFINITY".to_owned(),
            error,
        };
        let map = self.affinity.as_fd();
        let entries: Vec<(Raw<AffinityKey>, Raw<AffinityValue>)> =
            sys::lookup_all(map, maps::DEFAULT_AFFINITY).map_err(fail)?;
        for (Raw(key), Raw(value)) in entries {
            if key.service == service && backends.contains(&value.backend) {
                sys::delete(map, &key).map_err(fail)?;
            }
        }
        Ok(())
    }

    /// The entries up to the last that a slot names. What is written beyond is
    /// named by nobody, and looking there would cost the memory of the array.
    fn read_backends(&self, slots: &[u32]) -> Vec<Backend> {
        let end = slots.iter().max().map_or(0, |last| last.saturating_add(1));
        (0..end.min(self.capacity.backends))
            .map(|index| {
                let mut backend = Backend::default();
                self.backends.read(index, backend.as_mut_bytes());
                backend
            })
            .collect()
    }
}

impl Datapath for KernelDatapath {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn dump(&mut self) -> Result<Dump, DatapathError> {
        let fail = |what: &str| {
            let what = format!("read {what}");
            move |error| DatapathError::Kernel { what, error }
        };
        let v4: Vec<(Raw<FrontendKey4>, Raw<Frontend>)> =
            sys::lookup_all(self.frontends4.as_fd(), self.capacity.frontends)
                .map_err(fail(maps::FRONTENDS4))?;
        let v6: Vec<(Raw<FrontendKey6>, Raw<Frontend>)> =
            sys::lookup_all(self.frontends6.as_fd(), self.capacity.frontends)
                .map_err(fail(maps::FRONTENDS6))?;
        let v4 = v4
            .into_iter()
            .map(|(Raw(key), Raw(frontend))| (Key::V4(key), frontend));
        let v6 = v6
            .into_iter()
            .map(|(Raw(key), Raw(frontend))| (Key::V6(key), frontend));
        let frontends: Vec<_> = v4
            .chain(v6)
            .filter_map(|(key, value)| Some((key.read()?, value)))
            .collect();
        let end = |frontend: &Frontend| frontend.first_slot.saturating_add(frontend.slot_count);
        let used = frontends.iter().map(|(_, f)| end(f)).max().unwrap_or(0);
        let slots: Vec<_> = (0..used.min(self.capacity.slots))
            .map(|slot| {
                let mut backend = 0_u32;
                self.slots.read(slot, backend.as_mut_bytes());
                backend
            })
            .collect();
        let clients: Vec<(Raw<ClientKey>, u32)> =
            sys::lookup_all(self.clients.as_fd(), maps::DEFAULT_CLIENTS)
                .map_err(fail(maps::CLIENTS))?;
        let settings: Vec<(u32, u32)> =
            sys::lookup_all(self.settings.as_fd(), 1).map_err(fail(maps::SETTINGS))?;
        Ok(Dump {
            frontends,
            backends: self.read_backends(&slots),
            slots,
            clients: clients.into_iter().map(|(Raw(key), _)| key).collect(),
            settings: settings.first().map_or(0, |(_, bits)| *bits),
        })
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Result<(), DatapathError>> {
        let mut results = Vec::with_capacity(ops.len());
        let mut rest = ops;
        while let Some((op, tail)) = rest.split_first() {
            let frontend = |op: &Op| match op {
                Op::SetFrontend { key, frontend } => Some((*key, *frontend)),
                _ => None,
            };
            let run: Vec<_> = rest.iter().map_while(frontend).collect();
            if run.is_empty() {
                results.push(self.write_one(op));
                rest = tail;
            } else {
                results.append(&mut self.set_frontends(&run));
                rest = &rest[run.len()..];
            }
        }
        results
    }

    fn activate(&mut self) -> Result<(), DatapathError> {
        let links = self.pins.links();
        if self.is_active {
            // The folder may have gone with the links in it.
            self.pins.ensure()?;
        }
        for (hook, program) in HOOKS.into_iter().zip(&self.programs) {
            let attached = self.cgroup.attach(hook, program.as_fd(), &links)?;
            if self.is_active && attached == Attached::Anew {
                warn!(
                    pin = %links.join(hook.name).display(),
                    "somebody took a program from its hook; it is attached again"
                );
            }
        }
        if self.is_fresh {
            self.pins.finish_next()?;
            self.is_fresh = false;
        }
        self.is_active = true;
        Ok(())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let sum = |counter: Counter| {
            let values = self.counters.get(&(counter as u32), 0).ok()?;
            Some(values.iter().sum())
        };
        Counter::ALL
            .into_iter()
            .map(|c| (c.name(), sum(c).unwrap_or(0)))
            .collect()
    }
}

fn kernel(what: &str, error: std::io::Error) -> DatapathError {
    DatapathError::Kernel {
        what: what.to_owned(),
        error,
    }
}

fn map_data(object: &mut Ebpf, name: &str) -> Result<MapData, DatapathError> {
    match object.take_map(name) {
        Some(Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data)) => Ok(data),
        _ => Err(DatapathError::Load(format!(
            "no map {name} of the kind expected"
        ))),
    }
}

fn connected(object: &mut Ebpf) -> Result<TranslatedSockets, DatapathError> {
    let missing = || DatapathError::Load("no map CONNECTED".to_owned());
    let map = object.take_map(maps::CONNECTED).ok_or_else(missing)?;
    let Map::SkStorage(data) = map else {
        return Err(missing());
    };
    TranslatedSockets::load(object, data.fd().as_fd())
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, DatapathError> {
    let what = || "duplicate a file descriptor".to_owned();
    fd.try_clone_to_owned()
        .map_err(|error| DatapathError::Kernel {
            what: what(),
            error,
        })
}
