//! The network namespaces that sockets can be in.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use berth_netlink::Netns;

/// Opens every network namespace that a process is in or that has a name,
/// each once. What goes away meanwhile is left out.
pub(crate) fn all() -> Vec<Netns> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for (inode, path) in of_processes().chain(named()) {
        if seen.contains(&inode) {
            continue;
        }
        // What is opened need not be what was listed: the process may have
        // ended, or moved. So what counts is the namespace that was opened.
        if let Ok(netns) = Netns::open(&path)
            && seen.insert(netns.id())
        {
            found.push(netns);
        }
    }
    found
}

/// Every process's namespace. Reading the link opens nothing.
fn of_processes() -> impl Iterator<Item = (u64, PathBuf)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.parse::<u32>().ok()?;
        let path = entry.path().join("ns/net");
        let link = fs::read_link(&path).ok()?;
        Some((inode_of(link.to_str()?)?, path))
    })
}

/// Those that `ip netns` and container runtimes keep under a name.
fn named() -> impl Iterator<Item = (u64, PathBuf)> {
    let entries = fs::read_dir(Path::new("/run/netns"))
        .into_iter()
        .flatten()
        .flatten();
    entries.filter_map(|entry| {
        let path = entry.path();
        let inode = fs::metadata(&path).ok()?.ino();
        Some((inode, path))
    })
}

/// `net:[4026531840]` (proc(5)).
fn inode_of(link: &str) -> Option<u64> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_inode_in_a_link() {
        assert_eq!(inode_of("net:[4026531840]"), Some(4_026_531_840));
        assert_eq!(inode_of("mnt:[4026531840]"), None);
        assert_eq!(inode_of("net:[]"), None);
    }

    #[test]
    fn finds_the_own_namespace_once() {
        let own = Netns::current().unwrap().id();
        let found = all();
        assert_eq!(found.iter().filter(|netns| netns.id() == own).count(), 1);
    }
}
