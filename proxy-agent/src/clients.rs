//! This node's network namespaces, with the cookies that the programs know
//! them by and their addresses: who a source range is about.
//!
//! Namespaces are only looked at while some Service has source ranges or some pod has opted
//! out; a namespace that appears is known within [`EVERY`]. So is a cgroup that
//! the operator has named to be left alone, and that comes and goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use berth_netlink::Netns;
use tracing::debug;

use crate::datapath::netns_cookie;
use crate::model::Change;
use crate::node;
use crate::sockets::namespaces;

/// How often the list of namespaces is looked at.
const EVERY: Duration = Duration::from_millis(500);
/// How often the addresses in a known namespace are read again.
const REFRESH: Duration = Duration::from_secs(10);

/// Whether anybody wants to know. Set by the controller, read by [`watch`].
#[derive(Clone, Debug, Default)]
pub struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// Says so.
    pub fn set(&self, wanted: bool) {
        self.0.store(wanted, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Debug)]
struct Known {
    cookie: u64,
    addresses: Vec<IpAddr>,
    read: Instant,
}

/// Looks for ever, on the calling thread, and hands every change to `tell` until
/// that says that nobody listens. `opt_out` are the folders of the cgroups that
/// want no service proxy.
pub fn watch(wanted: &Wanted, opt_out: &[PathBuf], tell: impl Fn(Change) -> bool) {
    let mut known = HashMap::new();
    let mut last = BTreeMap::new();
    let mut last_cgroups = BTreeSet::new();
    loop {
        let inode = |path: &PathBuf| fs::metadata(path).ok().map(|meta| meta.ino());
        let cgroups: BTreeSet<_> = opt_out.iter().filter_map(inode).collect();
        if cgroups != last_cgroups {
            last_cgroups.clone_from(&cgroups);
            if !tell(Change::OptedOutCgroups(cgroups)) {
                return;
            }
        }
        if wanted.get() {
            refresh(&mut known);
            let now: BTreeMap<u64, Vec<IpAddr>> = known
                .values()
                .map(|known: &Known| (known.cookie, known.addresses.clone()))
                .collect();
            if now != last {
                last.clone_from(&now);
                if !tell(Change::Clients(now)) {
                    return;
                }
            }
        }
        thread::sleep(EVERY);
    }
}

/// Brings `known`, by inode, up to date. Reads inside of a namespace only when
/// it is new or was last read a while ago.
fn refresh(known: &mut HashMap<u64, Known>) {
    let found = namespaces::all();
    known.retain(|inode, _| found.iter().any(|netns| netns.id() == *inode));
    for netns in found {
        let is_fresh =
            |known: &Known| known.read.elapsed() < REFRESH && !known.addresses.is_empty();
        if known.get(&netns.id()).is_some_and(is_fresh) {
            continue;
        }
        match read(&netns) {
            Ok(read) => drop(known.insert(netns.id(), read)),
            // It has gone meanwhile, or it will be tried again.
            Err(error) => debug!(netns = netns.id(), error, "cannot look into a namespace"),
        }
    }
}

fn read(netns: &Netns) -> Result<Known, String> {
    let inside = netns.run(|| {
        let cookie = netns_cookie().map_err(|e| e.to_string())?;
        let addresses = node::addresses().map_err(|e| e.to_string())?;
        Ok(Known {
            cookie,
            addresses: addresses.into_iter().collect(),
            read: Instant::now(),
        })
    });
    inside.map_err(|error| error.to_string())?
}
