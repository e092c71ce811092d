//! The checks: each says who asked whom, what was seen, and how long it took.

mod paths;
mod services;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::row::{Outcome, Row};
use crate::lab::COMPANY_ZONE;
use crate::probe::echo::Protocol;
use crate::{Lab, Pod};

const STARTED: &str = "Pods start";
/// A failure that took longer has waited for an answer.
const SLOW: Duration = Duration::from_secs(1);
/// How many of these a group of checks puts up with.
const TIME_OUTS: u32 = 3;

pub(super) fn all(lab: &Lab) -> Vec<Row> {
    let mut rows = started(lab);
    rows.extend(services::services(lab));
    rows.extend(paths::across(lab));
    rows.extend(lab.nodes().iter().map(|node| paths::probes(lab, node)));
    rows.extend(paths::from_vm(lab));
    rows.extend(paths::by_name(lab));
    rows
}

/// Ends a group of checks that does nothing but wait: each failure of a
/// resolver takes ten seconds, and the fourth tells nothing new.
#[derive(Debug, Default)]
struct Patience {
    time_outs: u32,
}

impl Patience {
    fn check(&mut self, work: impl FnOnce() -> Outcome) -> Outcome {
        if self.time_outs == TIME_OUTS {
            let why = format!("not tried after {TIME_OUTS} failures that took seconds");
            return Outcome::Skipped(why);
        }
        let started = Instant::now();
        let outcome = work();
        if matches!(outcome, Outcome::Failed(_)) && started.elapsed() > SLOW {
            self.time_outs += 1;
        }
        outcome
    }
}

fn started(lab: &Lab) -> Vec<Row> {
    let failed = lab.failed_pods();
    let count = lab.pods().len();
    let mut rows = vec![Row::new(
        STARTED,
        "the stand-in for kubelet",
        "berth-cni",
        Outcome::Good(format!("{count} pods have an address"), None),
    )];
    rows.extend(failed.into_iter().map(|why| {
        Row::new(
            STARTED,
            "the stand-in for kubelet",
            "berth-cni",
            Outcome::Failed(why),
        )
    }));
    rows
}

/// The company name of a pod with a host name and a governing Service.
pub(super) fn company_name(pod: &Pod) -> Option<String> {
    let spec = &pod.plan.spec;
    let (hostname, service) = (spec.hostname.as_ref()?, spec.subdomain.as_ref()?);
    Some(format!(
        "{hostname}.{service}-{}.{COMPANY_ZONE}",
        pod.plan.namespace
    ))
}

fn is<T: PartialEq + std::fmt::Display>(what: &str, seen: T, wanted: T) -> Result<(), String> {
    if seen == wanted {
        Ok(())
    } else {
        Err(format!("{what} is {seen}, and should be {wanted}"))
    }
}

fn is_one_of(answered: &str, pods: &[Arc<Pod>]) -> Result<(), String> {
    if pods.iter().any(|pod| pod.full_name() == answered) {
        Ok(())
    } else {
        Err(format!("{answered} answered, which is none of its pods"))
    }
}

/// The first pod of each node that has an address of its own.
fn one_pod_a_node(lab: &Lab) -> Vec<Arc<Pod>> {
    let pods = lab.pods();
    lab.nodes()
        .iter()
        .filter_map(|node| {
            let own = pods.iter().filter(|pod| pod.node() == node.name());
            let mut own = own.filter(|pod| pod.mac().is_some());
            own.clone()
                .find(|pod| tcp_port(pod).is_some())
                .or_else(|| own.next())
                .cloned()
        })
        .collect()
}

pub(super) fn tcp_port(pod: &Pod) -> Option<u16> {
    let mut ports = pod.ports().iter();
    ports
        .find(|p| p.protocol == Protocol::Tcp)
        .map(|p| p.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_failures_and_successes_cost_no_patience() {
        let mut patience = Patience::default();
        for _ in 0..10 {
            let outcome = patience.check(|| Outcome::Failed("refused".to_owned()));
            assert!(matches!(outcome, Outcome::Failed(_)));
        }
        patience.time_outs = TIME_OUTS;
        let outcome = patience.check(|| Outcome::Good(String::new(), None));
        assert!(matches!(outcome, Outcome::Skipped(_)));
    }
}
