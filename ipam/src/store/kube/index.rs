//! Every record as the watch has told it, to be found without asking the API
//! server. Pure: it knows records and their versions, no client.
//!
//! What it says is a hint that may be late. The server decides when a record
//! is written, by its name or by its version.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use crate::address::AddressSet;
use crate::allocation::{Owner, Timestamp};
use crate::store::Stored;

/// What is known of one address.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// Its record.
    Record(Arc<Stored>),
    /// There is an object, and this is why it is no record.
    Unreadable(String),
}

#[derive(Debug)]
struct Entry {
    version: u64,
    known: Known,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    entries: BTreeMap<IpAddr, Entry>,
    pods: HashMap<String, BTreeSet<IpAddr>>,
    owners: HashMap<Owner, BTreeSet<IpAddr>>,
    sandboxes: HashMap<String, BTreeSet<IpAddr>>,
    free: BTreeSet<(Timestamp, IpAddr)>,
    /// Addresses that an attempt is about to write.
    in_flight: BTreeSet<IpAddr>,
    /// Addresses whose last write had no answer: it may have been done.
    doubtful: BTreeSet<IpAddr>,
    /// While a list is told: what was there before and has not been told.
    unseen: Option<BTreeSet<IpAddr>>,
    is_synced: bool,
}

/// `resourceVersion` in order. One that is no number counts as the newest, so
/// that it is never thrown away; the server still compares it as text.
pub(super) fn order(version: &str) -> u64 {
    version.parse().unwrap_or(u64::MAX)
}

impl Index {
    pub(super) fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// Takes what the server said of an address, unless something newer is
    /// known: an answer overtakes the watch.
    pub(super) fn put(&mut self, address: IpAddr, version: &str, known: Known) {
        if let Some(unseen) = &mut self.unseen {
            unseen.remove(&address);
        }
        let version = order(version);
        if self
            .entries
            .get(&address)
            .is_some_and(|e| e.version > version)
        {
            return;
        }
        self.drop_entry(address);
        if let Known::Record(stored) = &known {
            let record = &stored.allocation;
            add(&mut self.pods, &record.claim.pod.uid, address);
            add(&mut self.owners, &record.claim.owner, address);
            if let Some(holder) = &record.holder {
                add(&mut self.sandboxes, &holder.container_id, address);
            }
            self.free.extend(record.free_at().map(|at| (at, address)));
        }
        self.doubtful.remove(&address);
        self.entries.insert(address, Entry { version, known });
    }

    /// The object of an address has gone.
    pub(super) fn remove(&mut self, address: IpAddr, version: Option<&str>) {
        let newer = |entry: &Entry| version.is_some_and(|version| entry.version > order(version));
        if !self.entries.get(&address).is_some_and(newer) {
            self.drop_entry(address);
        }
        self.doubtful.remove(&address);
    }

    fn drop_entry(&mut self, address: IpAddr) {
        let Some(Entry {
            known: Known::Record(stored),
            ..
        }) = self.entries.remove(&address)
        else {
            return;
        };
        let record = &stored.allocation;
        take(&mut self.pods, &record.claim.pod.uid, address);
        take(&mut self.owners, &record.claim.owner, address);
        if let Some(holder) = &record.holder {
            take(&mut self.sandboxes, &holder.container_id, address);
        }
        if let Some(at) = record.free_at() {
            self.free.remove(&(at, address));
        }
    }

    /// A list of everything begins.
    pub(super) fn begin_list(&mut self) {
        self.unseen = Some(self.entries.keys().copied().collect());
    }

    /// It ends: what it did not tell was deleted while nobody looked. What was
    /// written meanwhile is told by the watch that follows.
    pub(super) fn end_list(&mut self) {
        for address in self.unseen.take().unwrap_or_default() {
            self.drop_entry(address);
        }
        self.is_synced = true;
    }

    pub(super) fn get(&self, address: IpAddr) -> Option<&Known> {
        self.entries.get(&address).map(|entry| &entry.known)
    }

    fn records<'a>(
        &'a self,
        addresses: Option<&'a BTreeSet<IpAddr>>,
    ) -> impl Iterator<Item = Arc<Stored>> + 'a {
        let known = |address| match self.get(address) {
            Some(Known::Record(stored)) => Some(Arc::clone(stored)),
            _ => None,
        };
        addresses
            .into_iter()
            .flatten()
            .filter_map(move |a| known(*a))
    }

    pub(super) fn of_pod(&self, uid: &str) -> Vec<Arc<Stored>> {
        self.records(self.pods.get(uid)).collect()
    }

    pub(super) fn of_owner(&self, owner: &Owner) -> Vec<Arc<Stored>> {
        self.records(self.owners.get(owner)).collect()
    }

    pub(super) fn of_sandbox(&self, container_id: &str) -> Vec<Arc<Stored>> {
        self.records(self.sandboxes.get(container_id)).collect()
    }

    /// Every record, by address.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Stored>> {
        self.entries
            .values()
            .filter_map(|entry| match &entry.known {
                Known::Record(stored) => Some(stored),
                Known::Unreadable(_) => None,
            })
    }

    /// Records of `set` that are free at `by`, the longest free first; those
    /// that another attempt is about to write come last.
    pub(super) fn lapsed(&self, set: &AddressSet, by: Timestamp) -> Vec<Arc<Stored>> {
        let free = self.free.range(..=(by, IpAddr::from([u8::MAX; 16])));
        let (busy, idle): (Vec<_>, Vec<_>) = free
            .map(|(_, address)| *address)
            .filter(|address| set.contains(*address))
            .partition(|address| self.in_flight.contains(address));
        let known = |address| match self.get(address) {
            Some(Known::Record(stored)) => Some(Arc::clone(stored)),
            _ => None,
        };
        idle.into_iter().chain(busy).filter_map(known).collect()
    }

    /// The lowest address of `set`, from `start` on and then from its
    /// beginning, that has no object and that nobody is about to write.
    pub(super) fn unused(&self, set: &AddressSet, start: IpAddr) -> Option<IpAddr> {
        let first = set.first()?;
        self.gap(set, start)
            .or_else(|| self.gap(set, first).filter(|a| *a < start))
    }

    fn gap(&self, set: &AddressSet, from: IpAddr) -> Option<IpAddr> {
        let mut wanted = set.at_or_after(from)?;
        let mut taken = self
            .entries
            .range(wanted..)
            .map(|(address, _)| *address)
            .peekable();
        loop {
            while taken.next_if(|address| *address < wanted).is_some() {}
            let is_taken = taken.peek() == Some(&wanted);
            if !is_taken && !self.in_flight.contains(&wanted) {
                return Some(wanted);
            }
            wanted = set.after(wanted)?;
        }
    }

    /// Says that an attempt is about to write `address`; `false` if another is.
    pub(super) fn reserve(&mut self, address: IpAddr) -> bool {
        self.in_flight.insert(address)
    }

    pub(super) fn unreserve(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            self.in_flight.remove(address);
        }
    }

    pub(super) fn doubt(&mut self, address: IpAddr) {
        self.doubtful.insert(address);
    }

    pub(super) fn doubtful(&self) -> Vec<IpAddr> {
        self.doubtful.iter().copied().collect()
    }
}

fn add<K: Clone + Eq + Hash>(map: &mut HashMap<K, BTreeSet<IpAddr>>, key: &K, address: IpAddr) {
    if let Some(addresses) = map.get_mut(key) {
        addresses.insert(address);
    } else {
        map.insert(key.clone(), BTreeSet::from([address]));
    }
}

fn take<K: Eq + Hash>(map: &mut HashMap<K, BTreeSet<IpAddr>>, key: &K, address: IpAddr) {
    if let Some(addresses) = map.get_mut(key) {
        addresses.remove(&address);
        if addresses.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::address::{AddressRange, Family};
    use crate::allocation::{Allocation, Claim, PodRef};
    use crate::keep::Keep;
    use crate::store::Revision;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn idle(last: u8, version: &str, released: u64) -> Known {
        let pod = PodRef {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            uid: format!("u{last}"),
        };
        let allocation = Allocation {
            address: ip(last),
            pool: "a".to_owned(),
            claim: Claim {
                owner: Owner::Pod(pod.clone()),
                ifname: "eth0".to_owned(),
                keep: Keep::Pod,
                cool_down: Duration::ZERO,
                pod,
                since: Timestamp(0),
            },
            holder: None,
            released: Some(Timestamp(released)),
        };
        let revision = Revision(version.to_owned());
        Known::Record(Arc::new(Stored {
            allocation,
            revision,
        }))
    }

    fn set() -> AddressSet {
        let range: AddressRange = "10.0.0.1-10.0.0.4".parse().unwrap();
        AddressSet::new(Family::V4, [range])
    }

    #[test]
    fn an_older_word_of_the_watch_does_not_undo_an_answer() {
        let mut index = Index::default();
        index.put(ip(1), "12", idle(1, "12", 5));
        index.put(ip(1), "10", Known::Unreadable("old".to_owned()));
        index.remove(ip(1), Some("11"));
        assert_eq!(index.of_pod("u1").len(), 1);
        index.remove(ip(1), Some("13"));
        assert_eq!(index.of_pod("u1").len(), 0);
        assert!(index.lapsed(&set(), Timestamp(9)).is_empty());
        assert_eq!(index.unused(&set(), ip(1)), Some(ip(1)));
    }

    #[test]
    fn the_search_starts_where_it_is_told_and_goes_round() {
        let mut index = Index::default();
        for last in [2, 3] {
            index.put(ip(last), "1", idle(last, "1", 0));
        }
        assert_eq!(index.unused(&set(), ip(2)), Some(ip(4)));
        assert!(index.reserve(ip(4)) && !index.reserve(ip(4)));
        assert_eq!(index.unused(&set(), ip(2)), Some(ip(1)));
        index.put(ip(1), "1", Known::Unreadable("hand".to_owned()));
        assert_eq!(index.unused(&set(), ip(2)), None);
        index.unreserve(&[ip(4)]);
        assert_eq!(index.unused(&set(), ip(2)), Some(ip(4)));
    }

    #[test]
    fn the_longest_free_comes_first_and_what_is_being_taken_last() {
        let mut index = Index::default();
        for (last, at) in [(1, 30), (2, 10), (3, 20), (9, 1)] {
            index.put(ip(last), "1", idle(last, "1", at));
        }
        index.reserve(ip(2));
        let order = |index: &Index, by| -> Vec<IpAddr> {
            let all = index.lapsed(&set(), Timestamp(by));
            all.iter().map(|s| s.allocation.address).collect()
        };
        assert_eq!(order(&index, 99), [ip(3), ip(1), ip(2)]);
        assert_eq!(order(&index, 10), [ip(2)]);
    }

    #[test]
    fn what_a_new_list_lacks_has_gone() {
        let mut index = Index::default();
        index.put(ip(1), "1", idle(1, "1", 0));
        index.put(ip(2), "1", idle(2, "1", 0));
        index.begin_list();
        assert!(!index.is_synced());
        index.put(ip(2), "1", idle(2, "1", 0));
        index.end_list();
        assert!(index.is_synced());
        assert_eq!(index.all().count(), 1);
    }
}
