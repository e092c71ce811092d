//! The objects that are in the folder before the first pod starts: those of
//! the manifests, and what every cluster has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Result;
use berth_api::{Object, ObjectKey, Source};
use berth_ipam::{Pool, Pools};
use serde_json::{Value, json};

use super::settle;
use super::{DNS_SERVICE, Lab, NETWORK, Node, SERVICES};
use crate::controllers::shapes::{TargetPort, selects};
use crate::controllers::slices::{slices, target_number};
use crate::controllers::{self, Allocator, Manifests, PodPlan, Service};

/// The zone of every node.
pub(super) const ZONE: &str = "lab";
/// The default pool's addresses.
const RANGE: &str = "10.20.0.50-10.20.0.199";

/// Fills the folder, warns of what an API server would refuse, and returns the
/// pods that are to start.
pub(super) fn write(lab: &mut Lab, manifests: &Manifests, dns: bool) -> Result<Vec<PodPlan>> {
    manifests.warnings.iter().for_each(|w| lab.warn(w.clone()));
    for namespace in manifests.namespaces() {
        lab.store.apply(&namespace_object(&namespace))?;
    }
    lab.store.apply(&namespace_object(settle::NAMESPACE))?;
    for node in &lab.nodes {
        lab.store.apply(&node_object(node))?;
    }
    for object in &manifests.passed_on {
        lab.store.apply_from(&object.value, &object.source)?;
    }
    write_pools(lab, &manifests.passed_on)?;

    let names: Vec<_> = lab.nodes.iter().map(|n| n.name().to_owned()).collect();
    let plan = controllers::plan(&manifests.workloads, &names)?;
    for object in &plan.objects {
        lab.store.apply(object)?;
    }
    for refusal in &plan.rejected {
        lab.warn(refusal.to_string());
    }
    lab.beacon.publish(&lab.store)?;
    if dns {
        write_dns_service(lab)?;
    }
    write_services(lab, &manifests.services, &plan.pods)?;
    Ok(plan.pods)
}

/// An admin who brings a default pool wants that one; other pools of the
/// manifests keep their addresses, and the lab's own default pool goes without.
fn write_pools(lab: &Lab, passed_on: &[Object]) -> Result<()> {
    let pools = || {
        passed_on
            .iter()
            .filter(|object| object.key.kind == "IPPool")
    };
    let brings_default = pools().any(|object| {
        object.value.pointer("/spec/default") == Some(&Value::Bool(true))
            || object.key.name == "default"
    });
    let mut all: Vec<_> = pools().cloned().collect();
    if !brings_default {
        let taken = pools()
            .filter(|object| Pool::from_object(object).is_ok())
            .filter_map(|object| object.value.pointer("/spec/ranges")?.as_array())
            .flatten();
        let value = default_pool(taken.cloned().collect());
        lab.store.apply(&value)?;
        all.push(Object {
            key: ObjectKey {
                kind: "IPPool".to_owned(),
                namespace: String::new(),
                name: "default".to_owned(),
            },
            api_version: berth_api::pool::API_VERSION.to_owned(),
            source: Source {
                file: PathBuf::from("the lab's own pool"),
                line: 1,
            },
            value,
        });
    }
    for refusal in Pools::compile(&all).refusals() {
        lab.warn(refusal.to_string());
    }
    Ok(())
}

fn write_services(lab: &mut Lab, objects: &[Object], pods: &[PodPlan]) -> Result<()> {
    let mut allocator = Allocator::new(SERVICES, [DNS_SERVICE, settle::ADDRESS]);
    let (services, refused) = allocator.admit(objects);
    for refusal in refused {
        lab.warn(refusal.to_string());
    }
    let objects: BTreeMap<_, _> = objects
        .iter()
        .map(|object| ((&object.key.namespace, &object.key.name), object))
        .collect();
    for service in &services {
        let object = objects[&(&service.namespace, &service.name)];
        lab.store.apply_from(&service.value, &object.source)?;
        lab.write_slices(service, &slices(service, &[]))?;
        for warning in lost_ports(object, service, pods) {
            lab.warn(warning);
        }
    }
    lab.services = services;
    Ok(())
}

/// Named targetPorts that no selected pod has: such a port leads nowhere.
fn lost_ports(object: &Object, service: &Service, pods: &[PodPlan]) -> Vec<String> {
    let Some(selector) = &service.spec.selector else {
        return Vec::new();
    };
    let own: Vec<_> = pods
        .iter()
        .filter(|pod| pod.namespace == service.namespace)
        .filter(|pod| selects(selector, &pod.metadata.labels))
        .collect();
    let ports = service.spec.ports.iter().enumerate();
    ports
        .filter_map(|(index, port)| {
            let Some(TargetPort::Name(name)) = &port.target_port else {
                return None;
            };
            let lost = !own.is_empty() && own.iter().all(|pod| target_number(port, pod).is_none());
            lost.then(|| {
                let names: BTreeSet<_> = own
                    .iter()
                    .flat_map(|pod| &pod.spec.containers)
                    .flat_map(|container| &container.ports)
                    .filter_map(|port| port.name.as_deref())
                    .collect();
                let refusal = object.reject(
                    format!("spec.ports[{index}].targetPort"),
                    format!(
                        "none of its pods has a {} port called {name}",
                        port.protocol
                    ),
                    format!("write a number, or a name they have {names:?}"),
                );
                refusal.to_string()
            })
        })
        .collect()
}

fn namespace_object(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
    })
}

fn node_object(node: &Node) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name(),
            "labels": {
                "kubernetes.io/hostname": node.name(),
                "topology.kubernetes.io/zone": ZONE,
            },
        },
        "status": {"addresses": [
            {"type": "InternalIP", "address": node.address()},
            {"type": "Hostname", "address": node.name()},
        ]},
    })
}

fn default_pool(taken: Vec<Value>) -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "IPPool",
        "metadata": {"name": "default"},
        "spec": {
            "subnet": format!("{}/{}", NETWORK.network(), NETWORK.prefix()),
            "ranges": [RANGE],
            "exclude": taken,
            "gateway": NETWORK.ip(),
            "default": true,
        },
    })
}

/// The cluster's DNS Service: on each node it leads to that node's own server.
fn write_dns_service(lab: &Lab) -> Result<()> {
    let ports = [("dns", "UDP"), ("dns-tcp", "TCP")];
    let service_ports = ports.map(|(name, protocol)| {
        json!({"name": name, "protocol": protocol, "port": 53, "targetPort": 53})
    });
    lab.store.apply(&json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": DNS_SERVICE,
            "clusterIPs": [DNS_SERVICE],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "internalTrafficPolicy": "Local",
            "ports": service_ports,
        },
    }))?;
    let endpoints: Vec<_> = lab
        .nodes
        .iter()
        .map(|node| {
            json!({
                "addresses": [IpAddr::V4(node.address())],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": node.name(),
                "zone": ZONE,
            })
        })
        .collect();
    lab.store.apply(&json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns-0",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports.map(|(name, protocol)| {
            json!({"name": name, "protocol": protocol, "port": 53})
        }),
    }))?;
    Ok(())
}
