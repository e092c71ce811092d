//! What kubelets would do: nodes and pods' status, written as they write it.
//! For clusters whose pods are only objects.

use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::apiserver::ApiServer;

/// A moment that is nobody's business.
const SOME_TIME: &str = "2026-01-01T00:00:00Z";

impl ApiServer {
    /// Makes a Node that is ready, with room for 110 pods. Nobody renews its
    /// heartbeat: give [`crate::ControllerManager`] a
    /// `--node-monitor-grace-period` if that must not matter.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn add_node(&self, name: &str, address: IpAddr, zone: Option<&str>) -> Result<()> {
        let mut labels = json!({"kubernetes.io/hostname": name});
        if let Some(zone) = zone {
            labels["topology.kubernetes.io/zone"] = zone.into();
        }
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
        });
        self.kubectl_with(["create", "-f", "-"], &node.to_string())?;
        let room = json!({"cpu": "8", "memory": "16Gi", "pods": "110"});
        let status = json!({
            "capacity": room,
            "allocatable": room,
            "addresses": [
                {"type": "InternalIP", "address": address},
                {"type": "Hostname", "address": name},
            ],
            "conditions": [condition("Ready", true, "KubeletReady")],
        });
        self.patch_status(&["node", name], &status)?;
        // Put there by admission, taken away by a controller when the node is
        // ready; without controllers it would stay.
        let untainted = json!({"spec": {"taints": null}}).to_string();
        self.kubectl(["patch", "node", name, "--type=merge", "-p", &untainted])?;
        Ok(())
    }

    /// Gives a pod to a node, as the scheduler does.
    ///
    /// # Errors
    /// If the server refuses: the pod is gone, or has a node.
    pub fn bind_pod(&self, namespace: &str, name: &str, node: &str) -> Result<()> {
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
        self.kubectl_with(["create", "--raw", &path, "-f", "-"], &binding.to_string())?;
        Ok(())
    }

    /// Tells that a pod runs and has these addresses, the primary one first.
    ///
    /// # Errors
    /// If the server refuses, or there is no address.
    pub fn run_pod(
        &self,
        namespace: &str,
        name: &str,
        addresses: &[IpAddr],
        ready: bool,
    ) -> Result<()> {
        let first = addresses
            .first()
            .context("a pod that runs has an address")?;
        let list: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let status = json!({
            "phase": "Running",
            "startTime": SOME_TIME,
            "podIP": first,
            "podIPs": list,
            "conditions": [
                condition("Initialized", true, "Started"),
                condition("ContainersReady", ready, "Probed"),
                condition("Ready", ready, "Probed"),
            ],
        });
        self.patch_status(&["pod", name, "-n", namespace], &status)
    }

    /// Takes a pod away at once, as when its kubelet has ended it.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn end_pod(&self, namespace: &str, name: &str) -> Result<()> {
        self.kubectl([
            "delete",
            "pod",
            name,
            "-n",
            namespace,
            "--grace-period=0",
            "--force",
            "--wait=false",
        ])?;
        Ok(())
    }

    fn patch_status(&self, object: &[&str], status: &Value) -> Result<()> {
        let patch = json!({"status": status}).to_string();
        let verb = ["patch", "--subresource=status", "--type=strategic", "-p"];
        let arguments = verb.into_iter().chain([patch.as_str()]);
        self.kubectl(arguments.chain(object.iter().copied()))?;
        Ok(())
    }
}

fn condition(kind: &str, is: bool, reason: &str) -> Value {
    json!({
        "type": kind,
        "status": if is { "True" } else { "False" },
        "reason": reason,
        "message": "",
        "lastTransitionTime": SOME_TIME,
    })
}
