//! healthCheckNodePort: a listener for each Service that has one, so that a
//! load balancer outside finds the nodes with a pod of that Service
//! (spec/proxy row 8; KEP-1669 for terminating pods, which do not count).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::listen::{RETRY, listen};
use super::proxy::ProxyHealth;
use super::server::NOSNIFF;
use crate::model::NamespacedName;

/// How many endpoints the answering node has: a weight for load balancers.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// What one Service's port answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// `spec.healthCheckNodePort`.
    pub port: u16,
    /// Ready endpoints on this node.
    pub local_endpoints: usize,
}

/// Every Service that has such a port.
pub type HealthChecks = Arc<BTreeMap<NamespacedName, HealthCheck>>;

/// Opens and closes listeners as `checks` changes, until its sender is gone.
pub async fn serve(mut checks: watch::Receiver<HealthChecks>, health: ProxyHealth) {
    let mut listeners = Listeners {
        open: BTreeMap::new(),
        told: BTreeMap::new(),
        checks: checks.clone(),
        health,
    };
    loop {
        let wanted = checks.borrow_and_update().clone();
        listeners.close_others(&wanted).await;
        let is_whole = listeners.open_missing(&wanted);
        let retry = async {
            if is_whole {
                std::future::pending().await
            } else {
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            changed = checks.changed() => if changed.is_err() {
                return;
            },
            () = retry => {}
        }
    }
}

struct Listeners {
    open: BTreeMap<NamespacedName, Listener>,
    /// What was last said about a port that cannot be opened.
    told: BTreeMap<NamespacedName, String>,
    checks: watch::Receiver<HealthChecks>,
    health: ProxyHealth,
}

struct Listener {
    port: u16,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listeners {
    /// Closes first, so that a port can go from one Service to another.
    async fn close_others(&mut self, wanted: &BTreeMap<NamespacedName, HealthCheck>) {
        let others: Vec<_> = self
            .open
            .iter()
            .filter(|(name, open)| wanted.get(name).is_none_or(|check| check.port != open.port))
            .map(|(name, _)| name.clone())
            .collect();
        for name in others {
            if let Some(mut listener) = self.open.remove(&name) {
                info!(service = %name, port = listener.port, "health check port closed");
                listener.task.abort();
                // The port is free once the task is really gone; that it was
                // aborted is what was wanted.
                drop((&mut listener.task).await);
            }
        }
        self.told.retain(|name, _| wanted.contains_key(name));
    }

    /// Whether every port is open.
    fn open_missing(&mut self, wanted: &BTreeMap<NamespacedName, HealthCheck>) -> bool {
        for (name, check) in wanted {
            if self.open.contains_key(name) {
                continue;
            }
            match listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, check.port))) {
                Ok(listener) => {
                    info!(service = %name, port = check.port, "health check port open");
                    self.told.remove(name);
                    let task = tokio::spawn(answer_on(listener, self.page(name)));
                    let port = check.port;
                    self.open.insert(name.clone(), Listener { port, task });
                }
                Err(error) => {
                    let told = format!(
                        "Service {name}: cannot listen on its healthCheckNodePort {}: {error}; \
                         trying again. Stop what has the port, or give the Service another",
                        check.port
                    );
                    if self.told.get(name) != Some(&told) {
                        warn!("{told}");
                        self.told.insert(name.clone(), told);
                    }
                }
            }
        }
        self.open.len() == wanted.len()
    }

    fn page(&self, name: &NamespacedName) -> Page {
        Page {
            name: name.clone(),
            checks: self.checks.clone(),
            health: self.health.clone(),
        }
    }
}

async fn answer_on(listener: TcpListener, page: Page) {
    let name = page.name.clone();
    // Upstream answers on every path alike.
    let router = Router::new().fallback(answer).with_state(page);
    if let Err(error) = axum::serve(listener, router).await {
        warn!(service = %name, %error, "the health check port failed");
    }
}

#[derive(Clone, Debug)]
struct Page {
    name: NamespacedName,
    checks: watch::Receiver<HealthChecks>,
    health: ProxyHealth,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: Name<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Debug, Serialize)]
struct Name<'a> {
    namespace: &'a str,
    name: &'a str,
}

async fn answer(State(page): State<Page>) -> Response {
    let check = page.checks.borrow().get(&page.name).copied();
    // A connection that was open when the Service went has nobody to reach.
    let local_endpoints = check.map_or(0, |check| check.local_endpoints);
    let service_proxy_healthy = page.health.report(Instant::now()).healthy;
    let status = if local_endpoints > 0 && service_proxy_healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = Json(Body {
        service: Name {
            namespace: &page.name.namespace,
            name: &page.name.name,
        },
        local_endpoints,
        service_proxy_healthy,
    });
    let weight = [(WEIGHT, HeaderValue::from(local_endpoints))];
    (status, [NOSNIFF], weight, body).into_response()
}
