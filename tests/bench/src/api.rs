//! Objects into a real API server, many at once.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_netlink::Netns;
use futures::stream::{self, FuturesUnordered, StreamExt as _, TryStreamExt as _};
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::exchange::PORT;

/// The namespace of everything.
pub(crate) const NAMESPACE: &str = "bench";
/// Creations at once.
const AT_ONCE: usize = 48;

/// A Service with its endpoints, each of them ready or not.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) endpoints: Vec<(Ipv4Addr, bool)>,
}

impl Entry {
    /// Service number `index` of many: four endpoints of its own, of which
    /// nobody asks anything.
    pub(crate) fn numbered(index: u32) -> Self {
        let after = |first: Ipv4Addr, count: u32| Ipv4Addr::from_bits(first.to_bits() + count);
        let endpoint = |n| (after(Ipv4Addr::new(10, 128, 0, 0), index * 4 + n), true);
        Self {
            name: format!("s-{index}"),
            address: after(Ipv4Addr::new(10, 96, 1, 0), index),
            endpoints: (0..4).map(endpoint).collect(),
        }
    }

    fn service(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": self.name},
            "spec": {"clusterIP": self.address, "ports": [
                {"name": "tcp", "port": 80, "targetPort": PORT},
            ]},
        })
    }

    fn slice(&self) -> Value {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": self.name,
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": "IPv4",
            "endpoints": self.endpoints(),
            "ports": [{"name": "tcp", "port": PORT, "protocol": "TCP"}],
        })
    }

    fn endpoints(&self) -> Value {
        self.endpoints
            .iter()
            .map(|(address, ready)| json!({"addresses": [address], "conditions": {"ready": ready}}))
            .collect()
    }
}

fn services() -> Request {
    Request::new(format!("/api/v1/namespaces/{NAMESPACE}/services"))
}

fn slices() -> Request {
    Request::new(format!(
        "/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
    ))
}

/// An API server in a network namespace.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) netns: PathBuf,
    pub(crate) kubeconfig: PathBuf,
}

impl Api {
    /// Runs `work` on a thread that is where the server is.
    pub(crate) fn run<T: Send>(
        &self,
        work: impl AsyncFnOnce(Client) -> Result<T> + Send,
    ) -> Result<T> {
        Netns::open(&self.netns)?.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("start a runtime")?;
            runtime.block_on(async {
                let read = Kubeconfig::read_from(&self.kubeconfig)?;
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(read, &options).await?;
                work(Client::try_from(config)?).await
            })
        })?
    }

    /// Creates the Services and their slices; says how long it took.
    pub(crate) fn create(&self, entries: impl Iterator<Item = Entry> + Send) -> Result<Duration> {
        let began = Instant::now();
        self.run(async |client| {
            stream::iter(entries.map(Ok))
                .try_for_each_concurrent(AT_ONCE, |entry| {
                    let client = client.clone();
                    async move {
                        let how = PostParams::default();
                        for (at, object) in
                            [(services(), entry.service()), (slices(), entry.slice())]
                        {
                            let body = serde_json::to_vec(&object)?;
                            client
                                .request_text(at.create(&how, body)?)
                                .await
                                .with_context(|| format!("create {}", entry.name))?;
                        }
                        anyhow::Ok(())
                    }
                })
                .await
        })?;
        Ok(began.elapsed())
    }

    /// Changes endpoints at `rate` a second for as long as `time`: of one
    /// Service after the other, of the first `count`. Returns the rate reached.
    pub(crate) fn churn(&self, count: u32, rate: f64, time: Duration) -> Result<f64> {
        self.run(async |client| {
            let began = Instant::now();
            let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
            let mut pending = FuturesUnordered::new();
            let (mut sent, mut done) = (0_u32, 0_u32);
            while began.elapsed() < time {
                tokio::select! {
                    _ = tick.tick(), if pending.len() < AT_ONCE => {
                        // A prime step: neighbours in time are none in the maps.
                        let mut entry = Entry::numbered(sent.wrapping_mul(7919) % count);
                        entry.endpoints[0].1 = (sent / count) % 2 == 1;
                        let client = client.clone();
                        pending.push(async move { change(&client, &entry).await });
                        sent += 1;
                    }
                    Some(changed) = pending.next() => {
                        changed?;
                        done += 1;
                    }
                }
            }
            Ok(f64::from(done) / began.elapsed().as_secs_f64())
        })
    }
}

/// Writes the endpoints of an entry that is there; returns when the server has
/// answered.
pub(crate) async fn change(client: &Client, entry: &Entry) -> Result<()> {
    let patch = Patch::Merge(json!({ "endpoints": entry.endpoints() }));
    let request = slices().patch(&entry.name, &PatchParams::default(), &patch)?;
    client
        .request_text(request)
        .await
        .with_context(|| format!("change {}", entry.name))?;
    Ok(())
}
