//! An agent that a test starts by itself, with arguments of its own.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use berth_api::agent::{Dump, DumpedFrontend};
use berth_lab::ground::enter::Place;
use berth_lab::ground::{cgroup, mounts, netns};
use berth_lab::lab::programs::{Program, Readiness, tail};
use berth_lab::{Lab, Node, binaries};

/// Where an agent runs, and which sockets it serves.
#[derive(Clone, Debug)]
pub struct Home {
    node: String,
    host: Place,
    cgroup: PathBuf,
    folder: PathBuf,
}

impl Home {
    /// A node of the lab, all of it; for an agent in the place of the lab's
    /// own, with the same maps.
    ///
    /// # Errors
    /// If the bpf file system is not there and cannot be mounted.
    pub fn of(node: &Node) -> Result<Self> {
        let folder = node.folder();
        if !folder.join("bpf").exists() {
            mounts::mount_bpffs(&folder.join("bpf"))?;
        }
        Ok(Self {
            node: node.name().to_owned(),
            host: Place {
                cgroup: Some(node.cgroup().join("host")),
                netns: Some(netns::path(node.netns())),
                resolv_conf: None,
            },
            cgroup: node.cgroup().to_owned(),
            folder: folder.to_owned(),
        })
    }

    /// In the network of the same node, for another agent of that node's name
    /// with maps of its own, which serves nobody.
    ///
    /// # Errors
    /// If its cgroup or bpf file system cannot be made.
    pub fn beside(lab: &Lab, node: &Node, name: &str) -> Result<Self> {
        let cgroup = cgroup::of_lab(lab.name())?.join(name);
        cgroup::create(&cgroup.join("host"))?;
        let folder = node.folder().join(name);
        mounts::mount_bpffs(&folder.join("bpf"))?;
        Ok(Self {
            node: node.name().to_owned(),
            host: Place {
                cgroup: Some(cgroup.join("host")),
                netns: Some(netns::path(node.netns())),
                resolv_conf: None,
            },
            cgroup,
            folder,
        })
    }

    /// The folder of all pins.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.folder.join("bpf/berth")
    }
}

/// A running agent. Dropping it kills it (SIGKILL).
#[derive(Debug)]
pub struct Agent {
    program: Program,
    socket: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// Starts it with more `arguments` than those that `home` needs, and
    /// without the ports for health and metrics.
    ///
    /// # Errors
    /// If it does not start.
    pub fn launch(home: &Home, arguments: &[impl AsRef<OsStr>]) -> Result<Self> {
        let (agent, lab) = (binaries::find("berth-agent")?, binaries::find("berth-lab")?);
        let (socket, log) = (
            home.folder.join("agent.sock"),
            home.folder.join("agent.log"),
        );
        let mut command = home.host.command(&lab, &agent);
        command
            .args(["run", "--node-name", &home.node])
            .arg("--cgroup-root")
            .arg(&home.cgroup)
            .arg("--bpffs")
            .arg(home.folder.join("bpf"))
            .arg("--state-dir")
            .arg(home.folder.join("agent"))
            .arg("--socket")
            .arg(&socket)
            .args(["--healthz-bind-address=", "--metrics-bind-address="])
            .args(arguments);
        let readiness = Readiness::Http(socket.clone());
        let what = format!("berth-agent in {}", home.folder.display());
        let program = Program::start(&what, &mut command, readiness, &log)?;
        Ok(Self {
            program,
            socket,
            log,
        })
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// If it ends, or is not ready within 30 s; with the end of its log.
    pub fn start(home: &Home, arguments: &[impl AsRef<OsStr>]) -> Result<Self> {
        let mut agent = Self::launch(home, arguments)?;
        agent.program.wait_ready()?;
        Ok(agent)
    }

    /// Status and body of a GET.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        get(&self.socket, path).with_context(|| format!("ask the agent for {path}"))
    }

    /// What its maps say, by address, protocol and scope, without the canary:
    /// no identifier is in it, so that two agents can be compared.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn realized(&self) -> Result<BTreeMap<String, DumpedFrontend>> {
        self.frontends("realized")
    }

    /// What its maps should say, in the same form.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn desired(&self) -> Result<BTreeMap<String, DumpedFrontend>> {
        self.frontends("desired")
    }

    fn frontends(&self, stage: &str) -> Result<BTreeMap<String, DumpedFrontend>> {
        let (status, body) = self.get(&format!("/v1/dump/{stage}?format=json"))?;
        ensure!(status == 200, "{stage}: {status} {body}");
        let dump: Dump = serde_json::from_str(&body).context("a dump")?;
        let (Dump::Realized(all) | Dump::Desired(all)) = dump else {
            bail!("{stage} is another stage: {body}");
        };
        let is_canary = |frontend: &DumpedFrontend| {
            let owner = frontend.service.as_deref();
            owner.is_some_and(|owner| owner.starts_with("berth/canary:"))
        };
        let name = |f: &DumpedFrontend| format!("{}/{} {}", f.address, f.protocol, f.scope);
        let ours = all.into_iter().filter(|frontend| !is_canary(frontend));
        Ok(ours.map(|frontend| (name(&frontend), frontend)).collect())
    }

    /// All that it has said.
    ///
    /// # Errors
    /// If the log is not there.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("read {}", self.log.display()))
    }

    /// The end of what it has said, for a failure.
    #[must_use]
    pub fn tail(&self) -> String {
        tail(&self.log, 20)
    }

    /// Kills it (SIGKILL): its maps and programs stay in the kernel.
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub fn kill(mut self) -> Result<()> {
        self.program.kill()
    }
}

fn get(socket: &Path, path: &str) -> Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let (head, body) = reply.split_once("\r\n\r\n").context("an HTTP reply")?;
    let status = head.split(' ').nth(1).context("a status")?;
    Ok((status.parse()?, body.to_owned()))
}
