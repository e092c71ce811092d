//! An API server, watched, to changes of the model. The only file that uses
//! `kube`, with `addresses/cluster.rs`.
//!
//! A watch that breaks is taken up again with growing pauses; what was heard
//! stays served meanwhile. When the server wants a new list (410 Gone), what
//! the list no longer holds was deleted while nobody looked, and is told so.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use berth_api::{Object, ObjectKey, Rejected, Source};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config, ResourceExt as _};
use serde_json::Value;
use tracing::{info, warn};

use super::pods::PodObject;
use super::{decode, pods};
use crate::model::{Change, NamespacedName, SliceKey, SourceKind};

/// Services that are for every proxy: the server need not send the others.
const OURS: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";
/// Slices of headless Services are for the DNS server alone.
const NOT_HEADLESS: &str = "!service.kubernetes.io/headless";
/// How many events that are there already are taken in at once.
const BATCH: usize = 1024;

/// Where the API server is, and as whom to speak to it.
///
/// With a kubeconfig, all of it comes from there; without one, from the
/// service account of the pod. `apiserver` overrides the address: the one that
/// the pod is given is a Service's, and that Service is ours to program.
///
/// # Errors
/// When the kubeconfig cannot be read or the address is not a URL.
pub async fn connect(kubeconfig: Option<&Path>, apiserver: Option<&str>) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("cannot use the kubeconfig {}", path.display()))?
        }
        None => Config::incluster()
            .context("no service account to speak to the API server with; name a --kubeconfig")?,
    };
    if let Some(url) = apiserver {
        config.cluster_url = url.parse().with_context(|| {
            format!("--apiserver {url} is not a URL such as https://10.20.0.2:6443")
        })?;
    }
    info!(apiserver = %config.cluster_url, "watching the API server");
    Client::try_from(config).context("cannot make a client for the API server")
}

/// Watches until `tell` says that nobody listens any more.
///
/// # Errors
/// When a watch ends for good, which none does by itself.
pub async fn watch(
    client: Client,
    node: &str,
    tell: impl Fn(Vec<Change>) -> bool,
) -> anyhow::Result<()> {
    // Pages of 500: the memory for a list is that of one page.
    let services = watcher::Config::default().labels(OURS);
    let slices = watcher::Config::default()
        .labels(NOT_HEADLESS)
        .any_semantic();
    let this_node = watcher::Config::default().fields(&format!("metadata.name={node}"));
    let served = reflect(
        Api::<core::Service>::all(client.clone()),
        services,
        SourceKind::Services,
        Services,
        &tell,
    );
    let placed = reflect(
        Api::<discovery::EndpointSlice>::all(client.clone()),
        slices,
        SourceKind::EndpointSlices,
        Slices,
        &tell,
    );
    // A few hundred at most, and as the server's cache has them.
    let running = reflect(
        Api::<PodObject>::all(client.clone()),
        watcher::Config::default()
            .fields(&format!("spec.nodeName={node}"))
            .any_semantic(),
        SourceKind::Pods,
        Pods,
        &tell,
    );
    let annotated = reflect(
        Api::<PartialObjectMeta<core::Namespace>>::all(client.clone()),
        watcher::Config::default(),
        SourceKind::Namespaces,
        Namespaces,
        &tell,
    );
    let here = watch_node(Api::<core::Node>::all(client), this_node, &tell);
    let ((), (), (), (), ()) = futures::try_join!(served, placed, running, annotated, here)?;
    bail!("the watches of the API server ended")
}

/// How one kind of object becomes changes.
trait Kind {
    type Object: Clone
        + Debug
        + Send
        + serde::de::DeserializeOwned
        + kube::Resource<DynamicType = ()>
        + 'static;
    /// What a deletion needs.
    type Key: Clone + Eq + Hash;

    /// What the object says. `None`: it is not for this proxy.
    fn read(object: Self::Object) -> Result<Option<(Self::Key, Change)>, Rejected>;
    /// That what the key names is gone.
    fn gone(key: Self::Key) -> Change;
}

struct Services;
struct Slices;
/// Of this node.
struct Pods;
/// What they say to their pods.
struct Namespaces;

impl Kind for Services {
    type Object = core::Service;
    type Key = NamespacedName;

    fn read(object: Self::Object) -> Result<Option<(Self::Key, Change)>, Rejected> {
        let service = decode::service_from(&named("Service", &object), object)?;
        Ok(service.map(|service| (service.name.clone(), Change::Service(Box::new(service)))))
    }

    fn gone(key: Self::Key) -> Change {
        Change::ServiceGone(key)
    }
}

impl Kind for Slices {
    type Object = discovery::EndpointSlice;
    type Key = SliceKey;

    fn read(object: Self::Object) -> Result<Option<(Self::Key, Change)>, Rejected> {
        let slice = decode::endpoint_slice_from(&named("EndpointSlice", &object), object)?;
        Ok(slice.map(|slice| (slice.key.clone(), Change::Slice(Box::new(slice)))))
    }

    fn gone(key: Self::Key) -> Change {
        Change::SliceGone(key)
    }
}

impl Kind for Pods {
    type Object = PodObject;
    type Key = NamespacedName;

    fn read(object: Self::Object) -> Result<Option<(Self::Key, Change)>, Rejected> {
        let pod = pods::pod_from(&named("Pod", &object), &object)?;
        Ok(Some((pod.name.clone(), Change::Pod(Box::new(pod)))))
    }

    fn gone(key: Self::Key) -> Change {
        Change::PodGone(key)
    }
}

impl Kind for Namespaces {
    type Object = PartialObjectMeta<core::Namespace>;
    type Key = Arc<str>;

    fn read(object: Self::Object) -> Result<Option<(Self::Key, Change)>, Rejected> {
        let named = named("Namespace", &object);
        let opted_out = pods::is_opted_out(&named, object.metadata.annotations.as_ref())?;
        let namespace: Arc<str> = named.key.name.into();
        let change = Change::NamespaceOptOut {
            namespace: namespace.clone(),
            opted_out,
        };
        // Nearly all of them say nothing, and then nothing has to be kept.
        Ok(opted_out.then_some((namespace, change)))
    }

    fn gone(key: Self::Key) -> Change {
        Change::NamespaceOptOut {
            namespace: key,
            opted_out: false,
        }
    }
}

/// An object's name, to be refused by.
fn named<K: kube::Resource<DynamicType = ()>>(kind: &str, object: &K) -> Object {
    Object {
        key: ObjectKey {
            kind: kind.to_owned(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        },
        api_version: K::api_version(&()).into_owned(),
        source: Source::default(),
        value: Value::Null,
    }
}

/// What is known of one kind: its objects' names, with the keys under which
/// the model has them.
struct Reflection<K: Kind> {
    known: HashMap<NamespacedName, K::Key>,
    /// While a list is being told: what was known before it and has not been
    /// told again.
    unseen: Option<HashMap<NamespacedName, K::Key>>,
    pending: Vec<Change>,
    source: SourceKind,
    is_synced: bool,
}

impl<K: Kind> Reflection<K> {
    fn new(source: SourceKind) -> Self {
        Self {
            known: HashMap::new(),
            unseen: None,
            pending: Vec::new(),
            source,
            is_synced: false,
        }
    }

    fn take(&mut self, event: Event<K::Object>) {
        match event {
            Event::Init => self.unseen = Some(self.known.clone()),
            Event::InitApply(object) | Event::Apply(object) => self.apply(object),
            Event::Delete(object) => {
                if let Some(key) = self.known.remove(&name_of(&object)) {
                    self.pending.push(K::gone(key));
                }
            }
            Event::InitDone => {
                for (name, key) in self.unseen.take().unwrap_or_default() {
                    self.known.remove(&name);
                    self.pending.push(K::gone(key));
                }
                if !self.is_synced {
                    self.is_synced = true;
                    self.pending.push(Change::Synced(self.source));
                }
            }
        }
    }

    fn apply(&mut self, object: K::Object) {
        let name = name_of(&object);
        if let Some(unseen) = &mut self.unseen {
            unseen.remove(&name);
        }
        match K::read(object) {
            Ok(Some((key, change))) => {
                let before = self.known.insert(name, key.clone());
                // A slice that was given to another Service leaves the first.
                self.pending
                    .extend(before.filter(|before| *before != key).map(K::gone));
                self.pending.push(change);
            }
            Ok(None) => self.pending.extend(self.known.remove(&name).map(K::gone)),
            Err(refusal) => {
                warn!("{refusal}; what it said before stays");
                self.pending.push(decode::refused(&refusal));
            }
        }
    }

    /// What to tell now. A first list is told whole, so that memory for its
    /// events is needed once and nobody acts on half of it.
    fn drain(&mut self) -> Vec<Change> {
        if self.is_synced {
            std::mem::take(&mut self.pending)
        } else {
            Vec::new()
        }
    }
}

fn name_of<K: kube::Resource<DynamicType = ()>>(object: &K) -> NamespacedName {
    NamespacedName {
        namespace: object.namespace().unwrap_or_default().into(),
        name: object.name_any().into(),
    }
}

async fn reflect<K: Kind>(
    api: Api<K::Object>,
    config: watcher::Config,
    source: SourceKind,
    _kind: K,
    tell: &impl Fn(Vec<Change>) -> bool,
) -> anyhow::Result<()> {
    let mut reflection = Reflection::<K>::new(source);
    let mut events = pin!(watcher(api, config).default_backoff().ready_chunks(BATCH));
    while let Some(chunk) = events.next().await {
        for event in chunk {
            match event {
                Ok(event) => reflection.take(event),
                Err(error) => warn!(?source, "the watch broke and is taken up again: {error}"),
            }
        }
        let changes = reflection.drain();
        if !changes.is_empty() && !tell(changes) {
            return Ok(());
        }
    }
    Ok(())
}

async fn watch_node(
    api: Api<core::Node>,
    config: watcher::Config,
    tell: &impl Fn(Vec<Change>) -> bool,
) -> anyhow::Result<()> {
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut last = Vec::new();
    while let Some(event) = events.next().await {
        let changes = match event {
            Ok(Event::Apply(node) | Event::InitApply(node)) => decode::node_from(&node).to_vec(),
            Ok(Event::Delete(_)) => vec![Change::NodeLeaving(true)],
            Ok(Event::Init | Event::InitDone) => continue,
            Err(error) => {
                warn!("the watch of this node broke and is taken up again: {error}");
                continue;
            }
        };
        if last != changes {
            last.clone_from(&changes);
            if !tell(changes) {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, ip: &str) -> core::Service {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"clusterIP": ip, "ports": [{"port": 80}]},
        }))
        .unwrap()
    }

    fn slice(name: &str, service: &str) -> discovery::EndpointSlice {
        serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": "IPv4",
            "endpoints": [],
        }))
        .unwrap()
    }

    fn told(changes: &[Change]) -> Vec<String> {
        changes
            .iter()
            .map(|change| match change {
                Change::Service(service) => format!("+{}", service.name.name),
                Change::ServiceGone(name) => format!("-{}", name.name),
                Change::Slice(slice) => format!("+{}@{}", slice.key.slice, slice.key.service.name),
                Change::SliceGone(key) => format!("-{}@{}", key.slice, key.service.name),
                Change::Synced(_) => "synced".to_owned(),
                Change::Refused(kind) => format!("refused a {kind}"),
                other => format!("{other:?}"),
            })
            .collect()
    }

    fn run<K: Kind>(reflection: &mut Reflection<K>, events: Vec<Event<K::Object>>) -> Vec<String> {
        for event in events {
            reflection.take(event);
        }
        told(&reflection.drain())
    }

    #[test]
    fn a_first_list_is_told_whole() {
        let mut services = Reflection::<Services>::new(SourceKind::Services);
        let begun = vec![Event::Init, Event::InitApply(service("a", "10.96.0.1"))];
        assert!(run(&mut services, begun).is_empty());
        assert_eq!(run(&mut services, vec![Event::InitDone]), ["+a", "synced"]);
        let later = vec![
            Event::Apply(service("b", "10.96.0.2")),
            Event::Delete(service("a", "")),
        ];
        assert_eq!(run(&mut services, later), ["+b", "-a"]);
    }

    #[test]
    fn what_a_new_list_lacks_was_deleted_meanwhile() {
        let mut services = Reflection::<Services>::new(SourceKind::Services);
        let list = |names: &[&str]| {
            let objects = names
                .iter()
                .map(|name| Event::InitApply(service(name, "10.96.0.1")));
            [Event::Init]
                .into_iter()
                .chain(objects)
                .chain([Event::InitDone])
                .collect()
        };
        run(&mut services, list(&["a", "b", "c"]));
        assert_eq!(run(&mut services, list(&["a", "c"])), ["+a", "+c", "-b"]);
        // The broken watch can begin a list more than once.
        let mut again: Vec<_> = list(&["a"]);
        again.truncate(2);
        again.extend(list(&["c"]));
        assert_eq!(run(&mut services, again), ["+a", "+c", "-a"]);
    }

    #[test]
    fn a_service_that_turns_headless_is_gone_and_a_bad_one_stays() {
        let mut services = Reflection::<Services>::new(SourceKind::Services);
        run(
            &mut services,
            vec![Event::Apply(service("a", "10.96.0.1")), Event::InitDone],
        );
        let bad = vec![Event::Apply(service("a", "10.96.0.01"))];
        assert_eq!(run(&mut services, bad), ["refused a Service"]);
        assert_eq!(
            run(&mut services, vec![Event::Apply(service("a", "None"))]),
            ["-a"]
        );
    }

    #[test]
    fn a_slice_that_changes_its_service_leaves_the_first() {
        let mut slices = Reflection::<Slices>::new(SourceKind::EndpointSlices);
        run(
            &mut slices,
            vec![Event::Apply(slice("s", "a")), Event::InitDone],
        );
        assert_eq!(
            run(&mut slices, vec![Event::Apply(slice("s", "b"))]),
            ["-s@a", "+s@b"]
        );
        assert_eq!(
            run(&mut slices, vec![Event::Delete(slice("s", "b"))]),
            ["-s@b"]
        );
    }

    #[test]
    fn a_namespace_says_something_only_when_it_is_annotated() {
        let namespace = |annotations: Value| {
            let metadata = serde_json::json!({"name": "mesh", "annotations": annotations});
            let object = serde_json::json!({"metadata": metadata});
            serde_json::from_value::<PartialObjectMeta<core::Namespace>>(object).unwrap()
        };
        let out = || namespace(serde_json::json!({"berth.dev/service-proxy": "disabled"}));
        let plain = || namespace(serde_json::json!({"team": "payments"}));
        let mut namespaces = Reflection::<Namespaces>::new(SourceKind::Namespaces);
        let first = vec![Event::Init, Event::InitApply(plain()), Event::InitDone];
        assert_eq!(run(&mut namespaces, first), ["synced"]);
        let opt_out = |opted_out| {
            let namespace = "mesh".into();
            format!(
                "{:?}",
                Change::NamespaceOptOut {
                    namespace,
                    opted_out
                }
            )
        };
        for (event, told) in [
            (Event::Apply(out()), vec![opt_out(true)]),
            (Event::Apply(plain()), vec![opt_out(false)]),
            (Event::Apply(plain()), vec![]),
            (Event::Apply(out()), vec![opt_out(true)]),
            (Event::Delete(out()), vec![opt_out(false)]),
        ] {
            assert_eq!(run(&mut namespaces, vec![event]), told);
        }
    }

    #[test]
    fn a_pod_is_told_without_what_nobody_asks_for() {
        let pod = |phase: &str| {
            let object = serde_json::json!({
                "metadata": {"name": "dns-0", "namespace": "shop", "uid": "u1"},
                "spec": {"nodeName": "n1", "containers": [{
                    "name": "dns", "image": "dns",
                    "ports": [{"containerPort": 53, "hostPort": 53, "protocol": "UDP"}],
                }]},
                "status": {"phase": phase, "podIP": "10.20.0.50", "podIPs": [{"ip": "10.20.0.50"}]},
            });
            serde_json::from_value::<PodObject>(object).unwrap()
        };
        let mut pods = Reflection::<Pods>::new(SourceKind::Pods);
        for event in [
            Event::Init,
            Event::InitApply(pod("Running")),
            Event::InitDone,
        ] {
            pods.take(event);
        }
        let [Change::Pod(told), Change::Synced(SourceKind::Pods)] = &pods.drain()[..] else {
            panic!("a pod, and that this was all");
        };
        assert!(told.is_running);
        assert_eq!(told.host_ports.len(), 1);
        pods.take(Event::Delete(pod("Running")));
        let gone = Change::PodGone(NamespacedName::new("shop", "dns-0"));
        assert_eq!(pods.drain(), [gone]);
    }
}
