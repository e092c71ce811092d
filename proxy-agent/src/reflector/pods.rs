//! A Pod, and what a Namespace says to all its pods, to what the model needs of
//! them. Of a Pod only a few fields are read at all: it is by far the largest
//! object that the agent hears of.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_api::annotations::SERVICE_PROXY;
use berth_api::{Object, Rejected};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::decode::{parse_address, port_number, protocol};
use crate::model::{HostPort, NamespacedName, Pod};

/// A Pod as the API has it, without what nobody here asks for.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodObject {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    node_name: Option<String>,
    host_network: Option<bool>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    ports: Option<Vec<ContainerPort>>,
    restart_policy: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    container_port: i32,
    host_port: Option<i32>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    protocol: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodIp {
    ip: Option<String>,
}

impl kube::Resource for PodObject {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Reads a Pod; `None` if it is not on the node called `node`.
///
/// # Errors
/// Names the field that cannot be right.
pub fn pod(object: &Object, node: &str) -> Result<Option<Pod>, Rejected> {
    let decoded: PodObject = object.decode()?;
    if decoded.spec.node_name.as_deref() != Some(node) {
        return Ok(None);
    }
    pod_from(object, &decoded).map(Some)
}

/// As [`pod`], of a Pod of this node that the API's client has decoded already;
/// `object` is only needed to name it.
///
/// # Errors
/// Names the field that cannot be right.
pub fn pod_from(object: &Object, decoded: &PodObject) -> Result<Pod, Rejected> {
    let (spec, status) = (&decoded.spec, &decoded.status);
    let host_network = spec.host_network.unwrap_or(false);
    let addresses = addresses(object, status)?;
    // A pod that has ended keeps its addresses in its status, and somebody
    // else may have them by now.
    let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    Ok(Pod {
        name: NamespacedName::new(&object.key.namespace, &object.key.name),
        uid: decoded.metadata.uid.as_deref().unwrap_or_default().into(),
        is_running: !addresses.is_empty() && !has_ended,
        addresses,
        host_network,
        host_ports: if host_network {
            Vec::new()
        } else {
            host_ports(object, spec)?
        },
        opted_out: is_opted_out(object, decoded.metadata.annotations.as_ref())?,
    })
}

fn addresses(object: &Object, status: &PodStatus) -> Result<Vec<IpAddr>, Rejected> {
    let all = status.pod_ips.as_deref().unwrap_or_default();
    let mut found = Vec::with_capacity(all.len().max(1));
    for (index, ip) in all.iter().enumerate() {
        if let Some(text) = ip.ip.as_deref().filter(|text| !text.is_empty()) {
            let field = format!("status.podIPs[{index}].ip");
            found.push(parse_address(object, &field, text)?);
        }
    }
    let first = status.pod_ip.as_deref().filter(|text| !text.is_empty());
    if let (true, Some(text)) = (found.is_empty(), first) {
        found.push(parse_address(object, "status.podIP", text)?);
    }
    Ok(found)
}

/// Of the containers that stay: init containers only if they are sidecars
/// (KEP-753).
fn host_ports(object: &Object, spec: &PodSpec) -> Result<Vec<HostPort>, Rejected> {
    let of = |list: &str, containers: Option<&[Container]>, only_sidecars: bool| {
        let mut found = Vec::new();
        for (c, container) in containers.unwrap_or_default().iter().enumerate() {
            if only_sidecars && container.restart_policy.as_deref() != Some("Always") {
                continue;
            }
            let ports = container.ports.as_deref().unwrap_or_default();
            for (p, port) in ports.iter().enumerate() {
                found.extend(host_port(object, &format!("{list}[{c}].ports[{p}]"), port)?);
            }
        }
        Ok(found)
    };
    let mut all = of("spec.containers", spec.containers.as_deref(), false)?;
    all.append(&mut of(
        "spec.initContainers",
        spec.init_containers.as_deref(),
        true,
    )?);
    Ok(all)
}

fn host_port(
    object: &Object,
    field: &str,
    port: &ContainerPort,
) -> Result<Option<HostPort>, Rejected> {
    let Some(number) = port.host_port.filter(|number| *number != 0) else {
        return Ok(None);
    };
    let host_ip = port.host_ip.as_deref().filter(|text| !text.is_empty());
    Ok(Some(HostPort {
        host_ip: host_ip
            .map(|text| parse_address(object, &format!("{field}.hostIP"), text))
            .transpose()?,
        host_port: port_number(object, &format!("{field}.hostPort"), number)?,
        container_port: port_number(
            object,
            &format!("{field}.containerPort"),
            port.container_port,
        )?,
        protocol: protocol(
            object,
            &format!("{field}.protocol"),
            port.protocol.as_deref(),
        )?,
    }))
}

/// Whether a Namespace's annotations keep the service proxy from its pods.
///
/// # Errors
/// When the annotation says something that is not known.
pub fn namespace_opts_out(object: &Object) -> Result<bool, Rejected> {
    #[derive(Deserialize)]
    struct Namespace {
        #[serde(default)]
        metadata: ObjectMeta,
    }
    let decoded: Namespace = object.decode()?;
    is_opted_out(object, decoded.metadata.annotations.as_ref())
}

/// As the annotation [`SERVICE_PROXY`] of a Namespace or Pod says.
///
/// # Errors
/// When it says something that is not known.
pub fn is_opted_out(
    object: &Object,
    annotations: Option<&BTreeMap<String, String>>,
) -> Result<bool, Rejected> {
    match annotations
        .and_then(|all| all.get(SERVICE_PROXY))
        .map(String::as_str)
    {
        None | Some("enabled") => Ok(false),
        Some("disabled") => Ok(true),
        Some(other) => Err(object.reject(
            format!("metadata.annotations[{SERVICE_PROXY}]"),
            format!("{other:?} is neither \"enabled\" nor \"disabled\""),
            "write \"disabled\", or take the annotation away",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use berth_api::folder::parse;
    use std::path::Path;

    fn object(text: &str) -> Object {
        let parsed = parse(Path::new("pod.yaml"), text);
        assert_eq!(parsed.rejected, []);
        parsed.objects.into_iter().next().unwrap()
    }

    fn read(metadata: &str, spec: &str, status: &str) -> Result<Option<Pod>, Rejected> {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: dns, namespace: shop, uid: u1{metadata}}}\n\
             spec: {{nodeName: n1{spec}}}\nstatus: {{{status}}}\n"
        );
        pod(&object(&text), "n1")
    }

    fn pod_with(metadata: &str, spec: &str, status: &str) -> Pod {
        read(metadata, spec, status).unwrap().unwrap()
    }

    #[test]
    fn reads_a_pod_of_this_node_alone() {
        let dns = pod_with(
            "",
            ", containers: [{ports: [{containerPort: 5353, hostPort: 53, protocol: UDP, \
             hostIP: 10.20.0.11}, {containerPort: 9153}]}], initContainers: [\
             {restartPolicy: Always, ports: [{containerPort: 1, hostPort: 2}]}, \
             {ports: [{containerPort: 3, hostPort: 4}]}]",
            "phase: Running, podIP: 10.20.0.50, podIPs: [{ip: 10.20.0.50}, {ip: 'fd00::50'}]",
        );
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            (dns.name.to_string().as_str(), &*dns.uid),
            ("shop/dns", "u1")
        );
        assert_eq!(dns.addresses, [ip("10.20.0.50"), ip("fd00::50")]);
        let first = HostPort {
            host_ip: Some(ip("10.20.0.11")),
            host_port: 53,
            container_port: 5353,
            protocol: Protocol::Udp,
        };
        let sidecar = HostPort {
            host_ip: None,
            host_port: 2,
            container_port: 1,
            protocol: Protocol::Tcp,
        };
        assert_eq!(dns.host_ports, [first, sidecar]);
        let elsewhere = object(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\nspec: {nodeName: n2}\n",
        );
        assert_eq!(pod(&elsewhere, "n1").unwrap(), None);
    }

    #[test]
    fn runs_while_it_has_an_address_and_has_not_ended() {
        for (status, running) in [
            ("phase: Running, podIP: 10.20.0.50", true),
            ("phase: Pending, podIP: 10.20.0.50", true),
            ("phase: Pending", false),
            ("phase: Running, podIP: ''", false),
            ("phase: Succeeded, podIP: 10.20.0.50", false),
            ("phase: Failed, podIP: 10.20.0.50", false),
        ] {
            assert_eq!(pod_with("", "", status).is_running, running, "{status}");
        }
    }

    #[test]
    fn a_pod_of_the_nodes_network_listens_itself() {
        let spec =
            ", hostNetwork: true, containers: [{ports: [{containerPort: 80, hostPort: 80}]}]";
        assert_eq!(pod_with("", spec, "").host_ports, []);
    }

    #[test]
    fn says_whether_it_wants_a_proxy() {
        let annotated = |value: &str| {
            let metadata = format!(", annotations: {{berth.dev/service-proxy: {value}}}");
            read(&metadata, "", "").map(|pod| pod.unwrap().opted_out)
        };
        assert_eq!(annotated("disabled"), Ok(true));
        assert_eq!(annotated("enabled"), Ok(false));
        assert_eq!(
            annotated("'off'").unwrap_err().to_string(),
            "pod.yaml:1: Pod shop/dns: metadata.annotations[berth.dev/service-proxy]: \"off\" is \
             neither \"enabled\" nor \"disabled\"; write \"disabled\", or take the annotation away"
        );
        let namespace = object(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: mesh, annotations: \
             {berth.dev/service-proxy: disabled}}\n",
        );
        assert_eq!(namespace_opts_out(&namespace), Ok(true));
    }

    #[test]
    fn refusals_name_the_port() {
        let spec = ", containers: [{}, {ports: [{containerPort: 80, hostPort: 70000}]}]";
        assert_eq!(
            read("", spec, "").unwrap_err().to_string(),
            "pod.yaml:1: Pod shop/dns: spec.containers[1].ports[0].hostPort: 70000 is not a port; \
             write a number from 1 to 65535"
        );
    }
}
