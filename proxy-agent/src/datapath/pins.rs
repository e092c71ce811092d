//! Where maps and links are pinned, and whether pinned maps can be used again.
//!
//! ```text
//! <bpffs>/berth/links/connect4 ...     the hooks; they outlive every version
//! <bpffs>/berth/v1/FRONTENDS4 ...      the maps of ABI version 1
//! <bpffs>/berth/v1-next/ ...           maps being filled, not in charge yet
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use aya::maps::{MapInfo, MapType};
use berth_abi::{
    AffinityKey, AffinityValue, Backend, ClientKey, Counter, DatagramPeers, Frontend, FrontendKey4,
    FrontendKey6, Translation, VERSION, maps,
};

use super::DatapathError;
use crate::diff::Capacity;

/// The folder of one node's pins.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    root: PathBuf,
}

/// What a map has to look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapSpec {
    pub(super) name: &'static str,
    kind: MapType,
    key_size: usize,
    value_size: usize,
    pub(super) max_entries: u32,
    flags: u32,
}

impl Pins {
    pub(super) fn new(bpffs: &Path) -> Self {
        Self {
            root: bpffs.join("berth"),
        }
    }

    pub(super) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// The maps in charge.
    pub(super) fn maps(&self) -> PathBuf {
        self.root.join(format!("v{VERSION}"))
    }

    /// Maps being filled.
    pub(super) fn next_maps(&self) -> PathBuf {
        self.root.join(format!("v{VERSION}-next"))
    }

    /// Makes the folders, for root alone.
    pub(super) fn ensure(&self) -> Result<(), DatapathError> {
        for folder in [self.root.clone(), self.links()] {
            make_folder(&folder)?;
        }
        Ok(())
    }

    /// Whether the pinned maps are all there and of the right layout; if not,
    /// why not.
    pub(super) fn fit(&self, specs: &[MapSpec]) -> Result<(), String> {
        let folder = self.maps();
        specs
            .iter()
            .try_for_each(|spec| spec.check(&folder.join(spec.name)))
    }

    /// Makes an empty folder for new maps.
    pub(super) fn begin_next(&self) -> Result<PathBuf, DatapathError> {
        let next = self.next_maps();
        remove_folder(&next)?;
        make_folder(&next)?;
        Ok(next)
    }

    /// Puts the new maps in the place of the old, and removes the maps of
    /// other versions.
    pub(super) fn finish_next(&self) -> Result<(), DatapathError> {
        let kernel = |path: &Path, source| kernel_error("rename the pins at", path, source);
        remove_folder(&self.maps())?;
        fs::rename(self.next_maps(), self.maps()).map_err(|e| kernel(&self.maps(), e))?;
        let keep = [self.links(), self.maps()];
        let entries = fs::read_dir(&self.root).map_err(|e| kernel(&self.root, e))?;
        for entry in entries.flatten() {
            if !keep.contains(&entry.path()) {
                remove_folder(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Every map, as the programs and this capacity need it.
pub(super) fn specs(capacity: Capacity) -> [MapSpec; 10] {
    let spec = |name, kind, key_size, value_size, max_entries, flags| MapSpec {
        name,
        kind,
        key_size,
        value_size,
        max_entries,
        flags,
    };
    let (frontend, u32_size) = (size_of::<Frontend>(), size_of::<u32>());
    let (mapped, lazy) = (maps::F_MMAPABLE, maps::F_NO_PREALLOC);
    [
        spec(
            maps::FRONTENDS4,
            MapType::Hash,
            size_of::<FrontendKey4>(),
            frontend,
            capacity.frontends,
            lazy,
        ),
        spec(
            maps::FRONTENDS6,
            MapType::Hash,
            size_of::<FrontendKey6>(),
            frontend,
            capacity.frontends,
            lazy,
        ),
        spec(
            maps::SLOTS,
            MapType::Array,
            u32_size,
            u32_size,
            capacity.slots,
            mapped,
        ),
        spec(
            maps::BACKENDS,
            MapType::Array,
            u32_size,
            size_of::<Backend>(),
            capacity.backends,
            mapped,
        ),
        spec(
            maps::AFFINITY,
            MapType::LruHash,
            size_of::<AffinityKey>(),
            size_of::<AffinityValue>(),
            maps::DEFAULT_AFFINITY,
            0,
        ),
        spec(
            maps::CLIENTS,
            MapType::Hash,
            size_of::<ClientKey>(),
            u32_size,
            maps::DEFAULT_CLIENTS,
            lazy,
        ),
        spec(maps::SETTINGS, MapType::Array, u32_size, u32_size, 1, 0),
        spec(
            maps::COUNTERS,
            MapType::PerCpuArray,
            u32_size,
            size_of::<u64>(),
            u32::try_from(Counter::ALL.len()).expect("few counters"),
            0,
        ),
        spec(
            maps::CONNECTED,
            MapType::SkStorage,
            u32_size,
            size_of::<Translation>(),
            0,
            lazy,
        ),
        spec(
            maps::DATAGRAMS,
            MapType::SkStorage,
            u32_size,
            size_of::<DatagramPeers>(),
            0,
            lazy,
        ),
    ]
}

impl MapSpec {
    fn check(&self, path: &Path) -> Result<(), String> {
        if !path.exists() {
            return Err(format!("{} is not pinned", self.name));
        }
        let info = MapInfo::from_pin(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let found = (
            info.map_type().ok(),
            info.key_size() as usize,
            info.value_size() as usize,
            info.max_entries(),
            info.map_flags(),
        );
        let needed = (
            Some(self.kind),
            self.key_size,
            self.value_size,
            self.max_entries,
            self.flags,
        );
        if found == needed {
            Ok(())
        } else {
            Err(format!("{}: is {found:?}, needed is {needed:?}", self.name))
        }
    }
}

/// Removes every pin below `bpffs`: the programs leave their hooks and the
/// maps are freed. Says what was removed.
///
/// # Errors
/// When something cannot be removed.
pub fn cleanup(bpffs: &Path) -> Result<Vec<PathBuf>, DatapathError> {
    let root = bpffs.join("berth");
    let mut removed = Vec::new();
    // The links first: a program without its maps' pins is still whole.
    let links = root.join("links");
    let entries = fs::read_dir(&links).into_iter().flatten().flatten();
    for entry in entries {
        fs::remove_file(entry.path())
            .map_err(|e| kernel_error("remove the pin", &entry.path(), e))?;
        removed.push(entry.path());
    }
    if root.exists() {
        remove_folder(&root)?;
        removed.push(root);
    }
    Ok(removed)
}

pub(super) fn kernel_error(what: &str, path: &Path, source: io::Error) -> DatapathError {
    DatapathError::Kernel {
        what: format!("{what} {}", path.display()),
        error: source,
    }
}

fn make_folder(path: &Path) -> Result<(), DatapathError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| kernel_error("make the folder", path, e))
}

fn remove_folder(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(kernel_error("remove the pins at", path, e))
        }
        _ => Ok(()),
    }
}
