//! What an API server does to a Service: checks it, and fills in addresses,
//! node ports and defaults.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use berth_api::{Object, Rejected};
use ipnetwork::Ipv4Network;
use serde_json::{Value, json};

use super::shapes::{ServicePort, ServiceSpec, TargetPort, address};

/// Node ports, as kube-apiserver has them by default.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;
const KINDS: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// A Service with all that an API server adds.
#[derive(Clone, Debug)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What the stand-in reads of it.
    pub spec: ServiceSpec,
    /// The whole object, filled in.
    pub value: Value,
}

impl Service {
    /// `namespace/name`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Its ClusterIP; none if it is headless or an ExternalName.
    #[must_use]
    pub fn cluster_ip(&self) -> Option<IpAddr> {
        address(&self.spec.cluster_ip)
    }

    /// Whether its name stands for its pods' addresses.
    #[must_use]
    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip == "None"
    }
}

/// Gives out ClusterIPs and node ports.
#[derive(Debug)]
pub struct Allocator {
    cluster_ips: Ipv4Network,
    used: BTreeSet<Ipv4Addr>,
    node_ports: BTreeSet<u16>,
}

impl Allocator {
    /// Addresses from `cluster_ips`, without those in `used`.
    #[must_use]
    pub fn new(cluster_ips: Ipv4Network, used: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        Self {
            cluster_ips,
            used: used.into_iter().collect(),
            node_ports: BTreeSet::new(),
        }
    }

    /// Admits Services: those that ask for addresses or ports first, so that
    /// nobody else is given them. Order within each group is kept.
    pub fn admit(&mut self, objects: &[Object]) -> (Vec<Service>, Vec<Rejected>) {
        let (mut admitted, mut rejected) = (Vec::new(), Vec::new());
        let (asking, others): (Vec<_>, Vec<_>) = objects.iter().partition(|o| asks(o));
        for object in asking.into_iter().chain(others) {
            match self.admit_one(object) {
                Ok(service) => admitted.push(service),
                Err(refusal) => rejected.push(*refusal),
            }
        }
        (admitted, rejected)
    }

    fn admit_one(&mut self, object: &Object) -> Result<Service, Box<Rejected>> {
        let mut spec: ServiceSpec = object
            .value
            .get("spec")
            .filter(|spec| !spec.is_null())
            .map(|_| object.decode::<Outer>())
            .transpose()?
            .ok_or_else(|| object.reject("spec", "is missing", "write a Service's spec"))?
            .spec;
        check(object, &spec)?;
        let with_address = spec.kind != "ExternalName";
        if with_address {
            self.give_cluster_ip(object, &mut spec)?;
        }
        if matches!(spec.kind.as_str(), "NodePort" | "LoadBalancer") {
            self.give_node_ports(object, &mut spec)?;
        }
        Ok(Service {
            namespace: object.key.namespace.clone(),
            name: object.key.name.clone(),
            value: filled_in(object, &spec),
            spec,
        })
    }

    fn give_cluster_ip(
        &mut self,
        object: &Object,
        spec: &mut ServiceSpec,
    ) -> Result<(), Box<Rejected>> {
        let refuse = |problem: String, mend: &str| {
            Err(Box::new(object.reject("spec.clusterIP", problem, mend)))
        };
        match spec.cluster_ip.as_str() {
            "None" => return Ok(()),
            "" => {
                // The lower part is for those who ask (KEP-3070).
                let free = self.cluster_ips.iter().skip(256);
                let Some(free) = free.into_iter().find(|ip| !self.used.contains(ip)) else {
                    let problem = format!("no address is free in {}", self.cluster_ips);
                    return refuse(problem, "remove Services");
                };
                spec.cluster_ip = free.to_string();
            }
            _ => {}
        }
        let Ok(ip) = spec.cluster_ip.parse::<Ipv4Addr>() else {
            let problem = format!("{:?} is not an IPv4 address", spec.cluster_ip);
            return refuse(problem, "write one, None, or nothing");
        };
        if !self.cluster_ips.contains(ip) {
            let problem = format!("{ip} is outside of {}", self.cluster_ips);
            return refuse(problem, "choose one inside, or leave it out");
        }
        if !self.used.insert(ip) {
            let problem = format!("{ip} belongs to another Service");
            return refuse(problem, "choose another, or leave it out");
        }
        Ok(())
    }

    fn give_node_ports(
        &mut self,
        object: &Object,
        spec: &mut ServiceSpec,
    ) -> Result<(), Box<Rejected>> {
        for (index, port) in spec.ports.iter_mut().enumerate() {
            let refuse = |problem: String, mend: &str| {
                let field = format!("spec.ports[{index}].nodePort");
                Err(Box::new(object.reject(field, problem, mend)))
            };
            let number = match port.node_port {
                Some(number) if !NODE_PORTS.contains(&number) => {
                    let problem = format!("{number} is not a node port");
                    return refuse(problem, "choose one of 30000 to 32767, or leave it out");
                }
                Some(number) => number,
                None => match { NODE_PORTS }.find(|n| !self.node_ports.contains(n)) {
                    Some(number) => number,
                    None => return refuse("none is free".to_owned(), "remove Services"),
                },
            };
            if !self.node_ports.insert(number) {
                let problem = format!("{number} belongs to another port");
                return refuse(problem, "choose another, or leave it out");
            }
            port.node_port = Some(number);
        }
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct Outer {
    spec: ServiceSpec,
}

fn asks(object: &Object) -> bool {
    let cluster_ip = object.value.pointer("/spec/clusterIP");
    let ports = object
        .value
        .pointer("/spec/ports")
        .and_then(Value::as_array);
    cluster_ip
        .and_then(Value::as_str)
        .is_some_and(|ip| !ip.is_empty())
        || ports.is_some_and(|ports| ports.iter().any(|port| port.get("nodePort").is_some()))
}

/// The refusals of an API server that manifests run into.
fn check(object: &Object, spec: &ServiceSpec) -> Result<(), Box<Rejected>> {
    let refuse = |field: String, problem: String, mend: &str| {
        Err(Box::new(object.reject(field, problem, mend)))
    };
    if !KINDS.contains(&spec.kind.as_str()) {
        let problem = format!("{:?} is not a type of Service", spec.kind);
        return refuse(
            "spec.type".to_owned(),
            problem,
            "write ClusterIP, NodePort, LoadBalancer or ExternalName",
        );
    }
    let may_have_none = spec.cluster_ip == "None" || spec.kind == "ExternalName";
    if spec.ports.is_empty() && !may_have_none {
        return refuse(
            "spec.ports".to_owned(),
            "a Service with a ClusterIP needs at least one port".to_owned(),
            "add a port, or write clusterIP: None",
        );
    }
    let mut seen = BTreeSet::new();
    for (index, port) in spec.ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        if port.port == 0 {
            return refuse(
                field + ".port",
                "0 is not a port".to_owned(),
                "write 1 to 65535",
            );
        }
        if spec.ports.len() > 1 && port.name.is_none() {
            let problem = "has no name, and there are several ports".to_owned();
            return refuse(field + ".name", problem, "give each port a name");
        }
        if !["TCP", "UDP", "SCTP"].contains(&port.protocol.as_str()) {
            let problem = format!("{:?} is not a protocol", port.protocol);
            return refuse(field + ".protocol", problem, "write TCP, UDP or SCTP");
        }
        if !seen.insert((port.port, port.protocol.as_str())) {
            let problem = format!("{} {} is there twice", port.protocol, port.port);
            return refuse(field, problem, "remove one of the two");
        }
    }
    Ok(())
}

/// The object with the defaults of the API server.
fn filled_in(object: &Object, spec: &ServiceSpec) -> Value {
    let mut value = object.value.clone();
    value["metadata"]["namespace"] = object.key.namespace.clone().into();
    let fields = &mut value["spec"];
    let mut default = |name: &str, set: Value| {
        if fields.get(name).is_none_or(Value::is_null) {
            fields[name] = set;
        }
    };
    default("type", spec.kind.clone().into());
    default("sessionAffinity", "None".into());
    if spec.kind != "ExternalName" {
        default("internalTrafficPolicy", "Cluster".into());
        default("ipFamilies", json!(["IPv4"]));
        default("ipFamilyPolicy", "SingleStack".into());
        fields["clusterIP"] = spec.cluster_ip.clone().into();
        fields["clusterIPs"] = json!([spec.cluster_ip]);
    }
    if matches!(spec.kind.as_str(), "NodePort" | "LoadBalancer")
        && fields.get("externalTrafficPolicy").is_none()
    {
        fields["externalTrafficPolicy"] = "Cluster".into();
    }
    if !spec.ports.is_empty() {
        fields["ports"] = spec
            .ports
            .iter()
            .enumerate()
            .map(|(index, port)| {
                let mut whole = object.value["spec"]["ports"][index].clone();
                whole["protocol"] = port.protocol.clone().into();
                whole["targetPort"] = target(port);
                if let Some(number) = port.node_port {
                    whole["nodePort"] = number.into();
                }
                whole
            })
            .collect();
    }
    value
}

fn target(port: &ServicePort) -> Value {
    match &port.target_port {
        Some(TargetPort::Number(number)) => (*number).into(),
        Some(TargetPort::Name(name)) => name.clone().into(),
        None => port.port.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn admitted(text: &str) -> (Vec<Service>, Vec<String>) {
        let objects = berth_api::folder::parse(Path::new("x.yaml"), text).objects;
        let mut allocator = Allocator::new(
            "10.96.0.0/16".parse().unwrap(),
            ["10.96.0.10".parse().unwrap()],
        );
        let (services, rejected) = allocator.admit(&objects);
        (services, rejected.iter().map(ToString::to_string).collect())
    }

    fn service(name: &str, spec: &str) -> String {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n")
    }

    #[test]
    fn gives_addresses_and_defaults() {
        let text = service("a", "{ports: [{port: 80, targetPort: http}]}")
            + &service("b", "{clusterIP: 10.96.1.0, ports: [{port: 80}]}")
            + &service("c", "{clusterIP: None}")
            + &service("d", "{type: ExternalName, externalName: x.example}");
        let (services, rejected) = admitted(&text);
        assert_eq!(rejected, [] as [&str; 0]);
        let by = |name: &str| &services.iter().find(|s| s.name == name).unwrap().value["spec"];
        assert_eq!(by("b")["clusterIP"], "10.96.1.0");
        assert_eq!(by("a")["clusterIP"], "10.96.1.1", "b has asked for .0");
        assert_eq!(by("a")["clusterIPs"], json!(["10.96.1.1"]));
        assert_eq!(by("a")["ports"][0]["protocol"], "TCP");
        assert_eq!(by("a")["ports"][0]["targetPort"], "http");
        assert_eq!(by("b")["ports"][0]["targetPort"], 80);
        assert_eq!(by("c")["clusterIP"], "None");
        assert!(by("d").get("clusterIP").is_none());
    }

    #[test]
    fn node_ports_are_given_and_kept() {
        let text = service("a", "{type: LoadBalancer, ports: [{port: 80}]}")
            + &service(
                "b",
                "{type: NodePort, ports: [{port: 80, nodePort: 30000}]}",
            )
            + &service("c", "{type: NodePort, ports: [{port: 80, nodePort: 80}]}");
        let (services, rejected) = admitted(&text);
        let port = |name: &str| {
            let service = services.iter().find(|s| s.name == name).unwrap();
            service.value["spec"]["ports"][0]["nodePort"].clone()
        };
        assert_eq!((port("b"), port("a")), (30000.into(), 30001.into()));
        assert_eq!(rejected.len(), 1);
        assert!(rejected[0].contains("Service default/c: spec.ports[0].nodePort: 80 is not"));
    }

    #[test]
    fn refusals_name_file_object_and_field() {
        let cases = [
            (
                "{selector: {a: b}}",
                "spec.ports: a Service with a ClusterIP needs",
            ),
            (
                "{ports: [{port: 1}, {port: 2}]}",
                "spec.ports[0].name: has no name",
            ),
            (
                "{ports: [{port: 70000}]}",
                "spec.ports[0].port: invalid value",
            ),
            (
                "{clusterIP: 10.96.0.10, ports: [{port: 1}]}",
                "spec.clusterIP: 10.96.0.10 belongs",
            ),
            (
                "{clusterIP: 192.0.2.1, ports: [{port: 1}]}",
                "spec.clusterIP: 192.0.2.1 is outside",
            ),
            (
                "{type: Nope, ports: [{port: 1}]}",
                "spec.type: \"Nope\" is not",
            ),
        ];
        for (spec, expected) in cases {
            let (services, rejected) = admitted(&service("a", spec));
            assert!(services.is_empty());
            let expected = format!("x.yaml:1: Service default/a: {expected}");
            assert!(
                rejected[0].starts_with(&expected),
                "{rejected:?} for {expected}"
            );
        }
    }
}
