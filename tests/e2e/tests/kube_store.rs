//! Allocations in a real API server: the same rules as in SQLite, and many
//! writers at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_ipam::conformance::{self, get, pools, request};
use berth_ipam::store::KubeStore;
use berth_ipam::{Allocator, Timestamp};
use berth_kube::{ApiServer, Options};
use berth_lab::skip;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::runtime::Runtime;

const POOLS: &str = include_str!("../../../manifests/crds/ippools.yaml");
const ALLOCATIONS: &str = include_str!("../../../manifests/crds/ipallocations.yaml");
const SOON: Duration = Duration::from_secs(60);

/// An API server with Berth's objects.
fn start() -> Result<ApiServer> {
    let server = ApiServer::start(Options::default())?;
    server.apply(&format!("{POOLS}---\n{ALLOCATIONS}"))?;
    let crds = ["crd/ippools.berth.dev", "crd/ipallocations.berth.dev"];
    let wait = ["wait", "--for=condition=established", "--timeout=60s"];
    server.kubectl(wait.into_iter().chain(crds))?;
    Ok(server)
}

/// A store as an agent has it: a connection and a watch of its own.
fn store(server: &ApiServer, runtime: &Runtime, node: Option<&str>) -> Result<KubeStore> {
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig())?;
    let options = KubeConfigOptions::default();
    let store = runtime.block_on(async {
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let client = Client::try_from(config)?;
        anyhow::Ok(KubeStore::new(client, runtime.handle().clone(), node))
    })?;
    let watched = store.clone();
    runtime.spawn(async move { watched.watch(|error| eprintln!("watch: {error}")).await });
    ensure!(store.wait_synced(SOON), "the first list did not come");
    Ok(store)
}

fn runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(1).enable_all().build()?)
}

#[test]
fn the_api_server_conforms() -> Result<()> {
    if let Err(why) = berth_kube::available() {
        skip!("{why:#}");
    }
    let (server, runtime) = (start()?, runtime()?);
    conformance::all(store(&server, &runtime, None)?);
    Ok(())
}

/// What the server has: address to the pod and sandbox that hold it.
fn held(server: &ApiServer) -> Result<BTreeMap<IpAddr, (String, String)>> {
    let all = server.kubectl_json(["get", "ipallocations"])?;
    let items = all["items"].as_array().context("no list")?;
    items
        .iter()
        .map(|item| &item["spec"])
        .filter(|spec| !spec["holder"].is_null())
        .map(|spec| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let holder = &spec["holder"];
            let address = text(&spec["address"]).parse()?;
            Ok((
                address,
                (text(&holder["pod"]["uid"]), text(&holder["containerId"])),
            ))
        })
        .collect()
}

/// Two hundred ADDs at once through the stores of two nodes, then all DELs,
/// then two hundred others in the same addresses.
#[test]
fn two_nodes_never_share_an_address_and_leak_none() -> Result<()> {
    const EACH: usize = 100;
    if let Err(why) = berth_kube::available() {
        skip!("{why:#}");
    }
    let (server, runtime) = (start()?, runtime()?);
    let stores = [
        store(&server, &runtime, Some("node1"))?,
        store(&server, &runtime, Some("node2"))?,
    ];
    // As many addresses as pods: the last of them are fought for.
    let all = pools(&[(
        "full",
        "subnet: 10.3.0.0/16, ranges: [10.3.0.1-10.3.0.200], default: true, coolDown: 0s",
    )]);
    let round = |round: &str| -> Result<(BTreeSet<IpAddr>, Vec<Duration>)> {
        let begin = Barrier::new(2 * EACH);
        let given: Vec<(IpAddr, Duration)> = thread::scope(|scope| {
            let adds: Vec<_> = stores
                .iter()
                .enumerate()
                .flat_map(|(node, store)| (0..EACH).map(move |n| (node, store, n)))
                .map(|(node, store, n)| {
                    let (all, begin) = (all.clone(), &begin);
                    scope.spawn(move || {
                        let mut allocator = Allocator::new(all, store.clone());
                        let mut pod = request(&format!("{round}-{node}-{n}"), &[]);
                        pod.node = format!("node{}", node + 1);
                        begin.wait();
                        let began = Instant::now();
                        let given = get(&mut allocator, &pod, Timestamp::now().0)?;
                        Ok::<_, berth_ipam::Error>((given[0], began.elapsed()))
                    })
                })
                .collect();
            let ended = adds.into_iter().map(|add| add.join().expect("no panic"));
            ended.collect::<Result<_, _>>()
        })?;
        let (addresses, mut times): (BTreeSet<_>, Vec<_>) = given.into_iter().unzip();
        times.sort();
        ensure!(
            addresses.len() == 2 * EACH,
            "{} addresses for {} pods",
            addresses.len(),
            2 * EACH
        );
        let held = held(&server)?;
        ensure!(
            held.keys().copied().collect::<BTreeSet<_>>() == addresses,
            "the server has {held:?}"
        );
        let uids: BTreeSet<_> = held.values().map(|(uid, _)| uid).collect();
        ensure!(uids.len() == 2 * EACH, "a pod has two addresses");
        Ok((addresses, times))
    };
    let report = |what: &str, times: &[Duration], before: u64| {
        let calls: u64 = stores.iter().map(|store| store.calls().total()).sum();
        println!(
            "{what}: p50 {:?}, p99 {:?}, {:.2} API calls per ADD",
            times[times.len() / 2],
            times[times.len() * 99 / 100],
            (calls - before) as f64 / times.len() as f64,
        );
        calls
    };
    let (first, times) = round("a")?;
    report("200 at once, addresses = pods, all unused", &times, 0);
    // DELs by the node that did not ADD as well: any agent may be asked.
    thread::scope(|scope| {
        for (n, sandbox) in held(&server)?
            .into_values()
            .map(|(_, sandbox)| sandbox)
            .enumerate()
        {
            let mut store = stores[n % 2].clone();
            scope.spawn(move || {
                let deadline = Instant::now() + SOON;
                // The other node's watch may be late; a DEL is asked again.
                while berth_ipam::release(&mut store, &sandbox, "eth0", Timestamp::now())
                    .expect("the server is there")
                    .is_empty()
                {
                    assert!(Instant::now() < deadline, "{sandbox} is not known");
                    thread::yield_now();
                }
            });
        }
        anyhow::Ok(())
    })?;
    ensure!(held(&server)?.is_empty(), "leaked: {:?}", held(&server)?);
    let before: u64 = stores.iter().map(|store| store.calls().total()).sum();
    let (second, times) = round("b")?;
    report(
        "200 at once, addresses = pods, all used before",
        &times,
        before,
    );
    ensure!(first == second, "the pool has no others");
    Ok(())
}

/// One at a time: what an ADD costs.
#[test]
fn an_add_costs_at_most_two_calls_and_one_if_claimed() -> Result<()> {
    if let Err(why) = berth_kube::available() {
        skip!("{why:#}");
    }
    let (server, runtime) = (start()?, runtime()?);
    let one = store(&server, &runtime, Some("node1"))?;
    let two = store(&server, &runtime, Some("node2"))?;
    let all = pools(&[("a", "subnet: 10.4.0.0/24, default: true, coolDown: 0s")]);
    let keep = [("berth.dev/keep", "app")];
    let add = |store: &KubeStore, life: &str, annotations: &[(&str, &str)]| -> Result<_> {
        let before = store.calls().total();
        let mut pod = request("web", annotations);
        pod.pod.id.uid = format!("uid-{life}");
        pod.container_id = format!("sandbox-{life}");
        let given = get(
            &mut Allocator::new(all.clone(), store.clone()),
            &pod,
            Timestamp::now().0,
        )?;
        Ok((given[0], store.calls().total() - before))
    };
    let (address, calls) = add(&one, "1", &keep)?;
    assert_eq!(calls, 1, "a new address is one create");
    let (again, calls) = add(&one, "1", &keep)?;
    assert_eq!((again, calls), (address, 1), "the same pod again");
    berth_ipam::release(&mut one.clone(), "sandbox-1", "eth0", Timestamp::now())?;
    let deadline = Instant::now() + SOON;
    while two
        .all()
        .iter()
        .all(|stored| stored.allocation.released.is_none())
    {
        ensure!(Instant::now() < deadline, "node2 does not hear of it");
        thread::yield_now();
    }
    let (moved, calls) = add(&two, "2", &keep)?;
    assert_eq!((moved, calls), (address, 1), "claimed, on another node");
    Ok(())
}
