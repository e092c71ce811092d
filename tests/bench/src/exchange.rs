//! The two programs whose exchanges are measured, and our end of each. They do
//! the least that a server and a client can do: what is compared is the path.
//!
//! Both run on one processor, so that waking the other side costs the same in
//! every exchange. The server closes first: the port that waits for late
//! packets (TIME_WAIT) is then its own, and the client never runs out of ports.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use berth_lab::binaries;
use berth_lab::ground::enter::Place;

/// The port that the server answers on.
pub(crate) const PORT: u16 = 9090;
/// The processor of the measured programs.
const PROCESSOR: &str = "0";
/// Between two looks for a change: the resolution of [`Client::until_answers`].
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// The server: answers every TCP connection and every datagram with the
/// address that it was reached on, until stdin ends.
///
/// # Errors
/// If the port is taken.
pub(crate) fn serve() -> Result<()> {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let listener = TcpListener::bind(any).context("listen")?;
    let socket = UdpSocket::bind(any).context("listen")?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A client that has gone is no reason to stop.
            let _ = answer(&mut stream);
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], client);
        }
    });
    println!("ready");
    io::copy(&mut io::stdin(), &mut io::sink()).context("read stdin")?;
    Ok(())
}

fn answer(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 64];
    while stream.read(&mut buffer)? > 0 {
        let IpAddr::V4(own) = stream.local_addr()?.ip() else {
            return Ok(());
        };
        stream.write_all(&own.octets())?;
        // Whoever says `k` keeps the connection.
        if buffer[0] != b'k' {
            break;
        }
    }
    Ok(())
}

/// The client: does what each line of stdin says, answers with a line.
///
/// # Errors
/// If a line cannot be read.
pub(crate) fn client() -> Result<()> {
    println!("ready");
    for line in io::stdin().lock().lines() {
        let line = line.context("read stdin")?;
        let said = match obey(&line) {
            Ok(number) => number.to_string(),
            Err(error) => format!("{error:#}"),
        };
        println!("{said}");
    }
    Ok(())
}

fn obey(line: &str) -> Result<u128> {
    let words: Vec<_> = line.split(' ').collect();
    let &[verb, target, argument] = &words[..] else {
        bail!("{line:?} is not understood");
    };
    let target: SocketAddr = target.parse().context("a target is ADDRESS:PORT")?;
    match verb {
        "tcp" => median(argument.parse()?, || exchange(target)),
        "hold" => {
            let mut stream = TcpStream::connect(target)?;
            stream.set_nodelay(true)?;
            median(argument.parse()?, || {
                stream.write_all(b"k")?;
                stream.read_exact(&mut [0; 4])
            })
        }
        "udp" => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_read_timeout(Some(Duration::from_secs(3)))?;
            median(argument.parse()?, || {
                socket.send_to(b"x", target)?;
                socket.recv_from(&mut [0; 64]).map(drop)
            })
        }
        "until" => {
            let (wanted, seconds) = argument.split_once('/').context("ADDRESS/SECONDS")?;
            until(
                target,
                wanted.parse()?,
                Duration::from_secs(seconds.parse()?),
            )
        }
        _ => bail!("{verb:?} is not understood"),
    }
}

/// The median of `count` exchanges in nanoseconds.
fn median(count: usize, mut exchange: impl FnMut() -> io::Result<()>) -> Result<u128> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        exchange()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let middle = times.get(count / 2).context("a count is at least 1")?;
    Ok(middle.as_nanos())
}

/// Connect, request, answer, close.
fn exchange(target: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(target)?;
    stream.write_all(b"x")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    // The server's end of the connection.
    let _ = stream.read(&mut [0; 1])?;
    Ok(())
}

/// When `wanted` first answered, see [`now`].
fn until(target: SocketAddr, wanted: Ipv4Addr, within: Duration) -> Result<u128> {
    let deadline = Instant::now() + within;
    let mut last = String::new();
    while Instant::now() < deadline {
        match attempt(target) {
            Ok(answered) if answered == wanted => return now(),
            Ok(answered) => last = format!("{answered} answers"),
            Err(error) => last = error.to_string(),
        }
        thread::sleep(LOOK_EVERY);
    }
    bail!("{wanted} does not answer at {target}: {last}")
}

/// As [`exchange`], with an end.
fn attempt(target: SocketAddr) -> io::Result<Ipv4Addr> {
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_millis(500))?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    stream.write_all(b"x")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    Ok(answer.into())
}

/// The machine's clock in nanoseconds, the same in every process.
pub(crate) fn now() -> Result<u128> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(since.context("the clock is before 1970")?.as_nanos())
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server(#[expect(dead_code, reason = "ends on drop")] Program);

impl Server {
    pub(crate) fn start(place: &Place) -> Result<Self> {
        Program::start(place, "serve").map(Self)
    }
}

/// A running client. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Client(Program);

impl Client {
    pub(crate) fn start(place: &Place) -> Result<Self> {
        Program::start(place, "client").map(Self)
    }

    /// The median of `count` exchanges in microseconds: `tcp` opens a
    /// connection for each, `hold` one for all, `udp` names the address with
    /// each datagram.
    pub(crate) fn exchanges(&mut self, how: &str, target: SocketAddr, count: u32) -> Result<f64> {
        let nanos = self.0.ask(&format!("{how} {target} {count}"))?;
        Ok(nanos as f64 / 1e3)
    }

    /// Begins to look for the answer of `wanted` at `target`.
    pub(crate) fn watch(
        &mut self,
        target: SocketAddr,
        wanted: Ipv4Addr,
        within: Duration,
    ) -> Result<()> {
        self.0
            .tell(&format!("until {target} {wanted}/{}", within.as_secs()))
    }

    /// When that came, see [`now`].
    pub(crate) fn until_answers(&mut self) -> Result<u128> {
        self.0.hear()
    }
}

#[derive(Debug)]
struct Program {
    verb: &'static str,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Program {
    fn start(place: &Place, verb: &'static str) -> Result<Self> {
        let own = std::env::current_exe().context("find the running program")?;
        let mut command = prioritised(place)?;
        command.arg(own).arg(verb);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start the {verb}"))?;
        let mut program = Self {
            verb,
            stdin: child.stdin.take().context("asked for above")?,
            stdout: BufReader::new(child.stdout.take().context("asked for above")?),
            child,
        };
        match program.line()?.as_str() {
            "ready" => Ok(program),
            other => bail!("the {verb} says {other:?}"),
        }
    }

    fn ask(&mut self, line: &str) -> Result<u128> {
        self.tell(line)?;
        self.hear()
    }

    fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.stdin, "{line}").with_context(|| format!("the {} has ended", self.verb))
    }

    fn hear(&mut self) -> Result<u128> {
        let line = self.line()?;
        line.parse()
            .map_err(|_| anyhow::anyhow!("the {} says: {line}", self.verb))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("read a line")?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command for the measured processor, ahead of whatever else runs on it.
fn prioritised(place: &Place) -> Result<Command> {
    let lab = binaries::find("berth-lab")?;
    let mut command = place.command(&lab, Path::new("nice"));
    command.args(["-n", "-20", "taskset", "-c", PROCESSOR]);
    Ok(command)
}
