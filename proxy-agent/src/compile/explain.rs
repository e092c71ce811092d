//! Why an endpoint is used on this node, or is not. Says in words what
//! [`choose`](super::choose) decides, and must agree with it on everything.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::endpoints::{NodeView, is_on};
use super::frontends::{FrontendKey, addresses, endpoints_of, socket_key};
use crate::model::{ClusterState, Endpoint, Family, Service, ServicePort, TrafficPolicy};

/// Which of a Service's addresses a frontend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A cluster IP.
    ClusterIp,
    /// One of `externalIPs`.
    ExternalIp,
    /// An address of the load balancer.
    LoadBalancer,
    /// A NodePort, on an address of the node.
    NodePort,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClusterIp => "ClusterIP",
            Self::ExternalIp => "externalIP",
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
        })
    }
}

/// One frontend of a Service, and every endpoint that the port has.
#[derive(Clone, Debug)]
pub struct Explanation<'a> {
    /// Its address.
    pub key: FrontendKey,
    /// Which of the Service's addresses that is.
    pub kind: Kind,
    /// The Service's port.
    pub port: &'a ServicePort,
    /// The traffic policy that holds for connections of this node.
    pub policy: TrafficPolicy,
    /// The endpoints, with the ports that they listen on.
    pub endpoints: Vec<(&'a Endpoint, u16, Reason)>,
}

/// The frontends of a Service as [`compile`](super::compile) sees them.
#[must_use]
pub fn explain_service<'a>(
    state: &'a ClusterState,
    node: &str,
    service: &'a Service,
) -> Vec<Explanation<'a>> {
    let view = NodeView {
        node,
        zone: state.zone(),
    };
    let mut all = Vec::new();
    for port in &service.ports {
        for family in [Family::V4, Family::V6] {
            let endpoints = endpoints_of(state, service, port, family);
            let only: Vec<_> = endpoints.iter().map(|(endpoint, _)| *endpoint).collect();
            for (address, number, policy) in addresses(state, service, port, family) {
                let reasons = explain(&only, policy, view);
                let endpoints = endpoints.iter().zip(reasons);
                all.push(Explanation {
                    key: socket_key(address, number, port.protocol),
                    kind: kind_of(service, port, address, number),
                    port,
                    policy,
                    endpoints: endpoints
                        .map(|((e, port), reason)| (*e, *port, reason))
                        .collect(),
                });
            }
        }
    }
    all
}

fn kind_of(service: &Service, port: &ServicePort, address: IpAddr, number: u16) -> Kind {
    let is_own_port = number == port.port;
    match () {
        () if is_own_port && service.cluster_ips.contains(&address) => Kind::ClusterIp,
        () if is_own_port && service.external_ips.contains(&address) => Kind::ExternalIp,
        () if is_own_port && service.load_balancer_ips.contains(&address) => Kind::LoadBalancer,
        () => Kind::NodePort,
    }
}

/// Why connections of this node go to an endpoint, or do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Used: it is ready.
    Ready,
    /// Used: it is ready, and its hint names this node.
    HintedNode,
    /// Used: it is ready, and its hint names this node's zone.
    HintedZone,
    /// Used: it is ready and on this node, as the policy Local wants.
    Local,
    /// Used: it is terminating, but no endpoint is ready and it still serves.
    LastResort,
    /// Not used: it neither is ready nor serves while it terminates.
    NotReady,
    /// Not used: it is terminating, and others are ready.
    Terminating,
    /// Not used: the hints keep connections on this node, and its hint names
    /// another.
    OtherNode,
    /// Not used: the hints keep connections in this zone, and its hint names
    /// another.
    OtherZone,
    /// Not used: the policy is Local, and it is not on this node.
    NotLocal,
}

impl Reason {
    /// Whether connections go to the endpoint.
    #[must_use]
    pub const fn is_used(self) -> bool {
        matches!(
            self,
            Self::Ready | Self::HintedNode | Self::HintedZone | Self::Local | Self::LastResort
        )
    }

    /// A word for machines to compare.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::HintedNode => "HintedNode",
            Self::HintedZone => "HintedZone",
            Self::Local => "Local",
            Self::LastResort => "LastResort",
            Self::NotReady => "NotReady",
            Self::Terminating => "Terminating",
            Self::OtherNode => "OtherNode",
            Self::OtherZone => "OtherZone",
            Self::NotLocal => "NotLocal",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::HintedNode => "ready, and its hint names this node",
            Self::HintedZone => "ready, and its hint names this node's zone",
            Self::Local => "ready, and on this node as the policy Local wants",
            Self::LastResort => "terminating, but no endpoint is ready and it still serves",
            Self::NotReady => "not ready",
            Self::Terminating => "terminating, and other endpoints are ready",
            Self::OtherNode => "its hint names another node, and one names this node",
            Self::OtherZone => "its hint names another zone, and one names this zone",
            Self::NotLocal => "the policy is Local, and it is not on this node",
        })
    }
}

/// Why each of `endpoints` is used or not, in their order.
#[must_use]
pub fn explain(endpoints: &[&Endpoint], policy: TrafficPolicy, view: NodeView<'_>) -> Vec<Reason> {
    let is_candidate =
        |endpoint: &Endpoint| policy == TrafficPolicy::Cluster || is_on(endpoint, view.node);
    let ready: Vec<_> = endpoints
        .iter()
        .copied()
        .filter(|e| e.ready && is_candidate(e))
        .collect();
    let hints = match policy {
        TrafficPolicy::Cluster => Hints::of(&ready, view),
        TrafficPolicy::Local => Hints::Unused,
    };
    let one = |endpoint: &&Endpoint| {
        let is_draining = endpoint.serving && endpoint.terminating;
        match (endpoint.ready, is_draining) {
            (false, false) => Reason::NotReady,
            _ if !is_candidate(endpoint) => Reason::NotLocal,
            (false, true) if ready.is_empty() => Reason::LastResort,
            (false, true) => Reason::Terminating,
            (true, _) if policy == TrafficPolicy::Local => Reason::Local,
            (true, _) => hints.judge(endpoint, view),
        }
    };
    endpoints.iter().map(one).collect()
}

/// What the hints of the ready endpoints ask for (KEP-2433, KEP-3015).
#[derive(Clone, Copy)]
enum Hints {
    Unused,
    Node,
    Zone,
}

impl Hints {
    fn of(ready: &[&Endpoint], view: NodeView<'_>) -> Self {
        let all_and_one = |hints: fn(&Endpoint) -> &[Arc<str>], here: &str| {
            ready.iter().all(|e| !hints(e).is_empty())
                && ready.iter().any(|e| names(hints(e), here))
        };
        if all_and_one(|e| &e.hint_nodes, view.node) {
            Self::Node
        } else if view
            .zone
            .is_some_and(|zone| all_and_one(|e| &e.hint_zones, zone))
        {
            Self::Zone
        } else {
            Self::Unused
        }
    }

    fn judge(self, endpoint: &Endpoint, view: NodeView<'_>) -> Reason {
        match self {
            Self::Unused => Reason::Ready,
            Self::Node if names(&endpoint.hint_nodes, view.node) => Reason::HintedNode,
            Self::Node => Reason::OtherNode,
            Self::Zone if names(&endpoint.hint_zones, view.zone.unwrap_or_default()) => {
                Reason::HintedZone
            }
            Self::Zone => Reason::OtherZone,
        }
    }
}

fn names(hints: &[Arc<str>], here: &str) -> bool {
    hints.iter().any(|hint| **hint == *here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::choose;

    /// Everything that one endpoint can be, as far as the choice looks at it.
    fn every_endpoint() -> Vec<Endpoint> {
        let names: [&[&str]; 3] = [&[], &["here"], &["there"]];
        let list = |names: &[&str]| {
            names
                .iter()
                .map(|name| Arc::from(*name))
                .collect::<Vec<_>>()
        };
        let states = [
            (true, true, false),
            (true, true, true),
            (false, true, true),
            (false, false, true),
            (false, true, false),
            (false, false, false),
        ];
        let mut all = Vec::new();
        for (ready, serving, terminating) in states {
            for node in [None, Some("here"), Some("there")] {
                for hint_nodes in names {
                    for hint_zones in names {
                        all.push(Endpoint {
                            address: IpAddr::from([10, 0, 0, 1]),
                            ready,
                            serving,
                            terminating,
                            node: node.map(Into::into),
                            hint_nodes: list(hint_nodes),
                            hint_zones: list(hint_zones),
                        });
                    }
                }
            }
        }
        all
    }

    fn agrees(endpoints: &[&Endpoint], policy: TrafficPolicy, zone: Option<&str>) {
        let view = NodeView { node: "here", zone };
        let reasons = explain(endpoints, policy, view);
        assert_eq!(reasons.len(), endpoints.len());
        let explained: Vec<_> = endpoints
            .iter()
            .zip(&reasons)
            .filter(|(_, reason)| reason.is_used())
            .map(|(endpoint, _)| std::ptr::from_ref(*endpoint))
            .collect();
        let chosen: Vec<_> = choose(endpoints, policy, view)
            .endpoints
            .into_iter()
            .map(std::ptr::from_ref)
            .collect();
        assert_eq!(explained, chosen, "{policy:?} {view:?} {endpoints:#?}");
    }

    /// Every pair of endpoints, and every endpoint alone: a rule looks at one
    /// endpoint, or at whether another is there.
    #[test]
    fn agrees_with_the_choice_on_every_pair() {
        let all = every_endpoint();
        for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
            for zone in [None, Some("here")] {
                agrees(&[], policy, zone);
                for one in &all {
                    agrees(&[one], policy, zone);
                    for other in &all {
                        agrees(&[one, other], policy, zone);
                    }
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_the_choice_on_many(
            picked in proptest::collection::vec(0_usize..162, 0..7),
            is_local in proptest::bool::ANY,
            has_zone in proptest::bool::ANY,
        ) {
            let all = every_endpoint();
            let endpoints: Vec<_> = picked.iter().map(|index| &all[*index]).collect();
            let policy = if is_local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
            agrees(&endpoints, policy, has_zone.then_some("here"));
        }
    }

    #[test]
    fn the_words_say_why() {
        let endpoint = |ready, terminating, node: &str, zone: &str| Endpoint {
            address: IpAddr::from([10, 0, 0, 1]),
            ready,
            serving: ready || terminating,
            terminating,
            node: Some(node.into()),
            hint_nodes: vec![],
            hint_zones: vec![zone.into()],
        };
        let all = [
            endpoint(true, false, "n1", "z1"),
            endpoint(true, false, "n2", "z2"),
            endpoint(false, true, "n1", "z1"),
            endpoint(false, false, "n1", "z1"),
        ];
        let all: Vec<_> = all.iter().collect();
        let told = |policy, zone| {
            let view = NodeView { node: "n1", zone };
            explain(&all, policy, view)
                .into_iter()
                .map(Reason::word)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            told(TrafficPolicy::Cluster, Some("z1")),
            ["HintedZone", "OtherZone", "Terminating", "NotReady"]
        );
        assert_eq!(
            told(TrafficPolicy::Cluster, None),
            ["Ready", "Ready", "Terminating", "NotReady"]
        );
        assert_eq!(
            told(TrafficPolicy::Local, Some("z1")),
            ["Local", "NotLocal", "Terminating", "NotReady"]
        );
    }
}
