//! Where the programs of a cluster run: beside us, or in a network namespace.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use berth_netlink::{AddressFlags, Handle, Netns};
use ipnetwork::IpNetwork;
use socket2::{Domain, Socket, Type};

/// Where a program runs, and under which address others reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Network namespace file such as `/run/netns/NAME`; none: our own.
    pub netns: Option<PathBuf>,
    /// The address it listens on.
    pub address: IpAddr,
}

impl Place {
    /// On 127.0.0.1 of the caller's network namespace.
    #[must_use]
    pub fn loopback() -> Self {
        Self {
            netns: None,
            address: Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// In the namespace `netns`, on `address`.
    #[must_use]
    pub fn in_netns(netns: impl Into<PathBuf>, address: IpAddr) -> Self {
        Self {
            netns: Some(netns.into()),
            address,
        }
    }

    /// `program`, to be run here. It lives on when this process dies.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.wrapped(&[], program.as_ref())
    }

    /// `program`, to be run here; the kernel kills it when the thread that
    /// starts it ends: see [`crate::process`].
    pub(crate) fn bound_command(&self, program: impl AsRef<OsStr>) -> Command {
        // Each of the two programs turns into the next one: same process.
        self.wrapped(&["setpriv", "--pdeathsig", "KILL", "--"], program.as_ref())
    }

    fn wrapped(&self, wrapper: &[&str], program: &OsStr) -> Command {
        let mut words = Vec::new();
        if let Some(netns) = &self.netns {
            let mut flag = std::ffi::OsString::from("--net=");
            flag.push(netns);
            words.extend(["nsenter".into(), flag, "--".into()]);
        }
        words.extend(wrapper.iter().map(std::ffi::OsString::from));
        words.push(program.to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// Runs `f` in the namespace.
    pub(crate) fn run<T, F>(&self, f: F) -> Result<T>
    where
        F: FnOnce() -> Result<T> + Send,
        T: Send,
    {
        match &self.netns {
            None => f(),
            Some(path) => Netns::open(path)?.run(f)?,
        }
    }

    /// Sees to it that the address is there: if no interface of the namespace
    /// has it, the one on its subnet gets it.
    ///
    /// # Errors
    /// If no interface is on that subnet. In our own namespace nothing is
    /// changed, so there the address has to be there.
    pub(crate) fn ensure_address(&self) -> Result<()> {
        let Some(path) = &self.netns else {
            return Ok(());
        };
        let handle = Handle::in_netns(&Netns::open(path)?)?;
        let addresses = handle.addresses(None)?;
        if addresses.iter().any(|a| a.network.ip() == self.address) {
            return Ok(());
        }
        let on = addresses
            .iter()
            .find(|a| a.network.contains(self.address))
            .with_context(|| {
                format!(
                    "no interface in {} is on the subnet of {}: give it an address there first",
                    path.display(),
                    self.address
                )
            })?;
        let network = IpNetwork::new(self.address, on.network.prefix())
            .context("the prefix length came from an address of the same family")?;
        handle.add_address(on.index, network, AddressFlags { nodad: true })?;
        Ok(())
    }

    /// Takes a free port of the address, for a program that listens with
    /// SO_REUSEPORT.
    pub(crate) fn reserve_port(&self) -> Result<Port> {
        self.run(|| Port::reserve(self.address))
    }

    /// Opens a connection from here.
    pub(crate) fn connect(&self, to: SocketAddr, within: Duration) -> Result<TcpStream> {
        self.run(|| {
            TcpStream::connect_timeout(&to, within).with_context(|| format!("connect to {to}"))
        })
    }
}

/// A port that nobody else gets while this value lives. It is bound, not
/// listened on: all connections go to the program that shares it.
#[derive(Debug)]
pub(crate) struct Port {
    socket: TcpListener,
}

impl Port {
    fn reserve(address: IpAddr) -> Result<Self> {
        let bind = || {
            let any = SocketAddr::new(address, 0);
            let socket = Socket::new(Domain::for_address(any), Type::STREAM, None)?;
            socket.set_reuse_port(true)?;
            socket.bind(&any.into())?;
            Ok::<_, std::io::Error>(socket)
        };
        let socket = bind().with_context(|| format!("reserve a port of {address}"))?;
        Ok(Self {
            socket: socket.into(),
        })
    }

    /// Address and port.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        let address = self.socket.local_addr().context("ask for our port")?;
        if address.port() == 0 {
            bail!("the kernel gave no port of {}", address.ip());
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_in_a_namespace_dies_with_us_if_it_shall() {
        let place = Place::in_netns("/run/netns/x", Ipv4Addr::new(10, 20, 0, 2).into());
        let words = |command: Command| -> Vec<_> {
            std::iter::once(command.get_program())
                .chain(command.get_args())
                .map(|word| word.to_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(
            words(place.bound_command("etcd")),
            [
                "nsenter",
                "--net=/run/netns/x",
                "--",
                "setpriv",
                "--pdeathsig",
                "KILL",
                "--",
                "etcd"
            ]
        );
        assert_eq!(words(Place::loopback().command("etcd")), ["etcd"]);
    }

    #[test]
    fn a_reserved_port_is_nobody_elses() {
        let port = Place::loopback().reserve_port().unwrap();
        let address = port.address().unwrap();
        // Without SO_REUSEPORT it is taken; nobody listens.
        assert!(TcpListener::bind(address).is_err());
        assert!(TcpStream::connect(address).is_err());
        drop(port);
        TcpListener::bind(address).unwrap();
    }
}
