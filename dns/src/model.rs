//! What the objects say, as far as DNS is concerned, and which of it changed.
//!
//! One thread owns the model and hands it to [`crate::zone`] by reference, so
//! it is never copied; what other threads see is the finished
//! [`Table`](crate::zone::Table). Knows nothing of files, DNS messages or the
//! API server.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;

use crate::name::Name;

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A transport that a Service port can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, also where nothing is said.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The label of an SRV name (RFC 2782).
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcp => "_tcp",
            Self::Udp => "_udp",
            Self::Sctp => "_sctp",
        }
    }
}

/// A port of a Service or of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Empty if the port has no name; then it has no SRV record.
    pub name: String,
    /// Its transport.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// What kind of answer a Service gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Its ClusterIPs, one or one per family.
    Cluster(Vec<IpAddr>),
    /// `clusterIP: None`: the endpoints themselves.
    Headless,
    /// `type: ExternalName`: an alias.
    External(Name),
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `metadata.creationTimestamp`, as written by the API server.
    pub created: Option<String>,
    /// What it answers with.
    pub kind: ServiceKind,
    /// `spec.ports`.
    pub ports: Vec<Port>,
    /// `spec.publishNotReadyAddresses`: readiness does not count.
    pub publish_not_ready: bool,
    /// Names asked for by annotation.
    pub hostnames: Vec<Hostname>,
}

/// A company name that an annotation asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hostname {
    /// The name.
    pub name: Name,
    /// Whether Berth's own annotation asked. Other tools' annotations also
    /// name hosts outside of our zones; those are theirs.
    pub own: bool,
}

/// One EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The Service's name, from the label `kubernetes.io/service-name`.
    pub service: String,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// The ports that each endpoint has.
    pub ports: Vec<Port>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Addresses, of one family.
    pub addresses: Vec<IpAddr>,
    /// `conditions.ready`; nothing said means ready.
    pub ready: bool,
    /// `hostname`, a valid label.
    pub hostname: Option<String>,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.creationTimestamp`.
    pub created: Option<String>,
    /// `status.podIPs`; empty once the pod has finished, because its
    /// addresses may be somebody else's by then.
    pub addresses: Vec<IpAddr>,
    /// The condition `Ready`.
    pub ready: bool,
    /// Names asked for by annotation.
    pub hostnames: Vec<Hostname>,
}

/// Kinds of object that must have been listed once before an answer can say
/// that a name does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Namespaces.
    Namespaces,
    /// Nodes.
    Nodes,
    /// Services.
    Services,
    /// EndpointSlices.
    Slices,
    /// Pods.
    Pods,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Namespaces,
        Self::Nodes,
        Self::Services,
        Self::Slices,
        Self::Pods,
    ];
}

/// One object that came or changed (`Some`) or went (`None`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A Namespace; the flag says whether it is there.
    Namespace(String, bool),
    /// A Node's own addresses; empty when it is gone.
    Node(String, Vec<IpAddr>),
    /// A Service.
    Service(Key, Option<Service>),
    /// An EndpointSlice.
    Slice(Key, Option<Slice>),
    /// A Pod.
    Pod(Key, Option<Pod>),
}

/// What has changed since the zones were last built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Namespaces that came or went.
    pub namespaces: BTreeSet<String>,
    /// Services that changed, or whose endpoints did.
    pub services: BTreeSet<Key>,
    /// Pods that changed.
    pub pods: BTreeSet<Key>,
    /// Addresses that became, or ceased to be, a pod's or a node's.
    pub addresses: BTreeSet<IpAddr>,
}

/// Everything known.
#[derive(Debug, Default)]
pub struct Model {
    namespaces: BTreeSet<String>,
    nodes: HashMap<String, Vec<IpAddr>>,
    services: HashMap<Key, Service>,
    slices: HashMap<Key, BTreeMap<String, Slice>>,
    slice_owner: HashMap<Key, Key>,
    pods: HashMap<Key, Pod>,
    inside: HashMap<IpAddr, u32>,
    listed: BTreeSet<Source>,
}

impl Model {
    /// Takes one change in, and notes in `dirty` what it touches. A change
    /// that changes nothing touches nothing.
    pub fn apply(&mut self, change: Change, dirty: &mut Dirty) {
        match change {
            Change::Namespace(name, there) => {
                let changed = if there {
                    self.namespaces.insert(name.clone())
                } else {
                    self.namespaces.remove(&name)
                };
                if changed {
                    dirty.namespaces.insert(name);
                }
            }
            Change::Node(name, addresses) => {
                let before = if addresses.is_empty() {
                    self.nodes.remove(&name)
                } else {
                    self.nodes.insert(name, addresses.clone())
                };
                self.count(&before.unwrap_or_default(), &addresses, dirty);
            }
            Change::Service(key, service) => {
                if replace(&mut self.services, &key, service) {
                    dirty.services.insert(key);
                }
            }
            Change::Slice(key, slice) => self.apply_slice(key, slice, dirty),
            Change::Pod(key, pod) => {
                let addresses = |pod: Option<&Pod>| pod.map(|p| p.addresses.clone());
                let before = addresses(self.pods.get(&key)).unwrap_or_default();
                let after = addresses(pod.as_ref()).unwrap_or_default();
                if replace(&mut self.pods, &key, pod) {
                    dirty.pods.insert(key);
                }
                self.count(&before, &after, dirty);
            }
        }
    }

    fn apply_slice(&mut self, key: Key, slice: Option<Slice>, dirty: &mut Dirty) {
        let owner = slice.as_ref().map(|slice| Key {
            namespace: key.namespace.clone(),
            name: slice.service.clone(),
        });
        let before = match &owner {
            Some(owner) => self.slice_owner.insert(key.clone(), owner.clone()),
            None => self.slice_owner.remove(&key),
        };
        let mut old = None;
        if let Some(before) = before
            && let Some(slices) = self.slices.get_mut(&before)
        {
            old = slices.remove(&key.name);
            if slices.is_empty() {
                self.slices.remove(&before);
            }
            if old != slice {
                dirty.services.insert(before);
            }
        }
        if let (Some(owner), Some(slice)) = (owner, slice) {
            if old.as_ref() != Some(&slice) {
                dirty.services.insert(owner.clone());
            }
            self.slices
                .entry(owner)
                .or_default()
                .insert(key.name, slice);
        }
    }

    /// Counts how many objects have an address, so that one that moves from
    /// pod to pod is never without an owner.
    fn count(&mut self, before: &[IpAddr], after: &[IpAddr], dirty: &mut Dirty) {
        for address in after {
            let count = self.inside.entry(*address).or_default();
            *count += 1;
            if *count == 1 {
                dirty.addresses.insert(*address);
            }
        }
        for address in before {
            if let Some(count) = self.inside.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    self.inside.remove(address);
                    dirty.addresses.insert(*address);
                }
            }
        }
    }

    /// Notes that `source` has been read in full once.
    pub fn finish_first_list(&mut self, source: Source) {
        self.listed.insert(source);
    }

    /// Whether every source has been read in full once.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        Source::ALL.iter().all(|s| self.listed.contains(s))
    }

    /// Whether the Namespace is there.
    #[must_use]
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    /// A Service.
    #[must_use]
    pub fn service(&self, key: &Key) -> Option<&Service> {
        self.services.get(key)
    }

    /// A Service's slices, in the order of their names.
    pub fn slices(&self, key: &Key) -> impl Iterator<Item = &Slice> {
        self.slices.get(key).into_iter().flat_map(BTreeMap::values)
    }

    /// A Pod.
    #[must_use]
    pub fn pod(&self, key: &Key) -> Option<&Pod> {
        self.pods.get(key)
    }

    /// Whether the address is a pod's or a node's.
    #[must_use]
    pub fn is_inside(&self, address: &IpAddr) -> bool {
        self.inside.contains_key(address)
    }

    /// Everything, as if it had all just come: what a full build starts from.
    #[must_use]
    pub fn all_dirty(&self) -> Dirty {
        Dirty {
            namespaces: self.namespaces.clone(),
            services: self.services.keys().cloned().collect(),
            pods: self.pods.keys().cloned().collect(),
            addresses: self.inside.keys().copied().collect(),
        }
    }
}

/// Puts, changes or removes; tells whether that made a difference.
fn replace<T: PartialEq>(map: &mut HashMap<Key, T>, key: &Key, value: Option<T>) -> bool {
    match value {
        Some(value) if map.get(key) == Some(&value) => false,
        Some(value) => {
            map.insert(key.clone(), value);
            true
        }
        None => map.remove(key).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key {
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    fn slice(service: &str, address: &str) -> Slice {
        Slice {
            service: service.into(),
            endpoints: vec![Endpoint {
                addresses: vec![address.parse().unwrap()],
                ready: true,
                hostname: None,
            }],
            ports: vec![],
        }
    }

    #[test]
    fn a_slice_that_changes_its_service_touches_both() {
        let mut model = Model::default();
        model.apply(
            Change::Slice(key("s"), Some(slice("a", "10.0.0.1"))),
            &mut Dirty::default(),
        );
        let mut dirty = Dirty::default();
        model.apply(
            Change::Slice(key("s"), Some(slice("b", "10.0.0.1"))),
            &mut dirty,
        );
        assert_eq!(dirty.services, [key("a"), key("b")].into());
        assert_eq!(model.slices(&key("a")).count(), 0);
        assert_eq!(model.slices(&key("b")).count(), 1);
    }

    #[test]
    fn the_same_again_touches_nothing() {
        let mut model = Model::default();
        let change = Change::Slice(key("s"), Some(slice("a", "10.0.0.1")));
        model.apply(change.clone(), &mut Dirty::default());
        let mut dirty = Dirty::default();
        model.apply(change, &mut dirty);
        assert_eq!(dirty, Dirty::default());
    }

    #[test]
    fn an_address_stays_inside_while_anyone_has_it() {
        let pod = |address: &str| Pod {
            addresses: vec![address.parse().unwrap()],
            ..Pod::default()
        };
        let address = "10.0.0.1".parse().unwrap();
        let mut model = Model::default();
        let mut dirty = Dirty::default();
        model.apply(Change::Pod(key("old"), Some(pod("10.0.0.1"))), &mut dirty);
        model.apply(Change::Pod(key("new"), Some(pod("10.0.0.1"))), &mut dirty);
        model.apply(Change::Pod(key("old"), None), &mut dirty);
        assert!(model.is_inside(&address));
        model.apply(Change::Pod(key("new"), None), &mut dirty);
        assert!(!model.is_inside(&address));
    }
}
