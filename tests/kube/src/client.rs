//! One question to a server of the cluster, for readiness: a GET over TLS that
//! trusts the cluster's authority alone.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::pki::{Authority, Identity};
use crate::place::Place;

/// How long a connection, a write or a read may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks one server.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    place: Place,
    server: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Client {
    /// Asks `server` from `place`, as `identity`.
    pub(crate) fn new(
        place: &Place,
        server: SocketAddr,
        authority: &Authority,
        identity: &Identity,
    ) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(
                authority.certificate().as_bytes(),
            )?)
            .context("trust the authority")?;
        let chain = vec![CertificateDer::from_pem_slice(
            identity.certificate.as_bytes(),
        )?];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("choose versions of TLS")?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .context("use the client's certificate")?;
        Ok(Self {
            place: place.clone(),
            server,
            config: Arc::new(config),
        })
    }

    /// The body of the answer to a GET of `path`.
    ///
    /// # Errors
    /// If there is no answer, or it is not 200.
    pub(crate) fn get(&self, path: &str) -> Result<String> {
        let stream = self.place.connect(self.server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let name = ServerName::IpAddress(self.server.ip().into());
        let tls = ClientConnection::new(Arc::clone(&self.config), name)?;
        let reply = ask(StreamOwned::new(tls, stream), self.server, path)
            .with_context(|| format!("ask {} for {path}", self.server))?;
        parse(&reply)
    }

    /// As [`Self::get`], in the clear, of a server without TLS.
    pub(crate) fn get_plain(place: &Place, server: SocketAddr, path: &str) -> Result<String> {
        let stream = place.connect(server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let reply =
            ask(stream, server, path).with_context(|| format!("ask {server} for {path}"))?;
        parse(&reply)
    }
}

/// HTTP/1.0, so that the answer comes in one piece and ends with the stream.
fn ask(mut stream: impl Read + Write, server: SocketAddr, path: &str) -> Result<Vec<u8>> {
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
    stream.flush()?;
    let mut reply = Vec::new();
    match stream.read_to_end(&mut reply) {
        // Closed without TLS's good-bye.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        outcome => drop(outcome?),
    }
    Ok(reply)
}

fn parse(reply: &[u8]) -> Result<String> {
    let reply = String::from_utf8_lossy(reply);
    let Some((head, body)) = reply.split_once("\r\n\r\n") else {
        bail!("{reply:?} is no HTTP answer");
    };
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "it says {status}: {}", body.trim());
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_200_is_an_answer() {
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nok").unwrap(), "ok");
        let error = parse(b"HTTP/1.0 500 Oh\r\n\r\n[-]etcd failed\n").unwrap_err();
        assert_eq!(error.to_string(), "it says 500: [-]etcd failed");
        assert!(parse(b"\x15\x03").is_err());
    }
}
