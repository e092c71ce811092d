//! One Kubernetes object to what the model needs of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use berth_api::{Object, Rejected};
use ipnetwork::IpNetwork;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

use crate::model::{
    Change, Endpoint, EndpointPort, EndpointSlice, NamespacedName, Protocol, Service, ServicePort,
    SliceKey, TrafficPolicy,
};

/// The label that gives a Service to another proxy (KEP-2447).
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// The label that takes a Service from every proxy.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The label that names a slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The annotation with the time at which what made a slice change happened.
const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// The taint of a node that the cluster autoscaler takes away.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// `sessionAffinityConfig.clientIP.timeoutSeconds`, if it is not given.
const DEFAULT_AFFINITY: Duration = Duration::from_secs(10_800);

/// Reads a Service; `None` if it is not for this proxy to serve: headless,
/// ExternalName, another proxy's, or without a cluster IP yet.
///
/// # Errors
/// Names the field that cannot be right.
pub fn service(object: &Object) -> Result<Option<Service>, Rejected> {
    service_from(object, object.decode()?)
}

/// As [`service`], of an object that the API's client has decoded already;
/// `object` is only needed to name it.
///
/// # Errors
/// Names the field that cannot be right.
pub fn service_from(object: &Object, decoded: core::Service) -> Result<Option<Service>, Rejected> {
    let labels = decoded.metadata.labels.unwrap_or_default();
    if labels.contains_key(OTHER_PROXY) || labels.contains_key(HEADLESS) {
        return Ok(None);
    }
    let spec = decoded.spec.unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return Ok(None);
    }
    let Some(cluster_ips) = cluster_ips(object, &spec)? else {
        return Ok(None);
    };
    let ports = spec.ports.clone().unwrap_or_default();
    if ports.is_empty() {
        return Err(object.reject(
            "spec.ports",
            "a Service with a cluster IP needs at least one port",
            "add a port, or make it headless with clusterIP: None",
        ));
    }
    let ports = ports
        .iter()
        .enumerate()
        .map(|(index, port)| service_port(object, index, port))
        .collect::<Result<Vec<_>, _>>()?;
    let status = decoded
        .status
        .and_then(|status| status.load_balancer)
        .unwrap_or_default();
    let load_balancer_ips = status
        .ingress
        .unwrap_or_default()
        .into_iter()
        // With `Proxy` the traffic has to pass the load balancer (KEP-1860).
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip)
        .collect::<Vec<_>>();
    let ranges = spec
        .load_balancer_source_ranges
        .as_deref()
        .unwrap_or_default();
    Ok(Some(Service {
        name: NamespacedName::new(&object.key.namespace, &object.key.name),
        cluster_ips,
        external_ips: addresses(object, "spec.externalIPs", spec.external_ips.as_deref())?,
        load_balancer_ips: addresses(
            object,
            "status.loadBalancer.ingress",
            Some(&load_balancer_ips),
        )?,
        ports,
        affinity: affinity(&spec),
        internal_policy: policy(spec.internal_traffic_policy.as_deref()),
        external_policy: policy(spec.external_traffic_policy.as_deref()),
        source_ranges: source_ranges(object, ranges)?,
        health_check_node_port: health_check_node_port(object, &spec)?,
    }))
}

/// `None` for a headless Service, or one that has not been given its address.
fn cluster_ips(object: &Object, spec: &core::ServiceSpec) -> Result<Option<Vec<IpAddr>>, Rejected> {
    let first = spec.cluster_ip.clone().filter(|ip| !ip.is_empty());
    let all = match (&spec.cluster_ips, first) {
        (Some(all), _) if !all.is_empty() => all.clone(),
        (_, Some(first)) => vec![first],
        _ => return Ok(None),
    };
    if all.iter().any(|ip| ip == "None") {
        return Ok(None);
    }
    addresses(object, "spec.clusterIPs", Some(&all)).map(Some)
}

fn service_port(
    object: &Object,
    index: usize,
    port: &core::ServicePort,
) -> Result<ServicePort, Rejected> {
    let field = |name: &str| format!("spec.ports[{index}].{name}");
    Ok(ServicePort {
        name: port.name.as_deref().unwrap_or_default().into(),
        protocol: protocol(object, &field("protocol"), port.protocol.as_deref())?,
        port: port_number(object, &field("port"), port.port)?,
        node_port: match port.node_port {
            None | Some(0) => None,
            Some(number) => Some(port_number(object, &field("nodePort"), number)?),
        },
    })
}

/// The port on which load balancers ask this node for pods of the Service. The
/// API server gives one only to a LoadBalancer with an external policy Local,
/// and a stray number in another Service means nothing.
fn health_check_node_port(
    object: &Object,
    spec: &core::ServiceSpec,
) -> Result<Option<u16>, Rejected> {
    let is_local = spec.external_traffic_policy.as_deref() == Some("Local");
    match spec.health_check_node_port {
        Some(number)
            if number != 0 && is_local && spec.type_.as_deref() == Some("LoadBalancer") =>
        {
            port_number(object, "spec.healthCheckNodePort", number).map(Some)
        }
        _ => Ok(None),
    }
}

fn affinity(spec: &core::ServiceSpec) -> Option<Duration> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec
        .session_affinity_config
        .as_ref()
        .and_then(|c| c.client_ip.as_ref());
    let seconds = config.and_then(|client| client.timeout_seconds);
    let given = seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .filter(|s| *s > 0);
    Some(given.map_or(DEFAULT_AFFINITY, Duration::from_secs))
}

fn policy(text: Option<&str>) -> TrafficPolicy {
    match text {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    }
}

fn source_ranges(object: &Object, ranges: &[String]) -> Result<Vec<IpNetwork>, Rejected> {
    ranges
        .iter()
        .enumerate()
        .map(|(index, range)| {
            range.trim().parse().map_err(|_| {
                object.reject(
                    format!("spec.loadBalancerSourceRanges[{index}]"),
                    format!("{range:?} is not a network"),
                    "write it as 10.20.0.0/16, without leading zeros",
                )
            })
        })
        .collect()
}

/// Reads an EndpointSlice; `None` if it belongs to no Service or holds no
/// addresses (`addressType: FQDN`).
///
/// # Errors
/// Names the field that cannot be right.
pub fn endpoint_slice(object: &Object) -> Result<Option<EndpointSlice>, Rejected> {
    endpoint_slice_from(object, object.decode()?)
}

/// As [`endpoint_slice`], of an object that the API's client has decoded.
///
/// # Errors
/// Names the field that cannot be right.
pub fn endpoint_slice_from(
    object: &Object,
    decoded: discovery::EndpointSlice,
) -> Result<Option<EndpointSlice>, Rejected> {
    let labels = decoded.metadata.labels.unwrap_or_default();
    let Some(service) = labels.get(SERVICE_NAME) else {
        return Ok(None);
    };
    if decoded.address_type == "FQDN" {
        return Ok(None);
    }
    let mut ports = Vec::new();
    for (index, port) in decoded.ports.unwrap_or_default().iter().enumerate() {
        // A port without a number means all ports; no Service has one.
        let Some(number) = port.port else { continue };
        let field = |name: &str| format!("ports[{index}].{name}");
        ports.push(EndpointPort {
            name: port.name.as_deref().unwrap_or_default().into(),
            protocol: protocol(object, &field("protocol"), port.protocol.as_deref())?,
            port: port_number(object, &field("port"), number)?,
        });
    }
    let mut endpoints = Vec::new();
    for (index, endpoint) in decoded.endpoints.iter().enumerate() {
        // The API promises that further addresses are the same endpoint's and
        // that readers take the first.
        let Some(address) = endpoint.addresses.first() else {
            continue;
        };
        let address = parse_address(object, &format!("endpoints[{index}].addresses[0]"), address)?;
        endpoints.push(read_endpoint(endpoint, address));
    }
    Ok(Some(EndpointSlice {
        key: slice_key(object, service),
        ports,
        endpoints,
        triggered: triggered(decoded.metadata.annotations.as_ref()),
    }))
}

/// A time that cannot be read only spoils a metric, so it refuses nothing.
fn triggered(annotations: Option<&BTreeMap<String, String>>) -> Option<SystemTime> {
    let time: Timestamp = annotations?.get(TRIGGERED)?.parse().ok()?;
    Some(time.into())
}

/// The key of a slice object that names `service`.
#[must_use]
pub fn slice_key(object: &Object, service: &str) -> SliceKey {
    SliceKey {
        service: NamespacedName::new(&object.key.namespace, service),
        slice: object.key.name.as_str().into(),
    }
}

fn read_endpoint(endpoint: &discovery::Endpoint, address: IpAddr) -> Endpoint {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let hints = endpoint.hints.clone().unwrap_or_default();
    let name = |text: String| -> Arc<str> { text.into() };
    Endpoint {
        address,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        node: endpoint.node_name.clone().map(name),
        hint_nodes: hints
            .for_nodes
            .unwrap_or_default()
            .into_iter()
            .map(|n| name(n.name))
            .collect(),
        hint_zones: hints
            .for_zones
            .unwrap_or_default()
            .into_iter()
            .map(|z| name(z.name))
            .collect(),
    }
}

/// What a Node object says of this node: its zone, and whether it is being
/// deleted.
///
/// # Errors
/// When the object has not the shape of a Node.
pub fn node(object: &Object) -> Result<[Change; 2], Rejected> {
    let node: core::Node = object.decode()?;
    Ok(node_from(&node))
}

/// As [`node`], of a Node that the API's client has decoded.
#[must_use]
pub fn node_from(node: &core::Node) -> [Change; 2] {
    let labels = node.metadata.labels.as_ref();
    let zone = labels.and_then(|labels| labels.get("topology.kubernetes.io/zone"));
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    let is_tainted = taints
        .unwrap_or_default()
        .iter()
        .any(|t| t.key == TO_BE_DELETED);
    let is_leaving = is_tainted || node.metadata.deletion_timestamp.is_some();
    [
        Change::Zone(zone.map(|zone| zone.as_str().into())),
        Change::NodeLeaving(is_leaving),
    ]
}

/// That an object was refused.
#[must_use]
pub fn refused(refusal: &Rejected) -> Change {
    let kind = refusal
        .object
        .as_ref()
        .map_or("file", |object| &object.kind);
    Change::Refused(kind.into())
}

pub(super) fn protocol(
    object: &Object,
    field: &str,
    text: Option<&str>,
) -> Result<Protocol, Rejected> {
    match text {
        None | Some("TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(object.reject(
            field,
            format!("{other:?} is not a protocol"),
            "write TCP, UDP or SCTP",
        )),
    }
}

pub(super) fn port_number(object: &Object, field: &str, number: i32) -> Result<u16, Rejected> {
    u16::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| {
            object.reject(
                field,
                format!("{number} is not a port"),
                "write a number from 1 to 65535",
            )
        })
}

fn addresses(
    object: &Object,
    field: &str,
    list: Option<&[String]>,
) -> Result<Vec<IpAddr>, Rejected> {
    list.unwrap_or_default()
        .iter()
        .enumerate()
        .map(|(index, text)| parse_address(object, &format!("{field}[{index}]"), text))
        .collect()
}

/// An address in its one unmistakable form: a leading zero is octal to some
/// and decimal to others (CVE-2021-29923), so it is refused.
pub(super) fn parse_address(object: &Object, field: &str, text: &str) -> Result<IpAddr, Rejected> {
    let parsed: IpAddr = text.trim().parse().map_err(|_| {
        let problem = format!("{text:?} is not an IP address");
        object.reject(
            field,
            problem,
            "write it as 10.96.0.10 or fd00::10, without leading zeros",
        )
    })?;
    // The tables know IPv4-mapped addresses as the IPv4 addresses they are.
    Ok(parsed.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::folder::parse;
    use std::path::Path;

    fn object(text: &str) -> Object {
        let parsed = parse(Path::new("svc.yaml"), text);
        assert_eq!(parsed.rejected, []);
        parsed.objects.into_iter().next().unwrap()
    }

    fn read(spec: &str) -> Result<Option<Service>, Rejected> {
        service(&object(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec: {spec}\n"
        )))
    }

    #[test]
    fn reads_a_service_with_its_defaults() {
        let web = read("{clusterIP: 10.96.0.7, ports: [{port: 80}], sessionAffinity: ClientIP}")
            .unwrap()
            .unwrap();
        assert_eq!(web.name.to_string(), "shop/web");
        assert_eq!(web.cluster_ips, ["10.96.0.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(web.ports[0].protocol, Protocol::Tcp);
        assert_eq!(web.affinity, Some(Duration::from_secs(10_800)));
    }

    #[test]
    fn leaves_alone_what_is_not_for_a_proxy() {
        for spec in [
            "{clusterIP: None, ports: [{port: 80}]}",
            "{type: ExternalName, externalName: db.corp.example}",
            "{ports: [{port: 80}]}",
        ] {
            assert_eq!(read(spec).unwrap(), None, "{spec}");
        }
        let labelled = object(
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: \
             {service.kubernetes.io/service-proxy-name: other}}\nspec: {clusterIP: 10.96.0.1}\n",
        );
        assert_eq!(service(&labelled).unwrap(), None);
    }

    #[test]
    fn refusals_name_the_file_the_object_and_the_field() {
        for (spec, told) in [
            (
                "{clusterIP: 10.96.0.7}",
                "svc.yaml:1: Service shop/web: spec.ports: a Service with a cluster IP needs at \
                 least one port; add a port, or make it headless with clusterIP: None",
            ),
            (
                "{clusterIP: 10.096.0.7, ports: [{port: 80}]}",
                "svc.yaml:1: Service shop/web: spec.clusterIPs[0]: \"10.096.0.7\" is not an IP \
                 address; write it as 10.96.0.10 or fd00::10, without leading zeros",
            ),
            (
                "{clusterIP: 10.96.0.7, ports: [{port: 80}, {port: 65536}]}",
                "svc.yaml:1: Service shop/web: spec.ports[1].port: 65536 is not a port; write a \
                 number from 1 to 65535",
            ),
            (
                "{clusterIP: 10.96.0.7, ports: [{port: 80, protocol: QUIC}]}",
                "svc.yaml:1: Service shop/web: spec.ports[0].protocol: \"QUIC\" is not a protocol; \
                 write TCP, UDP or SCTP",
            ),
            (
                "{clusterIP: 10.96.0.7, ports: [{port: eighty}]}",
                "svc.yaml:1: Service shop/web: spec.ports[0].port: invalid type: string \
                 \"eighty\", expected i32; correct this field",
            ),
        ] {
            assert_eq!(read(spec).unwrap_err().to_string(), told);
        }
    }

    #[test]
    fn endpoint_conditions_have_the_defaults_of_the_api() {
        let slice = endpoint_slice(&object(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-1, \
             namespace: shop, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n\
             ports: [{name: http, port: 8080}]\nendpoints:\n- addresses: [10.20.0.50]\n\
             - {addresses: [10.20.0.51], conditions: {ready: false, terminating: true}}\n",
        ))
        .unwrap()
        .unwrap();
        assert_eq!(slice.key.service.to_string(), "shop/web");
        let told: Vec<_> = slice
            .endpoints
            .iter()
            .map(|e| (e.ready, e.serving, e.terminating))
            .collect();
        assert_eq!(told, [(true, true, false), (false, false, true)]);
    }

    #[test]
    fn a_health_check_port_is_for_local_load_balancers() {
        let port = |more: &str| {
            let spec = format!(
                "{{clusterIP: 10.96.0.7, ports: [{{port: 80}}], healthCheckNodePort: 30500{more}}}"
            );
            read(&spec).unwrap().unwrap().health_check_node_port
        };
        assert_eq!(
            port(", type: LoadBalancer, externalTrafficPolicy: Local"),
            Some(30500)
        );
        assert_eq!(port(", type: LoadBalancer"), None);
        assert_eq!(port(", type: NodePort, externalTrafficPolicy: Local"), None);
    }

    #[test]
    fn a_slice_says_when_its_cause_happened() {
        let triggered = |annotation: &str| {
            let text = format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-1, \
                 namespace: shop, labels: {{kubernetes.io/service-name: web}}{annotation}}}\n\
                 addressType: IPv4\nendpoints: []\n"
            );
            endpoint_slice(&object(&text)).unwrap().unwrap().triggered
        };
        let at = |time: &str| {
            triggered(&format!(
                ", annotations: {{endpoints.kubernetes.io/last-change-trigger-time: '{time}'}}"
            ))
        };
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(
            at("1970-01-01T01:00:02.5+01:00"),
            Some(epoch + Duration::from_millis(2500))
        );
        assert_eq!((at("yesterday"), triggered("")), (None, None));
    }

    #[test]
    fn a_node_says_its_zone_and_whether_it_leaves() {
        let read = |metadata: &str, spec: &str| {
            let text = format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: n1{metadata}}}\nspec: {{{spec}}}\n"
            );
            node(&object(&text)).unwrap()
        };
        let zone = ", labels: {topology.kubernetes.io/zone: z1}";
        let taint = "taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]";
        let deleted = ", deletionTimestamp: '2026-01-01T00:00:00Z'";
        let staying = "taints: [{key: node.kubernetes.io/not-ready, effect: NoSchedule}]";
        for (metadata, spec, leaving) in [
            ("", "", false),
            (zone, staying, false),
            (zone, taint, true),
            (deleted, "", true),
        ] {
            let told = (metadata == zone).then(|| "z1".into());
            let expected = [Change::Zone(told), Change::NodeLeaving(leaving)];
            assert_eq!(read(metadata, spec), expected, "{metadata} {spec}");
        }
    }
}
