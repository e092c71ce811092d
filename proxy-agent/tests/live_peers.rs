//! Which endpoints of UDP Services count as alive, and when sockets are looked
//! at: the controller over the fake datapath.

use std::net::IpAddr;
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use berth_abi::{Addr, Translation};
use berth_agent::agent::Controller;
use berth_agent::compile::FrontendKey;
use berth_agent::datapath::FakeDatapath;
use berth_agent::diff::Capacity;
use berth_agent::model::{
    Change, Endpoint, EndpointPort, EndpointSlice, NamespacedName, Protocol, Service, ServicePort,
    SliceKey, SourceKind, TrafficPolicy,
};
use berth_agent::sockets::{LivePeers, Tracker};

const CAPACITY: Capacity = Capacity {
    frontends: 64,
    slots: 256,
    backends: 64,
};

struct Node {
    agent: Controller<FakeDatapath>,
    live: LivePeers,
    woken: Receiver<()>,
}

impl Node {
    fn start(datapath: FakeDatapath, changes: impl IntoIterator<Item = Change>) -> Self {
        let live = LivePeers::default();
        let (wake, woken) = mpsc::channel();
        let agent = Controller::new(datapath, "n1").unwrap();
        let mut agent = agent.with_sockets(Tracker::new(live.clone(), wake));
        agent.take(changes);
        agent.take(SourceKind::ALL.map(Change::Synced));
        agent.sync(Instant::now());
        Self { agent, live, woken }
    }

    /// Says whether sockets are to be looked at.
    fn take(&mut self, change: Change) -> bool {
        while self.woken.try_recv().is_ok() {}
        self.agent.take([change]);
        self.agent.sync(Instant::now());
        self.woken.try_recv().is_ok()
    }

    /// A socket that the maps connect to this endpoint now.
    fn socket(&self, service: u8, endpoint: u8) -> Translation {
        let key = FrontendKey {
            address: IpAddr::from([10, 96, 0, service]),
            port: 53,
            protocol: Protocol::Udp,
            scope: berth_abi::Scope::Socket,
        };
        Translation {
            backend: Addr::from(address(endpoint)),
            backend_port_be: 5353_u16.to_be(),
            service: self.agent.realized().service(&key).unwrap(),
            ..Translation::default()
        }
    }
}

fn address(endpoint: u8) -> IpAddr {
    IpAddr::from([10, 20, 0, endpoint])
}

fn name(index: u8) -> NamespacedName {
    NamespacedName::new("shop", &format!("s{index}"))
}

fn service(index: u8, internal_policy: TrafficPolicy) -> Change {
    Change::Service(Box::new(Service {
        name: name(index),
        cluster_ips: vec![IpAddr::from([10, 96, 0, index])],
        external_ips: vec![],
        load_balancer_ips: vec![],
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Udp,
            port: 53,
            node_port: None,
        }],
        affinity: None,
        internal_policy,
        external_policy: TrafficPolicy::Cluster,
        source_ranges: vec![],
        health_check_node_port: None,
    }))
}

/// Endpoint, ready, serving.
fn slice(service: u8, endpoints: &[(u8, bool, bool)]) -> Change {
    let endpoint = |(number, ready, serving): &(u8, bool, bool)| Endpoint {
        address: address(*number),
        ready: *ready,
        serving: *serving,
        terminating: !ready,
        node: Some("n2".into()),
        hint_nodes: vec![],
        hint_zones: vec![],
    };
    Change::Slice(Box::new(EndpointSlice {
        key: SliceKey {
            service: name(service),
            slice: "slice".into(),
        },
        ports: vec![EndpointPort {
            name: "".into(),
            protocol: Protocol::Udp,
            port: 5353,
        }],
        endpoints: endpoints.iter().map(endpoint).collect(),
        triggered: None,
    }))
}

fn ready(number: u8) -> (u8, bool, bool) {
    (number, true, true)
}

fn two_services() -> Node {
    let cluster = TrafficPolicy::Cluster;
    let changes = [
        service(1, cluster),
        slice(1, &[ready(7), ready(8)]),
        service(2, cluster),
        slice(2, &[ready(7)]),
    ];
    Node::start(FakeDatapath::new(CAPACITY), changes)
}

#[test]
fn an_endpoint_that_goes_is_dead_for_its_own_service_only() {
    let mut node = two_services();
    let (one, other) = (node.socket(1, 7), node.socket(2, 7));
    assert!(node.live.covers(&one) && node.live.covers(&other));
    assert!(!node.take(slice(1, &[ready(7), ready(8), ready(9)])));
    assert!(node.take(slice(1, &[ready(8), ready(9)])));
    assert!(!node.live.covers(&one) && node.live.covers(&other));
    assert!(node.take(Change::ServiceGone(name(2))));
    assert!(!node.live.covers(&other));
}

#[test]
fn an_endpoint_lives_as_long_as_it_serves_whatever_new_connections_get() {
    let mut node = two_services();
    let socket = node.socket(1, 7);
    // It terminates, then only another node's clients may have it.
    assert!(!node.take(slice(1, &[(7, false, true), ready(8)])));
    assert!(!node.take(service(1, TrafficPolicy::Local)));
    assert!(node.live.covers(&socket));
    assert!(node.take(slice(1, &[(7, false, false), ready(8)])));
    assert!(!node.live.covers(&socket));
}

#[test]
fn what_the_maps_hand_out_is_alive_even_if_they_could_not_be_changed() {
    let mut node = two_services();
    let socket = node.socket(1, 7);
    // Whatever can fail of the next operations does.
    node.agent.datapath_mut().fail(1..=8);
    assert!(!node.take(slice(1, &[ready(9)])));
    assert!(node.live.covers(&socket), "the frontend still leads there");
    assert!(!node.agent.not_ready().is_empty());
    let mut tries = 0;
    while !node.agent.not_ready().is_empty() && tries < 20 {
        node.agent.sync(Instant::now());
        tries += 1;
    }
    assert!(node.woken.try_recv().is_ok());
    assert!(!node.live.covers(&socket));
    assert!(node.live.covers(&node.socket(1, 9)));
}

#[test]
fn a_new_agent_looks_at_every_socket_and_knows_what_went_meanwhile() {
    let node = two_services();
    let (gone, kept) = (node.socket(1, 7), node.socket(1, 8));
    let changes = [service(1, TrafficPolicy::Cluster), slice(1, &[ready(8)])];
    let deleted = node.socket(2, 7);
    let node = Node::start(node.agent.into_datapath(), changes);
    assert!(node.woken.try_recv().is_ok());
    assert!(node.live.covers(&kept));
    assert!(!node.live.covers(&gone) && !node.live.covers(&deleted));
}
