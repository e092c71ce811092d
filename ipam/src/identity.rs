//! Who made a pod, from its metadata: a folder's or an API server's.

use serde_json::Value;

use crate::wishes::{MACHINE, Workload};

impl Workload {
    /// The controller that made the pod `pod_name`, as its `metadata` names
    /// it; none for a bare pod. KubeVirt's virt-launcher pods carry their
    /// machine's name. A ReplicaSet made by a Deployment carries the
    /// Deployment's name and the pods' template hash.
    #[must_use]
    pub fn of_pod(metadata: &Value, pod_name: &str) -> Option<Self> {
        let label = |key: &str| metadata["labels"][key].as_str();
        if label("kubevirt.io") == Some("virt-launcher")
            && let Some(name) = label("vm.kubevirt.io/name")
        {
            return Some(Self {
                kind: MACHINE.to_owned(),
                name: name.to_owned(),
                ordinal: None,
            });
        }
        let owner = metadata["ownerReferences"]
            .as_array()?
            .iter()
            .find(|owner| owner["controller"] == true)?;
        let (kind, name) = (owner["kind"].as_str()?, owner["name"].as_str()?);
        match kind {
            "VirtualMachineInstance" => Some(Self {
                kind: MACHINE.to_owned(),
                name: name.to_owned(),
                ordinal: None,
            }),
            "ReplicaSet" => {
                let deployment = label("pod-template-hash")
                    .and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
                Some(Self {
                    kind: if deployment.is_some() {
                        "Deployment"
                    } else {
                        kind
                    }
                    .to_owned(),
                    name: deployment.unwrap_or(name).to_owned(),
                    ordinal: None,
                })
            }
            "StatefulSet" => Some(Self {
                kind: kind.to_owned(),
                name: name.to_owned(),
                ordinal: label("apps.kubernetes.io/pod-index")
                    .or_else(|| pod_name.strip_prefix(name)?.strip_prefix('-'))
                    .and_then(|index| index.parse().ok()),
            }),
            _ => Some(Self {
                kind: kind.to_owned(),
                name: name.to_owned(),
                ordinal: None,
            }),
        }
    }
}
