//! A folder of YAML, watched, to changes of the model.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::Context as _;
use berth_api::folder::{Delta, Folder};
use berth_api::{Object, ObjectKey, Rejected};
use notify::{RecursiveMode, Watcher as _};
use tracing::{info, warn};

use super::{decode, pods};
use crate::model::{Change, NamespacedName, SliceKey, SourceKind};

/// inotify can lose events; a look at the folder this often makes up for it.
const BACKSTOP: Duration = Duration::from_secs(10);
/// After the first event, more of the same edit are waited for this long.
const SETTLE: Duration = Duration::from_millis(5);

/// Turns what a folder holds into changes.
#[derive(Debug)]
pub struct FolderReflector {
    folder: Folder,
    node: String,
    /// The slice that each object last was, since the label that says which
    /// Service it is of can change and is gone when the object is.
    slices: HashMap<ObjectKey, SliceKey>,
    /// The pods of this node.
    pods: HashSet<NamespacedName>,
}

impl FolderReflector {
    /// For the folder at `root`, on the node called `node`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, node: &str) -> Self {
        Self {
            folder: Folder::new(root),
            node: node.to_owned(),
            slices: HashMap::new(),
            pods: HashSet::new(),
        }
    }

    /// Reads what changed since the last call.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn refresh(&mut self) -> io::Result<(Vec<Change>, Vec<Rejected>)> {
        let Delta {
            applied,
            removed,
            mut rejected,
        } = self.folder.refresh()?;
        let mut changes = Vec::with_capacity(applied.len() + removed.len());
        // Removed first: a Service that was renamed in one edit hands its
        // address over.
        for key in removed {
            self.remove(&key, &mut changes);
        }
        for object in applied {
            if let Err(refusal) = self.apply(&object, &mut changes) {
                rejected.push(refusal);
            }
        }
        Ok((changes, rejected))
    }

    fn apply(&mut self, object: &Object, changes: &mut Vec<Change>) -> Result<(), Rejected> {
        match object.key.kind.as_str() {
            "Service" => changes.push(match decode::service(object)? {
                Some(service) => Change::Service(Box::new(service)),
                None => Change::ServiceGone(name_of(&object.key)),
            }),
            "EndpointSlice" => {
                let slice = decode::endpoint_slice(object)?;
                let key = slice.as_ref().map(|slice| slice.key.clone());
                let before = match &key {
                    Some(key) => self.slices.insert(object.key.clone(), key.clone()),
                    None => self.slices.remove(&object.key),
                };
                if let Some(before) = before.filter(|before| Some(before) != key.as_ref()) {
                    changes.push(Change::SliceGone(before));
                }
                changes.extend(slice.map(|slice| Change::Slice(Box::new(slice))));
            }
            "Pod" => match pods::pod(object, &self.node)? {
                Some(pod) => {
                    self.pods.insert(pod.name.clone());
                    changes.push(Change::Pod(Box::new(pod)));
                }
                None => self.remove(&object.key, changes),
            },
            "Namespace" => changes.push(Change::NamespaceOptOut {
                namespace: object.key.name.as_str().into(),
                opted_out: pods::namespace_opts_out(object)?,
            }),
            "Node" if object.key.name == self.node => {
                changes.extend(decode::node(object)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn remove(&mut self, key: &ObjectKey, changes: &mut Vec<Change>) {
        match key.kind.as_str() {
            "Service" => changes.push(Change::ServiceGone(name_of(key))),
            "EndpointSlice" => changes.extend(self.slices.remove(key).map(Change::SliceGone)),
            "Pod" => changes.extend(self.pods.take(&name_of(key)).map(Change::PodGone)),
            "Namespace" => changes.push(Change::NamespaceOptOut {
                namespace: key.name.as_str().into(),
                opted_out: false,
            }),
            "Node" if key.name == self.node => changes.push(Change::NodeLeaving(true)),
            _ => {}
        }
    }
}

fn name_of(key: &ObjectKey) -> NamespacedName {
    NamespacedName::new(&key.namespace, &key.name)
}

/// Watches the folder on the calling thread and hands every change to `tell`,
/// until `tell` says that nobody listens any more.
///
/// # Errors
/// When the folder cannot be watched or listed at the start.
pub fn watch(
    root: PathBuf,
    node: &str,
    mut tell: impl FnMut(Vec<Change>) -> bool,
) -> anyhow::Result<()> {
    let (wake, woken) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event| drop(wake.send(event)))
        .context("cannot start watching files; raise fs.inotify.max_user_instances")?;
    watcher
        .watch(&root, RecursiveMode::Recursive)
        .with_context(|| {
            format!(
                "cannot watch the folder {}; create it, or name another with --folder",
                root.display()
            )
        })?;
    let mut reflector = FolderReflector::new(&root, node);
    let mut is_first = true;
    loop {
        match reflector.refresh() {
            Ok((mut changes, rejected)) => {
                for refusal in rejected {
                    warn!("{refusal}");
                    changes.push(decode::refused(&refusal));
                }
                if is_first {
                    info!(folder = %root.display(), changes = changes.len(), "read the folder");
                    let told = [
                        SourceKind::Services,
                        SourceKind::EndpointSlices,
                        SourceKind::Pods,
                        SourceKind::Namespaces,
                    ];
                    changes.extend(told.map(Change::Synced));
                    is_first = false;
                }
                if !changes.is_empty() && !tell(changes) {
                    return Ok(());
                }
            }
            Err(error) if is_first => {
                return Err(error).with_context(|| format!("cannot read {}", root.display()));
            }
            // What is served stays; the folder may come back.
            Err(error) => warn!(folder = %root.display(), %error, "cannot read the folder"),
        }
        match woken.recv_timeout(BACKSTOP) {
            Ok(_) => while woken.recv_timeout(SETTLE).is_ok() {},
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}
