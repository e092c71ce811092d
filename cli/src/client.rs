//! One request, one answer, over the agent's unix socket. The other side is
//! our own agent, so HTTP/1.1 with `Connection: close` is all there is.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use berth_api::agent::Problem;

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
        let socket = self.socket.display();
        let stream = UnixStream::connect(&self.socket).map_err(|error| self.not_there(&error))?;
        let answer = exchange(stream, path)
            .with_context(|| format!("the agent at {socket} does not answer; look at its log"))?;
        let Answer { status, body } = parse(answer)
            .with_context(|| format!("what answers at {socket} is not a berth-agent"))?;
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

fn exchange(mut stream: UnixStream, path: &str) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: berth\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// The agent knows the length of everything it answers, so there are no
/// chunks. A shorter body than was promised is a broken answer.
fn parse(mut answer: Vec<u8>) -> anyhow::Result<Answer> {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("no end of headers")?;
    let body = answer.split_off(end + 4);
    let head = std::str::from_utf8(&answer).context("the headers are not text")?;
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .context("no status line")?;
    let length: usize = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .context("no length")?;
    if body.len() != length {
        bail!("the answer ends after {} of {length} bytes", body.len());
    }
    Ok(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_agent_writes() {
        let answer = parse(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}".to_vec());
        assert_eq!(
            answer.unwrap(),
            Answer {
                status: 404,
                body: b"{}".to_vec()
            }
        );
    }

    #[test]
    fn half_an_answer_is_none() {
        for broken in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "SSH-2.0\r\n\r\n",
        ] {
            assert!(parse(broken.as_bytes().to_vec()).is_err(), "{broken:?}");
        }
    }

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
