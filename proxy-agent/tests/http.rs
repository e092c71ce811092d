//! What the agent answers over HTTP, on loopback ports of the kernel's choice
//! and over a unix socket, with the loop on the fake datapath behind it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use berth_agent::agent::{self, Controller, Input, Inputs, Observer, Status};
use berth_agent::datapath::FakeDatapath;
use berth_agent::diff::Capacity;
use berth_agent::health::{self, ProxyHealth};
use berth_agent::metrics::{self, Metrics};
use berth_agent::model::{
    Change, Endpoint, EndpointPort, EndpointSlice, NamespacedName, Protocol, Service, ServicePort,
    SliceKey, SourceKind, TrafficPolicy,
};
use berth_api::agent::{Dump, Outcome, Problem, Readiness, ServiceDetail, ServiceSummary, Trace};
use serde::de::DeserializeOwned;

const NODE: &str = "n1";
const DEADLINE: Duration = Duration::from_secs(20);

/// An agent without a kernel: its loop, its runtime, and what is said to it.
struct Agent {
    inputs: Inputs,
    health: ProxyHealth,
    metrics: Metrics,
    status: Status,
    runtime: tokio::runtime::Runtime,
    controller: Option<JoinHandle<()>>,
}

impl Agent {
    fn start(capacity: u32) -> Self {
        let capacity = Capacity {
            frontends: capacity,
            slots: capacity,
            backends: capacity,
        };
        let (health, metrics) = (
            ProxyHealth::new(Duration::from_millis(1)),
            Metrics::default(),
        );
        let (inputs, received, observer) = Observer::new(&health, &metrics);
        let checks = observer.health_checks();
        let status = Status::starting();
        status.set_canary(None);
        let told = status.clone();
        let controller = thread::spawn(move || {
            let controller = Controller::new(FakeDatapath::new(capacity), NODE).unwrap();
            agent::run(controller, &received, &told, observer);
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(health::checks::serve(checks, health.clone()));
        Self {
            inputs,
            health,
            metrics,
            status,
            runtime,
            controller: Some(controller),
        }
    }

    /// With a list told in full.
    fn serving(capacity: u32, changes: Vec<Change>) -> Self {
        let agent = Self::start(capacity);
        agent.say(changes);
        agent.say(vec![Change::NodeAddresses(
            [IpAddr::from([10, 20, 0, 11])].into(),
        )]);
        agent.say(SourceKind::ALL.map(Change::Synced).to_vec());
        agent
    }

    fn say(&self, changes: Vec<Change>) {
        self.inputs.send(Input::Changes(changes)).unwrap();
    }

    /// Serves on a port that the kernel chooses.
    fn listen(&self, router: Router) -> SocketAddr {
        self.runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .await
                .unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move { axum::serve(listener, router).await });
            address
        })
    }

    fn api(&self) -> SocketAddr {
        self.listen(agent::router(self.status.clone(), self.inputs.clone()))
    }

    fn health(&self) -> SocketAddr {
        self.listen(health::server::router(
            self.health.clone(),
            self.metrics.clone(),
        ))
    }

    fn metrics(&self) -> SocketAddr {
        let inputs = self.inputs.clone();
        let refresh = move || agent::refresh(inputs.clone());
        self.listen(metrics::server::router(self.metrics.clone(), refresh))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // The loop ends when the last way in to it is gone: replace ours, and
        // let the runtime's go with it.
        let (health, metrics) = (ProxyHealth::default(), Metrics::default());
        self.inputs = Observer::new(&health, &metrics).0;
        let runtime = std::mem::replace(
            &mut self.runtime,
            tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
        );
        runtime.shutdown_timeout(DEADLINE);
        let ended = self.controller.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn get(address: SocketAddr, path: &str) -> Answer {
    try_get(address, path).unwrap()
}

fn try_get(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    exchange(TcpStream::connect(address)?, path)
}

fn exchange(
    mut stream: impl std::io::Read + std::io::Write,
    path: &str,
) -> std::io::Result<Answer> {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Ok(Answer {
        status: head[9..12].parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

fn json<T: DeserializeOwned>(address: SocketAddr, path: &str) -> T {
    let answer = get(address, path);
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body))
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        thread::yield_now();
    }
}

fn service(name: &str, last: u8) -> Service {
    Service {
        name: NamespacedName::new("shop", name),
        cluster_ips: vec![IpAddr::from([10, 96, 0, last])],
        external_ips: vec![],
        load_balancer_ips: vec![],
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30_000 + u16::from(last)),
        }],
        affinity: None,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        source_ranges: vec![],
        health_check_node_port: None,
    }
}

fn added(service: Service) -> Change {
    Change::Service(Box::new(service))
}

/// Endpoints as `address@node`, ready; `-` before the address: not ready.
fn slice(service: &str, endpoints: &[&str]) -> EndpointSlice {
    EndpointSlice {
        key: SliceKey {
            service: NamespacedName::new("shop", service),
            slice: format!("{service}-1").into(),
        },
        ports: vec![EndpointPort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        endpoints: endpoints
            .iter()
            .map(|text| {
                let (address, node) = text.trim_start_matches('-').split_once('@').unwrap();
                let ready = !text.starts_with('-');
                Endpoint {
                    address: address.parse().unwrap(),
                    ready,
                    serving: ready,
                    terminating: false,
                    node: Some(node.into()),
                    hint_nodes: vec![],
                    hint_zones: vec![],
                }
            })
            .collect(),
        triggered: None,
    }
}

fn placed(service: &str, endpoints: &[&str]) -> Change {
    Change::Slice(Box::new(slice(service, endpoints)))
}

fn shop() -> Vec<Change> {
    vec![
        added(service("web", 7)),
        placed("web", &["10.20.0.50@n1", "10.20.0.51@n2", "-10.20.0.52@n2"]),
        added(service("empty", 8)),
    ]
}

/// A port that nobody has, from below those that the kernel gives out by
/// itself, so that no other test gets it meanwhile.
fn free_port() -> StdListener {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 21_000 + u16::try_from(std::process::id() % 90).unwrap() * 100;
    let mut all = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed) % 100);
    all.find_map(|port| StdListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok())
        .unwrap()
}

fn port_of(listener: StdListener) -> u16 {
    listener.local_addr().unwrap().port()
}

#[test]
fn health_follows_the_proxy_and_the_node() {
    let agent = Agent::serving(64, shop());
    let address = agent.health();
    let status = |path: &str| get(address, path).status;
    // Once the first changes are in the maps. The threshold here is 1 ms: the
    // loop's own work may pass it.
    let answer = eventually("health", || {
        Some(get(address, "/healthz")).filter(|a| a.status == 200 && a.body.contains("IPv4"))
    });
    assert!(answer.head.contains("content-type: application/json"));
    assert!(answer.head.contains("x-content-type-options: nosniff"));
    for field in [
        "\"lastUpdated\":",
        "\"currentTime\":",
        "\"nodeEligible\":true",
        "\"IPv6\":",
    ] {
        assert!(answer.body.contains(field), "{}", answer.body);
    }
    assert!(!get(address, "/livez").body.contains("nodeEligible"));

    agent.say(vec![Change::NodeLeaving(true)]);
    let answer = eventually("503", || {
        Some(get(address, "/healthz")).filter(|a| a.body.contains("\"nodeEligible\":false"))
    });
    assert_eq!(answer.status, 503);
    eventually("livez", || (status("/livez") == 200).then_some(()));
    agent.say(vec![Change::NodeLeaving(false)]);
    eventually("health", || (status("/healthz") == 200).then_some(()));

    // A change that the loop does not hear of is one that it is stuck on.
    agent.health.queued(Instant::now());
    eventually("stuck", || (status("/healthz") == 503).then_some(()));
    assert_eq!(status("/livez"), 503);
    let page = agent.metrics.page();
    for series in [
        "kubeproxy_proxy_healthz_total{code=\"503\"} ",
        "kubeproxy_proxy_livez_total{code=\"503\"} ",
    ] {
        let line = page.lines().find(|line| line.starts_with(series)).unwrap();
        assert_ne!(line.trim_start_matches(series), "0", "{page}");
    }
}

#[test]
fn a_service_that_asks_for_it_gets_a_health_check_port() {
    let (port, other) = (port_of(free_port()), port_of(free_port()));
    let mut local = service("web", 7);
    local.external_policy = TrafficPolicy::Local;
    local.health_check_node_port = Some(port);
    let agent = Agent::serving(64, vec![added(local.clone())]);
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let told = |port, status: u16| {
        eventually("the health check", || {
            try_get(at(port), "/healthz")
                .ok()
                .filter(|a| a.status == status)
        })
    };
    let answer = told(port, 503);
    assert!(
        answer.body.contains("\"localEndpoints\":0"),
        "{}",
        answer.body
    );

    agent.say(vec![placed(
        "web",
        &[
            "10.20.0.50@n1",
            "10.20.0.53@n1",
            "-10.20.0.54@n1",
            "10.20.0.51@n2",
        ],
    )]);
    let answer = told(port, 200);
    assert_eq!(
        answer.body,
        r#"{"service":{"namespace":"shop","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}"#
    );
    assert!(
        answer.head.contains("x-load-balancing-endpoint-weight: 2"),
        "{}",
        answer.head
    );

    // Another port: the first is closed.
    local.health_check_node_port = Some(other);
    agent.say(vec![added(local.clone())]);
    told(other, 200);
    eventually("closing", || TcpStream::connect(at(port)).err());

    // A stuck proxy takes its pods out of the load balancer.
    agent.health.queued(Instant::now());
    let answer = told(other, 503);
    assert!(
        answer.body.contains("\"serviceProxyHealthy\":false"),
        "{}",
        answer.body
    );
    agent.health.updated(1, Instant::now(), SystemTime::now());

    agent.say(vec![Change::ServiceGone(NamespacedName::new(
        "shop", "web",
    ))]);
    eventually("closing", || TcpStream::connect(at(other)).err());
}

#[test]
fn a_health_check_port_that_is_taken_is_opened_when_it_is_free() {
    let taken = free_port();
    let (port, free) = (taken.local_addr().unwrap().port(), port_of(free_port()));
    let local = |name, last, port| {
        let mut service = service(name, last);
        service.external_policy = TrafficPolicy::Local;
        service.health_check_node_port = Some(port);
        added(service)
    };
    let agent = Agent::serving(64, vec![local("blocked", 7, port), local("open", 8, free)]);
    let ask = |port| try_get(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "/").ok();
    // Everything else goes on.
    eventually("the other port", || ask(free));
    eventually("readiness", || agent.status.is_serving().then_some(()));
    drop(taken);
    let answer = eventually("the port", || ask(port));
    assert!(
        answer.body.contains("\"name\":\"blocked\""),
        "{}",
        answer.body
    );
}

#[test]
fn metrics_have_the_names_that_monitors_know() {
    let agent = Agent::serving(10, shop());
    agent.metrics.canary(true);
    let address = agent.metrics();
    let page = eventually("the Services", || {
        Some(get(address, "/metrics").body).filter(|page| page.contains("berth_services 2\n"))
    });
    for line in [
        "kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=\"16.384\"}",
        "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"} 0\n",
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv6\"} 1",
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv4\"} 1",
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0\n",
        "kubeproxy_sync_proxy_rules_endpoint_changes_total 1\n",
        "kubeproxy_sync_proxy_rules_service_changes_pending 0\n",
        "kubeproxy_sync_proxy_rules_service_changes_total 2\n",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"internal\"} 0\n",
        "berth_map_entries{map=\"frontends\"} 6\n",
        "berth_map_capacity{map=\"slots\"} 10\n",
        "berth_map_alarm{map=\"frontends\",percent=\"80\"} 0\n",
        "berth_ready 1\n",
        "berth_canary_up 1\n",
        "berth_frontends_failing 0\n",
        concat!(
            "berth_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1\n"
        ),
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }

    // A change that has a cause, a Local policy without an endpoint here, an
    // object that was refused, and a map that fills up.
    let mut caused = slice("empty", &["10.20.0.60@n2"]);
    caused.triggered = Some(SystemTime::now());
    let mut local = service("empty", 8);
    local.internal_policy = TrafficPolicy::Local;
    let again = Change::Slice(Box::new(caused.clone()));
    agent.say(vec![
        Change::Slice(Box::new(caused)),
        added(local),
        added(service("full", 9)),
        Change::Refused("Service".into()),
    ]);
    agent.say(vec![again]);
    let page = eventually("the changes", || {
        Some(get(address, "/metrics").body).filter(|page| page.contains("berth_services 3\n"))
    });
    for line in [
        "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"} 1\n",
        "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv6\"} 0\n",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"internal\"} 1\n",
        "berth_map_entries{map=\"frontends\"} 9\n",
        "berth_map_alarm{map=\"frontends\",percent=\"80\"} 1\n",
        "berth_map_alarm{map=\"frontends\",percent=\"95\"} 0\n",
        "berth_rejected_objects_total{kind=\"Service\"} 1\n",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
    agent.status.set_canary(Some("not translated".to_owned()));
    agent.metrics.canary(false);
    let page = get(address, "/metrics").body;
    assert!(page.contains("berth_ready 0\n") && page.contains("berth_canary_up 0\n"));
    assert_eq!(get(address, "/proxyMode").body, "berth");
    assert_eq!(get(address, "/healthz").body, "ok");
}

#[test]
fn metrics_are_told_though_the_loop_hangs() {
    let (metrics, health) = (Metrics::default(), ProxyHealth::default());
    // The receiver is kept and never read: a loop that hangs.
    let (inputs, _received, _observer) = Observer::new(&health, &metrics);
    inputs.send(Input::Changes(shop())).unwrap();
    let agent = Agent::start(8);
    let asked = inputs.clone();
    let refresh = move || agent::refresh(asked.clone());
    let address = agent.listen(metrics::server::router(metrics, refresh));
    let page = get(address, "/metrics").body;
    assert!(
        page.contains("kubeproxy_sync_proxy_rules_service_changes_pending 2\n"),
        "{page}"
    );
}

#[test]
fn services_are_explained() {
    let agent = Agent::serving(64, shop());
    let address = agent.api();
    eventually("readiness", || {
        json::<Readiness>(address, "/v1/ready").ready.then_some(())
    });
    let all: Vec<ServiceSummary> = json(address, "/v1/services");
    let told: Vec<_> = all
        .iter()
        .map(|s| (s.name.as_str(), s.ready, s.endpoints, s.local, s.failing))
        .collect();
    assert_eq!(told, [("empty", 0, 0, 0, 0), ("web", 2, 3, 1, 0)]);
    assert_eq!(all[1].ports, ["80:30007/TCP"]);

    let detail: ServiceDetail = json(address, "/v1/services/shop/web");
    let kinds: Vec<_> = detail
        .frontends
        .iter()
        .map(|f| format!("{} {}", f.kind, f.address))
        .collect();
    assert_eq!(
        kinds,
        [
            "ClusterIP 10.96.0.7:80",
            "NodePort 10.20.0.11:30007",
            "NodePort 127.0.0.1:30007"
        ]
    );
    let first = &detail.frontends[0];
    let why: Vec<_> = first
        .endpoints
        .iter()
        .map(|e| format!("{} {} {}", e.address, e.used, e.reason))
        .collect();
    assert_eq!(
        why,
        [
            "10.20.0.50:8080 true Ready",
            "10.20.0.51:8080 true Ready",
            "10.20.0.52:8080 false NotReady"
        ]
    );
    let held: Vec<_> = first.maps.iter().flat_map(|m| &m.backends).collect();
    let used = first.endpoints.iter().filter(|e| e.used);
    assert_eq!(held, used.map(|e| &e.address).collect::<Vec<_>>());

    let missing = get(address, "/v1/services/shop/nobody");
    let problem: Problem = serde_json::from_str(&missing.body).unwrap();
    assert_eq!(missing.status, 404);
    assert!(
        problem
            .problem
            .starts_with("Service shop/nobody is not served on this node")
    );
}

#[test]
fn a_connection_is_traced() {
    let mut local = service("elsewhere", 9);
    local.internal_policy = TrafficPolicy::Local;
    let mut changes = shop();
    changes.extend([added(local), placed("elsewhere", &["10.20.0.70@n2"])]);
    let agent = Agent::serving(64, changes);
    let address = agent.api();
    eventually("readiness", || agent.status.is_serving().then_some(()));
    let trace = |from: &str, to: &str| -> Trace {
        json(address, &format!("/v1/trace?from={from}&to={to}"))
    };
    let to_web = trace("10.20.0.50", "10.96.0.7:80");
    assert_eq!(to_web.outcome, Outcome::Translated);
    assert_eq!(to_web.service.as_deref(), Some("shop/web"));
    assert_eq!(
        to_web.client,
        "a pod on this node, an endpoint of Service shop/web"
    );
    assert_eq!(
        to_web.steps[0],
        "10.96.0.7:80/TCP is the ClusterIP of Service shop/web, port 80/TCP"
    );
    for (to, outcome) in [
        ("127.0.0.1:30007", Outcome::Translated),
        ("[::ffff:10.96.0.7]:80", Outcome::Translated),
        ("10.96.0.8:80", Outcome::NoEndpoints),
        ("10.96.0.9:80", Outcome::NoLocalEndpoints),
        ("10.96.0.7:81", Outcome::NotAService),
        ("10.20.0.50:8080", Outcome::NotAService),
        ("[fd00::1]:80", Outcome::NotAService),
    ] {
        assert_eq!(trace("shop/web-0", to).outcome, outcome, "{to}");
    }
    let other_port = trace("shop/web-0", "10.96.0.7:81");
    assert_eq!(
        other_port.steps[1],
        "the address is Service shop/web's, which has the ports 80/TCP"
    );
    let udp: Trace = json(address, "/v1/trace?to=10.96.0.7:80&protocol=udp");
    assert_eq!(udp.outcome, Outcome::NotAService);
    for bad in ["to=10.96.0.7", "to=10.96.0.7:80&protocol=quic"] {
        assert_eq!(
            get(address, &format!("/v1/trace?{bad}")).status,
            400,
            "{bad}"
        );
    }
}

#[test]
fn a_full_map_is_told_everywhere() {
    let agent = Agent::serving(
        2,
        vec![added(service("web", 7)), placed("web", &["10.20.0.50@n1"])],
    );
    let address = agent.api();
    let readiness = eventually("the loop", || {
        Some(json::<Readiness>(address, "/v1/ready"))
            .filter(|r| r.reasons.iter().any(|reason| reason.contains("--max-")))
    });
    assert!(!readiness.ready);
    let all: Vec<ServiceSummary> = json(address, "/v1/services");
    assert_eq!(all[0].failing, 1);
    let detail: ServiceDetail = json(address, "/v1/services/shop/web");
    let problems: Vec<_> = detail
        .frontends
        .iter()
        .filter_map(|f| f.problem.as_ref())
        .collect();
    assert_eq!(problems.len(), 1);
    let page = get(agent.metrics(), "/metrics").body;
    for line in [
        "berth_ready 0\n",
        "berth_frontends_failing 1\n",
        "berth_map_alarm{map=\"slots\",percent=\"95\"} 1\n",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
    // The node is not stuck for that, or every load balancer would leave it.
    let health = agent.health();
    eventually("health", || {
        (get(health, "/healthz").status == 200).then_some(())
    });
}

#[test]
fn a_frontend_without_room_is_no_stuck_proxy() {
    // Without endpoints it is the frontends that have no room.
    let agent = Agent::serving(2, vec![added(service("web", 7))]);
    eventually("the refusal", || {
        let reasons = agent.status.not_ready();
        reasons
            .iter()
            .any(|reason| reason.contains("--max-frontends"))
            .then_some(())
    });
    let health = agent.health();
    eventually("health", || {
        let answer = get(health, "/healthz");
        // Updated at least once, so that health is not that of a start.
        (answer.status == 200 && answer.body.contains("IPv4")).then_some(())
    });
}

#[test]
fn every_stage_can_be_read_by_programs() {
    let agent = Agent::serving(64, shop());
    let address = agent.api();
    eventually("readiness", || agent.status.is_serving().then_some(()));
    let dump = |stage: &str| json::<Dump>(address, &format!("/v1/dump/{stage}?format=json"));
    let Dump::Realized(realized) = dump("realized") else {
        panic!("not the realized stage");
    };
    let Dump::Desired(desired) = dump("desired") else {
        panic!("not the desired stage");
    };
    assert_eq!(realized.len(), 6);
    assert_eq!(realized, desired);
    assert!(matches!(dump("model"), Dump::Model(all) if all.len() == 2));
    assert!(matches!(dump("counters"), Dump::Counters(_)));
    let text = get(address, "/v1/dump/realized").body;
    assert!(text.starts_with("# frontends 6 of 64 a family"), "{text}");
    assert_eq!(get(address, "/v1/dump/nothing").status, 404);
}

#[test]
fn the_socket_answers_until_it_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/agent.sock");
    let agent = Agent::serving(64, shop());
    let (status, inputs, at) = (agent.status.clone(), agent.inputs.clone(), path.clone());
    let (sender, failed) = mpsc::channel();
    let serve = agent::serve(&at, status.clone(), inputs.clone());
    agent.runtime.block_on(async {
        tokio::select! {
            ended = serve => drop(sender.send(ended)),
            asked = tokio::task::spawn_blocking(move || {
                let stream = eventually("the socket", || UnixStream::connect(&path).ok());
                exchange(stream, "/readyz").unwrap().status
            }) => assert!([200, 503].contains(&asked.unwrap())),
        }
    });
    assert!(failed.try_recv().is_err());
}
