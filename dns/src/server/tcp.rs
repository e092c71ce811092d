//! DNS over TCP (RFC 7766): many questions on one connection, answered as they
//! are ready, and limits on all that a client could hold on to.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::resolve::{Asked, Resolver};
use crate::wire::{Outcome, Transport, respond};

/// Connections at once, over all addresses.
const MAX_CONNECTIONS: usize = 1024;
/// Questions of one connection that wait for upstreams.
const MAX_PIPELINED: usize = 64;
/// Without a question for so long, a connection is closed (RFC 7766, 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// For the rest of a question that has begun, and for the client to take an
/// answer.
const STALLED: Duration = Duration::from_secs(5);
/// After accept() fails for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub(super) struct Limits {
    connections: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }
}

pub(super) async fn serve(listener: TcpListener, resolver: Resolver, limits: Limits) {
    loop {
        let Ok(permit) = Arc::clone(&limits.connections).acquire_owned().await else {
            return; // Never closed; there would be nothing to serve.
        };
        match listener.accept().await {
            Ok((stream, client)) => {
                let resolver = resolver.clone();
                tokio::spawn(async move {
                    // A client that breaks off is not our concern.
                    let _ = connection(stream, client.ip(), resolver).await;
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, client: IpAddr, resolver: Resolver) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut read, mut write) = stream.into_split();
    // Small, so that a client that does not take its answers stops us reading.
    let (answers, mut ready) = mpsc::channel::<Vec<u8>>(MAX_PIPELINED);
    let writer = tokio::spawn(async move {
        while let Some(frame) = ready.recv().await {
            match timeout(STALLED, write.write_all(&frame)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    });
    let slow = Arc::new(Semaphore::new(MAX_PIPELINED));
    let mut out = Vec::new();
    while let Some(packet) = next_message(&mut read).await? {
        let table = resolver.tables.load();
        let outcome = respond(
            &packet,
            Transport::Tcp,
            client,
            &table,
            resolver.recursion(),
            &mut out,
        );
        drop(table);
        let (query, chase) = match outcome {
            Outcome::Drop => break, // No query at all: no more of this client.
            Outcome::Reply => {
                if answers.send(framed(&out)).await.is_err() {
                    break;
                }
                continue;
            }
            Outcome::Forward(query) => (query, false),
            Outcome::Chase(query) => (query, true),
        };
        let Ok(permit) = Arc::clone(&slow).acquire_owned().await else {
            break;
        };
        let (answers, resolver) = (answers.clone(), resolver.clone());
        tokio::spawn(async move {
            let asked = Asked {
                packet: &packet,
                query: &query,
                transport: Transport::Tcp,
                client,
            };
            let answer = if chase {
                resolver.chase(asked).await
            } else {
                resolver.forward(asked).await
            };
            let _ = answers.send(framed(&answer)).await;
            drop(permit);
        });
    }
    // Answers that are under way still go out.
    drop(answers);
    let _ = writer.await;
    Ok(())
}

/// The next question; `None` at the end of the connection.
async fn next_message(read: &mut OwnedReadHalf) -> io::Result<Option<Vec<u8>>> {
    let length = match timeout(IDLE, read.read_u16()).await {
        Ok(Ok(length)) => length,
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Ok(Err(error)) => return Err(error),
        Err(_) => return Ok(None),
    };
    let mut packet = vec![0; usize::from(length)];
    timeout(STALLED, read.read_exact(&mut packet)).await??;
    Ok(Some(packet))
}

/// The length and the message in one write, so that they go in one segment.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut frame = Vec::with_capacity(2 + message.len());
    frame.extend(length.to_be_bytes());
    frame.extend(&message[..usize::from(length)]);
    frame
}
