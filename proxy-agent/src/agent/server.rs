//! The agent's unix socket: HTTP, so that `curl --unix-socket` is enough.
//!
//! | path | answer |
//! | --- | --- |
//! | `/readyz` | 200 when the node can be sent traffic, else 503 and why |
//! | `/v1/ready` | the same as JSON, always 200 |
//! | `/v1/services`, `/v1/services/NAMESPACE/NAME` | Services as they are served here |
//! | `/v1/trace?from=POD&to=ADDRESS:PORT&protocol=udp` | where a connection goes |
//! | `/v1/dump/model`, `/desired`, `/realized`, `/counters` | a stage as text; `?format=json` |
//! | `/v1/addresses/...` | see [`crate::addresses`] |
//!
//! The JSON is described in [`berth_api::agent`].

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use berth_api::agent::{Problem, Readiness, ServiceDetail, ServiceSummary, Trace};
use serde::Deserialize;
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use super::input::{Connection, Input, Question, Stage};
use super::observer::Inputs;
use super::run::Status;
use crate::model::{NamespacedName, Protocol};

#[derive(Clone, Debug)]
struct Shared {
    status: Status,
    inputs: Inputs,
}

/// Opens the socket, for root alone, and answers on it for ever.
///
/// # Errors
/// When the socket cannot be made, or another agent answers on it.
pub async fn serve(path: &Path, status: Status, inputs: Inputs) -> anyhow::Result<()> {
    serve_all(path, router(status, inputs)).await
}

/// [`serve`], with what other rooms answer beside [`router`].
///
/// # Errors
/// As [`serve`].
pub async fn serve_all(path: &Path, router: Router) -> anyhow::Result<()> {
    let listener = listen(path).await?;
    axum::serve(listener, router)
        .await
        .context("the agent's socket failed")
}

/// What the socket answers.
pub fn router(status: Status, inputs: Inputs) -> Router {
    Router::new()
        .route("/readyz", get(readyz))
        .route("/v1/ready", get(ready))
        .route("/v1/services", get(services))
        .route("/v1/services/{namespace}/{name}", get(service))
        .route("/v1/trace", get(connection))
        .route("/v1/dump/{stage}", get(stage))
        .with_state(Shared { status, inputs })
}

async fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    if tokio::net::UnixStream::connect(path).await.is_ok() {
        bail!(
            "another berth-agent answers on {}; stop it first, or give this one another --socket",
            path.display()
        );
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error)
                .with_context(|| format!("cannot remove the old socket {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path)
        .with_context(|| format!("cannot listen on the socket {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    Ok(listener)
}

async fn readyz(State(shared): State<Shared>) -> (StatusCode, String) {
    let reasons = shared.status.not_ready();
    if reasons.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
    }
}

async fn ready(State(shared): State<Shared>) -> Json<Readiness> {
    let reasons = shared.status.not_ready();
    Json(Readiness {
        ready: reasons.is_empty(),
        reasons,
    })
}

async fn services(State(shared): State<Shared>) -> Result<Json<Vec<ServiceSummary>>, Refusal> {
    ask(&shared.inputs, Question::Services).await.map(Json)
}

async fn service(
    State(shared): State<Shared>,
    UrlPath((namespace, name)): UrlPath<(String, String)>,
) -> Result<Json<ServiceDetail>, Refusal> {
    let asked = NamespacedName::new(&namespace, &name);
    let found = ask(&shared.inputs, |reply| Question::Service(asked, reply)).await?;
    found.map(Json).ok_or_else(|| {
        Refusal(
            StatusCode::NOT_FOUND,
            format!(
                "Service {namespace}/{name} is not served on this node; `berth svc list` shows \
                 those that are. Headless and ExternalName Services, and those of another proxy, \
                 are not"
            ),
        )
    })
}

#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    from: String,
    to: String,
    #[serde(default)]
    protocol: String,
}

async fn connection(
    State(shared): State<Shared>,
    Query(asked): Query<Asked>,
) -> Result<Json<Trace>, Refusal> {
    let bad = |told: String| Refusal(StatusCode::BAD_REQUEST, told);
    let to = asked.to.parse().map_err(|_| {
        bad(format!(
            "{:?} is not an address and port; write 10.96.0.10:53 or [fd00::10]:53",
            asked.to
        ))
    })?;
    let protocol = match asked.protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => {
            return Err(bad(format!(
                "{other:?} is not a protocol; write tcp or udp"
            )));
        }
    };
    let asked = Connection {
        from: asked.from,
        to,
        protocol,
    };
    ask(&shared.inputs, |reply| Question::Trace(asked, reply))
        .await
        .map(Json)
}

#[derive(Debug, Deserialize)]
struct Format {
    #[serde(default)]
    format: String,
}

async fn stage(
    State(shared): State<Shared>,
    UrlPath(stage): UrlPath<String>,
    Query(Format { format }): Query<Format>,
) -> Result<Response, Refusal> {
    let stage = match stage.as_str() {
        "model" => Stage::Model,
        "desired" => Stage::Desired,
        "realized" => Stage::Realized,
        "counters" => Stage::Counters,
        other => {
            let told = format!("no stage {other:?}; ask for model, desired, realized or counters");
            return Err(Refusal(StatusCode::NOT_FOUND, told));
        }
    };
    if format == "json" {
        let dump = ask(&shared.inputs, |reply| Question::Dump(stage, reply)).await?;
        Ok(Json(dump).into_response())
    } else {
        let text = ask(&shared.inputs, |reply| Question::Text(stage, reply)).await?;
        Ok(text.into_response())
    }
}

/// Asks the loop for the numbers that only it knows, for the metrics.
pub async fn refresh(inputs: Inputs) {
    // A loop that has ended has no news; what it said last is told.
    drop(ask(&inputs, Question::Numbers).await);
}

async fn ask<T>(
    inputs: &Inputs,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Result<T, Refusal> {
    let stopping = || {
        let told = "the agent is stopping; ask again when it runs".to_owned();
        Refusal(StatusCode::SERVICE_UNAVAILABLE, told)
    };
    let (reply, answer) = oneshot::channel();
    inputs
        .send(Input::Ask(question(reply)))
        .map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())
}

/// A status, and what is wrong.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, problem) = self;
        (status, Json(Problem { problem })).into_response()
    }
}
