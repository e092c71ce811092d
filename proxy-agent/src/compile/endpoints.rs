//! Which endpoints of a Service a connection may go to: traffic policies,
//! topology hints and terminating endpoints, as kube-proxy's `topology.go`
//! decides (spec/proxy rows 6, 7, 9 and 10).

use crate::model::{Endpoint, TrafficPolicy};

/// What the choice depends on besides the endpoints.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    /// This node's name.
    pub node: &'a str,
    /// The zone that it is in.
    pub zone: Option<&'a str>,
}

/// The endpoints to use, in the order they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice<'a> {
    /// Where connections go.
    pub endpoints: Vec<&'a Endpoint>,
    /// A Local policy found nobody here, though others have endpoints: the
    /// caller is told that at once, and not that the Service has nobody.
    pub only_elsewhere: bool,
}

/// Chooses among all endpoints of one Service port.
#[must_use]
pub fn choose<'a>(
    endpoints: &[&'a Endpoint],
    policy: TrafficPolicy,
    view: NodeView<'_>,
) -> Choice<'a> {
    match policy {
        TrafficPolicy::Cluster => {
            let ready: Vec<_> = endpoints.iter().copied().filter(|e| e.ready).collect();
            let endpoints = if ready.is_empty() {
                last_resort(endpoints)
            } else {
                nearest(ready, view)
            };
            Choice {
                endpoints,
                only_elsewhere: false,
            }
        }
        TrafficPolicy::Local => {
            let local: Vec<_> = endpoints
                .iter()
                .copied()
                .filter(|e| is_on(e, view.node))
                .collect();
            let chosen = usable(&local);
            let only_elsewhere = chosen.is_empty() && !usable(endpoints).is_empty();
            Choice {
                endpoints: chosen,
                only_elsewhere,
            }
        }
    }
}

/// Whether the endpoint is a pod on `node`.
pub(crate) fn is_on(endpoint: &Endpoint, node: &str) -> bool {
    endpoint.node.as_deref() == Some(node)
}

/// The ready ones; if none is, those that still serve while they terminate
/// (KEP-1669).
fn usable<'a>(endpoints: &[&'a Endpoint]) -> Vec<&'a Endpoint> {
    let ready: Vec<_> = endpoints.iter().copied().filter(|e| e.ready).collect();
    if ready.is_empty() {
        last_resort(endpoints)
    } else {
        ready
    }
}

fn last_resort<'a>(endpoints: &[&'a Endpoint]) -> Vec<&'a Endpoint> {
    endpoints
        .iter()
        .copied()
        .filter(|e| e.serving && e.terminating)
        .collect()
}

/// Follows the hints only if every ready endpoint has one and one names us;
/// a hint on some of them means that the hints are being written right now
/// (KEP-2433, KEP-3015).
fn nearest<'a>(ready: Vec<&'a Endpoint>, view: NodeView<'_>) -> Vec<&'a Endpoint> {
    let names = |hints: &[std::sync::Arc<str>], here: &str| hints.iter().any(|h| **h == *here);
    if ready.iter().all(|e| !e.hint_nodes.is_empty()) {
        let here: Vec<_> = ready
            .iter()
            .copied()
            .filter(|e| names(&e.hint_nodes, view.node))
            .collect();
        if !here.is_empty() {
            return here;
        }
    }
    if let Some(zone) = view.zone
        && ready.iter().all(|e| !e.hint_zones.is_empty())
    {
        let here: Vec<_> = ready
            .iter()
            .copied()
            .filter(|e| names(&e.hint_zones, zone))
            .collect();
        if !here.is_empty() {
            return here;
        }
    }
    ready
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const VIEW: NodeView<'static> = NodeView {
        node: "n1",
        zone: Some("z1"),
    };

    /// `a+` ready, `a~` terminating and serving, `a-` neither; then `@node`,
    /// `/hinted node` and `#hinted zone`.
    fn endpoints(text: &str) -> Vec<Endpoint> {
        text.split_whitespace()
            .enumerate()
            .map(|(i, word)| endpoint(i, word))
            .collect()
    }

    fn endpoint(index: usize, word: &str) -> Endpoint {
        let part = |mark: char| {
            word.split_once(mark)
                .map(|(_, rest)| rest.split(['@', '/', '#']).next().unwrap_or(rest).into())
        };
        let state = word.as_bytes()[1];
        Endpoint {
            address: IpAddr::from([10, 0, 0, u8::try_from(index).unwrap()]),
            ready: state == b'+',
            serving: state != b'-',
            terminating: state == b'~',
            node: part('@'),
            hint_nodes: part('/').into_iter().collect(),
            hint_zones: part('#').into_iter().collect(),
        }
    }

    /// The names of the chosen endpoints, and `elsewhere` if it says so.
    fn chosen(text: &str, policy: TrafficPolicy) -> String {
        let all = endpoints(text);
        let refs: Vec<_> = all.iter().collect();
        let choice = choose(&refs, policy, VIEW);
        let mut told: String = text
            .split_whitespace()
            .zip(&all)
            .filter(|(_, e)| choice.endpoints.contains(e))
            .map(|(word, _)| &word[..1])
            .collect();
        if choice.only_elsewhere {
            told.push_str("elsewhere");
        }
        told
    }

    #[test]
    fn endpoint_choice_table() {
        use TrafficPolicy::{Cluster, Local};
        for (policy, given, expected) in [
            (Cluster, "", ""),
            (Cluster, "a+ b+", "ab"),
            (Cluster, "a+ b~ c-", "a"),
            (Cluster, "a~ b~ c-", "ab"),
            (Cluster, "a- b-", ""),
            (Local, "", ""),
            (Local, "a+@n1 b+@n2", "a"),
            (Local, "a~@n1 b+@n2", "a"),
            (Local, "a-@n1 b+@n2", "elsewhere"),
            (Local, "a+@n2 b~@n2", "elsewhere"),
            (Local, "a~@n2", "elsewhere"),
            (Local, "a-@n2", ""),
            (Local, "a+", "elsewhere"),
            // Hints: every ready endpoint has one, and one names us.
            (Cluster, "a+#z1 b+#z2", "a"),
            (Cluster, "a+#z1 b+", "ab"),
            (Cluster, "a+#z2 b+#z3", "ab"),
            (Cluster, "a+#z1 b~", "a"),
            (Cluster, "a~#z1 b~#z2", "ab"),
            (Cluster, "a+/n1#z2 b+/n2#z1", "a"),
            (Cluster, "a+/n2#z2 b+/n2#z1", "b"),
            (Cluster, "a+/n1 b+", "ab"),
            (Local, "a+@n1#z2 b+@n1#z1", "ab"),
        ] {
            assert_eq!(chosen(given, policy), expected, "{policy:?} of {given:?}");
        }
    }

    #[test]
    fn without_a_zone_zone_hints_say_nothing() {
        let all = endpoints("a+#z1 b+#z2");
        let refs: Vec<_> = all.iter().collect();
        let view = NodeView {
            node: "n1",
            zone: None,
        };
        assert_eq!(
            choose(&refs, TrafficPolicy::Cluster, view).endpoints.len(),
            2
        );
    }
}
