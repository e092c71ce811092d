//! Running pods and Services to EndpointSlices, as the EndpointSlice
//! controller makes them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::services::Service;
use super::shapes::{ServicePort, TargetPort, protocol, selects};
use super::workloads::PodPlan;
use crate::probe::echo::Port;

/// A pod with an address.
#[derive(Clone, Copy, Debug)]
pub struct Running<'a> {
    /// What it was made from.
    pub plan: &'a PodPlan,
    /// Its UID.
    pub uid: &'a str,
    /// Its address.
    pub address: IpAddr,
    /// Its node.
    pub node: &'a str,
    /// Its node's zone.
    pub zone: &'a str,
    /// Whether it answers.
    pub ready: bool,
}

/// The slices of `service`: one for each set of port numbers that its pods
/// have, as named targetPorts may differ between pods. Empty if it has no
/// selector: somebody else writes them then.
#[must_use]
pub fn slices(service: &Service, pods: &[Running<'_>]) -> Vec<Value> {
    let Some(selector) = &service.spec.selector else {
        return Vec::new();
    };
    let mut by_ports: BTreeMap<Vec<Option<u16>>, Vec<Value>> = BTreeMap::new();
    for pod in pods {
        if pod.plan.namespace == service.namespace && selects(selector, &pod.plan.metadata.labels) {
            let ports = service.spec.ports.iter();
            let numbers = ports.map(|port| target_number(port, pod.plan)).collect();
            let endpoints = by_ports.entry(numbers).or_default();
            endpoints.push(endpoint(service, pod));
        }
    }
    if by_ports.is_empty() {
        by_ports.insert(Vec::new(), Vec::new());
    }
    let all = by_ports.into_iter().enumerate();
    all.map(|(index, (numbers, endpoints))| {
        let ports: Vec<_> = service.spec.ports.iter().zip(numbers).collect();
        slice(service, index, &ports, endpoints)
    })
    .collect()
}

fn slice(
    service: &Service,
    index: usize,
    ports: &[(&ServicePort, Option<u16>)],
    endpoints: Vec<Value>,
) -> Value {
    let ports: Vec<_> = ports
        .iter()
        .filter_map(|(port, number)| {
            let name = port.name.clone().unwrap_or_default();
            Some(json!({"name": name, "protocol": port.protocol, "port": (*number)?}))
        })
        .collect();
    let mut labels = json!({
        "kubernetes.io/service-name": service.name,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    });
    if service.is_headless() {
        labels["service.kubernetes.io/headless"] = "".into();
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{}-{index}", service.name),
            "namespace": service.namespace,
            "labels": labels,
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports,
    })
}

fn endpoint(service: &Service, pod: &Running<'_>) -> Value {
    let ready = pod.ready || service.spec.publish_not_ready_addresses;
    let mut endpoint = json!({
        "addresses": [pod.address],
        "conditions": {"ready": ready, "serving": pod.ready, "terminating": false},
        "nodeName": pod.node,
        "zone": pod.zone,
        "targetRef": {
            "kind": "Pod",
            "namespace": pod.plan.namespace,
            "name": pod.plan.name,
            "uid": pod.uid,
        },
    });
    if pod.plan.spec.subdomain.as_ref() == Some(&service.name)
        && let Some(hostname) = &pod.plan.spec.hostname
    {
        endpoint["hostname"] = hostname.clone().into();
    }
    endpoint
}

/// The pod's port that the Service's port leads to; none if the pod has no
/// port of that name.
#[must_use]
pub fn target_number(port: &ServicePort, pod: &PodPlan) -> Option<u16> {
    match &port.target_port {
        None => Some(port.port),
        Some(TargetPort::Number(number)) => Some(*number),
        Some(TargetPort::Name(name)) => pod
            .spec
            .containers
            .iter()
            .flat_map(|container| &container.ports)
            .find(|p| p.name.as_ref() == Some(name) && p.protocol == port.protocol)
            .map(|p| p.container_port),
    }
}

/// The ports that a pod answers on: what it declares, and what Services that
/// select it lead to (a container may listen on a port without saying so).
#[must_use]
pub fn open_ports(pod: &PodPlan, services: &[Service]) -> Vec<Port> {
    let mut ports = pod.declared_ports();
    for service in services {
        let selected = service.namespace == pod.namespace
            && service
                .spec
                .selector
                .as_ref()
                .is_some_and(|selector| selects(selector, &pod.metadata.labels));
        if selected {
            ports.extend(service.spec.ports.iter().filter_map(|port| {
                Some(Port {
                    protocol: protocol(&port.protocol)?,
                    number: target_number(port, pod)?,
                })
            }));
        }
    }
    ports.sort();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::controllers::{Allocator, plan};

    const TEXT: &str = "
apiVersion: v1
kind: Service
metadata: {name: webs}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}, {name: raw, port: 9000}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  replicas: 2
  serviceName: webs
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
";

    fn world() -> (Service, Vec<PodPlan>) {
        let objects = berth_api::folder::parse(Path::new("x.yaml"), TEXT).objects;
        let mut allocator = Allocator::new("10.96.0.0/16".parse().unwrap(), []);
        let service = allocator.admit(&objects[..1]).0.remove(0);
        let pods = plan(&objects[1..], &["node1".to_owned()]).unwrap().pods;
        (service, pods)
    }

    #[test]
    fn endpoints_have_address_node_host_name_and_resolved_ports() {
        let (service, pods) = world();
        let running: Vec<_> = pods
            .iter()
            .enumerate()
            .map(|(index, plan)| Running {
                plan,
                uid: "u",
                address: IpAddr::from([10, 20, 0, 60 + index as u8]),
                node: "node1",
                zone: "z",
                ready: index == 0,
            })
            .collect();
        let slices = slices(&service, &running);
        assert_eq!(slices.len(), 1);
        let slice = &slices[0];
        assert_eq!(
            slice["metadata"]["labels"]["kubernetes.io/service-name"],
            "webs"
        );
        assert_eq!(
            slice["ports"],
            json!([
                {"name": "http", "protocol": "TCP", "port": 8080},
                {"name": "raw", "protocol": "TCP", "port": 9000},
            ])
        );
        assert_eq!(slice["endpoints"][0]["hostname"], "web-0");
        assert_eq!(slice["endpoints"][0]["addresses"], json!(["10.20.0.60"]));
        assert_eq!(slice["endpoints"][0]["conditions"]["ready"], true);
        assert_eq!(slice["endpoints"][1]["conditions"]["ready"], false);
    }

    #[test]
    fn a_service_without_pods_has_an_empty_slice() {
        let (service, _) = world();
        let slices = slices(&service, &[]);
        assert_eq!(slices.len(), 1);
        assert_eq!(slices[0]["endpoints"], json!([]));
    }

    #[test]
    fn ports_that_only_a_service_names_are_opened_too() {
        let (service, pods) = world();
        let ports: Vec<_> = open_ports(&pods[0], &[service])
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(ports, ["TCP:8080", "TCP:9000"]);
    }
}
