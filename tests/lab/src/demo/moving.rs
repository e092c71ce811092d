//! A StatefulSet's pod dies and comes back on another node, while a legacy VM
//! keeps asking for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::checks::{company_name, tcp_port};
use super::row::{Outcome, Row, readable};
use crate::probe::Pace;
use crate::{Lab, Pod};

const GROUP: &str = "A StatefulSet's pod is deleted and comes back on another node";
/// How soon after the pod is ready the VM must reach it.
const WITHIN: Duration = Duration::from_secs(1);
/// The VM tries again and again, and gives up soon: a packet to a pod that is
/// away is lost, and TCP itself would send the next only after a second.
const PACE: Pace = Pace {
    every: Duration::from_millis(5),
    timeout: Duration::from_millis(50),
    hold: false,
};

pub(super) fn check(lab: &Lab) -> Vec<Row> {
    let pods = lab.pods();
    let stateful = pods.iter().find(|pod| {
        let owner = pod.plan.owner.as_ref();
        owner.is_some_and(|owner| owner.kind == "StatefulSet") && pod.mac().is_some()
    });
    let row = |from: &str, to: String, outcome| Row::new(GROUP, from, to, outcome);
    let Some((name, port)) = stateful.and_then(|pod| Some((pod.full_name(), tcp_port(pod)?)))
    else {
        let why = "the manifests have no StatefulSet with a TCP port".to_owned();
        return vec![row("-", "-".to_owned(), Outcome::Skipped(why))];
    };
    if lab.nodes().len() < 2 {
        let why = "there is only one node".to_owned();
        return vec![row("-", name, Outcome::Skipped(why))];
    }
    drop(pods);
    match moved(lab, &name, port) {
        Ok(rows) => rows
            .into_iter()
            .map(|(from, to, outcome)| row(from, to, outcome))
            .collect(),
        Err(why) => vec![row("the lab", name, Outcome::Failed(why))],
    }
}

type Told = (&'static str, String, Outcome);

fn moved(lab: &Lab, name: &str, port: u16) -> Result<Vec<Told>, String> {
    let before = Before::of(&lab.pod(name).map_err(told)?);
    let target = SocketAddr::new(before.address, port);
    let vm = lab.vm(1);
    // The load begins with a success: the silence is measured from there.
    vm.tcp(&target.to_string()).map_err(|f| f.to_string())?;
    let load = vm
        .load(&target.to_string(), PACE)
        .map_err(|failure| failure.to_string())?;
    let node = lab
        .nodes()
        .iter()
        .position(|node| node.name() == before.node);
    let other = 1 + (node.unwrap_or(0) + 1) % lab.nodes().len();
    let after = lab.move_pod(name, other).map_err(told)?;
    let ready_us = now_us();
    // Reached again, or not: both end the load.
    let reached = vm.tcp(&target.to_string());
    let reached_us = now_us();
    let report = load.stop().map_err(|failure| failure.to_string())?;

    let mut rows = vec![(
        "the lab",
        format!("{name}: {} -> {}", before.node, after.node()),
        same(&before, &after),
    )];
    // The load may have got through before the lab knew that the pod is ready.
    let first_us = if report.longest_gap_end_us > 0 {
        report.longest_gap_end_us.min(reached_us)
    } else {
        reached_us
    };
    let wait = Duration::from_micros(first_us.saturating_sub(ready_us));
    let outcome = match reached {
        Err(failure) => Outcome::Failed(failure.to_string()),
        Ok(exchange) if exchange.echo.pod != name => {
            Outcome::Failed(format!("{} answered", exchange.echo.pod))
        }
        Ok(_) if wait > WITHIN => Outcome::Failed(format!(
            "reached only {} after the pod was ready",
            readable(wait)
        )),
        Ok(_) => Outcome::Good(
            format!(
                "reached {} after the pod was ready; silent for {} in all, {} of {} tries failed",
                readable(wait),
                readable(report.longest_gap()),
                report.failed,
                report.failed + report.succeeded
            ),
            Some(wait),
        ),
    };
    rows.push(("vm1", target.to_string(), outcome));
    if let Some(company) = company_name(&after) {
        lab.settle().map_err(told)?;
        rows.push((
            "vm1",
            format!("{company}:{port}"),
            named(lab, &after, &company, port),
        ));
    }
    Ok(rows)
}

struct Before {
    address: std::net::IpAddr,
    mac: Option<String>,
    node: String,
}

impl Before {
    fn of(pod: &Arc<Pod>) -> Self {
        Self {
            address: pod.address(),
            mac: pod.mac().map(str::to_owned),
            node: pod.node().to_owned(),
        }
    }
}

fn same(before: &Before, after: &Pod) -> Outcome {
    if after.address() != before.address {
        return Outcome::Failed(format!(
            "its address was {} and is {}",
            before.address,
            after.address()
        ));
    }
    if after.mac() != before.mac.as_deref() {
        return Outcome::Failed(format!(
            "its MAC was {:?} and is {:?}",
            before.mac,
            after.mac()
        ));
    }
    let mac = after.mac().unwrap_or_default();
    Outcome::Good(format!("still {} with MAC {mac}", after.address()), None)
}

fn named(lab: &Lab, after: &Pod, company: &str, port: u16) -> Outcome {
    match lab.vm(1).tcp(&format!("{company}:{port}")) {
        Ok(exchange) if exchange.echo.pod == after.full_name() => Outcome::Good(
            format!("{} answered on {}", exchange.echo.pod, exchange.echo.node),
            Some(Duration::from_micros(exchange.total_us)),
        ),
        Ok(exchange) => Outcome::Failed(format!("{} answered", exchange.echo.pod)),
        Err(failure) => Outcome::Failed(failure.to_string()),
    }
}

fn told(error: anyhow::Error) -> String {
    format!("{error:#}")
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}
