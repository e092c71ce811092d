//! What the folder of YAML says about the pools and about one pod.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use berth_api::Object;
use berth_api::folder::parse;
use berth_ipam::{Claim, Owner, Pod, PodRef, Pools, Workload};
use serde_json::Value;

use crate::env::{Args, Attachment};
use crate::error::{CniError, Code};

/// What one call needs of the folder.
#[derive(Debug)]
pub(crate) struct Objects {
    folder: PathBuf,
    pub(crate) pools: Pools,
    pub(crate) pod: Pod,
    /// The pod's annotations, as far as the folder knows them.
    pub(crate) pod_annotations: BTreeMap<String, String>,
    pub(crate) namespace_annotations: BTreeMap<String, String>,
}

/// Whether `needle` occurs in `text`.
fn holds(text: &str, needle: &str) -> bool {
    !needle.is_empty() && text.contains(needle)
}

fn annotations(object: &Object) -> BTreeMap<String, String> {
    object.value["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

impl Objects {
    /// Reads the folder. Files that hold neither a pool, nor this pod, nor its
    /// namespace are looked through but not parsed.
    pub(crate) fn read(folder: &Path, attachment: &Attachment) -> Result<Self, CniError> {
        let Args {
            pod_namespace,
            pod_name,
            ..
        } = &attachment.args;
        let relevant = |text: &str| {
            holds(text, "IPPool")
                || (holds(text, "Pod") && holds(text, pod_name))
                || (holds(text, "Namespace") && holds(text, pod_namespace))
        };
        let objects = read_where(folder, relevant).map_err(|(path, error)| {
            CniError::new(
                Code::Io,
                format!(
                    "folder {}: {error}; make it a readable folder of Kubernetes YAML",
                    path.display()
                ),
            )
        })?;
        let find = |kind: &str, namespace: &str, name: &str| {
            objects.iter().find(|object| {
                object.key.kind == kind
                    && object.api_version == "v1"
                    && object.key.namespace == namespace
                    && object.key.name == name
            })
        };
        let pod = find("Pod", pod_namespace, pod_name);
        let namespace = find("Namespace", "", pod_namespace);
        Ok(Self {
            folder: folder.to_owned(),
            pools: Pools::compile(&objects),
            pod: identify(attachment, pod),
            pod_annotations: pod.map(annotations).unwrap_or_default(),
            namespace_annotations: namespace.map(annotations).unwrap_or_default(),
        })
    }

    /// Whether the pod that used an address last still exists. Asked only when
    /// a pool has nothing but used addresses left, so it reads the folder anew.
    pub(crate) fn pod_is_live(&self, claim: &Claim) -> bool {
        let last = &claim.pod;
        // By name if the claim is a name's: the pod may have been made anew.
        let by_name = matches!(claim.owner, Owner::PodName { .. });
        let objects = read_where(&self.folder, |text| {
            holds(text, "Pod") && holds(text, if by_name { &last.name } else { &last.uid })
        });
        // A folder that cannot be read now says nothing: keep the address.
        objects.map_or(true, |objects| {
            objects.iter().any(|object| {
                object.key.kind == "Pod"
                    && object.key.namespace == last.namespace
                    && object.key.name == last.name
                    && (by_name || object.value["metadata"]["uid"] == last.uid.as_str())
            })
        })
    }
}

/// The objects of every manifest whose text is `wanted`. Broken documents are
/// passed over: the agent warns of them, and an ADD must not fail for them.
fn read_where(
    folder: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Object>, (PathBuf, std::io::Error)> {
    let mut objects = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut paths = fs::read_dir(&folder)
            .and_then(|entries| {
                entries
                    .map(|entry| entry.map(|e| e.path()))
                    .collect::<Result<Vec<_>, _>>()
            })
            .map_err(|error| (folder.clone(), error))?;
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            if name.starts_with(b".") {
                continue;
            }
            let is_manifest = path
                .extension()
                .is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
            if !is_manifest {
                if path.is_dir() {
                    folders.push(path);
                }
            } else if let Ok(text) = fs::read_to_string(&path)
                && wanted(&text)
            {
                objects.extend(parse(&path, &text).objects);
            }
        }
    }
    Ok(objects)
}

/// Who the pod is. What the runtime says counts; the folder adds what made it.
fn identify(attachment: &Attachment, object: Option<&Object>) -> Pod {
    let Args {
        pod_namespace,
        pod_name,
        pod_uid,
        ..
    } = &attachment.args;
    let metadata = object.map_or(&Value::Null, |object| &object.value["metadata"]);
    let or = |first: &str, second: &str| if first.is_empty() { second } else { first }.to_owned();
    let uid = or(pod_uid, metadata["uid"].as_str().unwrap_or_default());
    // The folder may hold the next pod of this name already.
    let same = metadata["uid"].as_str().is_none_or(|known| known == uid);
    Pod {
        id: PodRef {
            namespace: pod_namespace.clone(),
            name: or(pod_name, &attachment.container_id),
            uid: or(&uid, &attachment.container_id),
        },
        workload: Workload::of_pod(metadata, pod_name).filter(|_| same),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(name: &str, uid: &str) -> Attachment {
        Attachment {
            container_id: "c1".to_owned(),
            ifname: "eth0".to_owned(),
            netns: None,
            args: Args {
                pod_namespace: "shop".to_owned(),
                pod_name: name.to_owned(),
                pod_uid: uid.to_owned(),
                ..Args::default()
            },
        }
    }

    fn write(dir: &Path, name: &str, text: &str) {
        fs::write(dir.join(name), text).unwrap();
    }

    #[test]
    fn finds_the_pods_owner_and_annotations() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            "pods.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: db-2, namespace: shop, uid: u, annotations: {a: b},\n  \
             ownerReferences: [{kind: StatefulSet, name: db, controller: true}]}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {name: web-5d-x, namespace: shop, uid: w, labels: {pod-template-hash: 5d},\n  \
             ownerReferences: [{kind: ReplicaSet, name: web-5d, controller: true}]}\n",
        );
        write(
            dir.path(),
            "ns.json",
            r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop","annotations":{"c":"d"}}}"#,
        );
        write(dir.path(), "broken.yaml", "kind: IPPool\n  metadata: [\n");
        let db = Objects::read(dir.path(), &attachment("db-2", "u")).unwrap();
        assert_eq!(db.pod.ordinal(), Some(2));
        assert_eq!(db.pod_annotations["a"], "b");
        assert_eq!(db.namespace_annotations["c"], "d");
        let web = Objects::read(dir.path(), &attachment("web-5d-x", "")).unwrap();
        let workload = web.pod.workload.unwrap();
        assert_eq!((&*workload.kind, &*workload.name), ("Deployment", "web"));
        assert_eq!(web.pod.id.uid, "w");
    }

    #[test]
    fn a_virt_launcher_pod_is_its_machines() {
        let machine = |metadata: Value| {
            let found = Workload::of_pod(&metadata, "virt-launcher-db-x7k2p").unwrap();
            (found.kind, found.name)
        };
        let db = (berth_ipam::wishes::MACHINE.to_owned(), "db".to_owned());
        let owners = serde_json::json!([{"controller": true, "kind": "VirtualMachineInstance", "name": "db"}]);
        assert_eq!(machine(serde_json::json!({"ownerReferences": owners})), db);
        let labels =
            serde_json::json!({"kubevirt.io": "virt-launcher", "vm.kubevirt.io/name": "db"});
        assert_eq!(machine(serde_json::json!({"labels": labels})), db);
        // The machine's name alone, on a pod that is none of KubeVirt's.
        let labels = serde_json::json!({"vm.kubevirt.io/name": "db"});
        assert_eq!(
            Workload::of_pod(&serde_json::json!({"labels": labels}), "x"),
            None
        );
    }

    #[test]
    fn a_pod_that_the_folder_does_not_know_is_bare() {
        let dir = tempfile::tempdir().unwrap();
        let unknown = Objects::read(dir.path(), &attachment("", "")).unwrap();
        assert_eq!(unknown.pod.workload, None);
        assert_eq!(
            unknown.pod.id.uid, "c1",
            "outside Kubernetes the sandbox is the pod"
        );
        let missing = dir.path().join("none");
        let error = Objects::read(&missing, &attachment("", "")).unwrap_err();
        assert!(
            error.message.contains("none: No such file"),
            "{}",
            error.message
        );
    }
}
