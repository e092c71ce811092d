//! What Berth remembers on disk, so that DEL works with nothing else there:
//! one record per attachment, the releases that could not be done yet, and the
//! shims that Berth made.
//!
//! Files are private, and replaced by renaming a complete one over them. They
//! are not synced: what they describe is in the kernel, and goes with it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use berth_api::mac::MacAddr;
use ipnetwork::IpNetwork;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::delegate::Delegated;
use crate::error::{CniError, Code};

const ATTACHMENTS: &str = "attachments";
const RELEASES: &str = "releases";
const SHIMS: &str = "shims";

/// What undoing one attachment needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) container_id: String,
    pub(crate) ifname: String,
    pub(crate) netns: PathBuf,
    /// Namespace and name of the pod, for people.
    pub(crate) pod: String,
    pub(crate) database: PathBuf,
    /// The network's name, for GC.
    pub(crate) network: String,
    /// From here on empty until the addresses are known.
    #[serde(default)]
    pub(crate) addresses: Vec<IpAddr>,
    #[serde(default)]
    pub(crate) mac: Option<MacAddr>,
    /// Destination and next hop of the pod's routes, for CHECK.
    #[serde(default)]
    pub(crate) routes: Vec<(IpNetwork, Option<IpAddr>)>,
    /// The node's interface, for people.
    #[serde(default)]
    pub(crate) parent: String,
    /// The shim that the host's routes go through.
    #[serde(default)]
    pub(crate) shim: Option<String>,
    /// Those of the addresses that the host has a route to: a node without
    /// IPv6 has none to its pods' IPv6 addresses.
    #[serde(default)]
    pub(crate) host_routes: Vec<IpAddr>,
    /// Another IPAM plugin's part, if that gave the addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delegated: Option<Delegated>,
    /// Whether ADD came to its end.
    #[serde(default)]
    pub(crate) complete: bool,
}

/// An address to be given back as soon as the store can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Release {
    pub(crate) container_id: String,
    pub(crate) ifname: String,
    pub(crate) database: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Shim {
    parent: String,
}

/// The state folder.
#[derive(Clone, Debug)]
pub(crate) struct State {
    dir: PathBuf,
}

/// Held while the shims and the host's routes through them change.
#[derive(Debug)]
pub(crate) struct ShimLock(#[expect(dead_code, reason = "closing the file unlocks it")] File);

fn failed(path: &Path, doing: &str) -> impl FnOnce(io::Error) -> CniError {
    let text = format!("cannot {doing} {}", path.display());
    move |error| {
        CniError::new(
            Code::Io,
            format!("{text}: {error}; make stateDir writable for root"),
        )
    }
}

fn key(container_id: &str, ifname: &str) -> String {
    // Neither of the two can hold a colon.
    format!("{container_id}:{ifname}.json")
}

impl State {
    pub(crate) fn at(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    fn path(&self, folder: &str, name: &str) -> PathBuf {
        self.dir.join(folder).join(name)
    }

    fn write(&self, folder: &str, name: &str, value: &impl Serialize) -> Result<(), CniError> {
        let path = self.path(folder, name);
        let fresh = self.path(folder, &format!(".{name}.new"));
        let dir = self.dir.join(folder);
        let text = serde_json::to_vec_pretty(value).expect("strings and numbers can be written");
        let write = || -> io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(&text)?;
            fs::rename(&fresh, &path)
        };
        write().map_err(failed(&path, "write"))
    }

    /// `None` if it is not there, or is not one of ours any more.
    fn read<T: DeserializeOwned>(&self, folder: &str, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.path(folder, name)).ok()?).ok()
    }

    fn remove(&self, folder: &str, name: &str) -> Result<(), CniError> {
        let path = self.path(folder, name);
        let gone = |path: &Path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        gone(&self.path(folder, &format!(".{name}.new")))
            .and_then(|()| gone(&path))
            .map_err(failed(&path, "remove"))
    }

    fn list<T: DeserializeOwned>(&self, folder: &str) -> Vec<(String, T)> {
        let Ok(entries) = fs::read_dir(self.dir.join(folder)) else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .filter_map(|name| Some((name.clone(), self.read(folder, &name)?)))
            .collect()
    }

    pub(crate) fn record(&self, container_id: &str, ifname: &str) -> Option<Record> {
        self.read(ATTACHMENTS, &key(container_id, ifname))
    }

    pub(crate) fn put_record(&self, record: &Record) -> Result<(), CniError> {
        self.write(
            ATTACHMENTS,
            &key(&record.container_id, &record.ifname),
            record,
        )
    }

    pub(crate) fn remove_record(&self, container_id: &str, ifname: &str) -> Result<(), CniError> {
        self.remove(ATTACHMENTS, &key(container_id, ifname))
    }

    /// Every record that can be read.
    pub(crate) fn records(&self) -> Vec<Record> {
        let all = self.list(ATTACHMENTS);
        all.into_iter().map(|(_, record)| record).collect()
    }

    /// Other attachments that have `address` by now, in a sandbox that is
    /// still there.
    pub(crate) fn others_with(&self, record: &Record, address: IpAddr) -> Vec<Record> {
        let mut others = self.records();
        others.retain(|other| {
            let same = other.container_id == record.container_id && other.ifname == record.ifname;
            !same && other.addresses.contains(&address) && other.netns.exists()
        });
        others
    }

    pub(crate) fn queue(&self, release: &Release) -> Result<(), CniError> {
        self.write(
            RELEASES,
            &key(&release.container_id, &release.ifname),
            release,
        )
    }

    pub(crate) fn queued(&self) -> Vec<Release> {
        let all = self.list(RELEASES);
        all.into_iter().map(|(_, release)| release).collect()
    }

    pub(crate) fn dequeue(&self, release: &Release) -> Result<(), CniError> {
        self.remove(RELEASES, &key(&release.container_id, &release.ifname))
    }

    /// Says that the shim is Berth's to remove.
    pub(crate) fn put_shim(&self, name: &str, parent: &str) -> Result<(), CniError> {
        let parent = parent.to_owned();
        self.write(SHIMS, &format!("{name}.json"), &Shim { parent })
    }

    pub(crate) fn made_shim(&self, name: &str) -> bool {
        self.read::<Shim>(SHIMS, &format!("{name}.json")).is_some()
    }

    pub(crate) fn remove_shim(&self, name: &str) -> Result<(), CniError> {
        self.remove(SHIMS, &format!("{name}.json"))
    }

    /// Waits until no other process works on the shims.
    pub(crate) fn lock_shims(&self) -> Result<ShimLock, CniError> {
        let path = self.dir.join("shims.lock");
        let lock = || {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.dir)?;
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            file.lock()?;
            Ok(ShimLock(file))
        };
        lock().map_err(failed(&path, "lock"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn record(container_id: &str, netns: &Path) -> Record {
        Record {
            container_id: container_id.to_owned(),
            ifname: "eth0".to_owned(),
            netns: netns.to_owned(),
            pod: "shop/web".to_owned(),
            database: "/db".into(),
            network: "n".to_owned(),
            addresses: vec!["10.20.0.57".parse().unwrap()],
            mac: Some("02:be:0a:14:00:39".parse().unwrap()),
            routes: vec![("0.0.0.0/0".parse().unwrap(), "10.20.0.1".parse().ok())],
            parent: "eth0".to_owned(),
            shim: None,
            host_routes: Vec::new(),
            delegated: None,
            complete: true,
        }
    }

    #[test]
    fn a_record_is_private_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(&dir.path().join("cni"));
        assert_eq!(state.record("c1", "eth0"), None);
        state.remove_record("c1", "eth0").unwrap();
        let one = record("c1", dir.path());
        state.put_record(&one).unwrap();
        assert_eq!(state.record("c1", "eth0"), Some(one));
        let path = state.path(ATTACHMENTS, "c1:eth0.json");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::write(&path, "{ half a rec").unwrap();
        assert_eq!(state.record("c1", "eth0"), None);
        fs::write(state.path(ATTACHMENTS, ".c1:eth0.json.new"), "").unwrap();
        state.remove_record("c1", "eth0").unwrap();
        assert_eq!(
            fs::read_dir(dir.path().join("cni/attachments"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn only_living_sandboxes_count_as_others() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path());
        let one = record("c1", dir.path());
        state.put_record(&one).unwrap();
        state.put_record(&record("c2", dir.path())).unwrap();
        state
            .put_record(&record("c3", &dir.path().join("gone")))
            .unwrap();
        let others = state.others_with(&one, one.addresses[0]);
        assert_eq!(
            others.iter().map(|r| &*r.container_id).collect::<Vec<_>>(),
            ["c2"]
        );
    }

    #[test]
    fn a_release_waits_in_its_queue() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path());
        let release = Release {
            container_id: "c1".to_owned(),
            ifname: "eth0".to_owned(),
            database: "/db".into(),
        };
        state.queue(&release).unwrap();
        assert_eq!(state.queued(), std::slice::from_ref(&release));
        state.dequeue(&release).unwrap();
        state.dequeue(&release).unwrap();
        assert_eq!(state.queued(), []);
    }
}
