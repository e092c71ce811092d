//! What both stores must do alike, and what the allocator says when there is
//! nothing to give.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use berth_ipam::conformance::{self, get, pools, request};
use berth_ipam::store::{MemoryStore, SqliteStore, Store, StoreError};
use berth_ipam::{Allocator, Error, Timestamp, Workload};

fn sqlite(dir: &Path) -> SqliteStore {
    SqliteStore::open(&dir.join("ipam.db"), true).unwrap()
}

#[test]
fn memory_conforms() {
    conformance::all(MemoryStore::default());
}

#[test]
fn sqlite_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::all(sqlite(dir.path()));
}

#[test]
fn both_families_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let pools = pools(&[
        ("four", "subnet: 10.0.0.0/24, default: true"),
        (
            "six",
            "subnet: 'fd00::/126', default: true, gateway: 'fd00::1', exclude: ['fd00::3']",
        ),
    ]);
    fn check(mut allocator: Allocator<impl Store>) {
        assert_eq!(
            get(&mut allocator, &request("p1", &[]), 0).unwrap().len(),
            2
        );
        let error = get(&mut allocator, &request("p2", &[]), 1).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("pool six has 1 addresses, 1 held"),
            "{error}"
        );
        let held = allocator
            .store()
            .attempt(|records| records.held())
            .map_err(|e: StoreError| e);
        assert_eq!(held.unwrap().len(), 2, "only p1's");
    }
    check(Allocator::new(pools.clone(), MemoryStore::default()));
    check(Allocator::new(pools, sqlite(dir.path())));
}

#[test]
fn each_refusal_names_pool_address_holder_and_mend() {
    let pools = pools(&[
        (
            "a",
            "subnet: 10.0.0.0/24, gateway: 10.0.0.1, ranges: [10.0.0.10-10.0.0.20]",
        ),
        ("b", "subnet: 10.0.0.0/24, ranges: [10.0.0.20-10.0.0.30]"),
    ]);
    let mut allocator = Allocator::new(pools, MemoryStore::default());
    get(
        &mut allocator,
        &request("one", &[("berth.dev/ip", "10.0.0.12")]),
        0,
    )
    .unwrap();
    for (annotations, told) in [
        (
            vec![],
            "pod shop/x: there is no default pool; set spec.default on an IPPool, or name one in berth.dev/pool (served pools: a); refused: pools.yaml:7: IPPool b: spec.ranges: overlaps pool a",
        ),
        (
            vec![("berth.dev/pool", "c")],
            "pod shop/x: pool c does not exist; create it, or correct berth.dev/pool (served pools: a)",
        ),
        (
            vec![("berth.dev/pool", "b")],
            "pod shop/x: pool b is not served: pools.yaml:7: IPPool b: spec.ranges: overlaps pool a, which has 10.0.0.20 too",
        ),
        (
            vec![("berth.dev/ip", "10.9.0.1")],
            "pod shop/x: address 10.9.0.1 is in no pool; make an IPPool for its subnet, or correct berth.dev/ip",
        ),
        (
            vec![("berth.dev/ip", "10.0.0.50")],
            "address 10.0.0.50 is in no pool; it is on the subnet of pool a: widen that pool's spec.ranges",
        ),
        (
            vec![("berth.dev/ip", "10.0.0.1")],
            "it is the gateway of pool a: choose one of 10.0.0.10-10.0.0.20",
        ),
        (
            vec![("berth.dev/ip", "10.0.0.12")],
            "pod shop/x: address 10.0.0.12 of pool a is held by pod shop/one (sandbox sandbox-one on node node1); delete that pod, or give one of the two another address",
        ),
        (
            vec![("berth.dev/ip", "10.0.0.12,10.0.0.12")],
            "none of the 2 addresses of berth.dev/ip is free: 10.0.0.12 is held by pod shop/one",
        ),
    ] {
        let error = get(&mut allocator, &request("x", &annotations), 1)
            .unwrap_err()
            .to_string();
        assert!(error.contains(told), "{error}\n  lacks {told}");
    }
}

#[test]
fn a_statefulset_takes_its_list_by_ordinal() {
    let pools = pools(&[("a", "subnet: 10.0.0.0/24, ranges: [10.0.0.10-10.0.0.20]")]);
    let mut allocator = Allocator::new(pools, MemoryStore::default());
    let mut ask = |ordinal: u32, uid: &str| {
        let mut wish = request("db", &[("berth.dev/ip", "10.0.0.15,10.0.0.10-10.0.0.11")]);
        wish.pod.id.uid = uid.to_owned();
        wish.container_id = format!("sandbox-{uid}");
        wish.pod.workload = Some(Workload {
            kind: "StatefulSet".to_owned(),
            name: "db".to_owned(),
            ordinal: Some(ordinal),
        });
        get(&mut allocator, &wish, 0).map(|given| given[0].to_string())
    };
    assert_eq!(ask(2, "u2").unwrap(), "10.0.0.11");
    assert_eq!(ask(0, "u0").unwrap(), "10.0.0.15");
    let error = ask(3, "u3").unwrap_err().to_string();
    assert!(
        error.contains("has 3 addresses, and none for ordinal 3; add an address for every replica"),
        "{error}"
    );
}

/// An owner whose annotation names another address lets the old one go.
#[test]
fn a_claim_that_was_moved_away_from_lapses() {
    let pools = pools(&[("a", "subnet: 10.0.0.0/24, ranges: [10.0.0.10-10.0.0.11]")]);
    let mut allocator = Allocator::new(pools, MemoryStore::default());
    get(
        &mut allocator,
        &request("p", &[("berth.dev/ip", "10.0.0.10")]),
        0,
    )
    .unwrap();
    allocator
        .release("sandbox-p", "eth0", Timestamp(1))
        .unwrap();
    let mut again = request("p", &[("berth.dev/ip", "10.0.0.11")]);
    again.pod.id.uid = "another".to_owned();
    get(&mut allocator, &again, 2).unwrap();
    let old = allocator.store().records().next().unwrap().clone();
    assert_eq!(old.free_at(), Some(Timestamp(10_001)), "{old:?}");
}

/// A pool whose ranges were edited offers its new addresses, and only those;
/// a pool that was renamed takes its records along.
#[test]
fn a_pool_may_be_edited_and_renamed() {
    let dir = tempfile::tempdir().unwrap();
    let with = |name: &'static str, ranges: &str| {
        let spec = format!("subnet: 10.0.0.0/24, default: true, coolDown: 0s, ranges: [{ranges}]");
        Allocator::new(pools(&[(name, &spec)]), sqlite(dir.path()))
    };
    let mut narrow = with("a", "10.0.0.20-10.0.0.21");
    assert_eq!(
        get(&mut narrow, &request("p1", &[]), 0).unwrap()[0].to_string(),
        "10.0.0.20"
    );
    assert_eq!(
        get(&mut narrow, &request("p2", &[]), 0).unwrap()[0].to_string(),
        "10.0.0.21"
    );
    let mut wide = with("a", "10.0.0.10,10.0.0.20-10.0.0.21");
    assert_eq!(
        get(&mut wide, &request("p3", &[]), 0).unwrap()[0].to_string(),
        "10.0.0.10"
    );
    wide.release("sandbox-p1", "eth0", Timestamp(5)).unwrap();
    wide.release("sandbox-p2", "eth0", Timestamp(4)).unwrap();
    let mut renamed = with("b", "10.0.0.20");
    assert_eq!(
        get(&mut renamed, &request("p4", &[]), 9).unwrap()[0].to_string(),
        "10.0.0.20"
    );
    assert!(matches!(
        get(&mut renamed, &request("p5", &[]), 9),
        Err(Error::Exhausted { .. })
    ));
}

/// Many writers at once, each with its own connection, the file made by
/// whoever comes first.
#[test]
fn parallel_writers_share_one_file() {
    const WRITERS: usize = 16;
    const EACH: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    let start = Barrier::new(WRITERS);
    let given: Vec<IpAddr> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (dir, start) = (dir.path(), &start);
                scope.spawn(move || {
                    start.wait();
                    let all = pools(&[("a", "subnet: 10.0.0.0/16, default: true")]);
                    (0..EACH)
                        .flat_map(|n| {
                            let mut allocator = Allocator::new(all.clone(), sqlite(dir));
                            get(&mut allocator, &request(&format!("p{writer}-{n}"), &[]), 0)
                                .unwrap()
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        writers
            .into_iter()
            .flat_map(|w| w.join().unwrap())
            .collect()
    });
    assert_eq!(given.len(), WRITERS * EACH);
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), WRITERS * EACH);
}

/// Nothing that an ADD does may read every record of a big pool: SQLite's own
/// plan says so for each statement.
#[test]
fn no_lookup_scans_the_table() {
    let dir = tempfile::tempdir().unwrap();
    drop(sqlite(dir.path()));
    let connection = rusqlite::Connection::open(dir.path().join("ipam.db")).unwrap();
    for condition in [
        "name = 'x'",
        "pod = 'x'",
        "owner = 'x'",
        "container = 'x'",
        "pool = 'x' AND free_at <= 5 ORDER BY free_at LIMIT 16 OFFSET 0",
        "key >= x'04' ORDER BY key",
    ] {
        let plan: Vec<String> = connection
            .prepare(&format!(
                "EXPLAIN QUERY PLAN SELECT name FROM allocation WHERE {condition}"
            ))
            .unwrap()
            .query_map([], |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert!(
            plan.iter().all(|step| step.starts_with("SEARCH")),
            "{condition}: {plan:?}"
        );
    }
}

#[test]
fn a_record_that_cannot_be_read_names_the_address() {
    let dir = tempfile::tempdir().unwrap();
    let pools = pools(&[("a", "subnet: 10.0.0.0/24, default: true")]);
    let mut allocator = Allocator::new(pools, sqlite(dir.path()));
    get(&mut allocator, &request("p1", &[]), 0).unwrap();
    rusqlite::Connection::open(dir.path().join("ipam.db"))
        .unwrap()
        .execute("UPDATE allocation SET record = '{}'", [])
        .unwrap();
    let error = get(&mut allocator, &request("p1", &[]), 0)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("record 10.0.0.1: missing field `address`"),
        "{error}"
    );
}
