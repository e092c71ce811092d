//! Where allocation records live.
//!
//! A store keeps one record per address, named by the address, with a
//! revision that changes with every write. Two rules make it safe for any
//! number of writers: [`Records::create`] fails if the name is there, and
//! [`Records::replace`] fails if the revision is not the one that was read.
//! SQLite and the Kubernetes API both have that; nothing else is asked of them.

#[cfg(feature = "kube")]
mod kube;
mod memory;
mod sqlite;

use std::net::IpAddr;
use std::path::PathBuf;

#[cfg(feature = "kube")]
pub use kube::{ApiCalls, KubeStore};
pub use memory::MemoryStore;
pub use sqlite::SqliteStore;

use crate::allocation::{Allocation, Owner, Timestamp};
use crate::pool::Pool;

/// A record's version, opaque: SQLite's counter or an object's
/// `resourceVersion`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision(pub String);

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The record.
    pub allocation: Allocation,
    /// Its version.
    pub revision: Revision,
}

/// How a pool's addresses are used, for messages and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Used by a live sandbox.
    pub held: u64,
    /// Unused, but kept for an owner without an end in sight.
    pub kept: u64,
    /// Unused, and free by itself in some time.
    pub resting: u64,
    /// When the first of those comes free.
    pub next: Option<Timestamp>,
}

impl Census {
    /// Counts the records of one pool.
    pub fn count<'a>(records: impl Iterator<Item = &'a Allocation>, now: Timestamp) -> Self {
        let mut census = Self::default();
        for allocation in records {
            match allocation.free_at() {
                _ if allocation.holder.is_some() => census.held += 1,
                None => census.kept += 1,
                Some(at) if at > now => {
                    census.resting += 1;
                    census.next = Some(census.next.map_or(at, |next| next.min(at)));
                }
                Some(_) => {}
            }
        }
        census
    }
}

/// Why a store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file or folder cannot be used.
    #[error("{path}: {problem}; {mend}")]
    Unusable {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        mend: String,
    },
    /// There is no database yet.
    #[error("{path}: does not exist; the first ADD makes it")]
    Missing {
        /// The database.
        path: PathBuf,
    },
    /// SQLite failed.
    #[error("{path}: {doing}: {source}")]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The API server failed.
    #[error("IPAllocation {name}: cannot {doing}: {problem}; look at the API server")]
    Api {
        /// The object's name.
        name: String,
        /// What was being done.
        doing: &'static str,
        /// What the server says, or why it says nothing.
        problem: String,
        /// Whether the same may succeed a little later.
        is_temporary: bool,
    },
    /// A record cannot be read.
    #[error("record {name}: {source}; it was written by another version or by hand")]
    Record {
        /// The record's name: the address.
        name: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The records, as one attempt at an allocation sees them.
pub trait Records {
    /// The record of an address.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn get(&mut self, address: IpAddr) -> Result<Option<Stored>, StoreError>;

    /// Creates a record. `false`: the address has one already.
    ///
    /// # Errors
    /// If the store cannot be written.
    fn create(&mut self, allocation: &Allocation) -> Result<bool, StoreError>;

    /// Replaces the record that was read as `revision`. `false`: somebody else
    /// wrote it since.
    ///
    /// # Errors
    /// If the store cannot be written.
    fn replace(&mut self, allocation: &Allocation, revision: &Revision)
    -> Result<bool, StoreError>;

    /// Records whose last or present pod has this UID.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn of_pod(&mut self, uid: &str) -> Result<Vec<Stored>, StoreError>;

    /// Records that `owner` claims.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn of_owner(&mut self, owner: &Owner) -> Result<Vec<Stored>, StoreError>;

    /// Records that the sandbox `container_id` holds.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn of_container(&mut self, container_id: &str) -> Result<Vec<Stored>, StoreError>;

    /// Every record with a holder.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn held(&mut self) -> Result<Vec<Stored>, StoreError>;

    /// An address of the pool, above `after`, that never had a record. A hint:
    /// only [`Records::create`] decides.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn unused(&mut self, pool: &Pool, after: Option<IpAddr>) -> Result<Option<IpAddr>, StoreError>;

    /// Records of the pool whose [`Allocation::free_at`] is not after `by`, the
    /// longest free first, `limit` of them after `skip`. Records of addresses
    /// that the pool no longer has may be among them.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn lapsed(
        &mut self,
        pool: &Pool,
        by: Timestamp,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<Stored>, StoreError>;

    /// How the pool's addresses are used. May look at all of them: it is for
    /// messages.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn census(&mut self, pool: &Pool, now: Timestamp) -> Result<Census, StoreError>;
}

/// A place for records.
pub trait Store {
    /// Runs one attempt. A store that has transactions makes it one, undone if
    /// `work` fails; others run it as it is, so `work` must be right even if
    /// other writers come in between any two of its calls.
    ///
    /// # Errors
    /// What `work` returns, and the store's own.
    fn attempt<T, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&mut dyn Records) -> Result<T, E>,
    ) -> Result<T, E>;
}

impl<S: Store> Store for &mut S {
    fn attempt<T, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&mut dyn Records) -> Result<T, E>,
    ) -> Result<T, E> {
        (**self).attempt(work)
    }
}
