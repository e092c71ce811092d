//! The cluster's DNS at an address of the node, and back to its pods.

use std::time::Instant;

use berth_agent::agent::Controller;
use berth_agent::datapath::FakeDatapath;
use berth_agent::diff::Capacity;
use berth_agent::model::{Change, NamespacedName, SourceKind};
use berth_agent::reflector::folder::FolderReflector;

const DNS: &str = "
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: 10.96.0.10
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: dns-1, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{name: dns, port: 5353, protocol: UDP}, {name: dns-tcp, port: 5353}]
endpoints: [{addresses: [10.20.0.70], nodeName: n2}]
";

/// Where each frontend leads, as address and port.
fn led_to(agent: &Controller<FakeDatapath>) -> Vec<String> {
    let all = agent.realized().resolved();
    all.into_iter()
        .map(|(key, _, backends)| {
            let one = backends[0];
            let address: std::net::IpAddr = one.address.into();
            format!("{key} {address}:{}", u16::from_be(one.port_be))
        })
        .collect()
}

#[test]
fn a_redirected_service_leads_to_the_node_while_that_answers() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("dns.yaml"), DNS).unwrap();
    let (changes, _) = FolderReflector::new(folder.path(), "n1").refresh().unwrap();
    let capacity = Capacity {
        frontends: 8,
        slots: 32,
        backends: 8,
    };
    let mut agent = Controller::new(FakeDatapath::new(capacity), "n1").unwrap();
    let redirect = |target: Option<&str>| Change::Redirect {
        service: NamespacedName::new("kube-system", "kube-dns"),
        target: target.map(|text| text.parse().unwrap()),
    };
    let pods = [
        "10.96.0.10:53/TCP 10.20.0.70:5353",
        "10.96.0.10:53/UDP 10.20.0.70:5353",
    ];
    let node = [
        "10.96.0.10:53/TCP 10.20.0.11:53",
        "10.96.0.10:53/UDP 10.20.0.11:53",
    ];

    // The redirect can be heard of before the Service.
    agent.take([redirect(Some("10.20.0.11"))]);
    agent.take(changes);
    agent.take(SourceKind::ALL.map(Change::Synced));
    agent.sync(Instant::now());
    assert_eq!(led_to(&agent), node);
    agent.take([redirect(None)]);
    agent.sync(Instant::now());
    assert_eq!(led_to(&agent), pods);
    // Of the other family: not for these addresses.
    agent.take([redirect(Some("fd00::11"))]);
    agent.sync(Instant::now());
    assert_eq!(led_to(&agent), pods);
}
