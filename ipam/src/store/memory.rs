//! Records in memory, without transactions: what a test needs to see that the
//! allocator is right on a store that has only create-if-absent and
//! compare-and-swap, as the Kubernetes API has.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Census, Records, Revision, Store, StoreError, Stored};
use crate::allocation::{Allocation, Owner, Timestamp};
use crate::pool::Pool;

/// A store for tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    records: BTreeMap<IpAddr, (Allocation, u64)>,
    writes: u64,
}

impl MemoryStore {
    /// Every record, by address.
    pub fn records(&self) -> impl Iterator<Item = &Allocation> {
        self.records.values().map(|(allocation, _)| allocation)
    }

    fn find(&self, matches: impl Fn(&Allocation) -> bool) -> Vec<Stored> {
        self.records
            .values()
            .filter(|(allocation, _)| matches(allocation))
            .map(|(allocation, revision)| Stored {
                allocation: allocation.clone(),
                revision: Revision(revision.to_string()),
            })
            .collect()
    }
}

impl Records for MemoryStore {
    fn get(&mut self, address: IpAddr) -> Result<Option<Stored>, StoreError> {
        Ok(self.find(|a| a.address == address).pop())
    }

    fn create(&mut self, allocation: &Allocation) -> Result<bool, StoreError> {
        if self.records.contains_key(&allocation.address) {
            return Ok(false);
        }
        self.writes += 1;
        self.records
            .insert(allocation.address, (allocation.clone(), self.writes));
        Ok(true)
    }

    fn replace(
        &mut self,
        allocation: &Allocation,
        revision: &Revision,
    ) -> Result<bool, StoreError> {
        match self.records.get_mut(&allocation.address) {
            Some((old, at)) if at.to_string() == revision.0 => {
                self.writes += 1;
                (*old, *at) = (allocation.clone(), self.writes);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn of_pod(&mut self, uid: &str) -> Result<Vec<Stored>, StoreError> {
        Ok(self.find(|a| a.claim.pod.uid == uid))
    }

    fn of_owner(&mut self, owner: &Owner) -> Result<Vec<Stored>, StoreError> {
        Ok(self.find(|a| a.claim.owner == *owner))
    }

    fn of_container(&mut self, container_id: &str) -> Result<Vec<Stored>, StoreError> {
        Ok(self.find(|a| {
            a.holder
                .as_ref()
                .is_some_and(|h| h.container_id == container_id)
        }))
    }

    fn held(&mut self) -> Result<Vec<Stored>, StoreError> {
        Ok(self.find(|a| a.holder.is_some()))
    }

    fn unused(&mut self, pool: &Pool, after: Option<IpAddr>) -> Result<Option<IpAddr>, StoreError> {
        let mut at = match after {
            Some(address) => pool.addresses.after(address),
            None => pool.addresses.first(),
        };
        while let Some(address) = at {
            if !self.records.contains_key(&address) {
                return Ok(at);
            }
            at = pool.addresses.after(address);
        }
        Ok(None)
    }

    fn lapsed(
        &mut self,
        pool: &Pool,
        by: Timestamp,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<Stored>, StoreError> {
        let mut found =
            self.find(|a| a.pool == pool.name && a.free_at().is_some_and(|at| at <= by));
        found.sort_by_key(|stored| stored.allocation.free_at());
        Ok(found.into_iter().skip(skip).take(limit).collect())
    }

    fn census(&mut self, pool: &Pool, now: Timestamp) -> Result<Census, StoreError> {
        let records = self.records.values().map(|(allocation, _)| allocation);
        Ok(Census::count(records.filter(|a| a.pool == pool.name), now))
    }
}

impl Store for MemoryStore {
    fn attempt<T, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&mut dyn Records) -> Result<T, E>,
    ) -> Result<T, E> {
        work(self)
    }
}
