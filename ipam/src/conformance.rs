//! What every store must do alike, as functions that panic where one does
//! not. The unit tests run them on memory and on SQLite, the end-to-end tests
//! on a real API server.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use crate::store::{Store, StoreError};
use crate::{Allocator, Error, Pod, PodRef, Pools, Request, Timestamp, Wishes, Workload};

/// Everything below, on one empty store.
///
/// # Panics
/// If the store breaks a rule.
pub fn all<S: Store>(store: S) {
    let mut store = records_and_order(store);
    a_claim_outlives_its_pod(&mut store);
    a_late_del_changes_nothing(&mut store);
}

/// Pools by name and `spec`.
///
/// # Panics
/// If one is not YAML.
#[must_use]
pub fn pools(specs: &[(&str, &str)]) -> Pools {
    let text: String = specs
        .iter()
        .map(|(name, spec)| {
            format!(
                "---\napiVersion: berth.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
            )
        })
        .collect();
    let parsed = berth_api::folder::parse(Path::new("pools.yaml"), &text);
    assert_eq!(parsed.rejected, []);
    Pools::compile(&parsed.objects)
}

/// Pod `shop/NAME` with its annotations, in the sandbox `sandbox-NAME`.
///
/// # Panics
/// If an annotation is wrong.
#[must_use]
pub fn request(name: &str, annotations: &[(&str, &str)]) -> Request {
    let id = PodRef {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
    };
    let annotations = annotations
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Request {
        wishes: Wishes::read(&id, &annotations, &BTreeMap::new())
            .expect("the tests' own annotations"),
        pod: Pod { id, workload: None },
        container_id: format!("sandbox-{name}"),
        ifname: "eth0".to_owned(),
        netns: "/run/netns/x".to_owned(),
        node: "node1".to_owned(),
    }
}

/// The addresses that it gets; the pods of others have gone.
///
/// # Errors
/// As [`Allocator::allocate`].
pub fn get<S: Store>(
    allocator: &mut Allocator<S>,
    request: &Request,
    now: u64,
) -> Result<Vec<IpAddr>, Error> {
    let grants = allocator.allocate(request, &|_| false, Timestamp(now))?;
    Ok(grants.iter().map(|grant| grant.address).collect())
}

/// Create-if-absent, compare-and-swap, lookups and the order of free addresses.
fn records_and_order<S: Store>(store: S) -> S {
    let pools = pools(&[(
        "a",
        "subnet: 10.0.0.0/24, ranges: [10.0.0.1-10.0.0.3], coolDown: 1s",
    )]);
    let pool = pools.get("a").unwrap().clone();
    let mut allocator = Allocator::new(pools, store);
    let pick = [("berth.dev/pool", "a")];
    for (at, name) in ["p1", "p2", "p3"].iter().enumerate() {
        let given = get(&mut allocator, &request(name, &pick), at as u64).unwrap();
        assert_eq!(
            given,
            [IpAddr::from([10, 0, 0, at as u8 + 1])],
            "lowest unused first"
        );
    }
    let full = get(&mut allocator, &request("p4", &pick), 3).unwrap_err();
    assert_eq!(
        full.to_string(),
        "pod shop/p4: no free address: pool a has 3 addresses, 3 held by pods, 0 kept for their owners, \
         0 at rest; widen spec.ranges, or release addresses that are kept"
    );
    assert!(!full.is_temporary());
    for (name, at) in [("p2", 10), ("p1", 20), ("p3", 30)] {
        let freed = allocator
            .release(&format!("sandbox-{name}"), "eth0", Timestamp(at))
            .unwrap();
        assert_eq!(freed.len(), 1);
    }
    let resting = get(&mut allocator, &request("p4", &pick), 40).unwrap_err();
    assert!(resting.is_temporary());
    assert!(
        resting
            .to_string()
            .contains("3 at rest; one comes free in 1 s"),
        "{resting}"
    );
    let order: Vec<_> = ["p4", "p5", "p6"]
        .iter()
        .map(|name| get(&mut allocator, &request(name, &pick), 5000).unwrap()[0].to_string())
        .collect();
    assert_eq!(
        order,
        ["10.0.0.2", "10.0.0.1", "10.0.0.3"],
        "least recently used first"
    );

    allocator
        .store()
        .attempt(|records| {
            let first = records.get(IpAddr::from([10, 0, 0, 1]))?.unwrap();
            assert!(!records.create(&first.allocation)?, "the name is the lock");
            // A write that changes nothing may leave the version as it is.
            let mut changed = first.allocation.clone();
            changed.claim.since = Timestamp(4999);
            assert!(records.replace(&changed, &first.revision)?);
            assert!(
                !records.replace(&first.allocation, &first.revision)?,
                "a stale revision"
            );
            assert_eq!(records.of_pod("uid-p5")?.len(), 1);
            assert_eq!(records.of_owner(&first.allocation.claim.owner)?.len(), 1);
            assert_eq!(records.of_container("sandbox-p5")?.len(), 1);
            assert_eq!(records.of_container("sandbox-p1")?.len(), 0);
            assert_eq!(records.held()?.len(), 3);
            assert_eq!(records.unused(&pool, None)?, None);
            Ok::<_, StoreError>(())
        })
        .unwrap();
    allocator.into_store()
}

/// A StatefulSet's pod that comes back, on any node, gets its own address.
fn a_claim_outlives_its_pod(store: &mut impl Store) {
    let pools = pools(&[("kept", "subnet: 10.1.0.0/29, coolDown: 0s")]);
    let mut allocator = Allocator::new(pools, store);
    let pod = |ordinal: u32, life: u32| {
        let mut wish = request(&format!("db-{ordinal}"), &[("berth.dev/pool", "kept")]);
        wish.pod.id.uid = format!("uid-db-{ordinal}-{life}");
        wish.container_id = format!("sandbox-db-{ordinal}-{life}");
        wish.node = format!("node{life}");
        wish.pod.workload = Some(Workload {
            kind: "StatefulSet".to_owned(),
            name: "db".to_owned(),
            ordinal: Some(ordinal),
        });
        wish
    };
    let first = get(&mut allocator, &pod(0, 1), 100).unwrap();
    let second = get(&mut allocator, &pod(1, 1), 101).unwrap();
    let early = get(&mut allocator, &pod(0, 2), 102).unwrap_err();
    assert!(
        early.to_string().contains("is held by pod shop/db-0"),
        "{early}"
    );
    for ordinal in [0, 1] {
        let sandbox = format!("sandbox-db-{ordinal}-1");
        allocator.release(&sandbox, "eth0", Timestamp(110)).unwrap();
    }
    // Others do not get it, however long it lies idle.
    for n in 0..4 {
        let name = format!("other-{n}");
        let other = request(&name, &[("berth.dev/pool", "kept")]);
        let given = get(&mut allocator, &other, 1_000_000 + n).unwrap();
        assert!(given != first && given != second, "{given:?}");
        allocator
            .release(&format!("sandbox-{name}"), "eth0", Timestamp(1_000_000 + n))
            .unwrap();
    }
    assert_eq!(get(&mut allocator, &pod(1, 2), 1_000_010).unwrap(), second);
    assert_eq!(get(&mut allocator, &pod(0, 2), 1_000_011).unwrap(), first);
}

/// The DEL of an old sandbox, after the pod has a new one.
fn a_late_del_changes_nothing(store: &mut impl Store) {
    let pools = pools(&[("late", "subnet: 10.2.0.0/29, coolDown: 0s")]);
    let mut allocator = Allocator::new(pools, store);
    let mut pod = request("late", &[("berth.dev/pool", "late")]);
    let given = get(&mut allocator, &pod, 100).unwrap();
    pod.container_id = "sandbox-late-2".to_owned();
    assert_eq!(get(&mut allocator, &pod, 101).unwrap(), given);
    let mut release = |sandbox, ifname| allocator.release(sandbox, ifname, Timestamp(110)).unwrap();
    let none: Vec<IpAddr> = Vec::new();
    assert_eq!(release("sandbox-late", "eth0"), none);
    assert_eq!(release("sandbox-late-2", "net1"), none);
    assert_eq!(release("sandbox-late-2", "eth0"), given);
    assert_eq!(release("sandbox-late-2", "eth0"), none);
}
