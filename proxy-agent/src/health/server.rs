//! Port 10256, where load balancers ask for the node and kubelet for the
//! agent. Status, headers and bodies are those of kube-proxy 1.34.
//!
//! | path | 503 when |
//! | --- | --- |
//! | `/healthz` | the proxy is stuck, or the node is being deleted |
//! | `/livez` | the proxy is stuck |

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Serialize;

use super::proxy::{ProxyHealth, Report};
use crate::metrics::{Metrics, Probe};

/// Both paths.
pub fn router(health: ProxyHealth, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(livez))
        .with_state((health, metrics))
}

pub(super) const NOSNIFF: (HeaderName, &str) = (header::X_CONTENT_TYPE_OPTIONS, "nosniff");

type Answer = (StatusCode, [(HeaderName, &'static str); 1], Json<Body>);

async fn healthz(State((health, metrics)): State<(ProxyHealth, Metrics)>) -> Answer {
    let report = health.report(Instant::now());
    let is_well = report.healthy && report.node_eligible;
    metrics.probed(Probe::Healthz, is_well);
    answer(report, Some(report.node_eligible), is_well)
}

async fn livez(State((health, metrics)): State<(ProxyHealth, Metrics)>) -> Answer {
    let report = health.report(Instant::now());
    metrics.probed(Probe::Livez, report.healthy);
    answer(report, None, report.healthy)
}

fn answer(report: Report, node_eligible: Option<bool>, is_well: bool) -> Answer {
    let status = if is_well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = Body::new(report, node_eligible, is_well, SystemTime::now());
    (status, [NOSNIFF], Json(body))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<&'static str, Family>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Family {
    last_updated: String,
    healthy: bool,
}

impl Body {
    /// A well proxy says that it was updated now, even if there was nothing
    /// to do: so did kube-proxy when it still had a timer, and monitors count
    /// on it. Both families are brought up to date in one pass, so their
    /// states are the same.
    fn new(report: Report, node_eligible: Option<bool>, is_well: bool, now: SystemTime) -> Self {
        let current_time = time(Some(now));
        let updated = time(report.last_updated);
        let status = match report.last_updated {
            None => BTreeMap::new(),
            Some(_) => ["IPv4", "IPv6"]
                .map(|family| {
                    let state = Family {
                        last_updated: updated.clone(),
                        healthy: report.healthy,
                    };
                    (family, state)
                })
                .into(),
        };
        Self {
            last_updated: if is_well {
                current_time.clone()
            } else {
                updated
            },
            current_time,
            node_eligible,
            healthy: report.healthy,
            status,
        }
    }
}

/// RFC 3339 in UTC. A time that never was is the one that Go writes for it.
fn time(time: Option<SystemTime>) -> String {
    time.and_then(|time| Timestamp::try_from(time).ok())
        .map_or_else(
            || "0001-01-01T00:00:00Z".to_owned(),
            |time| time.to_string(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn told(healthy: bool, eligible: Option<bool>, updated: Option<u64>) -> String {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let report = Report {
            healthy,
            last_updated: updated.map(at),
            node_eligible: eligible.unwrap_or(true),
        };
        let is_well = healthy && report.node_eligible;
        serde_json::to_string(&Body::new(report, eligible, is_well, at(90))).unwrap()
    }

    #[test]
    fn bodies_are_those_of_kube_proxy() {
        let families = |healthy| {
            format!(
                r#""status":{{"IPv4":{{"lastUpdated":"1970-01-01T00:00:05Z","healthy":{healthy}}},"IPv6":{{"lastUpdated":"1970-01-01T00:00:05Z","healthy":{healthy}}}}}"#
            )
        };
        let now = r#""1970-01-01T00:01:30Z""#;
        assert_eq!(
            told(true, Some(true), Some(5)),
            format!(
                r#"{{"lastUpdated":{now},"currentTime":{now},"nodeEligible":true,"healthy":true,{}}}"#,
                families(true)
            )
        );
        assert_eq!(
            told(true, Some(false), Some(5)),
            format!(
                r#"{{"lastUpdated":"1970-01-01T00:00:05Z","currentTime":{now},"nodeEligible":false,"healthy":true,{}}}"#,
                families(true)
            )
        );
        assert_eq!(
            told(false, None, Some(5)),
            format!(
                r#"{{"lastUpdated":"1970-01-01T00:00:05Z","currentTime":{now},"healthy":false,{}}}"#,
                families(false)
            )
        );
        assert_eq!(
            told(true, Some(false), None),
            format!(
                r#"{{"lastUpdated":"0001-01-01T00:00:00Z","currentTime":{now},"nodeEligible":false,"healthy":true}}"#
            )
        );
    }
}
