//! The pods of this node: what they ask of the node's own ports, and which of
//! them want no service proxy.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::service::{NamespacedName, Protocol};

/// One pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Which pod.
    pub name: NamespacedName,
    /// `metadata.uid`: tells a pod from an earlier one of the same name.
    pub uid: Arc<str>,
    /// `status.podIPs`, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Whether it lives in the node's network namespace.
    pub host_network: bool,
    /// The ports of the node that lead to it, in the order of the object.
    /// Empty with `host_network`: such a pod listens on them itself.
    pub host_ports: Vec<HostPort>,
    /// Whether it can be reached: it has an address and has not ended.
    pub is_running: bool,
    /// Whether its own annotation says that it wants no service proxy.
    pub opted_out: bool,
}

/// A port of the node that leads to a pod (`containers[].ports[].hostPort`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The address of the node; `None` is all of them. 0.0.0.0 and :: are all
    /// of one family.
    pub host_ip: Option<IpAddr>,
    /// The port on the node.
    pub host_port: u16,
    /// The port in the pod.
    pub container_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// The pods of this node, and the namespaces that want no service proxy.
#[derive(Debug, Default)]
pub(super) struct Pods {
    pods: HashMap<NamespacedName, Arc<Pod>>,
    opted_out: BTreeSet<Arc<str>>,
}

impl Pods {
    /// Notes a pod; says whether that is news.
    pub(super) fn insert(&mut self, pod: Box<Pod>) -> bool {
        let is_news = self.get(&pod.name).is_none_or(|known| **known != *pod);
        if is_news {
            self.pods.insert(pod.name.clone(), Arc::from(pod));
        }
        is_news
    }

    /// Forgets a pod; says whether it was there.
    pub(super) fn remove(&mut self, name: &NamespacedName) -> bool {
        self.pods.remove(name).is_some()
    }

    pub(super) fn set_opt_out(&mut self, namespace: Arc<str>, opted_out: bool) {
        if opted_out {
            self.opted_out.insert(namespace);
        } else {
            self.opted_out.remove(&namespace);
        }
    }

    pub(super) fn get(&self, name: &NamespacedName) -> Option<&Arc<Pod>> {
        self.pods.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    /// The addresses of the pods that want no service proxy. A pod of the
    /// node's network has no address of its own, so it cannot be told from the
    /// node's processes and is not among them.
    pub(super) fn opted_out(&self) -> BTreeSet<IpAddr> {
        self.pods
            .values()
            .filter(|pod| pod.is_running && !pod.host_network)
            .filter(|pod| pod.opted_out || self.opted_out.contains(&pod.name.namespace))
            .flat_map(|pod| pod.addresses.iter().copied())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Change, ClusterState, Dirty};

    fn pod(namespace: &str, name: &str, last: u8) -> Pod {
        Pod {
            name: NamespacedName::new(namespace, name),
            uid: "u".into(),
            addresses: vec![IpAddr::from([10, 20, 0, last])],
            host_network: false,
            host_ports: vec![],
            is_running: true,
            opted_out: false,
        }
    }

    #[test]
    fn opts_out_by_namespace_or_alone_while_it_runs() {
        let mut state = ClusterState::default();
        let mut say = |change| state.apply(change, &mut Dirty::default());
        let opted_out = |namespace: &str, opted_out| Change::NamespaceOptOut {
            namespace: namespace.into(),
            opted_out,
        };
        say(opted_out("mesh", true));
        say(opted_out("shop", true));
        for pod in [
            pod("mesh", "a", 50),
            pod("shop", "b", 51),
            Pod {
                opted_out: true,
                ..pod("shop", "c", 52)
            },
            Pod {
                is_running: false,
                ..pod("mesh", "d", 53)
            },
            Pod {
                host_network: true,
                ..pod("mesh", "e", 11)
            },
        ] {
            say(Change::Pod(Box::new(pod)));
        }
        say(opted_out("shop", false));
        let told: Vec<_> = state.opted_out_pods().into_iter().collect();
        assert_eq!(told, [[10, 20, 0, 50], [10, 20, 0, 52]].map(IpAddr::from));
    }

    #[test]
    fn only_news_makes_work() {
        let mut state = ClusterState::default();
        let mut dirtied = |change| {
            let mut dirty = Dirty::default();
            state.apply(change, &mut dirty);
            dirty.pods.len()
        };
        let told = Change::Pod(Box::new(pod("shop", "a", 50)));
        let gone = Change::PodGone(NamespacedName::new("shop", "a"));
        let counts = [told.clone(), told, gone.clone(), gone].map(&mut dirtied);
        assert_eq!(counts, [1, 0, 1, 0]);
    }
}
