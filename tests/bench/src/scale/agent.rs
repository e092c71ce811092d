//! The agent on its node, and what it needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_bench::{Row, Samples, Target};
use berth_kube::ApiServer;
use berth_lab::binaries;
use berth_lab::ground::mounts;
use berth_lab::lab::programs::{Program, Readiness};
use serde_json::Value;

use super::Scene;
use crate::ground::{Ground, Node};

const CHURN: f64 = 100.0;
const CHURN_FOR: Duration = Duration::from_secs(20);
/// Cold starts.
const STARTS: usize = 3;
const MIB: f64 = 1_048_576.0;

#[derive(Debug)]
pub(super) struct Agent {
    program: Program,
    folder: PathBuf,
    kubeconfig: PathBuf,
    /// How long it took until it was ready.
    took: Duration,
    pub(super) node: Node,
}

impl Agent {
    pub(super) fn start(node: Node, ground: &Ground, server: &ApiServer) -> Result<Self> {
        let folder = ground.record.folder.join("node1");
        mounts::mount_bpffs(&folder.join("bpf"))?;
        let kubeconfig = server.kubeconfig().to_owned();
        let (program, took) = launch(&node, &folder, &kubeconfig)?;
        Ok(Self {
            program,
            folder,
            kubeconfig,
            took,
            node,
        })
    }

    /// Ends it, removes its maps, starts it again.
    fn start_cold(&mut self) -> Result<()> {
        self.program.kill()?;
        let cleaned = self
            .node
            .host
            .command(
                &binaries::find("berth-lab")?,
                &binaries::find("berth-agent")?,
            )
            .arg("cleanup")
            .arg("--bpffs")
            .arg(self.folder.join("bpf"))
            .arg("--cgroup-root")
            .arg(&self.node.cgroup)
            .output()
            .context("run berth-agent cleanup")?;
        ensure!(cleaned.status.success(), "{cleaned:?}");
        (self.program, self.took) = launch(&self.node, &self.folder, &self.kubeconfig)?;
        Ok(())
    }

    /// Its process: the only one among the node's own.
    fn pid(&self) -> Result<String> {
        let procs = self.node.cgroup.join("host/cgroup.procs");
        let text = fs::read_to_string(&procs).context("list the node's processes")?;
        let first = text.lines().next().context("the agent has ended")?;
        Ok(first.to_owned())
    }
}

fn launch(node: &Node, folder: &Path, kubeconfig: &Path) -> Result<(Program, Duration)> {
    let agent = binaries::find("berth-agent")?;
    let socket = folder.join("agent.sock");
    let mut command = node.host.command(&binaries::find("berth-lab")?, &agent);
    command
        .args(["run", "--node-name", "node1", "--kubeconfig"])
        .arg(kubeconfig)
        .arg("--cgroup-root")
        .arg(&node.cgroup)
        .arg("--bpffs")
        .arg(folder.join("bpf"))
        .arg("--state-dir")
        .arg(folder.join("agent"))
        .arg("--socket")
        .arg(&socket);
    let began = Instant::now();
    let log = folder.join("agent.log");
    let mut program = Program::start("berth-agent", &mut command, Readiness::Http(socket), &log)?;
    program.wait_ready()?;
    Ok((program, began.elapsed()))
}

/// Memory, CPU and cold start at this size.
pub(super) fn rows(scene: &mut Scene, services: u32) -> Result<Vec<Row>> {
    let at = format!("{services} Services x 4");
    let one = |figure: f64| Samples::from(vec![figure]);
    let mut rows = Vec::new();

    // Peers that work would be measured with it.
    let mut peers: Vec<(String, f64)> = Vec::new();
    for mut peer in std::mem::take(&mut scene.peers) {
        match peer.start_cold(&scene.server) {
            Ok(took) => peers.push((peer.name.clone(), took.as_secs_f64())),
            Err(error) => eprintln!("  cold start of {} is not measured: {error:#}", peer.name),
        }
    }
    let mut times = Vec::new();
    for _ in 0..STARTS {
        scene.agent.start_cold()?;
        times.push(scene.agent.took.as_secs_f64());
    }
    let (name, times) = (
        format!("cold start until ready, {at}"),
        Samples::from(times),
    );
    rows.push(Row::limit(&name, "s", &times, 5.0));
    for (peer, took) in &peers {
        let took = one(*took);
        rows.push(Row::new(
            &name,
            "s",
            &times,
            (peer, &took),
            Target::AtMost(1.0),
        ));
    }

    let status = fs::read_to_string(format!("/proc/{}/status", scene.agent.pid()?))
        .context("read the agent's memory")?;
    let kib = |name: &str| -> Result<f64> {
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .trim()
                    .strip_suffix(" kB")?
                    .parse()
                    .ok()
            })
            .with_context(|| format!("no {name} in /proc/PID/status"))
    };
    let (rss, anonymous, peak) = (kib("VmRSS:")?, kib("RssAnon:")?, kib("VmHWM:")?);
    eprintln!(
        "  agent, {at}: RSS {:.1} MiB, of which {:.1} anonymous; {:.1} at the most",
        rss / 1024.0,
        anonymous / 1024.0,
        peak / 1024.0
    );
    rows.push(Row::limit(
        &format!("agent's memory (VmRSS), {at}"),
        "MiB",
        &one(rss / 1024.0),
        150.0,
    ));
    rows.push(Row::limit(
        &format!("maps, {at}"),
        "MiB",
        &one(map_bytes(&scene.agent.folder.join("bpf"))? / MIB),
        64.0,
    ));

    let before = cpu_seconds(&scene.agent.pid()?)?;
    let began = Instant::now();
    let rate = scene.api.churn(services.max(2), CHURN, CHURN_FOR)?;
    let used = cpu_seconds(&scene.agent.pid()?)? - before;
    let percent = used / began.elapsed().as_secs_f64() * 100.0;
    rows.push(Row::limit(
        &format!("CPU of the agent at {rate:.0} changes/s, {at}"),
        "% of a core",
        &one(percent),
        5.0,
    ));
    Ok(rows)
}

/// User and system time of a process; the kernel counts in ticks of 10 ms.
fn cpu_seconds(pid: &str) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("read the agent's time")?;
    let fields: Vec<_> = stat
        .rsplit_once(") ")
        .context("the name is in parentheses")?
        .1
        .split(' ')
        .collect();
    let ticks = |index: usize| fields[index].parse::<f64>();
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// What the kernel accounts for all maps that are pinned below `folder`.
fn map_bytes(folder: &Path) -> Result<f64> {
    let mut sum = 0.0;
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            sum += map_bytes(&path)?;
            continue;
        }
        let told = Command::new("bpftool")
            .args(["-j", "map", "show", "pinned"])
            .arg(&path)
            .output()
            .context("run bpftool")?;
        // A pinned program or link is no map.
        if let Ok(told) = serde_json::from_slice::<Value>(&told.stdout)
            && let Some(bytes) = told["bytes_memlock"].as_f64()
        {
            eprintln!("  map {}: {:.1} MiB", told["name"], bytes / MIB);
            sum += bytes;
        }
    }
    Ok(sum)
}
