//! One question to one upstream: UDP, and TCP if the answer is cut.
//!
//! Each question has a socket of its own, so that the port is the kernel's
//! random choice, and an ID from the system's random source; the socket is
//! connected, so that only the upstream's own packets arrive (RFC 5452).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::wire::{
    Edns, Query, UDP_LIMIT, flag, opt_record, question, read_u16, same_question, walk,
};

/// What is asked of an upstream; two that are equal can share an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Name in lower case, type and class, as they stand in a message.
    wire: Box<[u8]>,
    /// The flags CD and AD that go along.
    flags: u16,
    dnssec_ok: bool,
}

/// Why an upstream's answer is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// It was silent.
    #[error("no answer in time")]
    TimedOut,
    /// The network refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It answered something else.
    #[error("a malformed answer, or one to another question")]
    Malformed,
}

impl Question {
    /// The question of a client's query.
    #[must_use]
    pub fn of(query: &Query) -> Self {
        let mut wire = query.name().to_vec();
        wire.extend(query.rtype.to_be_bytes());
        wire.extend(query.class.to_be_bytes());
        Self {
            wire: wire.into(),
            flags: query.flags & (flag::CD | flag::AD),
            dnssec_ok: query.edns.is_some_and(|edns| edns.dnssec_ok),
        }
    }

    /// The name, in wire form.
    pub(super) fn name(&self) -> &[u8] {
        &self.wire[..self.wire.len() - 4]
    }

    /// The whole query.
    #[must_use]
    pub fn message(&self, id: u16) -> Vec<u8> {
        let mut message = Vec::with_capacity(12 + self.wire.len() + 11);
        message.extend(id.to_be_bytes());
        message.extend((flag::RD | self.flags).to_be_bytes());
        message.extend([0, 1, 0, 0, 0, 0, 0, 1]);
        message.extend(&self.wire);
        let edns = Edns {
            size: UDP_LIMIT,
            version: 0,
            dnssec_ok: self.dnssec_ok,
        };
        message.extend(opt_record(0, &edns));
        message
    }

    /// Whether a message answers this question.
    fn is_answered_by(&self, id: u16, message: &[u8]) -> bool {
        read_u16(message, 0) == Some(id)
            && read_u16(message, 2).is_some_and(|f| f & flag::QR != 0 && f & flag::OPCODE == 0)
            && question(message).is_some_and(|q| same_question(q, &self.wire))
    }
}

/// Asks one upstream. The message that comes back is well-formed.
///
/// # Errors
/// See [`ExchangeError`].
pub(super) async fn ask(
    upstream: SocketAddr,
    question: &Question,
    limit: Duration,
) -> Result<Vec<u8>, ExchangeError> {
    let both = async {
        let message = ask_udp(upstream, question).await?;
        let cut = read_u16(&message, 2).is_some_and(|flags| flags & flag::TC != 0);
        if cut {
            ask_tcp(upstream, question).await
        } else {
            Ok(message)
        }
    };
    let message = timeout(limit, both)
        .await
        .map_err(|_| ExchangeError::TimedOut)??;
    match walk(&message) {
        Ok(_) => Ok(message),
        Err(_) => Err(ExchangeError::Malformed),
    }
}

fn random_id() -> io::Result<u16> {
    let random = getrandom::u32().map_err(io::Error::other)?;
    Ok((random >> 16) as u16)
}

async fn ask_udp(upstream: SocketAddr, question: &Question) -> Result<Vec<u8>, ExchangeError> {
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    let id = random_id()?;
    socket.send(&question.message(id)).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let len = socket.recv(&mut buffer).await?;
        // A forged or late packet must not end the wait for the true one.
        if question.is_answered_by(id, &buffer[..len]) {
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(upstream: SocketAddr, question: &Question) -> Result<Vec<u8>, ExchangeError> {
    let mut stream = TcpStream::connect(upstream).await?;
    let id = random_id()?;
    let message = question.message(id);
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(message);
    stream.write_all(&frame).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if question.is_answered_by(id, &answer) {
        Ok(answer)
    } else {
        Err(ExchangeError::Malformed)
    }
}
