//! The checks: each says who asked whom, what was seen, and how long it took.

mod paths;
mod services;

use std::sync::Arc;

use super::row::{Outcome, Row};
use crate::lab::COMPANY_ZONE;
use crate::probe::echo::Protocol;
use crate::{Lab, Pod};

const STARTED: &str = "Pods start";

pub(super) fn all(lab: &Lab) -> Vec<Row> {
    let mut rows = started(lab);
    rows.extend(services::services(lab));
    rows.extend(paths::across(lab));
    rows.extend(lab.nodes().iter().map(|node| paths::probes(lab, node)));
    rows.extend(paths::from_vm(lab));
    let services = lab.services().iter();
    rows.extend(services.filter_map(|service| paths::by_name(lab, service)));
    rows.extend(paths::by_pod_name(lab));
    rows
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
