//! Port 10249, for monitors on the node.
//!
//! | path | answer |
//! | --- | --- |
//! | `/metrics` | every number |
//! | `/proxyMode` | `berth`, where kube-proxy says `iptables` or `nftables` |
//! | `/healthz` | `ok`: the process answers |

use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::routing::get;

use super::Metrics;
use super::text::CONTENT_TYPE;

/// How long a page waits for the loop's own numbers. A loop that is stuck
/// must not hide the metrics that say so.
const PATIENCE: Duration = Duration::from_secs(1);

/// All paths. `refresh` asks the loop for a new [`View`](super::View) and ends
/// when it has been left in `metrics`.
pub fn router<F, W>(metrics: Metrics, refresh: F) -> Router
where
    F: Fn() -> W + Clone + Send + Sync + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    Router::new()
        .route(
            "/metrics",
            get(|State(metrics): State<Metrics>| async move {
                // Too late is as good as not: the last numbers are told.
                let _ = tokio::time::timeout(PATIENCE, refresh()).await;
                ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.page())
            }),
        )
        .route("/proxyMode", get(proxy_mode))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(metrics)
}

async fn proxy_mode() -> ([(HeaderName, &'static str); 1], &'static str) {
    ([(header::X_CONTENT_TYPE_OPTIONS, "nosniff")], "berth")
}
