//! The agent's unix socket: HTTP, so that `curl --unix-socket` is enough.
//!
//! | path | answer |
//! | --- | --- |
//! | `/readyz` | 200 when the node can be sent traffic, else 503 and why |
//! | `/v1/dump/model`, `/desired`, `/realized`, `/counters` | a stage as text |

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::mpsc::Sender;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::UnixListener;

use super::run::{Input, Stage, Status};

#[derive(Clone, Debug)]
struct Shared {
    status: Status,
    inputs: Sender<Input>,
}

/// Opens the socket, for root alone, and answers on it for ever.
///
/// # Errors
/// When the socket cannot be made, or another agent answers on it.
pub async fn serve(path: &Path, status: Status, inputs: Sender<Input>) -> anyhow::Result<()> {
    let listener = listen(path).await?;
    let router = Router::new()
        .route("/readyz", get(readyz))
        .route("/v1/dump/{stage}", get(stage))
        .with_state(Shared { status, inputs });
    axum::serve(listener, router)
        .await
        .context("the agent's socket failed")
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

async fn stage(
    State(shared): State<Shared>,
    UrlPath(stage): UrlPath<String>,
) -> (StatusCode, String) {
    let stage = match stage.as_str() {
        "model" => Stage::Model,
        "desired" => Stage::Desired,
        "realized" => Stage::Realized,
        "counters" => Stage::Counters,
        other => {
            let told =
                format!("no stage {other:?}; ask for model, desired, realized or counters\n");
            return (StatusCode::NOT_FOUND, told);
        }
    };
    let (reply, answer) = tokio::sync::oneshot::channel();
    let asked = shared.inputs.send(Input::Show(stage, reply)).is_ok();
    match answer.await {
        Ok(text) if asked => (StatusCode::OK, text),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the agent is stopping\n".to_owned(),
        ),
    }
}
