//! The agent is upgraded under load to maps that the old ones do not fit:
//! other sizes, and another ABI version. Connections opened all the while and
//! long ones that carry data: none fails and none is reset.
//!
//! The maps of another version are simulated by their folder's name, which is
//! all that an agent looks at: it finds none of its own version in charge,
//! fills new ones, moves the hooks over and removes the others. With other
//! sizes it does the same.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_e2e::agent::{Agent, Home};
use berth_lab::probe::Pace;
use berth_lab::{Lab, Node, require_binaries, require_root};

const SHOP: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: registry.example/c, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

/// Frontends that the maps hold, one upgrade after the other.
const SIZES: [u32; 3] = [5_000, 3_000, 7_000];
/// Clients that open connections, one after the other each.
const SHORT: usize = 16;
/// Long connections.
const LONG: usize = 100;
/// Nothing may fail, however slow the machine is.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The folders of maps, by name.
fn versions(home: &Home) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(home.pins())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "links" {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Starts the new agent of a node and says how many frontends its maps hold.
fn start(lab: &Lab, node: &Node, size: u32) -> Result<Agent> {
    let objects = lab.store().folder().display().to_string();
    let size = size.to_string();
    let arguments = ["--folder", &objects, "--max-frontends", &size];
    let agent = Agent::start(&Home::of(node)?, &arguments)?;
    let (_, held) = agent.get("/v1/dump/realized")?;
    let head = held.lines().next().context("a first line")?;
    assert!(head.contains(&format!(" of {size} a family")), "{head}");
    assert_eq!(agent.realized()?, agent.desired()?);
    Ok(agent)
}

#[test]
fn upgrades_to_other_maps_fail_no_connection_and_reset_none() -> Result<()> {
    require_root!();
    require_binaries!("berth-lab", "berth-cni", "berth-agent");
    let lab = Lab::builder()
        .vms(0)
        .without_dns()
        .yaml("web.yaml", SHOP)
        .start()?;
    let web = lab.services().iter().find(|service| service.name == "web");
    let address = web.and_then(|service| service.cluster_ip());
    let address = address.context("the Service has a ClusterIP")?;
    let target = format!("{address}:80");
    let pods = lab.pods();
    let begin = |every, hold, count: usize| {
        let pace = Pace {
            every,
            timeout: TIMEOUT,
            hold,
        };
        let clients = pods.iter().cycle().take(count);
        clients
            .map(|pod| pod.load(&target, pace))
            .collect::<Result<Vec<_>, _>>()
    };
    let began = Instant::now();
    let short = begin(Duration::from_millis(1), false, SHORT)?;
    let long = begin(Duration::from_millis(200), true, LONG)?;

    let mut upgrades = 0;
    for node in lab.nodes() {
        let home = Home::of(node)?;
        let ours = versions(&home)?;
        assert_eq!(ours.len(), 1, "{ours:?}");
        node.kill_agent()?;
        for size in SIZES {
            let agent = start(&lab, node, size)?;
            assert_eq!(versions(&home)?, ours, "the old maps are gone");
            agent.kill()?;
            // The kernel goes on alone, for new connections too.
            node.tcp(&target)?;
            upgrades += 1;
        }
        // The maps in charge, and some that an unfinished upgrade left, are of
        // versions that this agent does not know.
        for foreign in ["v999", "v998-next"] {
            let pins = home.pins();
            for version in &ours {
                fs::rename(pins.join(version), pins.join(foreign))?;
            }
            node.tcp(&target)?;
            let agent = start(&lab, node, SIZES[0])?;
            assert_eq!(versions(&home)?, ours, "{foreign} is gone");
            agent.kill()?;
            upgrades += 1;
        }
        node.start_agent()?;
        upgrades += 1;
    }

    let took = began.elapsed();
    let mut opened = 0;
    for (index, load) in short.into_iter().chain(long).enumerate() {
        let report = load.stop()?;
        assert_eq!(report.failures, [] as [&str; 0]);
        assert_eq!(report.failed, 0);
        assert!(report.succeeded > 1, "{report:?}");
        if index < SHORT {
            opened += report.succeeded;
        }
    }
    println!(
        "{upgrades} upgrades in {took:?}: {opened} connections opened ({:.0} a second), {LONG} \
         long ones",
        opened as f64 / took.as_secs_f64()
    );
    Ok(())
}
