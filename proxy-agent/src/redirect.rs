//! One Service, the cluster's DNS, that this node's pods reach at an address of
//! the node itself while a DNS server answers there, and in the cluster's own
//! pods when none does (spec/proxy row 24).
//!
//! This thread only asks whether the server answers, and says so to the model;
//! `compile` decides what follows.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use tracing::{info, warn};

use crate::model::{Change, NamespacedName};

/// How often the server is asked.
const EVERY: Duration = Duration::from_millis(500);
/// How long it has to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many questions in a row may stay without an answer: a lost datagram is
/// no reason to send every pod to another node.
const TOLERATED: u32 = 2;

/// `kube-system/kube-dns=10.20.0.11`: which Service, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRedirect {
    /// The Service.
    pub service: NamespacedName,
    /// The address on this node; the ports stay the Service's.
    pub target: IpAddr,
}

/// What was wrong with a written redirect.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a redirect; write it as kube-system/kube-dns=10.20.0.11")]
pub struct ParseRedirectError(String);

impl FromStr for LocalRedirect {
    type Err = ParseRedirectError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (service, target) = text.split_once('=')?;
            let (namespace, name) = service.split_once('/')?;
            let named = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
            named.then_some(())?;
            Some(Self {
                service: NamespacedName::new(namespace, name),
                target: target.parse().ok()?,
            })
        };
        parse().ok_or_else(|| ParseRedirectError(text.to_owned()))
    }
}

/// Whether the server counts as answering, from one question to the next.
#[derive(Debug, Default)]
struct Health {
    is_up: bool,
    missed: u32,
}

impl Health {
    /// Notes how one question ended; says whether that changed anything.
    fn note(&mut self, answered: bool) -> bool {
        self.missed = if answered { 0 } else { self.missed + 1 };
        let is_up = answered || (self.is_up && self.missed <= TOLERATED);
        std::mem::replace(&mut self.is_up, is_up) != is_up
    }
}

/// Asks for ever, on the calling thread, and hands every change to `tell` until
/// that says that nobody listens.
pub fn watch(redirect: &LocalRedirect, tell: impl Fn(Change) -> bool) {
    let server = SocketAddr::new(redirect.target, 53);
    let mut health = Health::default();
    loop {
        let answer = ask(server);
        if health.note(answer.is_ok()) {
            let service = &redirect.service;
            match answer {
                Ok(()) => info!(%service, %server, "redirected to this node's DNS server"),
                Err(why) => warn!(
                    %service, %server, %why,
                    "this node's DNS server does not answer; back to the Service's endpoints"
                ),
            }
            let target = health.is_up.then_some(redirect.target);
            let change = Change::Redirect {
                service: service.clone(),
                target,
            };
            if !tell(change) {
                return;
            }
        }
        thread::sleep(EVERY);
    }
}

/// Any answer to a question for the root's name servers will do, a refusal too:
/// it is the server that is asked after, not the name (RFC 1035, section 4.1).
fn ask(server: SocketAddr) -> io::Result<()> {
    const ID: [u8; 2] = *b"Bh";
    const REST: [u8; 15] = [
        0, 0, // a query, no recursion wanted
        0, 1, 0, 0, 0, 0, 0, 0, // one question
        0, // the root
        0, 2, // NS
        0, 1, // IN
    ];
    let mut query = [0; 17];
    query[..2].copy_from_slice(&ID);
    query[2..].copy_from_slice(&REST);
    let any = match server {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Connected, so that a closed port is an error at once and nobody else's
    // datagram is taken for the answer.
    socket.connect(server)?;
    socket.send(&query)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    let is_answer = length >= 12 && answer[..2] == ID && answer[2] & 0x80 != 0;
    let not_dns = || io::Error::new(io::ErrorKind::InvalidData, "what answers is not DNS");
    if is_answer { Ok(()) } else { Err(not_dns()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_written_and_says_how_to_write_it() {
        let read: LocalRedirect = "kube-system/kube-dns=10.20.0.11".parse().unwrap();
        assert_eq!(read.service.to_string(), "kube-system/kube-dns");
        for bad in [
            "",
            "kube-dns=10.20.0.11",
            "a/b=10.20.0.011",
            "a/b",
            "/b=::1",
            "a/b/c=::1",
        ] {
            let told = bad.parse::<LocalRedirect>().unwrap_err().to_string();
            assert!(
                told.ends_with("write it as kube-system/kube-dns=10.20.0.11"),
                "{told}"
            );
        }
    }

    #[test]
    fn one_answer_is_up_and_the_third_silence_is_down() {
        let mut health = Health::default();
        let changed: Vec<_> = [false, true, false, false, false, false, true]
            .into_iter()
            .map(|answered| health.note(answered))
            .collect();
        assert_eq!(changed, [false, true, false, false, true, false, true]);
    }

    #[test]
    fn asks_a_real_socket() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let answering = thread::spawn(move || {
            let mut buffer = [0; 512];
            for flags in [0x80, 0x00] {
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                buffer[2] |= flags;
                server.send_to(&buffer[..length], from).unwrap();
            }
        });
        ask(address).unwrap();
        assert_eq!(ask(address).unwrap_err().kind(), io::ErrorKind::InvalidData);
        answering.join().unwrap();
        assert!(ask(address).is_err(), "nobody listens any more");
    }
}
