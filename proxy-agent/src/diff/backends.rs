//! The backend table: one entry for each different backend, counted by the
//! slots that name it.

use std::collections::{BTreeSet, HashMap};

use berth_abi::Backend;

/// Which backend has which index.
#[derive(Debug)]
pub(super) struct Backends {
    entries: Vec<Entry>,
    index: HashMap<Backend, u32>,
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
            index: HashMap::new(),
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
            } else {
                table.index.entry(*backend).or_insert(index);
            }
        }
        table
    }

    /// The backend at `index`, if one is written there.
    pub(super) fn get(&self, index: u32) -> Option<&Backend> {
        let entry = self.entries.get(index as usize)?;
        (self.index.get(&entry.backend) == Some(&index)).then_some(&entry.backend)
    }

    /// Counts one more slot for `backend`. Returns its index, and whether its
    /// entry has to be written first; `None` when the table is full.
    pub(super) fn hold(&mut self, backend: &Backend) -> Option<(u32, bool)> {
        if let Some(&index) = self.index.get(backend) {
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
        self.index.insert(*backend, index);
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
        let entry = &self.entries[index as usize];
        if entry.slots > 0 || self.index.get(&entry.backend) != Some(&index) {
            return false;
        }
        self.index.remove(&entry.backend);
        self.entries[index as usize] = Entry::default();
        self.free.insert(index);
        true
    }

    /// The indices that are written but that no slot names.
    pub(super) fn unused(&self) -> Vec<u32> {
        self.index
            .values()
            .copied()
            .filter(|index| self.entries[*index as usize].slots == 0)
            .collect()
    }

    /// How many entries are written.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
}
