//! The CNI plugin beside the reference macvlan with host-local: the same calls
//! to both, in turn, as a runtime makes them. Starting a process is part of
//! every call; how long that alone takes is shown.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_bench::{Row, Samples, Target, in_turn};
use berth_lab::binaries;
use berth_lab::ground::record::Record;
use berth_lab::ground::wire::Wire;
use berth_netlink::{AddressFlags, Handle, Netns};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde_json::{Value, json};

const REFERENCE: &str = "/usr/lib/cni";
const PEER: &str = "macvlan + host-local";
const VERSION: &str = "1.0.0";
/// Rounds of one pod at a time.
const ROUNDS: usize = 41;
/// Of dual stack, where the reference waits for seconds.
const DUAL_ROUNDS: usize = 7;
/// Pods at once, and how often.
const CROWD: usize = 100;
const CROWD_ROUNDS: usize = 5;
/// Calls of VERSION.
const VERSIONS: u32 = 50;

/// Which plugin is called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Berth,
    Reference,
}

const SIDES: [Side; 2] = [Side::Berth, Side::Reference];

/// A node on a wire, with what both plugins keep.
struct Scene {
    dual: bool,
    node: Netns,
    record: Record,
    berth: PathBuf,
    _wire: Wire,
}

/// A pod without its interface.
struct Pod {
    netns: Netns,
    id: String,
}

impl Pod {
    fn new(id: &str) -> Result<Self> {
        Ok(Self {
            netns: Netns::create()?,
            id: id.to_owned(),
        })
    }
}

/// ADD and DEL, one at a time and many at once, and what a start costs.
pub(crate) fn cni() -> Result<Vec<Row>> {
    ensure!(
        Path::new(REFERENCE).join("macvlan").is_file(),
        "{REFERENCE}/macvlan is missing: apt-get install containernetworking-plugins"
    );
    let mut rows = Vec::new();
    let four = Scene::create(false)?;
    eprintln!("  starting a process: {:.2} ms", four.start_alone()?);
    let (add, del) = four.one_by_one(ROUNDS)?;
    rows.push(row("ADD, IPv4, p50", &add, Target::AtMost(0.4)));
    rows.push(row("DEL, IPv4, p50", &del, Target::AtMost(1.0)));
    let crowd = four.crowd()?;
    let name = format!("{CROWD} ADDs at once, p99");
    rows.push(row(&name, &crowd, Target::AtMost(0.25)));
    drop(four);
    let dual = Scene::create(true)?;
    let (add, _) = dual.one_by_one(DUAL_ROUNDS)?;
    rows.push(row("ADD, dual stack, p50", &add, Target::AtMost(0.05)));
    rows.extend(version()?);
    Ok(rows)
}

fn row(name: &str, [ours, theirs]: &[Samples; 2], target: Target) -> Row {
    Row::new(name, "ms", ours, (PEER, theirs), target)
}

impl Scene {
    fn create(dual: bool) -> Result<Self> {
        let record = Record::create()?;
        let prefix = record.prefix();
        let wire = Wire::create(&format!("{prefix}wire"), berth_lab::lab::NETWORK)?;
        let address = Ipv4Addr::new(10, 20, 0, 11);
        let node = wire.attach(&format!("{prefix}node1"), "node1", address)?;
        let six = if dual {
            let handle = Handle::in_netns(&node)?;
            let uplink = handle.link_by_name("eth0")?.index;
            let nodad = AddressFlags { nodad: true };
            handle.add_address(uplink, "fd20::11/64".parse()?, nodad)?;
            "---\n{apiVersion: berth.dev/v1alpha1, kind: IPPool, metadata: {name: six}, \
             spec: {subnet: 'fd20::/64', gateway: 'fd20::1', default: true, coolDown: 0s}}\n"
        } else {
            ""
        };
        let objects = record.folder.join("objects");
        fs::create_dir(&objects).context("make the folder of objects")?;
        let pools = format!(
            "{{apiVersion: berth.dev/v1alpha1, kind: IPPool, metadata: {{name: main}}, \
             spec: {{subnet: 10.20.0.0/24, ranges: [10.20.0.50-10.20.0.151], \
             gateway: 10.20.0.1, default: true, coolDown: 0s}}}}\n{six}"
        );
        fs::write(objects.join("pools.yaml"), pools).context("write the pools")?;
        Ok(Self {
            dual,
            node,
            record,
            berth: binaries::find("berth-cni")?,
            _wire: wire,
        })
    }

    fn config(&self, side: Side) -> Value {
        let folder = &self.record.folder;
        match side {
            Side::Berth => json!({
                "cniVersion": VERSION, "name": "berth", "type": "berth", "mode": "embedded",
                "folder": folder.join("objects"), "database": folder.join("ipam.db"),
                "stateDir": folder.join("cni"), "nodeName": "node1",
            }),
            Side::Reference => {
                let mut ranges = vec![json!([{
                    "subnet": "10.20.0.0/24", "gateway": "10.20.0.1",
                    "rangeStart": "10.20.0.152", "rangeEnd": "10.20.0.253",
                }])];
                let mut routes = vec![json!({"dst": "0.0.0.0/0"})];
                if self.dual {
                    ranges.push(json!([{
                        "subnet": "fd20::/64", "gateway": "fd20::1",
                        "rangeStart": "fd20::1:0", "rangeEnd": "fd20::1:ffff",
                    }]));
                    routes.push(json!({"dst": "::/0"}));
                }
                json!({
                    "cniVersion": VERSION, "name": "peer", "type": "macvlan", "master": "eth0",
                    "ipam": {
                        "type": "host-local", "dataDir": folder.join("host-local"),
                        "ranges": ranges, "routes": routes,
                    },
                })
            }
        }
    }

    /// One call, from the start of the process to its end, in milliseconds.
    /// The caller is in the node's namespace.
    fn call(&self, side: Side, verb: &str, pod: &Pod) -> Result<f64> {
        let program = match side {
            Side::Berth => self.berth.clone(),
            Side::Reference => Path::new(REFERENCE).join("macvlan"),
        };
        let config = self.config(side).to_string();
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &pod.id)
            .env("CNI_NETNS", path_of(&pod.netns))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", arguments(pod))
            .env("CNI_PATH", REFERENCE);
        let began = Instant::now();
        let output = run(&mut command, config.as_bytes())?;
        let took = milliseconds(began.elapsed());
        ensure!(
            output.status.success(),
            "{verb}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        Ok(took)
    }

    /// ADD and DEL of a fresh pod each time.
    fn one_by_one(&self, rounds: usize) -> Result<([Samples; 2], [Samples; 2])> {
        self.node.run(|| {
            let mut dels = [const { Vec::new() }; 2];
            let adds = in_turn(rounds, |side| {
                let pod = Pod::new("one")?;
                let took = self.call(SIDES[side], "ADD", &pod)?;
                dels[side].push(self.call(SIDES[side], "DEL", &pod)?);
                Ok(took)
            })?;
            // The first round warms up.
            Ok((adds, dels.map(|times| times[1..].to_vec().into())))
        })?
    }

    /// The 99th of a hundred ADDs that begin together.
    fn crowd(&self) -> Result<[Samples; 2]> {
        in_turn(CROWD_ROUNDS, |side| {
            let side = SIDES[side];
            let pods = (0..CROWD)
                .map(|index| Pod::new(&format!("crowd-{index}")))
                .collect::<Result<Vec<_>>>()?;
            let start = Barrier::new(CROWD);
            let one = |pod: &Pod| {
                self.node.run(|| {
                    start.wait();
                    self.call(side, "ADD", pod)
                })?
            };
            let times: Vec<Result<f64>> = thread::scope(|scope| {
                let calls: Vec<_> = pods.iter().map(|pod| scope.spawn(|| one(pod))).collect();
                let joined = calls.into_iter().map(|call| call.join());
                joined
                    .map(|call| call.unwrap_or_else(|_| Err(anyhow::anyhow!("a call panicked"))))
                    .collect()
            });
            self.node.run(|| -> Result<()> {
                for pod in &pods {
                    self.call(side, "DEL", pod)?;
                }
                Ok(())
            })??;
            let times = times.into_iter().collect::<Result<Vec<_>>>()?;
            Ok(Samples::from(times).quantile(99))
        })
    }

    /// A program that does nothing, started in the same way.
    fn start_alone(&self) -> Result<f64> {
        let [times] = self.node.run(|| {
            in_turn(ROUNDS, |_| {
                let began = Instant::now();
                run(&mut Command::new("/bin/true"), b"")?;
                Ok(milliseconds(began.elapsed()))
            })
        })??;
        Ok(times.median())
    }
}

/// What VERSION costs, in a process whose only children are those calls.
fn version() -> Result<Vec<Row>> {
    let own = std::env::current_exe().context("find the running program")?;
    let told = Command::new(own).arg("version-cost").output();
    let told = told.context("start the measured calls")?;
    let said = String::from_utf8_lossy(&told.stderr);
    ensure!(told.status.success(), "{said}");
    let [cpu, memory]: [f64; 2] = serde_json::from_slice(&told.stdout).context("two numbers")?;
    let one = |figure| Samples::from(vec![figure]);
    Ok(vec![
        Row::limit("CPU of berth-cni VERSION", "ms", &one(cpu), 2.0),
        Row::limit("memory of berth-cni VERSION", "MiB", &one(memory), 8.0),
    ])
}

/// The program behind [`version`]: prints milliseconds of CPU of one call, and
/// the most memory in MiB. The kernel counts this process's own memory before
/// it becomes the plugin too, so that is an upper bound.
pub(crate) fn version_cost() -> Result<()> {
    let berth = binaries::find("berth-cni")?;
    for _ in 0..VERSIONS {
        let mut command = Command::new(&berth);
        command.env_clear().env("CNI_COMMAND", "VERSION");
        let output = run(&mut command, br#"{"cniVersion":"1.0.0"}"#)?;
        ensure!(output.status.success(), "VERSION failed: {output:?}");
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("ask for the children's time")?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    let cpu = micros as f64 / 1e3 / f64::from(VERSIONS);
    println!("{}", json!([cpu, usage.max_rss() as f64 / 1024.0]));
    Ok(())
}

fn arguments(pod: &Pod) -> String {
    let id = &pod.id;
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={id};\
         K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID=uid-of-{id}"
    )
}

/// A path that names the namespace for as long as it is open here.
fn path_of(netns: &Netns) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd())
}

fn run(command: &mut Command, input: &[u8]) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", command.get_program().display()))?;
    let mut stdin = child.stdin.take().context("asked for above")?;
    // A program may end without reading it all.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().context("wait for a program")
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
