//! Manifests to objects: what runs, what is passed on, what is not known.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use berth_api::folder::parse;
use berth_api::{Object, ObjectKey};

/// Kinds whose pods the stand-in starts.
const WORKLOADS: &[&str] = &[
    "DaemonSet",
    "Deployment",
    "Pod",
    "ReplicaSet",
    "StatefulSet",
];
/// Kinds that the programs under test read as they are.
const PASSED_ON: &[&str] = &["EndpointSlice", "IPPool", "Namespace"];
/// Kinds that change nothing about a network.
const QUIET: &[&str] = &[
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "CustomResourceDefinition",
    "HorizontalPodAutoscaler",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "PriorityClass",
    "Role",
    "RoleBinding",
    "Secret",
    "ServiceAccount",
    "StorageClass",
];

/// What the manifests hold, sorted by what is done with it.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// Deployments, ReplicaSets, StatefulSets, DaemonSets and Pods.
    pub workloads: Vec<Object>,
    /// Services.
    pub services: Vec<Object>,
    /// IPPools, Namespaces, EndpointSlices.
    pub passed_on: Vec<Object>,
    /// What people should know: refusals, unknown kinds, moved files.
    pub warnings: Vec<String>,
}

/// Reads manifests: `(file, text)` each.
///
/// If a file names an object that an earlier file has too, the objects of the
/// later file that name no namespace go into a namespace called after the
/// file, as `kubectl apply --namespace` would put them: two applications that
/// both have a `frontend` run side by side.
#[must_use]
pub fn read(files: &[(PathBuf, String)]) -> Manifests {
    let mut manifests = Manifests::default();
    let mut seen: BTreeMap<ObjectKey, PathBuf> = BTreeMap::new();
    let mut unknown = BTreeSet::new();
    for (file, text) in files {
        let parsed = parse(file, text);
        let refusals = parsed.rejected.iter().map(ToString::to_string);
        manifests.warnings.extend(refusals);
        let mut objects = parsed.objects;
        if let Some(clash) = objects.iter().find(|object| seen.contains_key(&object.key)) {
            let namespace = namespace_of(file);
            manifests.warnings.push(format!(
                "{}: {} stands in {} already; what names no namespace in {} is put into namespace {namespace}",
                clash.source,
                clash.key,
                seen[&clash.key].display(),
                file.display()
            ));
            objects.iter_mut().for_each(|o| move_to(o, &namespace));
        }
        for object in objects {
            if seen.contains_key(&object.key) {
                let refusal = object.reject(
                    "metadata.name",
                    "the same object stands before this one",
                    "remove one of the two, or rename it",
                );
                manifests.warnings.push(refusal.to_string());
                continue;
            }
            seen.insert(object.key.clone(), file.clone());
            manifests.sort(object, &mut unknown);
        }
    }
    manifests
}

impl Manifests {
    fn sort(&mut self, object: Object, unknown: &mut BTreeSet<String>) {
        let kind = object.key.kind.as_str();
        if WORKLOADS.contains(&kind) {
            self.workloads.push(object);
        } else if kind == "Service" {
            self.services.push(object);
        } else if PASSED_ON.contains(&kind) {
            self.passed_on.push(object);
        } else if !QUIET.contains(&kind) && unknown.insert(kind.to_owned()) {
            let refusal = object.reject(
                "kind",
                format!("the lab does nothing with a {kind}"),
                "it runs Deployments, ReplicaSets, StatefulSets, DaemonSets, Pods and Services",
            );
            self.warnings.push(refusal.to_string());
        }
    }

    /// Every namespace that is named or used.
    #[must_use]
    pub fn namespaces(&self) -> BTreeSet<String> {
        let all = self.workloads.iter().chain(&self.services);
        all.chain(&self.passed_on)
            .map(|object| object.key.namespace.clone())
            .filter(|namespace| !namespace.is_empty())
            .chain(["default".to_owned(), "kube-system".to_owned()])
            .collect()
    }
}

fn move_to(object: &mut Object, namespace: &str) {
    let named = object.value.pointer("/metadata/namespace").is_some();
    if !named && !object.key.namespace.is_empty() {
        object.key.namespace = namespace.to_owned();
        object.value["metadata"]["namespace"] = namespace.into();
    }
}

/// The file's name as a namespace: a DNS label.
fn namespace_of(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let label: String = stem
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    match label.trim_matches('-') {
        "" => "other".to_owned(),
        label => label.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[(&str, &str)]) -> Vec<(PathBuf, String)> {
        texts
            .iter()
            .map(|(file, text)| (PathBuf::from(file), (*text).to_owned()))
            .collect()
    }

    const WEB: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n";

    #[test]
    fn two_files_with_the_same_object_run_side_by_side() {
        let manifests = read(&files(&[("a/shop.yaml", WEB), ("b/Guest_book.yaml", WEB)]));
        let keys: Vec<_> = manifests
            .services
            .iter()
            .map(|o| o.key.to_string())
            .collect();
        assert_eq!(keys, ["Service default/web", "Service guest-book/web"]);
        assert_eq!(
            manifests.services[1].value["metadata"]["namespace"],
            "guest-book"
        );
        assert!(
            manifests.warnings[0].contains("is put into namespace guest-book"),
            "{:?}",
            manifests.warnings
        );
        assert!(manifests.namespaces().contains("guest-book"));
    }

    #[test]
    fn an_unknown_kind_is_told_once_and_a_quiet_one_never() {
        let text = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}\n---\n\
                    apiVersion: batch/v1\nkind: Job\nmetadata: {name: b}\n---\n\
                    apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n";
        let manifests = read(&files(&[("x.yaml", text)]));
        assert_eq!(manifests.warnings.len(), 1, "{:?}", manifests.warnings);
        assert!(manifests.warnings[0].starts_with("x.yaml:1: Job default/a: kind: "));
    }

    #[test]
    fn the_same_object_twice_in_one_file_is_refused() {
        let manifests = read(&files(&[("x.yaml", &format!("{WEB}---\n{WEB}"))]));
        assert_eq!(manifests.services.len(), 1);
        assert!(manifests.warnings[0].contains("remove one of the two"));
    }
}
