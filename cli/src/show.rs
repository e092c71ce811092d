//! The agent's answers, laid out for people.

use std::fmt::{Display, Write as _};

use berth_api::agent::{
    Endpoint, Frontend, Outcome, Readiness, ServiceDetail, ServiceSummary, Trace,
};

use crate::table::table;

pub(crate) fn services(all: &[ServiceSummary]) -> String {
    if all.is_empty() {
        return "no Services are served on this node\n".to_owned();
    }
    let rows: Vec<_> = all
        .iter()
        .map(|service| {
            let state = match service.failing {
                0 => "ok".to_owned(),
                failing => format!("{failing} failing"),
            };
            [
                service.namespace.clone(),
                service.name.clone(),
                joined(&service.cluster_ips, ","),
                or_dash(joined(&service.external_ips, ",")),
                service.ports.join(","),
                format!("{}/{}", service.ready, service.endpoints),
                service.local.to_string(),
                state,
            ]
        })
        .collect();
    let head = [
        "NAMESPACE",
        "NAME",
        "CLUSTER-IP",
        "EXTERNAL-IP",
        "PORTS",
        "READY",
        "LOCAL",
        "MAPS",
    ];
    table(head, &rows)
}

pub(crate) fn service(detail: &ServiceDetail) -> String {
    let mut text = format!("Service {}/{}", detail.namespace, detail.name);
    let zone = detail.zone.as_deref().unwrap_or("unknown");
    let _ = writeln!(text, " on node {}, zone {zone}", detail.node);
    let mut fact = |name: &str, value: &dyn Display| {
        let _ = writeln!(text, "  {name}: {value}");
    };
    fact("internalTrafficPolicy", &detail.internal_policy);
    fact("externalTrafficPolicy", &detail.external_policy);
    if let Some(seconds) = detail.affinity_seconds {
        fact("sessionAffinity", &format_args!("ClientIP, {seconds} s"));
    }
    if !detail.source_ranges.is_empty() {
        fact(
            "loadBalancerSourceRanges",
            &joined(&detail.source_ranges, ", "),
        );
    }
    if let Some(port) = detail.health_check_node_port {
        fact("healthCheckNodePort", &port);
    }
    for group in groups(&detail.frontends) {
        text.push('\n');
        for frontend in group {
            let _ = writeln!(text, "{}", headline(frontend));
        }
        text.push_str(&endpoints(&group[0].endpoints));
    }
    text.push_str("\nCounters of this node, all Services together:\n");
    for (name, value) in &detail.node_counters {
        let _ = writeln!(text, "  {name}: {value}");
    }
    text
}

/// Neighbours that hand out the same endpoints for the same reasons: a
/// NodePort has one frontend for each address of the node.
fn groups(frontends: &[Frontend]) -> impl Iterator<Item = &[Frontend]> {
    frontends.chunk_by(|a, b| {
        a.endpoints == b.endpoints && a.policy == b.policy && a.protocol == b.protocol
    })
}

fn headline(frontend: &Frontend) -> String {
    let Frontend {
        address,
        protocol,
        kind,
        policy,
        ..
    } = frontend;
    let maps = match &frontend.maps {
        None => "not in the maps".to_owned(),
        Some(entry) => match entry.backends.len() {
            0 => "in the maps: refuses".to_owned(),
            1 => format!("in the maps: 1 backend, service={}", entry.service),
            many => format!("in the maps: {many} backends, service={}", entry.service),
        },
    };
    let mut line = format!("{address}/{protocol}  {kind}, policy {policy}; {maps}");
    if let Some(problem) = &frontend.problem {
        let _ = write!(line, "\n  ! {problem}");
    }
    line
}

fn endpoints(endpoints: &[Endpoint]) -> String {
    if endpoints.is_empty() {
        return "  no endpoints\n".to_owned();
    }
    let rows: Vec<_> = endpoints
        .iter()
        .map(|endpoint| {
            [
                if endpoint.used { "  yes" } else { "  no" }.to_owned(),
                endpoint.address.to_string(),
                endpoint.node.clone().unwrap_or_else(|| "-".to_owned()),
                endpoint.why.clone(),
            ]
        })
        .collect();
    table(["  USED", "ENDPOINT", "NODE", "WHY"], &rows)
}

pub(crate) fn trace(trace: &Trace) -> String {
    let mut text = format!("from {}: {}\n", trace.from, trace.client);
    let _ = writeln!(text, "to   {}/{}", trace.to, trace.protocol);
    for step in &trace.steps {
        let _ = writeln!(text, "  - {step}");
    }
    if let Some(frontend) = &trace.frontend {
        text.push_str(&endpoints(&frontend.endpoints));
    }
    let _ = writeln!(text, "outcome: {}", outcome(trace));
    text
}

fn outcome(trace: &Trace) -> String {
    match trace.outcome {
        Outcome::Translated => {
            let entry = trace.frontend.as_ref().and_then(|f| f.maps.as_ref());
            let backends = entry.map_or(&[][..], |entry| &entry.backends);
            format!("goes to {}", joined(backends, " or "))
        }
        Outcome::NoEndpoints => "refused (ECONNREFUSED)".to_owned(),
        Outcome::NoLocalEndpoints => "fails at once".to_owned(),
        Outcome::NotAService | Outcome::NotInMaps => format!("goes to {} itself", trace.to),
    }
}

pub(crate) fn readiness(readiness: &Readiness) -> String {
    if readiness.ready {
        "ready\n".to_owned()
    } else {
        format!("not ready:\n  {}\n", readiness.reasons.join("\n  "))
    }
}

fn joined<T: Display>(all: &[T], between: &str) -> String {
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    all.join(between)
}

fn or_dash(text: String) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::agent::MapEntry;

    fn frontend(address: &str, kind: &str) -> Frontend {
        Frontend {
            address: address.parse().unwrap(),
            protocol: "TCP".to_owned(),
            kind: kind.to_owned(),
            policy: "Cluster".to_owned(),
            endpoints: vec![
                Endpoint {
                    address: "10.20.0.50:8080".parse().unwrap(),
                    node: Some("n1".to_owned()),
                    used: true,
                    reason: "Ready".to_owned(),
                    why: "ready".to_owned(),
                },
                Endpoint {
                    address: "10.20.0.51:8080".parse().unwrap(),
                    node: None,
                    used: false,
                    reason: "NotReady".to_owned(),
                    why: "not ready".to_owned(),
                },
            ],
            maps: Some(MapEntry {
                service: 3,
                backends: vec!["10.20.0.50:8080".parse().unwrap()],
            }),
            problem: None,
        }
    }

    #[test]
    fn a_service_says_why_each_endpoint_is_used_or_not() {
        let mut failing = frontend("10.20.0.11:30080", "NodePort");
        failing.maps = None;
        failing.problem = Some("the SLOTS map is full".to_owned());
        let detail = ServiceDetail {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            node: "n1".to_owned(),
            zone: None,
            internal_policy: "Cluster".to_owned(),
            external_policy: "Local".to_owned(),
            affinity_seconds: Some(10_800),
            source_ranges: vec![],
            health_check_node_port: Some(30_500),
            frontends: vec![frontend("10.96.0.7:80", "ClusterIP"), failing],
            node_counters: [("connected".to_owned(), 7)].into(),
        };
        let expected = "\
Service shop/web on node n1, zone unknown
  internalTrafficPolicy: Cluster
  externalTrafficPolicy: Local
  sessionAffinity: ClientIP, 10800 s
  healthCheckNodePort: 30500

10.96.0.7:80/TCP  ClusterIP, policy Cluster; in the maps: 1 backend, service=3
10.20.0.11:30080/TCP  NodePort, policy Cluster; not in the maps
  ! the SLOTS map is full
  USED   ENDPOINT          NODE   WHY
  yes    10.20.0.50:8080   n1     ready
  no     10.20.0.51:8080   -      not ready

Counters of this node, all Services together:
  connected: 7
";
        assert_eq!(service(&detail), expected);
    }

    #[test]
    fn a_trace_ends_with_what_happens() {
        let told = |outcome, frontend| {
            let text = trace(&Trace {
                from: "10.20.0.60".to_owned(),
                client: "a pod on this node".to_owned(),
                to: "10.96.0.7:80".parse().unwrap(),
                protocol: "TCP".to_owned(),
                outcome,
                steps: vec!["a rule".to_owned()],
                service: None,
                frontend,
            });
            text.lines().last().unwrap().to_owned()
        };
        let web = frontend("10.96.0.7:80", "ClusterIP");
        assert_eq!(
            told(Outcome::Translated, Some(web)),
            "outcome: goes to 10.20.0.50:8080"
        );
        assert_eq!(
            told(Outcome::NotAService, None),
            "outcome: goes to 10.96.0.7:80 itself"
        );
        assert_eq!(
            told(Outcome::NoEndpoints, None),
            "outcome: refused (ECONNREFUSED)"
        );
    }

    #[test]
    fn a_list_has_a_line_for_each() {
        let one = ServiceSummary {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            cluster_ips: vec!["10.96.0.7".parse().unwrap()],
            external_ips: vec![],
            ports: vec!["80:30080/TCP".to_owned()],
            endpoints: 3,
            ready: 2,
            local: 1,
            failing: 0,
        };
        assert_eq!(
            services(&[one]),
            "NAMESPACE   NAME   CLUSTER-IP   EXTERNAL-IP   PORTS          READY   LOCAL   MAPS\n\
             shop        web    10.96.0.7    -             80:30080/TCP   2/3     1       ok\n"
        );
    }
}
