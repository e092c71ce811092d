//! The Pod object as kubelet keeps it up to date.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::controllers::PodPlan;

/// What is known of a pod's life.
#[derive(Clone, Copy, Debug, Default)]
pub struct Status {
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// Whether its process answers.
    pub ready: bool,
}

/// The Pod object of `plan` on `node`.
#[must_use]
pub fn pod(plan: &PodPlan, uid: &str, node: &str, node_ip: IpAddr, status: Status) -> Value {
    let mut spec = plan.raw_spec.clone();
    spec["nodeName"] = node.into();
    let owners: Vec<_> = plan.owner.iter().map(|owner| json!(owner)).collect();
    let phase = if status.ready { "Running" } else { "Pending" };
    let is = |yes: bool| if yes { "True" } else { "False" };
    let mut told = json!({
        "phase": phase,
        "hostIP": node_ip,
        "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": is(status.ready)},
        ],
    });
    if let Some(address) = status.address {
        told["podIP"] = json!(address);
        told["podIPs"] = json!([{"ip": address}]);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": plan.name,
            "namespace": plan.namespace,
            "uid": uid,
            "labels": plan.metadata.labels,
            "annotations": plan.metadata.annotations,
            "ownerReferences": owners,
        },
        "spec": spec,
        "status": told,
    })
}
