//! One object to one change, or one refusal that names the field.

use std::collections::HashMap;
use std::net::IpAddr;

use berth_api::annotations::HOSTNAME;
use berth_api::{Object, ObjectKey, Rejected};

use super::kinds;
use crate::model::{
    Change, Endpoint, Hostname, Key, Pod, Port, Protocol, Service, ServiceKind, Slice,
};
use crate::name::{Name, is_host_label};

/// Annotations of other tools that name a host too.
const HOSTNAME_ALIASES: [&str; 2] = [
    "coredns.io/hostname",
    "external-dns.alpha.kubernetes.io/hostname",
];
/// The label that ties an EndpointSlice to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What one object came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    /// It says something about DNS.
    Change(Change),
    /// It is of a kind, or in a state, that says nothing about DNS.
    Nothing,
}

/// Reads one object.
///
/// # Errors
/// Names the object, the field and the mend.
pub fn decode(object: &Object) -> Result<Decoded, Rejected> {
    let change = match (object.api_version.as_str(), object.key.kind.as_str()) {
        ("v1", "Service") => Change::Service(key(&object.key), Some(service(object)?)),
        ("discovery.k8s.io/v1", "EndpointSlice") => Change::Slice(key(&object.key), slice(object)?),
        ("v1", "Namespace") => Change::Namespace(object.key.name.clone(), true),
        ("v1", "Pod") => Change::Pod(key(&object.key), Some(pod(object)?)),
        ("v1", "Node") => Change::Node(object.key.name.clone(), node(object)?),
        _ => return Ok(Decoded::Nothing),
    };
    Ok(Decoded::Change(change))
}

/// What the end of an object means.
#[must_use]
pub fn removed(object: &ObjectKey) -> Decoded {
    Decoded::Change(match object.kind.as_str() {
        "Service" => Change::Service(key(object), None),
        "EndpointSlice" => Change::Slice(key(object), None),
        "Namespace" => Change::Namespace(object.name.clone(), false),
        "Pod" => Change::Pod(key(object), None),
        "Node" => Change::Node(object.name.clone(), Vec::new()),
        _ => return Decoded::Nothing,
    })
}

fn key(object: &ObjectKey) -> Key {
    Key {
        namespace: object.namespace.clone(),
        name: object.name.clone(),
    }
}

fn service(object: &Object) -> Result<Service, Rejected> {
    let read: kinds::Service = object.decode()?;
    let kind = service_kind(object, &read.spec)?;
    let ports = ports(object, "spec.ports", read.spec.ports.unwrap_or_default())?;
    if ports.is_empty() && matches!(kind, ServiceKind::Cluster(_)) {
        return Err(object.reject(
            "spec.ports",
            "is empty",
            "give the Service a port, or make it headless with clusterIP: None",
        ));
    }
    Ok(Service {
        created: created(object, &read.metadata)?,
        hostnames: hostnames(object, &read.metadata)?,
        kind,
        ports,
        publish_not_ready: read.spec.publish_not_ready_addresses.unwrap_or(false),
    })
}

fn service_kind(object: &Object, spec: &kinds::ServiceSpec) -> Result<ServiceKind, Rejected> {
    if spec.type_.as_deref() == Some("ExternalName") {
        let target = spec.external_name.as_deref().unwrap_or_default();
        let name = Name::parse(target).map_err(|error| {
            object.reject(
                "spec.externalName",
                error.to_string(),
                "write the name of a host",
            )
        })?;
        return Ok(ServiceKind::External(name));
    }
    let listed = spec.cluster_ips.as_deref().filter(|ips| !ips.is_empty());
    let single = spec.cluster_ip.as_ref().filter(|ip| !ip.is_empty());
    let (field, texts) = match (listed, single) {
        (Some(ips), _) => ("spec.clusterIPs", ips),
        (None, Some(ip)) => ("spec.clusterIP", std::slice::from_ref(ip)),
        (None, None) => {
            return Err(object.reject(
                "spec.clusterIP",
                "is not set",
                "write an address of the Service network, or None for a headless Service",
            ));
        }
    };
    if texts.iter().any(|ip| ip == "None") {
        return Ok(ServiceKind::Headless);
    }
    let addresses = texts.iter().map(|ip| address(object, field, ip));
    Ok(ServiceKind::Cluster(addresses.collect::<Result<_, _>>()?))
}

fn slice(object: &Object) -> Result<Option<Slice>, Rejected> {
    let read: kinds::EndpointSlice = object.decode()?;
    let service = read.metadata.labels.unwrap_or_default();
    let Some(service) = service.get(SERVICE_NAME) else {
        return Ok(None); // Not a Service's: nobody can ask for it by name.
    };
    if read.address_type.as_deref() == Some("FQDN") {
        return Ok(None); // Deprecated, and without a meaning for DNS.
    }
    let mut endpoints = Vec::new();
    for (i, endpoint) in read.endpoints.unwrap_or_default().into_iter().enumerate() {
        let field = format!("endpoints[{i}].addresses");
        let addresses = endpoint
            .addresses
            .iter()
            .map(|ip| address(object, &field, ip));
        let addresses = addresses.collect::<Result<_, _>>()?;
        let hostname = endpoint.hostname.filter(|hostname| !hostname.is_empty());
        if let Some(hostname) = hostname.as_ref().filter(|h| !is_host_label(h)) {
            return Err(object.reject(
                format!("endpoints[{i}].hostname"),
                format!("{hostname:?} is not a host's label"),
                "write up to 63 letters, digits and inner hyphens",
            ));
        }
        endpoints.push(Endpoint {
            addresses,
            ready: endpoint.conditions.and_then(|c| c.ready).unwrap_or(true),
            hostname,
        });
    }
    Ok(Some(Slice {
        service: service.clone(),
        endpoints,
        ports: ports(object, "ports", read.ports.unwrap_or_default())?,
    }))
}

fn pod(object: &Object) -> Result<Pod, Rejected> {
    let read: kinds::Pod = object.decode()?;
    let status = read.status.unwrap_or_default();
    let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let mut addresses = Vec::new();
    if !finished {
        let listed = status
            .pod_ips
            .unwrap_or_default()
            .into_iter()
            .map(|p| ("status.podIPs", p.ip));
        let single = status.pod_ip.into_iter().map(|ip| ("status.podIP", ip));
        for (field, ip) in listed.chain(single).filter(|(_, ip)| !ip.is_empty()) {
            let ip = address(object, field, &ip)?;
            if !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
    }
    let ready = status
        .conditions
        .unwrap_or_default()
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    Ok(Pod {
        created: created(object, &read.metadata)?,
        hostnames: hostnames(object, &read.metadata)?,
        addresses,
        ready,
    })
}

fn node(object: &Object) -> Result<Vec<IpAddr>, Rejected> {
    let read: kinds::Node = object.decode()?;
    let addresses = read.status.and_then(|s| s.addresses).unwrap_or_default();
    addresses
        .iter()
        .enumerate()
        .filter(|(_, a)| a.type_ == "InternalIP")
        .map(|(i, a)| {
            address(
                object,
                &format!("status.addresses[{i}].address"),
                &a.address,
            )
        })
        .collect()
}

fn ports(object: &Object, field: &str, read: Vec<kinds::Port>) -> Result<Vec<Port>, Rejected> {
    let mut ports = Vec::new();
    for (i, port) in read.into_iter().enumerate() {
        let protocol = match port.protocol.as_deref() {
            None | Some("" | "TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(other) => {
                return Err(object.reject(
                    format!("{field}[{i}].protocol"),
                    format!("{other:?} is not known"),
                    "write TCP, UDP or SCTP",
                ));
            }
        };
        // A slice may leave the number out: "all ports". There is nothing
        // that an SRV record could say then.
        if let Some(number) = port.port {
            ports.push(Port {
                name: port.name.unwrap_or_default(),
                protocol,
                port: number,
            });
        }
    }
    Ok(ports)
}

fn address(object: &Object, field: &str, text: &str) -> Result<IpAddr, Rejected> {
    text.parse().map_err(|_| {
        object.reject(
            field,
            format!("{text:?} is not an IP address"),
            "write an IPv4 or IPv6 address",
        )
    })
}

fn hostnames(object: &Object, meta: &kinds::Meta) -> Result<Vec<Hostname>, Rejected> {
    let empty = HashMap::new();
    let annotations = meta.annotations.as_ref().unwrap_or(&empty);
    let mut found = Vec::new();
    for annotation in std::iter::once(HOSTNAME).chain(HOSTNAME_ALIASES) {
        let Some(text) = annotations.get(annotation) else {
            continue;
        };
        for text in text.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            match Name::parse(text) {
                Ok(name) => found.push(Hostname {
                    name,
                    own: annotation == HOSTNAME,
                }),
                Err(error) if annotation == HOSTNAME => {
                    return Err(object.reject(
                        format!("metadata.annotations[{HOSTNAME}]"),
                        error.to_string(),
                        "write a full name such as shop.apps.corp.example",
                    ));
                }
                // Another tool's own syntax (wildcards, templates) is not
                // this object's fault.
                Err(_) => {}
            }
        }
    }
    Ok(found)
}

/// Kept as text: the API server writes one shape, `2026-01-31T12:00:00Z`, in
/// which older is smaller.
fn created(object: &Object, meta: &kinds::Meta) -> Result<Option<String>, Rejected> {
    let Some(text) = &meta.creation_timestamp else {
        return Ok(None);
    };
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    if shape == "0000-00-00T00:00:00Z" {
        Ok(Some(text.clone()))
    } else {
        Err(object.reject(
            "metadata.creationTimestamp",
            format!("{text:?} is not a time as the API server writes it"),
            "write it as 2026-01-31T12:00:00Z, or leave it out",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn one(text: &str) -> Result<Decoded, Rejected> {
        let parsed = berth_api::folder::parse(Path::new("shop.yaml"), text);
        assert_eq!(parsed.rejected, []);
        decode(&parsed.objects[0])
    }

    #[test]
    fn a_bad_field_is_named_with_its_mend() {
        for (text, told) in [
            (
                "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.96.0.1}",
                "shop.yaml:1: Service default/a: spec.ports: is empty; give the Service a port",
            ),
            (
                "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}",
                "Service default/a: spec.clusterIP: is not set; write an address",
            ),
            (
                "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: x, ports: [{port: 80}]}",
                "spec.clusterIP: \"x\" is not an IP address",
            ),
            (
                "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: None, ports: [{port: 99999}]}",
                "spec.ports[0].port: invalid",
            ),
            (
                "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {type: ExternalName}",
                "spec.externalName: \"\" has an empty label",
            ),
            (
                "apiVersion: v1\nkind: Service\nmetadata: {name: a, annotations: {berth.dev/hostname: 'a b'}}\nspec: {clusterIP: None}",
                "metadata.annotations[berth.dev/hostname]: the label \"a b\" is not valid",
            ),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a, creationTimestamp: yesterday}",
                "metadata.creationTimestamp: \"yesterday\" is not a time",
            ),
            (
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a, labels: {kubernetes.io/service-name: a}}\nendpoints: [{addresses: [10.0.0.1], hostname: 'x.y'}]",
                "endpoints[0].hostname: \"x.y\" is not a host's label",
            ),
        ] {
            let error = one(text).unwrap_err().to_string();
            assert!(error.contains(told), "{error}\nshould hold\n{told}");
        }
    }

    #[test]
    fn a_finished_pod_has_no_address() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nstatus: {phase: PHASE, podIP: 10.20.0.50, podIPs: [{ip: 10.20.0.50}], conditions: [{type: Ready, status: 'True'}]}";
        let addresses = |phase: &str| match one(&text.replace("PHASE", phase)).unwrap() {
            Decoded::Change(Change::Pod(_, Some(pod))) => (pod.addresses.len(), pod.ready),
            other => panic!("{other:?}"),
        };
        assert_eq!(addresses("Running"), (1, true));
        assert_eq!(addresses("Succeeded").0, 0);
    }

    #[test]
    fn a_service_of_another_group_is_not_ours() {
        let text = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: oops}";
        assert_eq!(one(text).unwrap(), Decoded::Nothing);
    }
}
