//! etcd and kube-apiserver: what a client of Kubernetes calls a cluster.

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::binaries::{self, Program};
use crate::client::Client;
use crate::folder::Folder;
use crate::pki::{Authority, Identity, TokenKey, write_private};
use crate::place::{Place, Port};
use crate::process::Process;
use crate::{etcd, kubeconfig};

/// It has been seen to take a minute beside other work on two cores.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// How the API server is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens.
    pub place: Place,
    /// The Services' addresses: one network, or two of different families.
    pub service_cidrs: String,
    /// Whether a pod needs a service account, which a controller makes. Off,
    /// so that pods can be created without [`crate::ControllerManager`].
    pub service_accounts: bool,
    /// More arguments of kube-apiserver; they win over ours.
    pub arguments: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            place: Place::loopback(),
            service_cidrs: "10.96.0.0/16,fd00:96::/112".to_owned(),
            service_accounts: false,
            arguments: Vec::new(),
        }
    }
}

/// A running API server with its etcd. Dropping it ends both and removes
/// everything that they wrote.
#[derive(Debug)]
pub struct ApiServer {
    // Dropped in this order: the server before its etcd, the folder last.
    process: Process,
    etcd: Process,
    pub(crate) authority: Authority,
    pub(crate) folder: Folder,
    options: Options,
    _port: Port,
    address: SocketAddr,
    admin: Identity,
    client: Client,
    kubeconfig: PathBuf,
    took: Duration,
}

impl ApiServer {
    /// Starts it, after building what has not been built yet, and waits until
    /// `/readyz` says that it is ready.
    ///
    /// # Errors
    /// If etcd or Go are missing, see [`crate::available`]; if a program ends
    /// or is not ready after three minutes, with the end of its log.
    pub fn start(options: Options) -> Result<Self> {
        binaries::ensure(&[Program::KubeApiserver, Program::Kubectl])?;
        let begin = Instant::now();
        let folder = Folder::create()?;
        let etcd = etcd::start(folder.path())?;
        options.place.ensure_address()?;
        let port = options.place.reserve_port()?;
        let address = port.address()?;
        let authority = Authority::new()?;
        write_credentials(folder.path(), &authority, address)?;
        let admin = authority.client("berth-admin", &["system:masters"])?;
        admin.write(folder.path(), "admin")?;
        let kubeconfig = folder.path().join("admin.kubeconfig");
        kubeconfig::write(&kubeconfig, &url(address), &authority, &admin)?;
        let client = Client::new(&options.place, address, &authority, &admin)?;
        let process = start_process(folder.path(), &options, address)?;
        let mut server = Self {
            process,
            etcd,
            authority,
            folder,
            options,
            _port: port,
            address,
            admin,
            client,
            kubeconfig,
            took: Duration::ZERO,
        };
        server.wait_ready()?;
        server.took = begin.elapsed();
        Ok(server)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let Self {
            process, client, ..
        } = self;
        process.wait_ready(READY_WITHIN, || client.get("/readyz").map(drop))
    }

    /// Ends kube-apiserver at once, as a crash would; etcd stays.
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts kube-apiserver again after [`Self::kill`], on the same address
    /// with the same objects, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = start_process(self.folder.path(), &self.options, self.address)?;
        self.wait_ready()
    }

    /// `https://ADDRESS:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.address)
    }

    /// Address and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it runs.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.options.place
    }

    /// The kubeconfig of an administrator (group `system:masters`); it needs no
    /// other file.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The folder with its files and logs. It goes when this value is dropped.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How long it took from nothing to ready, without building.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// The kube-apiserver process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The etcd process.
    #[must_use]
    pub fn etcd(&self) -> &Process {
        &self.etcd
    }

    /// Makes the kubeconfig of `user`, of `group` if there is one. It may do
    /// what RBAC says: by itself nothing.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn kubeconfig_of(&self, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let groups: Vec<_> = group.into_iter().collect();
        let identity = self.authority.client(user, &groups)?;
        let name = user.replace([':', '/'], "-");
        let path = self.folder().join(format!("{name}.kubeconfig"));
        kubeconfig::write(&path, &self.url(), &self.authority, &identity)?;
        Ok(path)
    }

    /// The body of the answer to an administrator's GET of `path`.
    ///
    /// # Errors
    /// If the answer is not 200.
    pub fn get(&self, path: &str) -> Result<String> {
        self.client.get(path)
    }

    /// kubectl as an administrator, with arguments to come, run where it
    /// reaches the server.
    ///
    /// # Errors
    /// If kubectl is not there.
    pub fn kubectl_command(&self) -> Result<Command> {
        let mut command = self.place().command(binaries::find(Program::Kubectl)?);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            // Its caches.
            .env("HOME", self.folder());
        Ok(command)
    }

    /// What kubectl says.
    ///
    /// # Errors
    /// If it fails: [`Refused`] with what it said.
    pub fn kubectl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
        self.kubectl_with(arguments, "")
    }

    /// `kubectl ... -o json`, read.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub fn kubectl_json<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Value> {
        let text = self.kubectl(arguments.into_iter().chain(["-o", "json"]))?;
        serde_json::from_str(&text).context("kubectl's JSON")
    }

    /// `kubectl apply` of manifests, by the server's own merge.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.kubectl_with(["apply", "--server-side", "-f", "-"], yaml)
    }

    /// kubectl with something to read.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub fn kubectl_with<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a str>,
        input: &str,
    ) -> Result<String> {
        let arguments: Vec<_> = arguments.into_iter().collect();
        let mut command = self.kubectl_command()?;
        command.args(&arguments);
        let output = run(&mut command, input).context("run kubectl")?;
        if !output.status.success() {
            return Err(Refused {
                command: format!("kubectl {}", arguments.join(" ")),
                said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            }
            .into());
        }
        String::from_utf8(output.stdout).context("kubectl's words")
    }

    /// The administrator's certificate, for programs that take one.
    pub(crate) fn admin(&self) -> &Identity {
        &self.admin
    }
}

/// kubectl failed: the server refused, or could not be asked.
#[derive(Clone, Debug)]
pub struct Refused {
    /// kubectl and its arguments.
    pub command: String,
    /// What it said.
    pub said: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.command, self.said)
    }
}

impl std::error::Error for Refused {}

fn url(address: SocketAddr) -> String {
    format!("https://{address}")
}

fn run(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("asked for above")?;
    // One that does not read, or has ended, says so itself.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    Ok(child.wait_with_output()?)
}

fn write_credentials(folder: &Path, authority: &Authority, address: SocketAddr) -> Result<()> {
    write_private(&folder.join("ca.crt"), authority.certificate())?;
    let mut names: Vec<_> = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        .map(str::to_owned)
        .into();
    names.push("kubernetes.default.svc.cluster.local".to_owned());
    names.push("localhost".to_owned());
    // The first addresses of the default service networks.
    names.extend(["10.96.0.1", "fd00:96::1", "127.0.0.1"].map(str::to_owned));
    if !address.ip().is_loopback() {
        names.push(address.ip().to_string());
    }
    authority.server(names)?.write(folder, "server")?;
    let tokens = TokenKey::new()?;
    write_private(&folder.join("tokens.key"), &tokens.private)?;
    write_private(&folder.join("tokens.pub"), &tokens.public)
}

fn start_process(folder: &Path, options: &Options, address: SocketAddr) -> Result<Process> {
    let binary = binaries::find(Program::KubeApiserver)?;
    let mut command = options.place.bound_command(binary);
    command
        .current_dir(folder)
        .arg(format!("--etcd-servers={}", etcd::ENDPOINT))
        .arg(format!("--bind-address={}", address.ip()))
        .arg(format!("--advertise-address={}", address.ip()))
        .arg(format!("--secure-port={}", address.port()))
        // Two sockets on one port: ours keeps it reserved, see `Port`.
        .arg("--permit-port-sharing=true")
        .args([
            "--tls-cert-file=server.crt",
            "--tls-private-key-file=server.key",
        ])
        .arg("--client-ca-file=ca.crt")
        .args([
            "--kubelet-client-certificate=admin.crt",
            "--kubelet-client-key=admin.key",
        ])
        .arg("--service-account-key-file=tokens.pub")
        .arg("--service-account-signing-key-file=tokens.key")
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg("--authorization-mode=Node,RBAC")
        .arg(format!(
            "--service-cluster-ip-range={}",
            options.service_cidrs
        ))
        .arg("--allow-privileged=true")
        .arg("--profiling=false");
    if address.ip().is_loopback() {
        // No endpoint may have such an address.
        command.arg("--endpoint-reconciler-type=none");
    }
    if !options.service_accounts {
        command.arg("--disable-admission-plugins=ServiceAccount");
    }
    command.args(&options.arguments);
    let log = folder.join("kube-apiserver.log");
    if !folder.join("etcd").is_dir() {
        bail!("{} has gone", folder.display());
    }
    Process::start("kube-apiserver", command, &log)
}
