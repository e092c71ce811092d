//! Sockets on a string: a test starts this in a pod or on a node, and has it
//! make single system calls, one line a call, one line an answer.
//!
//! ```text
//! open NAME tcp4|tcp6|udp4|udp6      connect NAME ADDRESS:PORT    peer NAME
//! send NAME TEXT                     sendto NAME ADDRESS:PORT TEXT
//! recv NAME                          close NAME
//! bind NAME ADDRESS:PORT             serve NAME tcp|udp ADDRESS:PORT
//! ```
//! `serve` answers whatever comes to a port with NAME, from then on.
//! The answer is `ok [ADDRESS:PORT] [TEXT]`, or `error ERRNO`: the name of the
//! errno, as `ECONNREFUSED`.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// A call that would wait longer has failed.
const TIMEOUT: Duration = Duration::from_secs(3);

fn main() -> Result<()> {
    let mut sockets = HashMap::new();
    for line in io::stdin().lock().lines() {
        let line = line.context("read stdin")?;
        let answer = match run(&mut sockets, &line)? {
            Ok(told) => format!("ok {told}"),
            Err(error) => format!("error {}", errno(&error)),
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{}", answer.trim_end()).and_then(|()| out.flush())?;
    }
    Ok(())
}

fn errno(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => error.to_string(),
    }
}

/// The outer error is the test's own mistake; the inner one is the kernel's.
fn run(sockets: &mut HashMap<String, Socket>, line: &str) -> Result<io::Result<String>> {
    let mut words = line.split(' ');
    let mut next = |what| words.next().with_context(|| format!("{line:?}: no {what}"));
    let (call, name) = (next("call")?, next("name")?);
    match call {
        "open" => {
            let made = open(next("kind")?)?;
            return Ok(made.map(|socket| {
                sockets.insert(name.to_owned(), socket);
                String::new()
            }));
        }
        "serve" => {
            let protocol = next("protocol")?;
            let at: SocketAddr = next("address")?.parse()?;
            return Ok(serve(name, protocol, at).map(|()| String::new()));
        }
        "close" => {
            sockets.remove(name).context("no such socket")?;
            return Ok(Ok(String::new()));
        }
        _ => {}
    }
    let socket = sockets
        .get_mut(name)
        .with_context(|| format!("{line:?}: no socket {name}"))?;
    let done = match call {
        "connect" => {
            let to: SocketAddr = next("address")?.parse()?;
            socket
                .connect_timeout(&to.into(), TIMEOUT)
                .map(|()| String::new())
        }
        "bind" => {
            let to: SocketAddr = next("address")?.parse()?;
            socket.bind(&to.into()).map(|()| String::new())
        }
        "peer" => socket.peer_addr().map(|peer| show(peer.as_socket())),
        "send" => socket.send(next("text")?.as_bytes()).map(|_| String::new()),
        "sendto" => {
            let to: SocketAddr = next("address")?.parse()?;
            let text = next("text")?;
            socket
                .send_to(text.as_bytes(), &to.into())
                .map(|_| String::new())
        }
        "recv" => receive(socket),
        other => bail!("{line:?}: {other} is no call"),
    };
    Ok(done)
}

fn serve(name: &str, protocol: &str, at: SocketAddr) -> io::Result<()> {
    let name = name.to_owned();
    if protocol == "udp" {
        let socket = UdpSocket::bind(at)?;
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            loop {
                // An error is an earlier answer that nobody took.
                if let Ok((_, client)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(name.as_bytes(), client);
                }
            }
        });
        return Ok(());
    }
    let listener = TcpListener::bind(at)?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let name = name.clone();
            thread::spawn(move || {
                let mut buffer = [0; 2048];
                while stream.read(&mut buffer).is_ok_and(|length| length > 0)
                    && stream.write_all(name.as_bytes()).is_ok()
                {}
            });
        }
    });
    Ok(())
}

fn open(kind: &str) -> Result<io::Result<Socket>> {
    let (domain, kind, protocol) = match kind {
        "tcp4" => (Domain::IPV4, Type::STREAM, Protocol::TCP),
        "tcp6" => (Domain::IPV6, Type::STREAM, Protocol::TCP),
        "udp4" => (Domain::IPV4, Type::DGRAM, Protocol::UDP),
        "udp6" => (Domain::IPV6, Type::DGRAM, Protocol::UDP),
        other => bail!("{other} is no kind of socket"),
    };
    let made = Socket::new(domain, kind, Some(protocol)).and_then(|socket| {
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(socket)
    });
    Ok(made)
}

/// What came, and from whom: recvmsg() of a datagram tells, of a stream not.
fn receive(socket: &mut Socket) -> io::Result<String> {
    let mut buffer = [0; 2048];
    let is_stream = socket.r#type()? == Type::STREAM;
    let (length, from) = if is_stream {
        (socket.read(&mut buffer)?, None)
    } else {
        let udp = UdpSocket::from(socket.try_clone()?);
        let (length, from) = udp.recv_from(&mut buffer)?;
        (length, Some(from))
    };
    let text = String::from_utf8_lossy(&buffer[..length]);
    let text = text.trim_end().replace(' ', "");
    Ok(match from {
        Some(from) => format!("{from} {text}"),
        None => text,
    })
}

fn show(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "none".to_owned(), |address| address.to_string())
}
