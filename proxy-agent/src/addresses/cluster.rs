//! What an ADD needs to know of a cluster, heard beforehand: pools, this
//! node's pods, namespaces, allocations. Of pods and namespaces the metadata
//! alone is watched.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_api::{Object, ObjectKey, Source};
use berth_ipam::store::KubeStore;
use berth_ipam::{Claim, Owner};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{ObjectRef, Store, reflector, store::Writer};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tracing::warn;

/// How long a call that only informs may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The cluster as this node's address service hears of it; cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    pub(super) store: KubeStore,
    client: Client,
    runtime: Handle,
    pools: Store<DynamicObject>,
    pods: Store<PartialObjectMeta<Pod>>,
    namespaces: Store<PartialObjectMeta<Namespace>>,
    reads: Arc<AtomicU64>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// Begins to watch, on the runtime that this is called on.
    #[must_use]
    pub fn start(client: Client, node: &str) -> Self {
        let runtime = Handle::current();
        let store = KubeStore::new(client.clone(), runtime.clone(), Some(node));
        let watched = store.clone();
        runtime.spawn(async move {
            let complaint = Complaint::default();
            let told = |error: &watcher::Error| complaint.of("IPAllocations", error);
            watched.watch(told).await;
        });
        let kind = GroupVersionKind::gvk("berth.dev", "v1alpha1", "IPPool");
        let resource = ApiResource::from_gvk_with_plural(&kind, "ippools");
        let pools = follow(
            "IPPools",
            Api::all_with(client.clone(), &resource),
            watcher::Config::default(),
            Writer::new(resource),
        );
        let here = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
        let pods = follow(
            "this node's pods",
            Api::all(client.clone()),
            here,
            Writer::default(),
        );
        let everywhere = watcher::Config::default();
        let namespaces = follow(
            "Namespaces",
            Api::all(client.clone()),
            everywhere,
            Writer::default(),
        );
        Self {
            store,
            client,
            runtime,
            pools,
            pods,
            namespaces,
            reads: Arc::default(),
        }
    }

    /// Waits for the first lists; `false` if one is not there in time. Blocks.
    pub(super) fn wait_ready(&self, patience: Duration) -> bool {
        let lists = async {
            let (pools, pods, namespaces) = (
                self.pools.wait_until_ready(),
                self.pods.wait_until_ready(),
                self.namespaces.wait_until_ready(),
            );
            tokio::time::timeout(patience, async { tokio::join!(pools, pods, namespaces) })
                .await
                .is_ok()
        };
        self.runtime.block_on(lists) && self.store.wait_synced(patience)
    }

    /// Every pool as it was written.
    pub(super) fn pools(&self) -> Vec<Object> {
        let all = self.pools.state();
        all.iter().map(|pool| object(pool)).collect()
    }

    /// `metadata` of a pod: of this node's pods without a call, and of one that
    /// the watch has not told yet with one.
    pub(super) fn pod(&self, namespace: &str, name: &str, uid: &str) -> Option<Value> {
        if namespace.is_empty() {
            return None;
        }
        let known = self.pods.get(&ObjectRef::new(name).within(namespace));
        let same = |uid_known: Option<&str>| uid.is_empty() || uid_known == Some(uid);
        if let Some(pod) = known.filter(|pod| same(pod.metadata.uid.as_deref())) {
            return serde_json::to_value(&pod.metadata).ok();
        }
        let pod = self.read(namespace, name).ok().flatten()?;
        serde_json::to_value(&pod.metadata).ok()
    }

    /// The annotations of a namespace.
    pub(super) fn namespace(&self, name: &str) -> Option<Arc<PartialObjectMeta<Namespace>>> {
        self.namespaces.get(&ObjectRef::new(name))
    }

    /// Whether the pod that used an address last still exists. Where that
    /// cannot be known, it does.
    pub(super) fn pod_is_live(&self, claim: &Claim) -> bool {
        let last = &claim.pod;
        if last.namespace.is_empty() {
            return false;
        }
        let by_name = matches!(claim.owner, Owner::PodName { .. });
        let is_it = |pod: &PartialObjectMeta<Pod>| {
            by_name || pod.metadata.uid.as_deref() == Some(&*last.uid)
        };
        let here = self
            .pods
            .get(&ObjectRef::new(&last.name).within(&last.namespace));
        here.is_some_and(|pod| is_it(&pod))
            || match self.read(&last.namespace, &last.name) {
                Ok(pod) => pod.is_some_and(|pod| is_it(&pod)),
                Err(()) => true,
            }
    }

    /// `Err` is silence.
    fn read(&self, namespace: &str, name: &str) -> Result<Option<PartialObjectMeta<Pod>>, ()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let read = async { tokio::time::timeout(PATIENCE, api.get_metadata_opt(name)).await };
        match self.runtime.block_on(read) {
            Ok(Ok(pod)) => Ok(pod),
            Ok(Err(error)) => {
                warn!("cannot read pod {namespace}/{name}: {error}");
                Err(())
            }
            Err(_) => Err(()),
        }
    }

    /// Calls of the API server so far, by verb; watches are not counted.
    pub(super) fn calls(&self) -> [(&'static str, u64); 4] {
        let calls = self.store.calls();
        [
            ("create", calls.create),
            ("update", calls.update),
            ("get", calls.get),
            ("get-pod", self.reads.load(Ordering::Relaxed)),
        ]
    }
}

fn follow<K>(
    what: &'static str,
    api: Api<K>,
    config: watcher::Config,
    writer: Writer<K>,
) -> Store<K>
where
    K: kube::Resource + Clone + fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Clone + Eq + std::hash::Hash + Send + Sync,
{
    let store = writer.as_reader();
    tokio::spawn(async move {
        let events = watcher(api, config).default_backoff();
        let mut events = std::pin::pin!(reflector(writer, events));
        let complaint = Complaint::default();
        while let Some(event) = events.next().await {
            if let Err(error) = event {
                complaint.of(what, &error);
            }
        }
    });
    store
}

/// Says once that a watch breaks, and again when it does for another reason: a
/// cluster without Berth's objects is one that uses the proxy alone.
#[derive(Default)]
struct Complaint(Mutex<String>);

impl Complaint {
    fn of(&self, what: &str, error: &watcher::Error) {
        let error = error.to_string();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != error {
            warn!("the watch of {what} broke and is taken up again: {error}");
            *last = error;
        }
    }
}

fn object(pool: &DynamicObject) -> Object {
    let name = pool.metadata.name.clone().unwrap_or_default();
    let mut value = json!({ "metadata": { "name": name } });
    value["spec"] = pool.data["spec"].clone();
    Object {
        key: ObjectKey {
            kind: "IPPool".to_owned(),
            namespace: String::new(),
            name,
        },
        api_version: berth_api::pool::API_VERSION.to_owned(),
        source: Source::default(),
        value,
    }
}
