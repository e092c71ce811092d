//! Numbers for Service ports: stable for as long as the port has a frontend,
//! and across restarts.

use std::collections::{BTreeSet, HashMap};

use crate::model::PortId;

/// Which Service port has which number.
#[derive(Debug, Default)]
pub(super) struct Ports {
    numbers: HashMap<PortId, u32>,
    entries: Vec<Entry>,
    free: BTreeSet<u32>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    /// Not known after a restart, until a frontend that has it is planned.
    owner: Option<PortId>,
    frontends: u32,
}

impl Ports {
    /// The number of `owner`. It keeps the one it has; else it takes over
    /// `found`, the number that its frontend has in the kernel, if nobody else
    /// has claimed that; else it gets a new one.
    pub(super) fn number(&mut self, owner: &PortId, found: Option<u32>) -> u32 {
        if let Some(number) = self.numbers.get(owner) {
            return *number;
        }
        let unclaimed = |number: &u32| {
            self.entries
                .get(*number as usize)
                .is_some_and(|e| e.owner.is_none() && e.frontends > 0)
        };
        let number = found.filter(unclaimed).unwrap_or_else(|| self.fresh());
        self.entries[number as usize].owner = Some(owner.clone());
        self.numbers.insert(owner.clone(), number);
        number
    }

    /// The number that `owner` has, if it has one.
    pub(super) fn find(&self, owner: &PortId) -> Option<u32> {
        self.numbers.get(owner).copied()
    }

    /// Counts one frontend more.
    pub(super) fn hold(&mut self, number: u32) {
        let index = number as usize;
        if index >= self.entries.len() {
            let known = u32::try_from(self.entries.len()).expect("numbers have 32 bits");
            self.free.extend(known..number);
            self.entries.resize_with(index + 1, Entry::default);
        }
        self.free.remove(&number);
        self.entries[index].frontends += 1;
    }

    /// Counts one frontend less.
    pub(super) fn let_go(&mut self, number: u32) {
        let entry = &mut self.entries[number as usize];
        entry.frontends = entry
            .frontends
            .checked_sub(1)
            .expect("a frontend lets go of what it held");
        self.free_if_unused(number);
    }

    /// Frees a number that no frontend has.
    pub(super) fn free_if_unused(&mut self, number: u32) {
        let entry = &mut self.entries[number as usize];
        if entry.frontends == 0 {
            if let Some(owner) = entry.owner.take() {
                self.numbers.remove(&owner);
            }
            self.free.insert(number);
        }
    }

    /// Who has `number`.
    pub(super) fn owner(&self, number: u32) -> Option<&PortId> {
        self.entries.get(number as usize)?.owner.as_ref()
    }

    fn fresh(&mut self) -> u32 {
        if let Some(number) = self.free.pop_first() {
            return number;
        }
        self.entries.push(Entry::default());
        u32::try_from(self.entries.len() - 1).expect("numbers have 32 bits")
    }
}
