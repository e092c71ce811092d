//! The echo server: says which pod answered, and whom it saw.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;
use std::{fmt, thread};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::protocol::Echo;

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// A port to answer on, written `TCP:8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// 1 to 65535.
    pub number: u16,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.protocol, self.number)
    }
}

impl FromStr for Port {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (protocol, number) = text.split_once(':').context("write TCP:8080 or UDP:53")?;
        Ok(Self {
            protocol: match protocol {
                "TCP" => Protocol::Tcp,
                "UDP" => Protocol::Udp,
                other => bail!("{other:?} is neither TCP nor UDP"),
            },
            number: number.parse().context("the port is not a number")?,
        })
    }
}

/// Who answers.
#[derive(Clone, Debug)]
pub struct Name {
    /// `namespace/name`.
    pub pod: String,
    /// The node.
    pub node: String,
}

impl Name {
    fn echo(&self, client: SocketAddr, said: &str) -> Vec<u8> {
        let echo = Echo {
            pod: self.pod.clone(),
            node: self.node.clone(),
            client,
            said: said.trim_end().to_owned(),
        };
        let mut line = serde_json::to_vec(&echo).expect("strings and numbers serialise");
        line.push(b'\n');
        line
    }
}

/// Listens on every port, then returns; threads answer for as long as the
/// process lives.
///
/// # Errors
/// If a port is taken.
pub fn listen(name: &Name, ports: &[Port]) -> Result<()> {
    let name = Arc::new(name.clone());
    for port in ports {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.number));
        let failed = || format!("listen on {port} in pod {}", name.pod);
        match port.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(address).with_context(failed)?;
                let name = Arc::clone(&name);
                thread::spawn(move || accept(&listener, &name));
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(address).with_context(failed)?;
                let name = Arc::clone(&name);
                thread::spawn(move || answer_datagrams(&socket, &name));
            }
        }
    }
    Ok(())
}

fn accept(listener: &TcpListener, name: &Arc<Name>) {
    // An error is one client's, such as a reset before it was accepted.
    for stream in listener.incoming().flatten() {
        let name = Arc::clone(name);
        thread::spawn(move || answer_lines(&stream, &name));
    }
}

fn answer_lines(stream: &TcpStream, name: &Name) -> Option<()> {
    let client = stream.peer_addr().ok()?;
    stream.set_nodelay(true).ok()?;
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while lines.read_line(&mut line).ok()? > 0 {
        (&mut &*stream).write_all(&name.echo(client, &line)).ok()?;
        line.clear();
    }
    Some(())
}

fn answer_datagrams(socket: &UdpSocket, name: &Name) {
    let mut buffer = [0; 2048];
    loop {
        // An error is an earlier answer that nobody took.
        if let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let said = String::from_utf8_lossy(&buffer[..length]);
            let _ = socket.send_to(&name.echo(client, &said), client);
        }
    }
}
