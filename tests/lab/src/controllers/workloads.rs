//! Workloads to pods: what the Deployment, ReplicaSet, StatefulSet and
//! DaemonSet controllers and the scheduler do.

use anyhow::Result;
use berth_api::{Object, Rejected};
use serde_json::{Value, json};

use super::names;
use super::shapes::{Labels, Meta, Owner, PodSpec, Template, Workload, protocol, selects};
use crate::probe::echo::Port;

/// One pod that is to run.
#[derive(Clone, Debug)]
pub struct PodPlan {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What owns it; none for a bare pod.
    pub owner: Option<Owner>,
    /// Labels and annotations.
    pub metadata: Meta,
    /// What the stand-in reads of its spec.
    pub spec: PodSpec,
    /// Its whole spec.
    pub raw_spec: Value,
    /// Its node, counted from 0.
    pub node: usize,
}

/// What a set of workloads comes to.
#[derive(Debug, Default)]
pub struct Plan {
    /// The pods.
    pub pods: Vec<PodPlan>,
    /// The workloads themselves with their UIDs, ReplicaSets of Deployments
    /// included, as an API server would give them out: `(object, key)`.
    pub objects: Vec<Value>,
    /// What was refused.
    pub rejected: Vec<Rejected>,
}

/// Plans the pods of `workloads` on nodes called `nodes`, in turn.
///
/// # Errors
/// If the kernel has no random numbers.
pub fn plan(workloads: &[Object], nodes: &[String]) -> Result<Plan> {
    let mut planner = Planner {
        plan: Plan::default(),
        nodes,
        next_node: 0,
    };
    for object in workloads {
        match planner.object(object) {
            Ok(done) => done?,
            Err(refusal) => planner.plan.rejected.push(*refusal),
        }
    }
    Ok(planner.plan)
}

struct Planner<'a> {
    plan: Plan,
    nodes: &'a [String],
    next_node: usize,
}

/// The outer error refuses the object; the inner one ends everything.
type Done = Result<Result<()>, Box<Rejected>>;

impl Planner<'_> {
    fn object(&mut self, object: &Object) -> Done {
        if object.key.kind == "Pod" {
            return self.bare_pod(object);
        }
        let workload: Workload = object.decode()?;
        let labels = &workload.spec.template.metadata.labels;
        let wanted = &workload.spec.selector.match_labels;
        if !selects(wanted, labels) {
            return Err(Box::new(object.reject(
                "spec.template.metadata.labels",
                format!("{labels:?} does not fit spec.selector {wanted:?}"),
                "give the template every label of the selector",
            )));
        }
        Ok(self.workload(object, &workload))
    }

    fn bare_pod(&mut self, object: &Object) -> Done {
        let pod: Template = object.decode()?;
        let node = match &pod.spec.node_name {
            None => self.take_node(),
            Some(name) => self
                .nodes
                .iter()
                .position(|node| node == name)
                .ok_or_else(|| {
                    Box::new(object.reject(
                        "spec.nodeName",
                        format!("there is no node {name}"),
                        format!("write one of {}, or nothing", self.nodes.join(", ")),
                    ))
                })?,
        };
        self.plan.pods.push(PodPlan {
            namespace: object.key.namespace.clone(),
            name: object.key.name.clone(),
            owner: None,
            metadata: pod.metadata,
            spec: pod.spec,
            raw_spec: object.value["spec"].clone(),
            node,
        });
        Ok(Ok(()))
    }

    fn workload(&mut self, object: &Object, workload: &Workload) -> Result<()> {
        let uid = names::uid()?;
        let mut value = object.value.clone();
        value["metadata"]["uid"] = uid.clone().into();
        value["metadata"]["namespace"] = object.key.namespace.clone().into();
        self.plan.objects.push(value);
        let owner = Owner {
            api_version: object.api_version.clone(),
            kind: object.key.kind.clone(),
            name: object.key.name.clone(),
            uid,
            controller: true,
        };
        let replicas = workload.spec.replicas.unwrap_or(1);
        match object.key.kind.as_str() {
            "StatefulSet" => {
                for number in 0..replicas {
                    let ordinal = workload.spec.ordinals.start + number;
                    let node = self.take_node();
                    self.stateful_pod(object, workload, &owner, ordinal, node);
                }
            }
            "DaemonSet" => {
                for node in 0..self.nodes.len() {
                    self.random_pod(object, workload, &owner, &Labels::new(), node)?;
                }
            }
            "Deployment" => self.deployment(object, workload, &owner, replicas)?,
            _ => {
                for _ in 0..replicas {
                    let node = self.take_node();
                    self.random_pod(object, workload, &owner, &Labels::new(), node)?;
                }
            }
        }
        Ok(())
    }

    /// A Deployment has a ReplicaSet for each template it ever had: here one.
    fn deployment(
        &mut self,
        object: &Object,
        workload: &Workload,
        deployment: &Owner,
        replicas: u32,
    ) -> Result<()> {
        let template = &object.value["spec"]["template"];
        let hash = names::template_hash(template);
        let owner = Owner {
            api_version: deployment.api_version.clone(),
            kind: "ReplicaSet".to_owned(),
            name: format!("{}-{hash}", deployment.name),
            uid: names::uid()?,
            controller: true,
        };
        let more = Labels::from([("pod-template-hash".to_owned(), hash)]);
        let mut labels = workload.spec.selector.match_labels.clone();
        labels.extend(more.clone());
        self.plan.objects.push(json!({
            "apiVersion": owner.api_version,
            "kind": owner.kind,
            "metadata": {
                "name": owner.name,
                "namespace": object.key.namespace,
                "uid": owner.uid,
                "labels": labels,
                "ownerReferences": [deployment],
            },
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": template,
            },
        }));
        for _ in 0..replicas {
            let node = self.take_node();
            self.random_pod(object, workload, &owner, &more, node)?;
        }
        Ok(())
    }

    fn random_pod(
        &mut self,
        object: &Object,
        workload: &Workload,
        owner: &Owner,
        more: &Labels,
        node: usize,
    ) -> Result<()> {
        let name = format!("{}-{}", owner.name, names::suffix()?);
        let mut pod = templated(object, workload, owner, name, node);
        pod.metadata.labels.extend(more.clone());
        self.plan.pods.push(pod);
        Ok(())
    }

    fn stateful_pod(
        &mut self,
        object: &Object,
        workload: &Workload,
        owner: &Owner,
        ordinal: u32,
        node: usize,
    ) {
        let name = format!("{}-{ordinal}", owner.name);
        let mut pod = templated(object, workload, owner, name.clone(), node);
        let labels = [
            ("apps.kubernetes.io/pod-index", ordinal.to_string()),
            ("statefulset.kubernetes.io/pod-name", name.clone()),
        ];
        let labels = labels.map(|(name, value)| (name.to_owned(), value));
        pod.metadata.labels.extend(labels);
        pod.raw_spec["hostname"] = name.clone().into();
        pod.spec.hostname = Some(name);
        if !workload.spec.service_name.is_empty() {
            pod.raw_spec["subdomain"] = workload.spec.service_name.clone().into();
            pod.spec.subdomain = Some(workload.spec.service_name.clone());
        }
        self.plan.pods.push(pod);
    }

    fn take_node(&mut self) -> usize {
        let node = self.next_node % self.nodes.len().max(1);
        self.next_node += 1;
        node
    }
}

fn templated(
    object: &Object,
    workload: &Workload,
    owner: &Owner,
    name: String,
    node: usize,
) -> PodPlan {
    PodPlan {
        namespace: object.key.namespace.clone(),
        name,
        owner: Some(owner.clone()),
        metadata: workload.spec.template.metadata.clone(),
        spec: workload.spec.template.spec.clone(),
        raw_spec: object.value["spec"]["template"]["spec"].clone(),
        node,
    }
}

impl PodPlan {
    /// `namespace/name`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The ports that its containers declare.
    #[must_use]
    pub fn declared_ports(&self) -> Vec<Port> {
        let ports = self.spec.containers.iter().flat_map(|c| &c.ports);
        ports
            .filter_map(|port| {
                Some(Port {
                    protocol: protocol(&port.protocol)?,
                    number: port.container_port,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn planned(text: &str) -> Plan {
        let objects = berth_api::folder::parse(Path::new("x.yaml"), text).objects;
        plan(&objects, &["node1".to_owned(), "node2".to_owned()]).unwrap()
    }

    fn workload(kind: &str, replicas: u32) -> String {
        format!(
            "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  \
             serviceName: webs\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    \
             metadata: {{labels: {{app: web}}}}\n    spec:\n      containers:\n      - name: c\n        \
             ports: [{{name: http, containerPort: 8080}}, {{containerPort: 53, protocol: UDP}}]\n"
        )
    }

    #[test]
    fn a_deployments_pods_hang_on_a_replica_set() {
        let plan = planned(&workload("Deployment", 3));
        assert_eq!(plan.pods.len(), 3);
        let nodes: Vec<_> = plan.pods.iter().map(|pod| pod.node).collect();
        assert_eq!(nodes, [0, 1, 0]);
        let owner = plan.pods[0].owner.as_ref().unwrap();
        assert_eq!(owner.kind, "ReplicaSet");
        let hash = &plan.pods[0].metadata.labels["pod-template-hash"];
        assert_eq!(owner.name, format!("web-{hash}"));
        assert!(plan.pods[0].name.starts_with(&format!("web-{hash}-")));
        let set = &plan.objects[1];
        assert_eq!(set["kind"], "ReplicaSet");
        assert_eq!(set["metadata"]["ownerReferences"][0]["name"], "web");
        let ports: Vec<_> = plan.pods[0]
            .declared_ports()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(ports, ["TCP:8080", "UDP:53"]);
    }

    #[test]
    fn a_stateful_sets_pods_are_numbered_and_have_host_names() {
        let plan = planned(&workload("StatefulSet", 2));
        let names: Vec<_> = plan.pods.iter().map(|pod| pod.name.as_str()).collect();
        assert_eq!(names, ["web-0", "web-1"]);
        let pod = &plan.pods[1];
        assert_eq!(pod.raw_spec["hostname"], "web-1");
        assert_eq!(pod.raw_spec["subdomain"], "webs");
        assert_eq!(pod.metadata.labels["apps.kubernetes.io/pod-index"], "1");
    }

    #[test]
    fn a_daemon_set_has_one_pod_a_node() {
        let plan = planned(&workload("DaemonSet", 7));
        let nodes: Vec<_> = plan.pods.iter().map(|pod| pod.node).collect();
        assert_eq!(nodes, [0, 1]);
    }

    #[test]
    fn a_bad_workload_is_refused_alone() {
        let text = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: a}}\nspec: {{replicas: 1}}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {{name: b}}\nspec: {{nodeName: node9, containers: []}}\n---\n{}---\n{}",
            workload("Deployment", 1).replace("labels: {app: web}}", "labels: {app: x}}"),
            workload("ReplicaSet", 1),
        );
        let plan = planned(&text);
        assert_eq!(plan.pods.len(), 1);
        let told: Vec<_> = plan.rejected.iter().map(ToString::to_string).collect();
        assert!(
            told[0].starts_with("x.yaml:1: Deployment default/a: spec"),
            "{told:?}"
        );
        assert!(
            told[1].contains("spec.nodeName: there is no node node9"),
            "{told:?}"
        );
        assert!(told[2].contains("does not fit spec.selector"), "{told:?}");
    }
}
