//! Questions to the agent at a socket, and its refusals as errors.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use berth_api::agent::Problem;
use berth_api::client::{self, Answer, Failure};

/// How long an agent may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the agent at a socket.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// The body of the answer to `GET path`; what the agent says is wrong is
    /// the error.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        self.ask("GET", path, b"")
    }

    /// The body of the answer to `POST path`.
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.ask("POST", path, body)
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let socket = self.socket.display();
        let answer = client::ask(&self.socket, method, path, body, PATIENCE);
        let Answer { status, body } = answer.map_err(|failure| match failure {
            Failure::Connect(error) => self.not_there(&error),
            Failure::Exchange(error) => anyhow::Error::new(error).context(format!(
                "the agent at {socket} does not answer; look at its log"
            )),
            Failure::Malformed(told) => anyhow::Error::msg(told)
                .context(format!("what answers at {socket} is not a berth-agent")),
        })?;
        if status == 200 {
            return Ok(body);
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(Problem { problem }) => bail!("{problem}"),
            Err(_) => bail!("the agent at {socket} answered {status} to {path}"),
        }
    }

    fn not_there(&self, error: &io::Error) -> anyhow::Error {
        let socket = self.socket.display();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => anyhow::anyhow!(
                "no berth-agent runs at {socket} ({error}); start it, or name its socket with \
                 --socket"
            ),
            io::ErrorKind::PermissionDenied => {
                anyhow::anyhow!("{socket} is for root alone; run `sudo berth ...`")
            }
            _ => anyhow::anyhow!("cannot connect to {socket}: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_to_do_when_no_agent_runs() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let error = Client::new(&socket)
            .get("/v1/ready")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(&format!("no berth-agent runs at {}", socket.display())));
        assert!(error.ends_with("start it, or name its socket with --socket"));
    }
}
