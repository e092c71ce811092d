//! What must hold whatever happens, over the fake datapath: it checks after
//! every single operation that no frontend points at a missing backend.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_abi::{Backend, Frontend};
use berth_agent::agent::Controller;
use berth_agent::compile::{Desired, FrontendKey, Update, compile};
use berth_agent::datapath::{Datapath as _, FakeDatapath};
use berth_agent::diff::Capacity;
use berth_agent::model::{
    Change, Endpoint, EndpointPort, EndpointSlice, HostPort, NamespacedName, Owner, Pod, Protocol,
    Service, ServicePort, SliceKey, SourceKind, TrafficPolicy,
};
use proptest::prelude::*;

const NODE: &str = "n1";
const ROOMY: Capacity = Capacity {
    frontends: 512,
    slots: 4096,
    backends: 512,
};
/// Longer than the grace period of a retired region.
const LONG: Duration = Duration::from_secs(2);

fn name(index: u8) -> NamespacedName {
    NamespacedName::new("shop", &format!("s{index}"))
}

fn service(index: u8, variant: u8) -> Change {
    let port = |name: &str, protocol, port, node_port| ServicePort {
        name: name.into(),
        protocol,
        port,
        node_port,
    };
    let mut ports = vec![port("http", Protocol::Tcp, 80, None)];
    if variant & 1 != 0 {
        ports.push(port(
            "dns",
            Protocol::Udp,
            53,
            Some(30_000 + u16::from(index)),
        ));
    }
    let shared: IpAddr = "192.0.2.1".parse().unwrap();
    Change::Service(Box::new(Service {
        name: name(index),
        cluster_ips: vec![IpAddr::from([10, 96, 0, index])],
        // Two Services with this bit claim one address.
        external_ips: if variant & 2 != 0 {
            vec![shared]
        } else {
            vec![]
        },
        load_balancer_ips: vec![IpAddr::from([198, 51, 100, index])],
        ports,
        affinity: (variant & 4 != 0).then_some(Duration::from_secs(100)),
        internal_policy: if variant & 8 != 0 {
            TrafficPolicy::Local
        } else {
            TrafficPolicy::Cluster
        },
        external_policy: TrafficPolicy::Cluster,
        source_ranges: if variant & 16 != 0 {
            vec!["10.20.0.0/28".parse().unwrap()]
        } else {
            vec![]
        },
        health_check_node_port: None,
    }))
}

fn slice(index: u8, slice: u8, endpoints: u8) -> Change {
    let endpoint = |bit: u8| Endpoint {
        address: IpAddr::from([10, 20, index, bit]),
        ready: bit != 3,
        serving: true,
        terminating: bit == 3,
        node: Some(if bit.is_multiple_of(2) { NODE } else { "n2" }.into()),
        hint_nodes: vec![],
        hint_zones: vec![],
    };
    let port = |name: &str, protocol, port| EndpointPort {
        name: name.into(),
        protocol,
        port,
    };
    Change::Slice(Box::new(EndpointSlice {
        key: SliceKey {
            service: name(index),
            slice: format!("slice{slice}").into(),
        },
        ports: vec![
            port("http", Protocol::Tcp, 8080),
            port("dns", Protocol::Udp, 5353),
        ],
        endpoints: (0..4)
            .filter(|bit| endpoints >> bit & 1 == 1)
            .map(endpoint)
            .collect(),
        triggered: None,
    }))
}

/// A pod with one hostPort: some are those that other pods want too, and those
/// that a Service may have as NodePort.
fn pod(index: u8, variant: u8) -> Change {
    let port = 30_000 + u16::from(variant & 3);
    Change::Pod(Box::new(Pod {
        name: name(index),
        uid: format!("u{variant}").into(),
        addresses: vec![IpAddr::from([10, 20, 9, index])],
        host_network: false,
        host_ports: vec![HostPort {
            host_ip: (variant & 8 != 0).then(|| IpAddr::from([10, 20, 0, 11])),
            host_port: port,
            container_port: 5353,
            protocol: if variant & 4 == 0 {
                Protocol::Udp
            } else {
                Protocol::Tcp
            },
        }],
        is_running: variant & 16 == 0,
        opted_out: false,
    }))
}

fn addresses(bits: u8) -> Change {
    let all: BTreeSet<_> = (0..2)
        .filter(|b| bits >> b & 1 == 1)
        .map(|b| IpAddr::from([10, 20, 0, 11 + b]))
        .collect();
    Change::NodeAddresses(all)
}

/// None, one with an address that the node may have, and one with loopback.
fn networks(index: u8) -> Change {
    let all = [None, Some("10.20.0.11/32"), Some("127.0.0.0/8")];
    let network = all[usize::from(index)].map(|text| text.parse().unwrap());
    Change::NodePortNetworks(network.into_iter().collect())
}

/// Namespaces by cookie; those with an address below 16 are inside of the range.
fn namespaces(all: BTreeMap<u64, u8>) -> Change {
    let address = |last| vec![IpAddr::from([10, 20, 0, last])];
    Change::Clients(
        all.into_iter()
            .map(|(cookie, last)| (cookie, address(last)))
            .collect(),
    )
}

/// Who may use what, with the ports spelled out.
fn rights(agent: &Controller<FakeDatapath>) -> BTreeSet<(u64, String)> {
    let owner = |number| agent.realized().owner(number).unwrap_or_default();
    let entries = agent.realized().clients().iter();
    entries
        .map(|key| (key.netns_cookie, owner(key.service)))
        .collect()
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0_u8..5, 0_u8..32).prop_map(|(i, v)| service(i, v)),
        2 => (0_u8..5).prop_map(|i| Change::ServiceGone(name(i))),
        6 => (0_u8..5, 0_u8..2, 0_u8..16).prop_map(|(i, s, e)| slice(i, s, e)),
        2 => (0_u8..5, 0_u8..2).prop_map(|(i, s)| Change::SliceGone(SliceKey {
            service: name(i),
            slice: format!("slice{s}").into(),
        })),
        2 => (0_u8..4, 0_u8..32).prop_map(|(i, v)| pod(i, v)),
        1 => (0_u8..4).prop_map(|i| Change::PodGone(name(i))),
        1 => (0_u8..4).prop_map(addresses),
        1 => (0_u8..3).prop_map(networks),
        1 => prop::collection::btree_set(1_u64..4, 0..2).prop_map(Change::OptedOutCgroups),
        1 => prop::collection::btree_map(1_u64..4, 0_u8..32, 0..3).prop_map(namespaces),
        1 => (0_u8..5, any::<bool>()).prop_map(|(i, on)| Change::Redirect {
            service: name(i),
            target: on.then(|| IpAddr::from([10, 20, 0, 11])),
        }),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Take(Change),
    Sync,
    /// The agent is killed and started again with the maps as they are.
    Restart,
    /// One of the next operations fails.
    Fail(u64),
    /// The grace period passes.
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => change().prop_map(Step::Take),
        5 => Just(Step::Sync),
        1 => Just(Step::Restart),
        2 => (1_u64..8).prop_map(Step::Fail),
        2 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 1..80)
}

fn synced() -> Vec<Change> {
    SourceKind::ALL.map(Change::Synced).to_vec()
}

fn controller(datapath: FakeDatapath) -> Controller<FakeDatapath> {
    Controller::new(datapath, NODE).unwrap()
}

/// What the maps should hold, from a compile of everything from nothing.
fn oracle(
    controller: &Controller<FakeDatapath>,
) -> Vec<(FrontendKey, Vec<Backend>, u32, u32, u32)> {
    let mut desired = Desired::default();
    let state = controller.state();
    let services = state.services().map(|s| Owner::Service(s.name.clone()));
    let pods = state.pods().map(|pod| Owner::Pod(pod.name.clone()));
    for owner in services.chain(pods) {
        let frontends = compile(state, NODE, &owner);
        desired.replace(&owner, frontends, &mut Update::default());
    }
    let mut all: Vec<_> = desired
        .iter()
        .map(|f| {
            (
                f.key,
                f.backends.clone(),
                f.local_count,
                f.affinity_seconds,
                f.flags,
            )
        })
        .collect();
    all.sort_unstable_by_key(|row| row.0);
    all
}

fn held(controller: &Controller<FakeDatapath>) -> Vec<(FrontendKey, Vec<Backend>, u32, u32, u32)> {
    let rows = controller.realized().resolved();
    rows.into_iter()
        .map(|(key, f, backends)| (key, backends, f.local_count, f.affinity_seconds, f.flags))
        .collect()
}

fn numbers(controller: &mut Controller<FakeDatapath>) -> BTreeMap<FrontendKey, Frontend> {
    controller
        .datapath_mut()
        .dump()
        .unwrap()
        .frontends
        .into_iter()
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// apply(diff(D, R), R) == D and diff(D, D) is empty, through changes,
    /// failures, restarts and time, with the full compile as the oracle.
    #[test]
    fn the_maps_converge_on_the_full_compile(steps in steps()) {
        let mut now = Instant::now();
        let mut heard: Vec<Change> = synced();
        let mut agent = controller(FakeDatapath::new(ROOMY));
        agent.take(heard.clone());
        for step in steps {
            match step {
                Step::Take(change) => {
                    heard.push(change.clone());
                    agent.take([change]);
                }
                Step::Sync => drop(agent.sync(now)),
                Step::Fail(number) => agent.datapath_mut().fail([number]),
                Step::Wait => now += LONG,
                Step::Restart => {
                    agent = controller(agent.into_datapath());
                    agent.take(heard.clone());
                }
            }
        }
        // Failures that are still to come use themselves up.
        for _ in 0..20 {
            now += LONG;
            agent.sync(now);
        }
        prop_assert_eq!(held(&agent), oracle(&agent));
        prop_assert!(agent.not_ready().is_empty(), "{:?}", agent.not_ready());
        prop_assert_eq!(agent.sync(now).done, 0);
        prop_assert_eq!(agent.prune(now).done, 0);

        // What is unused is given back: a fresh agent would hold no more.
        let mut fresh = controller(FakeDatapath::new(ROOMY));
        fresh.take(heard);
        fresh.sync(now);
        prop_assert_eq!(rights(&agent), rights(&fresh));
        prop_assert_eq!(agent.usage().slots, fresh.usage().slots);
        prop_assert_eq!(agent.usage().backends, fresh.usage().backends);
    }

    /// Identifiers survive a restart, and the restart does nothing.
    #[test]
    fn a_restart_changes_nothing(changes in prop::collection::vec(change(), 1..60)) {
        let now = Instant::now();
        let mut agent = controller(FakeDatapath::new(ROOMY));
        agent.take(synced());
        for change in &changes {
            agent.take([change.clone()]);
            agent.sync(now);
        }
        agent.sync(now + LONG);
        let before = numbers(&mut agent);
        let mut agent = controller(agent.into_datapath());
        agent.take(changes.iter().cloned().chain(synced()));
        prop_assert_eq!(agent.sync(now + LONG).done, 0);
        prop_assert_eq!(numbers(&mut agent), before);
    }

    /// Before every source has been heard in full, nothing is written.
    #[test]
    fn half_a_list_deletes_nothing(changes in prop::collection::vec(change(), 1..40), missing in 0..SourceKind::ALL.len()) {
        let now = Instant::now();
        let mut agent = controller(FakeDatapath::new(ROOMY));
        agent.take(changes.iter().cloned().chain(synced()));
        agent.sync(now);
        let before = numbers(&mut agent);
        let mut agent = controller(agent.into_datapath());
        let mut partly = synced();
        partly.remove(missing);
        agent.take(partly);
        prop_assert_eq!(agent.sync(now).done, 0);
        prop_assert_eq!(numbers(&mut agent), before);
        prop_assert!(!agent.not_ready().is_empty());
    }

    /// The order in which objects come does not matter.
    #[test]
    fn event_order_does_not_matter(
        (changes, shuffled) in prop::collection::vec(change(), 1..40).prop_flat_map(|all| {
            let last: BTreeMap<String, Change> =
                all.into_iter().map(|change| (object_of(&change), change)).collect();
            let last: Vec<_> = last.into_values().collect();
            (Just(last.clone()), Just(last).prop_shuffle())
        })
    ) {
        let now = Instant::now();
        let mut one = controller(FakeDatapath::new(ROOMY));
        one.take(changes.into_iter().chain(synced()));
        one.sync(now);
        let mut other = controller(FakeDatapath::new(ROOMY));
        other.take(synced());
        for change in shuffled {
            other.take([change]);
            other.sync(now);
        }
        prop_assert_eq!(held(&one), held(&other));
    }

    /// A full map is reported and keeps the agent from being ready; what fits
    /// is served, and room that is made is used.
    #[test]
    fn a_full_map_is_never_silent(
        changes in prop::collection::vec(change(), 10..60),
        frontends in 1_u32..12,
        slots in 1_u32..24,
        backends in 1_u32..8,
    ) {
        let mut now = Instant::now();
        let mut agent = controller(FakeDatapath::new(Capacity { frontends, slots, backends }));
        agent.take(synced());
        for change in changes {
            agent.take([change]);
            agent.sync(now);
            now += LONG;
            let report = agent.sync(now);
            let is_whole = held(&agent) == oracle(&agent);
            prop_assert_eq!(report.failing == 0, is_whole);
            prop_assert_eq!(agent.not_ready().is_empty(), is_whole);
        }
        agent.take((0..5).map(|i| Change::ServiceGone(name(i))));
        agent.take((0..4).map(|i| Change::PodGone(name(i))));
        for _ in 0..3 {
            agent.sync(now);
            now += LONG;
        }
        prop_assert!(agent.not_ready().is_empty());
        prop_assert_eq!((agent.usage().slots, agent.usage().backends), (0, 0));
    }
}

fn object_of(change: &Change) -> String {
    match change {
        Change::Service(service) => format!("service {}", service.name),
        Change::ServiceGone(name) => format!("service {name}"),
        Change::Slice(slice) => format!("slice {:?}", slice.key),
        Change::SliceGone(key) => format!("slice {key:?}"),
        Change::Redirect { service, .. } => format!("redirect {service}"),
        Change::Clients(_) => "clients".to_owned(),
        Change::OptedOutCgroups(_) => "cgroups".to_owned(),
        Change::Pod(pod) => format!("pod {}", pod.name),
        Change::PodGone(name) => format!("pod {name}"),
        Change::NamespaceOptOut { namespace, .. } => format!("opt-out {namespace}"),
        Change::Zone(_) => "zone".to_owned(),
        Change::NodeLeaving(_) => "leaving".to_owned(),
        Change::Refused(kind) => format!("refused {kind}"),
        Change::NodePortNetworks(_) => "networks".to_owned(),
        Change::NodeAddresses(_) => "addresses".to_owned(),
        Change::Synced(source) => format!("synced {source:?}"),
    }
}
