//! One request, one answer, over the agent's unix socket. The other side is
//! our own agent, so HTTP/1.1 with `Connection: close` is all there is.
//! Blocking, with nothing but the standard library: `berth-cni` is started
//! thousands of times.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// What the agent said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody listens: the agent is away. Nothing was asked.
    #[error("{0}")]
    Connect(#[source] io::Error),
    /// The agent went away or is silent: it may have done what was asked.
    #[error("{0}")]
    Exchange(#[source] io::Error),
    /// What answers is no agent, or it went away in the middle.
    #[error("{0}")]
    Malformed(String),
}

/// Sends one request and reads the answer; `patience` is for each of the two.
///
/// # Errors
/// As [`Failure`] says; any status is an answer.
pub fn ask(
    socket: &Path,
    method: &str,
    path: &str,
    body: &[u8],
    patience: Duration,
) -> Result<Answer, Failure> {
    let stream = UnixStream::connect(socket).map_err(Failure::Connect)?;
    let answer = exchange(stream, method, path, body, patience).map_err(Failure::Exchange)?;
    parse(answer)
}

fn exchange(
    mut stream: UnixStream,
    method: &str,
    path: &str,
    body: &[u8],
    patience: Duration,
) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: berth\r\nConnection: close\r\n");
    if !body.is_empty() {
        request.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        ));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// The agent knows the length of everything it answers, so there are no
/// chunks. A shorter body than was promised is a broken answer.
fn parse(mut answer: Vec<u8>) -> Result<Answer, Failure> {
    let malformed = |told: &str| Failure::Malformed(told.to_owned());
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or_else(|| malformed("no end of headers"))?;
    let body = answer.split_off(end + 4);
    let head = std::str::from_utf8(&answer).map_err(|_| malformed("the headers are not text"))?;
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| malformed("no status line"))?;
    let length: usize = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(|| malformed("no length"))?;
    if body.len() != length {
        return Err(Failure::Malformed(format!(
            "the answer ends after {} of {length} bytes",
            body.len()
        )));
    }
    Ok(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn reads_what_the_agent_writes() {
        let answer = parse(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}".to_vec());
        let expected = Answer {
            status: 404,
            body: b"{}".to_vec(),
        };
        assert_eq!(answer.unwrap(), expected);
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
    fn an_agent_that_is_away_was_not_asked_and_a_body_has_its_length() {
        let name = format!("berth-client-{}.sock", std::process::id());
        let socket = std::env::temp_dir().join(name);
        let soon = Duration::from_secs(10);
        let away = ask(&socket, "GET", "/", b"", soon).unwrap_err();
        assert!(matches!(away, Failure::Connect(_)), "{away}");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let mut read = 0;
            while !request[..read].ends_with(b"{}") {
                read += stream.read(&mut request[read..]).unwrap();
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
            String::from_utf8(request[..read].to_vec()).unwrap()
        });
        let answer = ask(&socket, "POST", "/x", b"{}", soon).unwrap();
        std::fs::remove_file(&socket).unwrap();
        assert_eq!(answer.status, 200);
        let request = server.join().unwrap();
        assert!(request.starts_with("POST /x HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nContent-Length: 2\r\n"), "{request}");
    }
}
