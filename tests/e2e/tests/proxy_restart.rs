//! The agent is killed 20 times under load: connections opened all the while,
//! and long ones that carry data. None fails and none is reset.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_lab::probe::Pace;
use berth_lab::{Lab, require_binaries, require_root};

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

const KILLS: usize = 20;
/// Long connections.
const LONG: usize = 100;
/// Nothing may fail, however slow the machine is.
const TIMEOUT: Duration = Duration::from_secs(20);

#[test]
fn twenty_kills_fail_no_connection_and_reset_none() -> Result<()> {
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
    let short = begin(Duration::from_millis(1), false, 8)?;
    let long = begin(Duration::from_millis(200), true, LONG)?;
    for round in 0..KILLS {
        let node = lab.node(1 + round % 2);
        node.kill_agent()?;
        // The kernel goes on alone, for new connections too.
        pods[round % pods.len()].tcp(&target)?;
        node.start_agent()?;
    }
    let took = began.elapsed();
    let mut opened = 0;
    let count = short.len();
    for (index, load) in short.into_iter().chain(long).enumerate() {
        let report = load.stop()?;
        assert_eq!(report.failures, [] as [&str; 0]);
        assert_eq!(report.failed, 0);
        assert!(report.succeeded > 1, "{report:?}");
        if index < count {
            opened += report.succeeded;
        }
    }
    println!(
        "{KILLS} kills in {took:?}: {opened} connections opened ({:.0} a second), {LONG} long ones",
        opened as f64 / took.as_secs_f64()
    );
    Ok(())
}
