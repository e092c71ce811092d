//! The allocator against a model: pods come, are sandboxed again, are deleted
//! and made anew, DELs come late or twice or not at all, in every order.
//!
//! What must hold after every step: no address has two live sandboxes, none
//! leaks, and whoever has an address for long gets it again. Checked on a store
//! with transactions, and on one that has none and loses races at random.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::LazyLock;

use berth_ipam::store::{
    Census, MemoryStore, Records, Revision, SqliteStore, Store, StoreError, Stored,
};
use berth_ipam::{
    Allocation, Allocator, Error, Owner, Pod, PodRef, Pool, Pools, Request, Timestamp, Wishes,
    Workload,
};
use proptest::prelude::*;

/// Loses every race that its pattern says, as a Kubernetes API would.
#[derive(Debug, Default)]
struct Racy {
    inner: MemoryStore,
    pattern: u64,
    calls: u32,
}

impl Racy {
    fn loses(&mut self) -> bool {
        self.calls += 1;
        // Never four times in turn, or no number of attempts would do.
        !self.calls.is_multiple_of(4) && (self.pattern >> (self.calls % 64)) & 1 == 1
    }
}

impl Records for Racy {
    fn get(&mut self, address: IpAddr) -> Result<Option<Stored>, StoreError> {
        self.inner.get(address)
    }
    fn create(&mut self, allocation: &Allocation) -> Result<bool, StoreError> {
        Ok(!self.loses() && self.inner.create(allocation)?)
    }
    fn replace(
        &mut self,
        allocation: &Allocation,
        revision: &Revision,
    ) -> Result<bool, StoreError> {
        Ok(!self.loses() && self.inner.replace(allocation, revision)?)
    }
    fn of_pod(&mut self, uid: &str) -> Result<Vec<Stored>, StoreError> {
        self.inner.of_pod(uid)
    }
    fn of_owner(&mut self, owner: &Owner) -> Result<Vec<Stored>, StoreError> {
        self.inner.of_owner(owner)
    }
    fn of_container(&mut self, container_id: &str) -> Result<Vec<Stored>, StoreError> {
        self.inner.of_container(container_id)
    }
    fn held(&mut self) -> Result<Vec<Stored>, StoreError> {
        self.inner.held()
    }
    fn unused(&mut self, pool: &Pool, after: Option<IpAddr>) -> Result<Option<IpAddr>, StoreError> {
        self.inner.unused(pool, after)
    }
    fn lapsed(
        &mut self,
        pool: &Pool,
        by: Timestamp,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<Stored>, StoreError> {
        self.inner.lapsed(pool, by, skip, limit)
    }
    fn census(&mut self, pool: &Pool, now: Timestamp) -> Result<Census, StoreError> {
        self.inner.census(pool, now)
    }
}

impl Store for Racy {
    fn attempt<T, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&mut dyn Records) -> Result<T, E>,
    ) -> Result<T, E> {
        work(self)
    }
}

const POOLS: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPPool
metadata: {name: four}
spec: {subnet: 10.0.0.0/24, ranges: [10.0.0.10-10.0.0.15], default: true}
---
apiVersion: berth.dev/v1alpha1
kind: IPPool
metadata: {name: six}
spec: {subnet: 'fd00::/64', ranges: ['fd00::10-fd00::14'], default: true, coolDown: 30s}
---
apiVersion: berth.dev/v1alpha1
kind: IPPool
metadata: {name: fixed}
spec: {subnet: 10.0.0.0/24, ranges: [10.0.0.100-10.0.0.102]}
";

static POOLS_READ: LazyLock<Pools> = LazyLock::new(|| {
    let parsed = berth_api::folder::parse(Path::new("pools.yaml"), POOLS);
    let pools = Pools::compile(&parsed.objects);
    assert_eq!(pools.refusals().count(), 0);
    pools
});

fn pools() -> &'static Pools {
    &POOLS_READ
}

/// The pods of the world: two bare ones, two of a Deployment, three of a
/// StatefulSet, one with a fixed address, two of a Deployment with a list.
const NAMES: [&str; 10] = [
    "bare-a", "bare-b", "web-x", "web-y", "db-0", "db-1", "db-2", "fixed", "list-x", "list-y",
];

#[derive(Clone, Debug)]
enum Op {
    /// A new sandbox; an older one of the same pod object may still be there.
    Add(usize),
    /// The runtime takes the present sandbox down.
    Del(usize),
    /// A DEL for any sandbox there ever was, however old.
    LateDel(usize, usize),
    /// The pod object is deleted; its sandbox may outlive it.
    Delete(usize),
    /// Seconds pass.
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0..NAMES.len()).prop_map(Op::Add),
        3 => (0..NAMES.len()).prop_map(Op::Del),
        2 => (0..NAMES.len(), 0_usize..40).prop_map(|(pod, n)| Op::LateDel(pod, n)),
        2 => (0..NAMES.len()).prop_map(Op::Delete),
        2 => (0_u64..20).prop_map(Op::Wait),
    ]
}

#[derive(Default)]
struct World {
    now: u64,
    serial: u32,
    /// UID of the pod object under each name, while there is one.
    objects: BTreeMap<usize, String>,
    /// Live sandboxes: container ID to UID and addresses.
    live: BTreeMap<String, (String, BTreeSet<IpAddr>)>,
    /// Every sandbox that each name ever had.
    history: BTreeMap<usize, Vec<String>>,
    /// What each pod object, and each lasting name, was given.
    by_uid: BTreeMap<String, BTreeSet<IpAddr>>,
    by_name: BTreeMap<usize, BTreeSet<IpAddr>>,
}

impl World {
    fn request(&self, index: usize, uid: &str, container: &str) -> Request {
        let name = NAMES[index];
        let (stem, tail) = name.split_once('-').unwrap_or((name, ""));
        let workload = |kind: &str, ordinal| {
            Some(Workload {
                kind: kind.to_owned(),
                name: stem.to_owned(),
                ordinal,
            })
        };
        let id = PodRef {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        };
        let annotations = match stem {
            "fixed" => "10.0.0.100",
            "list" => "10.0.0.101-10.0.0.102",
            _ => "",
        };
        let annotations = [("berth.dev/ip".to_owned(), annotations.to_owned())]
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .collect();
        Request {
            wishes: Wishes::read(&id, &annotations, &BTreeMap::new()).unwrap(),
            pod: Pod {
                id,
                workload: match stem {
                    "web" | "list" => workload("Deployment", None),
                    "db" => workload("StatefulSet", tail.parse().ok()),
                    _ => None,
                },
            },
            container_id: container.to_owned(),
            ifname: "eth0".to_owned(),
            netns: format!("/run/netns/{container}"),
            node: "node1".to_owned(),
        }
    }

    /// Whether the pod of this name is owed the address that it had before.
    fn lasting(index: usize) -> bool {
        NAMES[index].starts_with("db-") || NAMES[index] == "fixed"
    }

    fn add<S: Store>(&mut self, allocator: &mut Allocator<S>, index: usize) {
        self.serial += 1;
        let serial = self.serial;
        let uid = self
            .objects
            .entry(index)
            .or_insert_with(|| format!("uid-{serial}"))
            .clone();
        let container = format!("c{serial}");
        self.history
            .entry(index)
            .or_default()
            .push(container.clone());
        let request = self.request(index, &uid, &container);
        let objects: BTreeSet<String> = self.objects.values().cloned().collect();
        let live = |claim: &berth_ipam::Claim| objects.contains(&claim.pod.uid);
        let before = records(allocator);
        let now = Timestamp(self.now);
        let given = allocator.allocate(&request, &live, now).map(|grants| {
            grants
                .iter()
                .map(|grant| grant.address)
                .collect::<BTreeSet<_>>()
        });
        match given {
            Ok(given) => {
                let families = if request.wishes.addresses.is_empty() {
                    2
                } else {
                    1
                };
                assert_eq!(given.len(), families, "all or nothing");
                for (other, (other_uid, theirs)) in &self.live {
                    assert!(
                        *other_uid == uid || given.is_disjoint(theirs),
                        "{container} and {other} both have one of {given:?}"
                    );
                }
                if let Some(had) = self.by_uid.get(&uid) {
                    assert_eq!(*had, given, "a new sandbox of {} moved", NAMES[index]);
                }
                if let Some(had) = self.by_name.get(&index).filter(|_| Self::lasting(index)) {
                    assert_eq!(*had, given, "{} came back elsewhere", NAMES[index]);
                }
                self.live.retain(|_, (of, _)| *of != uid);
                self.live.insert(container, (uid.clone(), given.clone()));
                self.by_uid.insert(uid, given.clone());
                self.by_name.insert(index, given);
            }
            Err(error) => self.justify(index, &request, &error, &before, &live),
        }
    }

    /// A refusal must have a reason in the records as they were.
    fn justify(
        &self,
        index: usize,
        request: &Request,
        error: &Error,
        before: &[Allocation],
        live: &dyn Fn(&berth_ipam::Claim) -> bool,
    ) {
        let now = Timestamp(self.now);
        let free = |record: &Allocation| {
            record.free_at().is_some_and(|at| at <= now) && !live(&record.claim)
        };
        assert!(
            !self.by_uid.contains_key(&request.pod.id.uid),
            "{} had an address and was refused: {error}",
            NAMES[index]
        );
        match error {
            Error::Exhausted { .. } => {
                let full = pools().defaults().iter().any(|pool| {
                    let taken = before
                        .iter()
                        .filter(|r| pool.addresses.contains(r.address) && !free(r))
                        .count();
                    taken as u128 == pool.addresses.len()
                });
                assert!(full, "{}: {error}", NAMES[index]);
            }
            Error::Taken { address, .. } => {
                let record = before.iter().find(|r| r.address == *address).unwrap();
                assert!(record.holder.is_some(), "{error}");
                assert!(Self::lasting(index), "{error}");
            }
            Error::ListTaken { .. } => {
                let taken = before
                    .iter()
                    .filter(|r| r.claim.owner == request.pod.owner(berth_ipam::Keep::App))
                    .filter(|r| r.holder.is_some() || live(&r.claim));
                assert_eq!(taken.count(), 2, "{error}");
            }
            other => panic!("{}: {other}", NAMES[index]),
        }
    }

    fn del<S: Store>(&mut self, allocator: &mut Allocator<S>, container: &str) {
        let freed: BTreeSet<IpAddr> = allocator
            .release(container, "eth0", Timestamp(self.now))
            .unwrap()
            .into_iter()
            .collect();
        let held = self.live.remove(container).map(|(_, held)| held);
        assert_eq!(freed, held.unwrap_or_default(), "DEL of {container}");
    }

    fn step<S: Store>(&mut self, allocator: &mut Allocator<S>, op: &Op) {
        let of = |world: &Self, index| world.history.get(&index).cloned().unwrap_or_default();
        match *op {
            Op::Add(index) => self.add(allocator, index),
            Op::Del(index) => {
                if let Some(container) = of(self, index).last() {
                    self.del(allocator, container);
                }
            }
            Op::LateDel(index, n) => {
                let all = of(self, index);
                if let Some(container) = all.get(n % all.len().max(1)) {
                    self.del(allocator, container);
                }
            }
            Op::Delete(index) => {
                self.objects.remove(&index);
            }
            Op::Wait(seconds) => self.now += seconds * 1000,
        }
        let held: BTreeMap<IpAddr, String> = records(allocator)
            .into_iter()
            .filter_map(|r| Some((r.address, r.holder?.container_id)))
            .collect();
        let mut expected = BTreeMap::new();
        for (container, (_, addresses)) in &self.live {
            for address in addresses {
                let double = expected.insert(*address, container.clone());
                assert_eq!(double, None, "two holders of {address}");
            }
        }
        assert_eq!(held, expected, "after {op:?}");
    }
}

fn records<S: Store>(allocator: &mut Allocator<S>) -> Vec<Allocation> {
    let addresses: Vec<IpAddr> = pools()
        .iter()
        .flat_map(|pool| pool.addresses.ranges().collect::<Vec<_>>())
        .flat_map(|range| (0..range.len()).filter_map(move |n| range.nth(n)))
        .collect();
    allocator
        .store()
        .attempt(|records| {
            addresses
                .iter()
                .filter_map(|address| records.get(*address).transpose())
                .map(|stored| stored.map(|stored| stored.allocation))
                .collect::<Result<Vec<_>, StoreError>>()
        })
        .unwrap()
}

fn run<S: Store>(store: S, ops: &[Op]) {
    let mut allocator = Allocator::new(pools().clone(), store);
    let mut world = World {
        now: 1_000_000_000_000,
        ..World::default()
    };
    for op in ops {
        world.step(&mut allocator, op);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn without_transactions(
        ops in prop::collection::vec(op(), 1..60),
        pattern in any::<u64>(),
    ) {
        run(Racy { pattern, ..Racy::default() }, &ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn in_sqlite(ops in prop::collection::vec(op(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("ipam.db"), true).unwrap();
        run(store, &ops);
    }
}
