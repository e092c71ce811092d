//! The HTTP around the address service.
//!
//! What the service does may block, so it runs on the runtime's threads for
//! that, and probes are answered meanwhile.

use std::net::IpAddr;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use berth_api::addresses::{Acquire, Reason, Refused, Release};
use berth_api::agent::Problem;
use serde::{Deserialize, Serialize};

use super::service::Service;

/// What the socket answers of addresses.
pub fn router(service: Service) -> Router {
    Router::new()
        .route("/v1/addresses", get(list))
        .route("/v1/addresses/{address}", get(who))
        .route("/v1/addresses/acquire", post(acquire))
        .route("/v1/addresses/release", post(release))
        .with_state(service)
}

async fn acquire(State(service): State<Service>, Json(asked): Json<Acquire>) -> Response {
    answer(move || service.acquire(&asked)).await
}

async fn release(State(service): State<Service>, Json(asked): Json<Release>) -> Response {
    answer(move || service.release(&asked)).await
}

#[derive(Debug, Deserialize)]
struct Of {
    pool: Option<String>,
}

async fn list(State(service): State<Service>, Query(of): Query<Of>) -> Response {
    answer(move || service.list(of.pool.as_deref())).await
}

async fn who(State(service): State<Service>, Path(text): Path<String>) -> Response {
    let Ok(address) = text.parse::<IpAddr>() else {
        let problem = format!("{text:?} is not an address; write 10.20.0.57 or fd00:20::7");
        return (StatusCode::BAD_REQUEST, Json(Problem { problem })).into_response();
    };
    let found = tokio::task::spawn_blocking(move || service.who(address)).await;
    match found {
        Ok(Ok(None)) => {
            let problem = format!("address {address} was never given to a pod");
            (StatusCode::NOT_FOUND, Json(Problem { problem })).into_response()
        }
        Ok(Ok(Some(known))) => Json(known).into_response(),
        Ok(Err(refusal)) => refuse(refusal),
        Err(_) => broken(),
    }
}

async fn answer<T: Serialize + Send + 'static>(
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Json(done).into_response(),
        Ok(Err(refusal)) => refuse(refusal),
        Err(_) => broken(),
    }
}

fn refuse(refusal: Refused) -> Response {
    let status = match refusal.reason {
        Reason::TryAgain | Reason::Store => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    };
    (status, Json(refusal)).into_response()
}

fn broken() -> Response {
    refuse(Refused {
        problem: "the agent failed over this request; look at its log".to_owned(),
        reason: Reason::TryAgain,
    })
}
