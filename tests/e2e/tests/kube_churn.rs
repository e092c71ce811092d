//! 24 random changes a second to Services and EndpointSlices against a real
//! API server, over a line that breaks: watches are cut, and deletions happen
//! while nobody listens. Connections to endpoints that are healthy all the
//! while never fail, and at the end the maps are what a new agent with empty
//! maps compiles.
//!
//! It lasts 20 s; `BERTH_CHURN_SECONDS` says how long instead. The whole proof
//! is ten minutes:
//! ```text
//! BERTH_CHURN_SECONDS=600 cargo test -p berth-e2e --test kube_churn -- --nocapture
//! ```
//! What is random follows from a number that is printed; `BERTH_CHURN_SEED`
//! gives it again. The order in which the server does things does not.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::cluster::{Cluster, ENDPOINTS, NOBODY, NODE, WITHIN};
use berth_e2e::proxy::until;
use berth_e2e::relay::Relay;
use berth_kube::ApiServer;
use berth_lab::probe::Pace;
use berth_lab::{require_binaries, require_root, skip};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::MissedTickBehavior;

/// Changes a second.
const RATE: u32 = 24;
/// Services that come and go.
const SERVICES: u64 = 40;
/// Services that change and always have a healthy endpoint.
const STEADY: u64 = 4;
/// Slices a Service, at most.
const SLICES: u64 = 3;
/// Nothing may fail, however slow the machine is.
const TIMEOUT: Duration = Duration::from_secs(20);
const NAMESPACE: &str = "default";

/// SplitMix64 (Steele, Lea, Flood, 2014): numbers that look random.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }
}

/// One request to the API server.
#[derive(Debug)]
enum Change {
    Service(String, Value),
    /// Another Service by the same name: its ClusterIP may come and go.
    ServiceAnew(String, Value),
    Slice(String, Value),
    ServiceGone(String),
    SliceGone(String),
}

impl Change {
    fn random(random: &mut Random) -> Self {
        if random.one_in(6) {
            let number = random.below(STEADY);
            return match random.below(4) {
                0 => Self::steady_service(number, random),
                1 => Self::SliceGone(format!("steady{number}-1")),
                part => Self::steady_slice(number, part % 2, random),
            };
        }
        let name = format!("s{}", random.below(SERVICES));
        let slice = format!("{name}-{}", random.below(SLICES));
        match random.below(10) {
            0 | 1 => Self::Service(name.clone(), service(&name, random)),
            2 => Self::ServiceAnew(name.clone(), service(&name, random)),
            3 => Self::ServiceGone(name),
            4 => Self::SliceGone(slice),
            // A slice that changes its Service.
            5 => {
                let other = format!("s{}", random.below(SERVICES));
                Self::Slice(slice.clone(), slice_of(&slice, &other, random))
            }
            _ => Self::Slice(slice.clone(), slice_of(&slice, &name, random)),
        }
    }

    fn steady_service(number: u64, random: &mut Random) -> Self {
        let name = format!("steady{number}");
        let mut spec = json!({
            "clusterIP": steady_address(number),
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        });
        if random.one_in(2) {
            spec["sessionAffinity"] = json!("ClientIP");
        }
        if random.one_in(2) {
            let more = json!({"name": "more", "port": 81, "targetPort": 8080});
            spec["ports"] = json!([more, spec["ports"][0]]);
        }
        if random.one_in(3) {
            // All of its endpoints that are healthy are on this node.
            spec["internalTrafficPolicy"] = json!("Local");
        }
        Self::Service(name.clone(), object("v1", "Service", &name, &[], spec))
    }

    /// Part 0 always has an endpoint that answers; part 1 may have none, and
    /// some that are not ready.
    fn steady_slice(number: u64, part: u64, random: &mut Random) -> Self {
        let service = format!("steady{number}");
        let name = format!("{service}-{part}");
        let mut endpoints = Vec::new();
        for address in ENDPOINTS {
            if random.one_in(2) {
                endpoints.push(endpoint(address, NODE, json!({"ready": true})));
            }
        }
        if part == 0 && endpoints.is_empty() {
            let address = random.of(&ENDPOINTS);
            endpoints.push(endpoint(address, NODE, json!({"ready": true})));
        }
        if random.one_in(2) {
            let dead = json!({"ready": false, "serving": false, "terminating": random.one_in(2)});
            endpoints.push(endpoint(NOBODY, NODE, dead));
        }
        let ports = json!([{"name": "http", "port": 8080}]);
        Self::Slice(name.clone(), slice(&name, &service, &endpoints, ports))
    }
}

fn steady_address(number: u64) -> String {
    format!("10.96.200.{number}")
}

fn object(api: &str, kind: &str, name: &str, labels: &[(&str, &str)], spec: Value) -> Value {
    let labels: BTreeMap<_, _> = labels.iter().copied().collect();
    json!({
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": spec,
    })
}

/// Any of the shapes that a Service can have. Some are refused by the server,
/// as a ClusterIP that changes: then nothing changes.
fn service(name: &str, random: &mut Random) -> Value {
    let mut ports = vec![json!({"name": "http", "port": 80, "targetPort": 8080})];
    if random.one_in(2) {
        ports.push(json!({"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 8053}));
    }
    if random.one_in(3) {
        ports.push(json!({"name": "https", "port": 443 + random.below(3), "targetPort": 8443}));
    }
    let mut spec = json!({"ports": ports});
    match random.below(8) {
        0 | 1 => {
            spec["type"] = json!("NodePort");
            let policy = random.of(&["Cluster", "Local"]);
            spec["externalTrafficPolicy"] = json!(policy);
        }
        // Two Services may claim one address.
        2 => spec["externalIPs"] = json!([format!("192.0.2.{}", 10 + random.below(4))]),
        3 => spec["clusterIP"] = json!("None"),
        4 => spec = json!({"type": "ExternalName", "externalName": "db.example"}),
        5 => spec["ipFamilyPolicy"] = json!("PreferDualStack"),
        _ => {}
    }
    if spec["type"] != "ExternalName" {
        spec["internalTrafficPolicy"] = json!(random.of(&["Cluster", "Cluster", "Local"]));
        spec["sessionAffinity"] = json!(random.of(&["None", "ClientIP"]));
    }
    let foreign = [("service.kubernetes.io/service-proxy-name", "another")];
    let labels = if random.one_in(8) { &foreign[..] } else { &[] };
    object("v1", "Service", name, labels, spec)
}

fn slice_of(name: &str, service: &str, random: &mut Random) -> Value {
    let is_v6 = name.ends_with("-2");
    let prefix = if is_v6 { "fd20::1:" } else { "10.20.1." };
    let endpoints: Vec<_> = (0..random.below(9))
        .map(|_| {
            let address = format!("{prefix}{}", 1 + random.below(99));
            let node = random.of(&[NODE, "node2", "node3"]);
            let conditions = match random.below(6) {
                0 => json!({"ready": false, "serving": false}),
                1 => json!({"ready": false, "serving": true, "terminating": true}),
                2 => json!({"ready": false, "serving": false, "terminating": true}),
                _ => json!({"ready": true}),
            };
            let mut endpoint = endpoint(&address, node, conditions);
            if random.one_in(2) {
                let zone = random.of(&["east", "west"]);
                endpoint["hints"] = json!({"forZones": [{"name": zone}]});
            }
            endpoint
        })
        .collect();
    let ports = json!([
        {"name": "http", "port": 8080 + random.below(2)},
        {"name": "dns", "protocol": "UDP", "port": 8053},
        {"name": "https", "port": 8443},
    ]);
    let mut slice = slice(name, service, &endpoints, ports);
    if is_v6 {
        slice["addressType"] = json!("IPv6");
    }
    slice
}

fn slice(name: &str, service: &str, endpoints: &[Value], ports: Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports,
    })
}

fn endpoint(address: &str, node: &str, conditions: Value) -> Value {
    json!({"addresses": [address], "nodeName": node, "conditions": conditions})
}

/// Whoever changes things, straight at the API server.
#[derive(Clone)]
struct Hand {
    services: Api<Service>,
    slices: Api<EndpointSlice>,
}

impl Hand {
    async fn new(server: &ApiServer) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(server.kubeconfig())?;
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        config.read_timeout = Some(Duration::from_secs(5));
        let client = Client::try_from(config)?;
        Ok(Self {
            services: Api::namespaced(client.clone(), NAMESPACE),
            slices: Api::namespaced(client, NAMESPACE),
        })
    }

    async fn apply_service(&self, name: &str, value: &Value) -> kube::Result<()> {
        let patch = Patch::Apply(value);
        let applied = self.services.patch(name, &applier(), &patch).await;
        applied.map(drop)
    }

    async fn make(&self, change: &Change) -> kube::Result<()> {
        let delete = DeleteParams::default();
        match change {
            Change::Service(name, value) => self.apply_service(name, value).await,
            Change::ServiceAnew(name, value) => {
                match self.services.delete(name, &delete).await {
                    Err(error) if !is_missing(&error) => return Err(error),
                    _ => {}
                }
                self.apply_service(name, value).await
            }
            Change::Slice(name, value) => {
                let patch = Patch::Apply(value);
                let applied = self.slices.patch(name, &applier(), &patch).await;
                applied.map(drop)
            }
            Change::ServiceGone(name) => self.services.delete(name, &delete).await.map(drop),
            Change::SliceGone(name) => self.slices.delete(name, &delete).await.map(drop),
        }
    }
}

fn applier() -> PatchParams {
    PatchParams::apply("churn").force()
}

fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// What came of the changes.
#[derive(Debug, Default)]
struct Tally {
    made: AtomicU64,
    /// What was to be deleted was not there.
    idle: AtomicU64,
    /// The server refused, or was away.
    failed: AtomicU64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        write!(
            f,
            "{} changes made, {} had nothing to delete, {} failed",
            count(&self.made),
            count(&self.idle),
            count(&self.failed)
        )
    }
}

/// Makes changes until told to stop, each without waiting for the others.
async fn churn(hand: Hand, mut random: Random, stop: &AtomicBool, tally: &Arc<Tally>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut running = tokio::task::JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let change = Change::random(&mut random);
        let (hand, tally) = (hand.clone(), Arc::clone(tally));
        running.spawn(async move {
            let count = match hand.make(&change).await {
                Ok(()) => &tally.made,
                Err(error) if is_missing(&error) => &tally.idle,
                Err(_) => &tally.failed,
            };
            count.fetch_add(1, Ordering::Relaxed);
        });
        while running.try_join_next().is_some() {}
    }
    running.join_all().await;
}

/// What the line does to the agent meanwhile.
#[derive(Debug, Default)]
struct Faults {
    cuts: usize,
    holds: usize,
    restarts: usize,
}

fn number_from(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text:?}")),
        Err(_) => Ok(default),
    }
}

#[test]
fn under_churn_nothing_healthy_is_lost_and_the_maps_are_right_at_the_end() -> Result<()> {
    require_root!();
    require_binaries!("berth-lab", "berth-cni", "berth-agent");
    if let Err(why) = berth_kube::available() {
        skip!("{why:#}");
    }
    let lasts = Duration::from_secs(number_from("BERTH_CHURN_SECONDS", 20)?);
    let seed = number_from("BERTH_CHURN_SEED", u64::from(std::process::id()))?;
    println!(
        "BERTH_CHURN_SEED={seed} BERTH_CHURN_SECONDS={}",
        lasts.as_secs()
    );
    let mut random = Random(seed);
    let mut cluster = Cluster::start()?;
    let agent = cluster.agent()?;
    let runtime = Runtime::new()?;
    let hand = runtime.block_on(Hand::new(&cluster.server))?;
    for number in 0..STEADY {
        for change in [
            Change::steady_service(number, &mut random),
            Change::steady_slice(number, 0, &mut random),
        ] {
            runtime.block_on(hand.make(&change))?;
        }
    }
    let key = |number| format!("{}:80/TCP socket", steady_address(number));
    until("the steady Services are served", WITHIN, || {
        let held = agent.realized()?;
        let mut all = (0..STEADY).map(|number| held.get(&key(number)));
        Ok(all.all(|held| held.is_some_and(|held| !held.backends.is_empty())))
    })
    .with_context(|| agent.tail())?;

    let Cluster {
        relay, server, lab, ..
    } = &mut cluster;
    let node = lab.node(1);
    let mut loads = Vec::new();
    for number in 0..STEADY {
        for (every, hold) in [(5, false), (5, false), (50, true)] {
            let pace = Pace {
                every: Duration::from_millis(every),
                timeout: TIMEOUT,
                hold,
            };
            loads.push(node.load(&format!("{}:80", steady_address(number)), pace)?);
        }
    }

    let (stop, tally) = (AtomicBool::new(false), Arc::<Tally>::default());
    let began = Instant::now();
    let faults = thread::scope(|scope| {
        let churning = churn(hand.clone(), random.clone(), &stop, &tally);
        scope.spawn(|| runtime.block_on(churning));
        let mut line = Random(!seed);
        let outcome = disturb(server, relay, &mut line, began, lasts);
        stop.store(true, Ordering::Relaxed);
        outcome
    })?;
    let took = began.elapsed();
    let mut opened = 0;
    for load in loads {
        let report = load.stop()?;
        assert_eq!(report.failures, [] as [&str; 0], "{}", agent.tail());
        assert_eq!(report.failed, 0);
        assert!(report.succeeded > 1, "{report:?}");
        opened += report.succeeded;
    }
    println!("{took:?}: {tally}, {faults:?}, {opened} exchanges, none failed");
    let made = tally.made.load(Ordering::Relaxed);
    let expected = took.as_secs() * u64::from(RATE);
    assert!(made > expected / 4, "{made} changes were made: {tally}");

    // Who has heard of this has heard all that came before.
    let last = [
        Change::Service("last".to_owned(), {
            let spec = json!({"clusterIP": "10.96.200.99", "ports": [{"port": 80}]});
            object("v1", "Service", "last", &[], spec)
        }),
        Change::Slice("last-0".to_owned(), {
            let endpoints = [endpoint(NOBODY, NODE, json!({"ready": true}))];
            slice("last-0", "last", &endpoints, json!([{"port": 8080}]))
        }),
    ];
    for change in &last {
        runtime.block_on(hand.make(change))?;
    }
    let has_last = |held: &BTreeMap<_, berth_api::agent::DumpedFrontend>| {
        let last = held.get("10.96.200.99:80/TCP socket");
        last.is_some_and(|last| last.backends.len() == 1)
    };
    until("the agent has heard everything", WITHIN, || {
        Ok(has_last(&agent.realized()?))
    })
    .with_context(|| agent.tail())?;
    let fresh = cluster.another_agent("fresh", None)?;
    until("a fresh agent has heard everything", WITHIN, || {
        // Its socket is not there at first.
        Ok(fresh.realized().is_ok_and(|held| has_last(&held)))
    })
    .with_context(|| fresh.tail())?;
    let (churned, compiled) = (agent.realized()?, fresh.realized()?);
    println!("{} frontends are the same", compiled.len());
    let names = |of: &BTreeMap<String, _>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&churned), names(&compiled), "seed {seed}");
    for (name, frontend) in &churned {
        assert_eq!(Some(frontend), compiled.get(name), "{name}, seed {seed}");
    }
    assert_eq!(churned, agent.desired()?);
    let (status, told) = agent.get("/readyz")?;
    ensure!(status == 200, "{told}");
    Ok(())
}

/// Cuts the line, holds it, and restarts the API server once in each two
/// minutes, the first time in the middle: until `lasts` is over.
fn disturb(
    server: &mut ApiServer,
    relay: &Relay,
    random: &mut Random,
    began: Instant,
    lasts: Duration,
) -> Result<Faults> {
    let mut faults = Faults::default();
    let every = Duration::from_secs(120).min(lasts);
    let mut next_restart = began + every / 2;
    while began.elapsed() < lasts {
        if Instant::now() >= next_restart {
            // What is deleted from here on the agent does not hear of, and the
            // server that comes back does not remember.
            relay.hold();
            pause(random, 1..2);
            server.restart()?;
            pause(random, 1..2);
            relay.release();
            faults.restarts += 1;
            next_restart += every;
            continue;
        }
        pause(random, 0..3);
        if random.one_in(4) {
            relay.hold();
            pause(random, 0..3);
            relay.release();
            faults.holds += 1;
        } else {
            faults.cuts += relay.cut();
        }
    }
    Ok(faults)
}

/// Lets the churn go on for a while. This is no waiting for something: how
/// long a line is whole, and is not, is what is being tried.
fn pause(random: &mut Random, seconds: std::ops::Range<u64>) {
    let millis = seconds.start * 1000..seconds.end * 1000;
    let long = millis.start + random.below(millis.end - millis.start);
    thread::park_timeout(Duration::from_millis(long));
}
