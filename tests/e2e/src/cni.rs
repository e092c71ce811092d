//! A node on a wire, and calling the CNI binary on it as a runtime would.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use berth_ipam::Allocation;
use berth_ipam::store::{SqliteStore, Store, StoreError};
use berth_netlink::{AddressFlags, Handle, Link, MAIN_TABLE, Netns};
use serde_json::{Value, json};

/// The pool of most tests.
pub const POOL: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPPool
metadata: {name: main}
spec: {subnet: 10.20.0.0/24, ranges: [10.20.0.50-10.20.0.199], gateway: 10.20.0.1, default: true, coolDown: 0s}
";

/// One machine on the wire, and one node with its uplink, 10.20.0.11.
#[derive(Debug)]
pub struct Node {
    pub wire: Netns,
    pub on_wire: Handle,
    pub netns: Netns,
    pub handle: Handle,
    pub dir: tempfile::TempDir,
    pub uplink: Link,
}

/// A sandbox's namespace, and how a runtime names it.
#[derive(Debug)]
pub struct Sandbox {
    pub id: String,
    pub netns: Netns,
    pub handle: Handle,
}

/// What the binary answered.
#[derive(Debug)]
pub struct Answer {
    pub ok: bool,
    pub json: Value,
    pub killed: bool,
}

/// One call of a runtime.
#[derive(Clone, Debug)]
pub struct Call {
    pub program: PathBuf,
    pub verb: &'static str,
    pub container: String,
    pub netns: String,
    pub pod: String,
    pub uid: String,
    pub version: &'static str,
    pub annotations: Value,
    pub extra: Value,
    pub kill_at: &'static str,
}

/// A path that names the namespace for as long as it is open here.
#[must_use]
pub fn path_of(netns: &Netns) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd())
}

impl Sandbox {
    pub fn new(id: &str) -> Self {
        let netns = Netns::create().unwrap();
        let handle = Handle::in_netns(&netns).unwrap();
        Self {
            id: id.to_owned(),
            netns,
            handle,
        }
    }

    pub fn path(&self) -> String {
        path_of(&self.netns)
    }

    /// The one address that its interface has of the wire's subnet.
    pub fn address(&self) -> Option<IpAddr> {
        let link = self.handle.link_by_name("eth0").ok()?;
        let all = self.handle.addresses(Some(link.index)).unwrap();
        all.iter().map(|a| a.network.ip()).find(IpAddr::is_ipv4)
    }
}

impl Node {
    pub fn new(objects: &str) -> Self {
        let (wire, netns) = (Netns::create().unwrap(), Netns::create().unwrap());
        let on_wire = Handle::in_netns(&wire).unwrap();
        let handle = Handle::in_netns(&netns).unwrap();
        on_wire.add_bridge("br0").unwrap();
        let bridge = on_wire.link_by_name("br0").unwrap().index;
        let plain = AddressFlags::default();
        for ip in ["10.20.0.1/24", "fd20::1/64"] {
            let nodad = AddressFlags { nodad: true };
            on_wire
                .add_address(bridge, ip.parse().unwrap(), nodad)
                .unwrap();
        }
        on_wire.set_up(bridge).unwrap();
        on_wire.add_veth("port", "eth0", Some(&netns)).unwrap();
        let port = on_wire.link_by_name("port").unwrap().index;
        on_wire.set_master(port, Some(bridge)).unwrap();
        on_wire.set_up(port).unwrap();
        let uplink = handle.link_by_name("eth0").unwrap();
        handle
            .add_address(uplink.index, "10.20.0.11/24".parse().unwrap(), plain)
            .unwrap();
        handle.set_up(uplink.index).unwrap();
        handle
            .set_up(handle.link_by_name("lo").unwrap().index)
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("objects")).unwrap();
        let node = Self {
            wire,
            on_wire,
            netns,
            handle,
            dir,
            uplink,
        };
        node.object("pools.yaml", objects);
        node
    }

    pub fn object(&self, file: &str, text: &str) {
        fs::write(self.dir.path().join("objects").join(file), text).unwrap();
    }

    pub fn database(&self) -> PathBuf {
        self.dir.path().join("ipam.db")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("cni")
    }

    pub fn settings(&self) -> Value {
        json!({
            "folder": self.dir.path().join("objects"),
            "database": self.database(),
            "stateDir": self.state(),
            "nodeName": "node1",
        })
    }

    /// The call for a pod, as containerd makes it.
    pub fn call(&self, verb: &'static str, sandbox: &Sandbox, pod: &str) -> Call {
        Call {
            program: berth_lab::binaries::find("berth-cni").unwrap(),
            verb,
            container: sandbox.id.clone(),
            netns: sandbox.path(),
            pod: pod.to_owned(),
            uid: format!("uid-of-{pod}"),
            version: "1.0.0",
            annotations: json!({}),
            extra: json!({}),
            kill_at: "",
        }
    }

    pub fn run(&self, call: &Call) -> Answer {
        let mut config = json!({ "cniVersion": call.version, "name": "berth", "type": "berth", "mode": "embedded" });
        merge(&mut config, &self.settings());
        config["runtimeConfig"] = json!({ "io.kubernetes.cri.pod-annotations": call.annotations });
        merge(&mut config, &call.extra);
        self.run_config(call, &config)
    }

    pub fn run_config(&self, call: &Call, config: &Value) -> Answer {
        let output = self.exec(call, config.to_string().as_bytes());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Answer {
            ok: output.status.success(),
            json: serde_json::from_str(&text).unwrap_or_default(),
            killed: output.status.code().is_none(),
        }
    }

    /// Runs the program in the node's namespace.
    pub fn exec(&self, call: &Call, stdin: &[u8]) -> Output {
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            call.pod, call.container, call.uid
        );
        self.netns
            .run(|| {
                let mut child = Command::new(&call.program)
                    .env_clear()
                    .env("CNI_COMMAND", call.verb)
                    .env("CNI_CONTAINERID", &call.container)
                    .env("CNI_NETNS", &call.netns)
                    .env("CNI_IFNAME", "eth0")
                    .env("CNI_ARGS", args)
                    .env("CNI_PATH", self.dir.path().join("bin"))
                    .env("BERTH_KILL_AT", call.kill_at)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap();
                // A program that is killed early does not read it all.
                let _ = child.stdin.take().unwrap().write_all(stdin);
                child.wait_with_output().unwrap()
            })
            .unwrap()
    }

    pub fn add(&self, sandbox: &Sandbox, pod: &str) -> Answer {
        self.run(&self.call("ADD", sandbox, pod))
    }

    pub fn del(&self, sandbox: &Sandbox, pod: &str) -> Answer {
        self.run(&self.call("DEL", sandbox, pod))
    }

    /// Every allocation that a sandbox holds.
    pub fn held(&self) -> Vec<Allocation> {
        let Ok(mut store) = SqliteStore::open(&self.database(), false) else {
            return Vec::new();
        };
        let held = store.attempt(|records| records.held().map_err(|e: StoreError| e));
        held.unwrap().into_iter().map(|s| s.allocation).collect()
    }

    /// Everything that an attachment leaves on the node, in words.
    pub fn traces(&self) -> BTreeSet<String> {
        let mut traces = BTreeSet::new();
        for link in self.handle.links().unwrap() {
            if link.name != "lo" && link.name != "eth0" {
                traces.insert(format!("link {}", link.name));
            }
        }
        for route in self.handle.routes(MAIN_TABLE).unwrap() {
            if let Some(dst) = route.dst.filter(|dst| dst.is_ipv4() && dst.prefix() == 32) {
                traces.insert(format!("route {dst}"));
            }
        }
        for neighbour in self.handle.neighbours(None).unwrap() {
            if neighbour.permanent && neighbour.address.is_ipv4() {
                traces.insert(format!("neighbour {}", neighbour.address));
            }
        }
        for folder in ["attachments", "releases", "shims"] {
            for entry in fs::read_dir(self.state().join(folder))
                .into_iter()
                .flatten()
            {
                traces.insert(format!("{folder} {}", entry.unwrap().file_name().display()));
            }
        }
        for allocation in self.held() {
            traces.insert(format!("allocation {}", allocation.address));
        }
        traces
    }
}

pub fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().unwrap() {
        into[key] = value.clone();
    }
}

/// Whether a connection from one namespace to an address in another works, and
/// which address the far side sees.
pub fn connect(from: &Netns, to: &Netns, address: IpAddr) -> std::io::Result<IpAddr> {
    let listener = to
        .run(|| TcpListener::bind(SocketAddr::new(address, 0)))
        .unwrap()?;
    let target = listener.local_addr()?;
    let stream = from
        .run(|| TcpStream::connect_timeout(&target, Duration::from_secs(5)))
        .unwrap()?;
    let (_, peer) = listener.accept()?;
    drop(stream);
    Ok(peer.ip())
}
