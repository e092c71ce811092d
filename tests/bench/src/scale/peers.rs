//! The other ways from a pod to a Service.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_kube::{ApiServer, KubeProxy, KubeProxyOptions, Place, ProxyMode};
use berth_lab::binaries;

use crate::exchange::PORT;
use crate::ground::{Ground, Node, wait};

/// kube-proxy on a node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: String,
    options: KubeProxyOptions,
    // None only while it is started again.
    proxy: Option<KubeProxy>,
    pub(super) node: Node,
}

impl Peer {
    pub(super) fn start(
        node: Node,
        node_name: &str,
        mode: ProxyMode,
        server: &ApiServer,
    ) -> Result<Self> {
        let netns = node.host.netns.clone().context("a node has a namespace")?;
        let options = KubeProxyOptions {
            node_name: node_name.to_owned(),
            place: Place::in_netns(netns, node.address.into()),
            mode,
            arguments: Vec::new(),
        };
        let mode = match mode {
            ProxyMode::Nftables => "nftables",
            ProxyMode::Iptables => "iptables",
        };
        Ok(Self {
            name: format!("kube-proxy, {mode}"),
            proxy: Some(KubeProxy::start(server, &options)?),
            options,
            node,
        })
    }

    /// Stops it while objects are created, so that this does not take hours;
    /// afterwards it goes on.
    pub(super) fn set_paused(&self, paused: bool) -> Result<()> {
        let proxy = self.proxy.as_ref().context("kube-proxy has ended")?;
        if paused {
            proxy.process().pause()
        } else {
            proxy.process().resume()
        }
    }

    /// Ends it, removes its rules, starts it again; says how long it took until
    /// it had written them all.
    pub(super) fn start_cold(&mut self, server: &ApiServer) -> Result<Duration> {
        self.proxy = None;
        // Debian's iptables writes nftables' rules too.
        let place = &self.options.place;
        let flushed = place
            .command("nft")
            .args(["flush", "ruleset"])
            .status()
            .context("run nft")?;
        ensure!(flushed.success(), "nft: {flushed}");
        let began = Instant::now();
        self.proxy = Some(KubeProxy::start(server, &self.options)?);
        Ok(began.elapsed())
    }
}

/// HAProxy on a node: what takes a connection and makes another.
#[derive(Debug)]
pub(super) struct HaProxy {
    child: Child,
    pub(super) node: Node,
}

impl HaProxy {
    pub(super) fn start(node: Node, ground: &Ground) -> Result<Self> {
        let program = Path::new("/usr/sbin/haproxy");
        ensure!(
            program.is_file(),
            "{} is missing: apt-get install haproxy",
            program.display()
        );
        let config = ground.record.folder.join("haproxy.cfg");
        let listen = SocketAddr::from((node.address, 80));
        let endpoint = SocketAddr::from((node.endpoints()[0], PORT));
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  \
             timeout server 60s\nlisten probe\n  bind {listen}\n  server pod {endpoint}\n"
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let mut child = node
            .host
            .command(&binaries::find("berth-lab")?, program)
            .args(["-q", "-db", "-f"])
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()
            .context("start HAProxy")?;
        let mut proxy = |node: &mut Node| {
            wait("HAProxy", Duration::from_secs(20), || {
                ensure!(child.try_wait()?.is_none(), "HAProxy has ended");
                Ok(node.client.exchanges("tcp", listen, 1).is_ok())
            })
        };
        let mut node = node;
        proxy(&mut node)?;
        Ok(Self { child, node })
    }

    pub(super) fn target(&self) -> SocketAddr {
        (self.node.address, 80).into()
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
