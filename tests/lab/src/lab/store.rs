//! The folder of objects that stands in for the API server: one object a
//! file, replaced by rename.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use berth_api::Source;
use serde_json::Value;

/// A folder of objects.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    serial: AtomicU64,
    sources: Mutex<BTreeMap<PathBuf, Source>>,
}

impl Store {
    /// Makes the folder.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self {
            folder,
            serial: AtomicU64::new(0),
            sources: Mutex::default(),
        })
    }

    /// Its path.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates or replaces an object. Readers see the old one or the new one.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn apply(&self, object: &Value) -> Result<PathBuf> {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
        let path = self.path(
            text("/kind").context("an object needs a kind")?,
            text("/metadata/namespace").unwrap_or_default(),
            text("/metadata/name").context("an object needs a name")?,
        );
        // The dot hides it from readers until it is whole.
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let new = self.folder.join(format!(".new-{serial}"));
        fs::write(&new, serde_json::to_vec_pretty(object)?)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// As [`Store::apply`], for an object of a manifest: messages about it then
    /// name the manifest.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn apply_from(&self, object: &Value, source: &Source) -> Result<()> {
        let path = self.apply(object)?;
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.insert(path, source.clone());
        Ok(())
    }

    /// Removes an object; says whether it was there.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn remove(&self, kind: &str, namespace: &str, name: &str) -> Result<bool> {
        let path = self.path(kind, namespace, name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
        }
    }

    /// `text` with this folder's files replaced by the manifests they are from.
    #[must_use]
    pub fn with_sources(&self, text: &str) -> String {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = text.to_owned();
        for (path, source) in sources.iter() {
            let (path, source) = (path.display().to_string(), source.to_string());
            text = text.replace(&format!("{path}:1"), &source);
            text = text.replace(&path, &source);
        }
        text
    }

    fn path(&self, kind: &str, namespace: &str, name: &str) -> PathBuf {
        let parts = [kind, namespace, name].map(str::to_lowercase);
        let parts: Vec<_> = parts.iter().filter(|part| !part.is_empty()).collect();
        let name: Vec<_> = parts.into_iter().map(String::as_str).collect();
        self.folder.join(name.join("_") + ".json")
    }
}

#[cfg(test)]
mod tests {
    use berth_api::folder::Folder;
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_come_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path().join("objects")).unwrap();
        let mut folder = Folder::new(store.folder());
        let service = |port: u16| {
            json!({"apiVersion": "v1", "kind": "Service", "spec": {"port": port},
                "metadata": {"namespace": "a-b", "name": "c"}})
        };
        for port in [80, 81] {
            store.apply(&service(port)).unwrap();
            let delta = folder.refresh().unwrap();
            assert_eq!(delta.applied[0].value, service(port));
            assert_eq!(delta.rejected, []);
        }
        assert!(store.remove("Service", "a-b", "c").unwrap());
        assert!(!store.remove("Service", "a-b", "c").unwrap());
        assert_eq!(folder.refresh().unwrap().removed.len(), 1);
    }

    #[test]
    fn messages_name_the_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path().to_owned()).unwrap();
        let pool = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "IPPool",
            "metadata": {"name": "payments"}});
        let source = Source {
            file: "shop.yaml".into(),
            line: 7,
        };
        store.apply_from(&pool, &source).unwrap();
        let path = dir.path().join("ippool_payments.json");
        let told = store.with_sources(&format!("{}:1: IPPool payments: x", path.display()));
        assert_eq!(told, "shop.yaml:7: IPPool payments: x");
    }
}
