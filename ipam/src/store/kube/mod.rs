//! Records as `IPAllocation` objects of the Kubernetes API, one an address.
//!
//! ```text
//! watch --> index --reads-- attempt --create, replace--> API server
//!             ^-------------- answers ------------------------'
//! ```
//! Every read is answered from an index that one watch keeps, so an attempt
//! costs what it writes: one create, or one replace. The index may be late:
//! the server refuses a create of a name that is there and a replace of a
//! version that is not the last, and then the object is read anew.
//!
//! The [`Store`] trait waits for its answers, so an attempt must run on a
//! thread that may block, never on one of the runtime's own.

mod index;
mod object;

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{DynamicObject, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::runtime::Handle;

use super::{Census, Records, Revision, Store, StoreError, Stored};
use crate::address::AddressSet;
use crate::allocation::{Allocation, Owner, Timestamp};
use crate::pool::Pool;
use index::{Index, Known};

/// How long the API server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Allocations in the Kubernetes API. Clones share the watch and the index.
#[derive(Clone)]
pub struct KubeStore {
    shared: Arc<Shared>,
}

struct Shared {
    api: Api<DynamicObject>,
    runtime: Handle,
    index: Mutex<Index>,
    synced: Condvar,
    /// Where in a pool this store begins to look for an unused address.
    start: u64,
    calls: Calls,
}

/// Calls of the API server, by verb.
#[derive(Debug, Default)]
struct Calls {
    create: AtomicU64,
    update: AtomicU64,
    get: AtomicU64,
}

/// How often a store has called the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiCalls {
    /// Objects created, or tried to.
    pub create: u64,
    /// Objects replaced, or tried to.
    pub update: u64,
    /// Objects read after somebody else was faster.
    pub get: u64,
}

impl ApiCalls {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.create + self.update + self.get
    }
}

impl fmt::Debug for KubeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeStore").finish_non_exhaustive()
    }
}

/// What came of a call.
enum Outcome {
    Done,
    /// 404.
    Missing,
    /// 409: the name is there, or the version is not the last.
    Conflict,
}

impl KubeStore {
    /// A store that speaks to `client`'s API server on `runtime`. It knows
    /// nothing before [`KubeStore::watch`] runs.
    ///
    /// `node`: stores of different nodes begin to look for unused addresses at
    /// different places of a pool, so that they seldom try the same one.
    /// Without it they begin at the lowest.
    #[must_use]
    pub fn new(client: Client, runtime: Handle, node: Option<&str>) -> Self {
        Self {
            shared: Arc::new(Shared {
                api: Api::all_with(client, &object::resource()),
                runtime,
                index: Mutex::default(),
                synced: Condvar::new(),
                start: node.map_or(0, hash),
                calls: Calls::default(),
            }),
        }
    }

    /// Keeps the index true, for ever. `warn` hears of a watch that broke; it
    /// is taken up again with growing pauses.
    pub async fn watch(&self, warn: impl Fn(&watcher::Error)) {
        let config = watcher::Config::default();
        let mut events = pin!(watcher(self.shared.api.clone(), config).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.take(event),
                Err(error) => warn(&error),
            }
        }
    }

    fn take(&self, event: Event<DynamicObject>) {
        let mut index = self.index();
        match event {
            Event::Init => index.begin_list(),
            Event::InitApply(object) | Event::Apply(object) => learn(&mut index, &object),
            Event::Delete(object) => {
                if let Some(address) = address(&object) {
                    index.remove(address, object.metadata.resource_version.as_deref());
                }
            }
            Event::InitDone => {
                index.end_list();
                self.shared.synced.notify_all();
            }
        }
    }

    /// Waits until the first list is complete; `false` if it is not in time.
    #[must_use]
    pub fn wait_synced(&self, patience: Duration) -> bool {
        let waiting = self
            .shared
            .synced
            .wait_timeout_while(self.index(), patience, |index| !index.is_synced());
        let (index, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        index.is_synced()
    }

    /// Every record, as the watch has told it.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Stored>> {
        self.index().all().cloned().collect()
    }

    /// How often the API server was called so far, the watch aside.
    #[must_use]
    pub fn calls(&self) -> ApiCalls {
        let Calls {
            create,
            update,
            get,
        } = &self.shared.calls;
        ApiCalls {
            create: create.load(Ordering::Relaxed),
            update: update.load(Ordering::Relaxed),
            get: get.load(Ordering::Relaxed),
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // What a panic left is only late, as the index always may be.
        self.shared
            .index
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn call(
        &self,
        doing: &'static str,
        counter: &AtomicU64,
        address: IpAddr,
        call: impl Future<Output = kube::Result<DynamicObject>>,
    ) -> Result<Outcome, StoreError> {
        counter.fetch_add(1, Ordering::Relaxed);
        let failed = |problem: String, is_temporary| StoreError::Api {
            name: object::name_of(address),
            doing,
            problem,
            is_temporary,
        };
        let answer = self
            .shared
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, call).await });
        match answer {
            Ok(Ok(object)) => {
                learn(&mut self.index(), &object);
                Ok(Outcome::Done)
            }
            Ok(Err(kube::Error::Api(status))) => match status.code {
                404 => Ok(Outcome::Missing),
                409 => Ok(Outcome::Conflict),
                code => Err(failed(status.message.clone(), code == 429 || code >= 500)),
            },
            Ok(Err(error)) => Err(failed(error.to_string(), true)),
            Err(_) => Err(failed(
                format!("no answer in {} s", PATIENCE.as_secs()),
                true,
            )),
        }
    }

    /// Reads an object of which the index may be wrong.
    fn read(&self, address: IpAddr) -> Result<(), StoreError> {
        let name = object::name_of(address);
        let get = self.shared.api.get(&name);
        if let Outcome::Missing = self.call("read", &self.shared.calls.get, address, get)? {
            self.index().remove(address, None);
        }
        Ok(())
    }

    /// The end of a write: a refusal says that the index is late, and silence
    /// that the write may have been done.
    fn written(
        &self,
        address: IpAddr,
        outcome: Result<Outcome, StoreError>,
    ) -> Result<bool, StoreError> {
        match outcome {
            Ok(Outcome::Done) => Ok(true),
            Ok(Outcome::Missing | Outcome::Conflict) => {
                self.read(address)?;
                Ok(false)
            }
            Err(error) => {
                self.index().doubt(address);
                Err(error)
            }
        }
    }
}

fn learn(index: &mut Index, object: &DynamicObject) {
    let Some(address) = address(object) else {
        return;
    };
    let version = object.metadata.resource_version.clone().unwrap_or_default();
    let known = match object::from_object(object) {
        Ok(allocation) => Known::Record(Arc::new(Stored {
            allocation,
            revision: Revision(version.clone()),
        })),
        Err(error) => Known::Unreadable(error.to_string()),
    };
    index.put(address, &version, known);
}

fn address(object: &DynamicObject) -> Option<IpAddr> {
    object::address_of(object.metadata.name.as_deref()?)
}

/// FNV-1a: the same on every node and in every version.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Where in `set` a store with this `start` begins.
fn start_in(set: &AddressSet, start: u64) -> Option<IpAddr> {
    let mut index = u128::from(start) % set.len().max(1);
    for range in set.ranges() {
        match range.nth(index) {
            Some(address) => return Some(address),
            None => index -= range.len(),
        }
    }
    set.first()
}

impl Store for KubeStore {
    fn attempt<T, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&mut dyn Records) -> Result<T, E>,
    ) -> Result<T, E> {
        work(&mut Session {
            store: self,
            reserved: Vec::new(),
        })
    }
}

/// One attempt, and the addresses that it is about to write: other attempts
/// of this process look elsewhere.
struct Session<'a> {
    store: &'a KubeStore,
    reserved: Vec<IpAddr>,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.store.index().unreserve(&self.reserved);
    }
}

impl Session<'_> {
    fn reserve(&mut self, index: &mut Index, address: IpAddr) {
        if index.reserve(address) {
            self.reserved.push(address);
        }
    }
}

fn owned(found: Vec<Arc<Stored>>) -> Vec<Stored> {
    found.iter().map(|stored| Stored::clone(stored)).collect()
}

impl Records for Session<'_> {
    fn get(&mut self, address: IpAddr) -> Result<Option<Stored>, StoreError> {
        match self.store.index().get(address) {
            None => Ok(None),
            Some(Known::Record(stored)) => Ok(Some(Stored::clone(stored))),
            Some(Known::Unreadable(reason)) => Err(StoreError::Record {
                name: object::name_of(address),
                source: serde::de::Error::custom(reason),
            }),
        }
    }

    fn create(&mut self, allocation: &Allocation) -> Result<bool, StoreError> {
        let object = object::to_object(allocation, None);
        let Shared { api, calls, .. } = &*self.store.shared;
        let parameters = PostParams::default();
        let call = api.create(&parameters, &object);
        let outcome = self
            .store
            .call("create", &calls.create, allocation.address, call);
        self.store.written(allocation.address, outcome)
    }

    fn replace(
        &mut self,
        allocation: &Allocation,
        revision: &Revision,
    ) -> Result<bool, StoreError> {
        let object = object::to_object(allocation, Some(&revision.0));
        let name = object::name_of(allocation.address);
        let Shared { api, calls, .. } = &*self.store.shared;
        let parameters = PostParams::default();
        let call = api.replace(&name, &parameters, &object);
        let outcome = self
            .store
            .call("replace", &calls.update, allocation.address, call);
        self.store.written(allocation.address, outcome)
    }

    fn of_pod(&mut self, uid: &str) -> Result<Vec<Stored>, StoreError> {
        Ok(owned(self.store.index().of_pod(uid)))
    }

    fn of_owner(&mut self, owner: &Owner) -> Result<Vec<Stored>, StoreError> {
        Ok(owned(self.store.index().of_owner(owner)))
    }

    fn of_container(&mut self, container_id: &str) -> Result<Vec<Stored>, StoreError> {
        // A write without an answer may have made it a holder.
        let doubtful = self.store.index().doubtful();
        for address in doubtful {
            self.store.read(address)?;
        }
        Ok(owned(self.store.index().of_sandbox(container_id)))
    }

    fn held(&mut self) -> Result<Vec<Stored>, StoreError> {
        let index = self.store.index();
        let held = index
            .all()
            .filter(|stored| stored.allocation.holder.is_some());
        Ok(held.map(|stored| Stored::clone(stored)).collect())
    }

    fn unused(&mut self, pool: &Pool, _: Option<IpAddr>) -> Result<Option<IpAddr>, StoreError> {
        // What was offered before in this attempt is reserved, so it is not
        // offered again.
        let mut index = self.store.index();
        let found = start_in(&pool.addresses, self.store.shared.start)
            .and_then(|start| index.unused(&pool.addresses, start));
        if let Some(address) = found {
            self.reserve(&mut index, address);
        }
        Ok(found)
    }

    fn lapsed(
        &mut self,
        pool: &Pool,
        by: Timestamp,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<Stored>, StoreError> {
        let mut index = self.store.index();
        let found = index.lapsed(&pool.addresses, by);
        let page: Vec<Stored> = found
            .iter()
            .skip(skip)
            .take(limit)
            .map(|stored| Stored::clone(stored))
            .collect();
        if let Some(first) = page.first() {
            self.reserve(&mut index, first.allocation.address);
        }
        Ok(page)
    }

    fn census(&mut self, pool: &Pool, now: Timestamp) -> Result<Census, StoreError> {
        let index = self.store.index();
        let of_pool = index
            .all()
            .map(|stored| &stored.allocation)
            .filter(|record| pool.addresses.contains(record.address));
        Ok(Census::count(of_pool, now))
    }
}
