//! The backend table: one entry for each different backend, counted by the
//! slots that name it.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};

use berth_abi::Backend;
use hashbrown::HashTable;

/// Which backend has which index.
#[derive(Debug)]
pub(super) struct Backends {
    entries: Vec<Entry>,
    /// Indices of written entries, found by what the entry says: at 200,000
    /// backends a map with the backends as keys would be eight times as large.
    index: HashTable<u32>,
    hasher: RandomState,
    free: BTreeSet<u32>,
    capacity: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    backend: Backend,
    slots: u32,
}

impl Backends {
    /// As the kernel holds them, no slot counted yet. Of equal entries the
    /// first one stands; the others are left alone, since a slot may name them.
    pub(super) fn restore(dumped: &[Backend], capacity: u32) -> Self {
        let mut table = Self {
            entries: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            free: BTreeSet::new(),
            capacity,
        };
        for (index, backend) in (0..capacity).zip(dumped) {
            table.entries.push(Entry {
                backend: *backend,
                slots: 0,
            });
            if backend.port_be == 0 {
                table.free.insert(index);
            } else if table.find(backend).is_none() {
                table.enter(index);
            }
        }
        table
    }

    fn find(&self, backend: &Backend) -> Option<u32> {
        let is_it = |index: &u32| self.entries[*index as usize].backend == *backend;
        self.index
            .find(self.hasher.hash_one(backend), is_it)
            .copied()
    }

    /// Lets the written entry at `index` be found.
    fn enter(&mut self, index: u32) {
        let (entries, hasher) = (&self.entries, &self.hasher);
        let hash = |index: &u32| hasher.hash_one(entries[*index as usize].backend);
        self.index.insert_unique(hash(&index), index, hash);
    }

    /// The backend at `index`, if one is written there.
    pub(super) fn get(&self, index: u32) -> Option<&Backend> {
        let entry = self.entries.get(index as usize)?;
        (self.find(&entry.backend) == Some(index)).then_some(&entry.backend)
    }

    /// Counts one more slot for `backend`. Returns its index, and whether its
    /// entry has to be written first; `None` when the table is full.
    pub(super) fn hold(&mut self, backend: &Backend) -> Option<(u32, bool)> {
        if let Some(index) = self.find(backend) {
            self.entries[index as usize].slots += 1;
            return Some((index, false));
        }
        let index = match self.free.pop_first() {
            Some(index) => index,
            None => {
                let next = u32::try_from(self.entries.len())
                    .ok()
                    .filter(|n| *n < self.capacity)?;
                self.entries.push(Entry::default());
                next
            }
        };
        self.entries[index as usize] = Entry {
            backend: *backend,
            slots: 1,
        };
        self.enter(index);
        Some((index, true))
    }

    /// Counts one more slot for the backend at `index`.
    pub(super) fn hold_index(&mut self, index: u32) {
        self.entries[index as usize].slots += 1;
    }

    /// Counts one slot less.
    pub(super) fn let_go(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.slots = entry
            .slots
            .checked_sub(1)
            .expect("a slot lets go of what it held");
    }

    /// Frees the entry at `index` if no slot names it; says whether it did.
    pub(super) fn free_if_unused(&mut self, index: u32) -> bool {
        if self.entries[index as usize].slots > 0 || self.get(index).is_none() {
            return false;
        }
        let hash = self.hasher.hash_one(self.entries[index as usize].backend);
        if let Ok(entry) = self.index.find_entry(hash, |found| *found == index) {
            entry.remove();
        }
        self.entries[index as usize] = Entry::default();
        self.free.insert(index);
        true
    }

    /// The indices that are written but that no slot names.
    pub(super) fn unused(&self) -> Vec<u32> {
        let unused = |index: &&u32| self.entries[**index as usize].slots == 0;
        self.index.iter().filter(unused).copied().collect()
    }

    /// How many entries are written.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
}
