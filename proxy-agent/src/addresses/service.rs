//! Requests for addresses, answered. Every function here may block: for the
//! database, or for the API server.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use berth_api::addresses::{
    Acquire, Acquired, Address, AddressState, Given, Reason, Refused, Release, Released,
};
use berth_api::pool::IpPool;
use berth_ipam::store::{Records, SqliteStore, Store, StoreError, Stored};
use berth_ipam::{
    Allocation, Allocator, Error, Keep, Owner, Pod, PodRef, Pools, Request, Timestamp, Wishes,
    Workload,
};

use super::cluster::Cluster;
use crate::metrics::Metrics;

/// How long a request waits for an agent that has just begun.
const READY: Duration = Duration::from_secs(10);

/// Where the allocations are.
#[derive(Clone, Debug)]
pub enum Backing {
    /// In the API server.
    Cluster(Box<Cluster>),
    /// In a SQLite file, which `berth-cni` writes as well.
    Embedded(PathBuf),
}

/// This node's address service; cheap to clone.
#[derive(Clone, Debug)]
pub struct Service {
    backing: Backing,
    node: String,
    metrics: Metrics,
}

fn refused(error: &Error) -> Refused {
    let reason = match error {
        error if error.is_temporary() => Reason::TryAgain,
        Error::Annotation { .. } => Reason::Annotation,
        Error::UnknownPool { .. } | Error::RefusedPool { .. } | Error::NoPool { .. } => {
            Reason::Pool
        }
        Error::OutsidePools { .. } => Reason::OutsidePools,
        Error::Taken { .. } | Error::ListTaken { .. } => Reason::Taken,
        Error::Exhausted { .. } => Reason::Exhausted,
        Error::Store(_) => Reason::Store,
        // One that is temporary, or new: neither is the asker's to act on.
        _ => Reason::TryAgain,
    };
    Refused {
        problem: error.to_string(),
        reason,
    }
}

fn store_refused(error: StoreError) -> Refused {
    refused(&Error::Store(error))
}

impl Service {
    /// A service of `node`.
    #[must_use]
    pub fn new(backing: Backing, node: &str, metrics: Metrics) -> Self {
        Self {
            backing,
            node: node.to_owned(),
            metrics,
        }
    }

    /// Gets an interface's addresses.
    ///
    /// # Errors
    /// Says why there is none, and what the asker can do.
    pub fn acquire(&self, asked: &Acquire) -> Result<Acquired, Refused> {
        let Backing::Cluster(cluster) = &self.backing else {
            return Err(Refused {
                problem: "this agent has no API server; set mode embedded in the network \
                          configuration, so that berth-cni gets addresses by itself"
                    .to_owned(),
                reason: Reason::Store,
            });
        };
        let result = self.acquire_in(cluster, asked);
        self.count("acquire", cluster, result.is_ok());
        result
    }

    fn count(&self, verb: &'static str, cluster: &Cluster, is_ok: bool) {
        let result = if is_ok { "ok" } else { "refused" };
        self.metrics.address_request(verb, result, cluster.calls());
    }

    fn acquire_in(&self, cluster: &Cluster, asked: &Acquire) -> Result<Acquired, Refused> {
        if !cluster.wait_ready(READY) {
            return Err(Refused {
                problem: "the agent has not heard of all pools and allocations yet; look at its \
                          log, and whether the API server answers"
                    .to_owned(),
                reason: Reason::TryAgain,
            });
        }
        let objects = cluster.pools();
        let request = self
            .request(cluster, asked)
            .map_err(|error| refused(&error))?;
        let mut allocator = Allocator::new(Pools::compile(&objects), cluster.store.clone());
        let live = |claim: &_| cluster.pod_is_live(claim);
        let grants = allocator
            .allocate(&request, &live, Timestamp::now())
            .map_err(|error| refused(&error))?;
        let written: BTreeMap<&str, IpPool> = objects
            .iter()
            .filter_map(|object| Some((&*object.key.name, object.decode().ok()?)))
            .collect();
        let given = grants.iter().map(|grant| Given {
            address: grant.address,
            pool: written[&*grant.pool.name].clone(),
        });
        Ok(Acquired {
            given: given.collect(),
        })
    }

    fn request(&self, cluster: &Cluster, asked: &Acquire) -> Result<Request, Error> {
        let metadata = cluster
            .pod(&asked.namespace, &asked.name, &asked.uid)
            .unwrap_or_default();
        let known = metadata["uid"].as_str().unwrap_or_default();
        let first = |all: [&str; 3]| {
            let found = all.into_iter().find(|text| !text.is_empty());
            found.unwrap_or_default().to_owned()
        };
        let uid = first([&asked.uid, known, &asked.container_id]);
        // The pod may have been made anew under this name meanwhile.
        let same = known == uid;
        let id = PodRef {
            namespace: asked.namespace.clone(),
            name: first([&asked.name, &asked.container_id, ""]),
            uid,
        };
        let mut annotations: BTreeMap<String, String> = metadata["annotations"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        annotations.extend(asked.annotations.clone());
        let namespace = cluster.namespace(&asked.namespace);
        let of_namespace = namespace
            .and_then(|namespace| namespace.metadata.annotations.clone())
            .unwrap_or_default();
        let wishes = Wishes::read(&id, &annotations, &of_namespace)?;
        let workload = Workload::of_pod(&metadata, &asked.name).filter(|_| same);
        Ok(Request {
            pod: Pod { id, workload },
            wishes,
            container_id: asked.container_id.clone(),
            ifname: asked.ifname.clone(),
            netns: asked.netns.clone(),
            node: self.node.clone(),
        })
    }

    /// Lets go of what a sandbox holds, or ends the claim on an address.
    ///
    /// # Errors
    /// If the store fails, or a live sandbox uses the address.
    pub fn release(&self, asked: &Release) -> Result<Released, Refused> {
        match &self.backing {
            Backing::Cluster(cluster) => {
                let mut store = cluster.store.clone();
                let result = if store.wait_synced(READY) {
                    release(&mut store, asked)
                } else {
                    Err(Refused {
                        problem: "the agent has not heard of all allocations yet; ask again"
                            .to_owned(),
                        reason: Reason::TryAgain,
                    })
                };
                self.count("release", cluster, result.is_ok());
                result
            }
            Backing::Embedded(path) => {
                let mut store = SqliteStore::open(path, false).map_err(store_refused)?;
                release(&mut store, asked)
            }
        }
    }

    /// Every address that somebody has or had, of one pool or of all.
    ///
    /// # Errors
    /// If the store fails.
    pub fn list(&self, pool: Option<&str>) -> Result<Vec<Address>, Refused> {
        let now = Timestamp::now();
        let all: Vec<Stored> = match &self.backing {
            Backing::Cluster(cluster) => {
                let all = cluster.store.all();
                all.iter().map(|stored| Stored::clone(stored)).collect()
            }
            Backing::Embedded(path) => match SqliteStore::open(path, false) {
                Err(StoreError::Missing { .. }) => Vec::new(),
                opened => opened
                    .and_then(|store| store.all())
                    .map_err(store_refused)?,
            },
        };
        let of_pool = all
            .iter()
            .map(|stored| &stored.allocation)
            .filter(|record| pool.is_none_or(|pool| pool == record.pool));
        Ok(of_pool.map(|record| told(record, now)).collect())
    }

    /// Who has or had one address.
    ///
    /// # Errors
    /// If the store fails.
    pub fn who(&self, address: IpAddr) -> Result<Option<Address>, Refused> {
        let get = |records: &mut dyn Records| records.get(address);
        let stored = match &self.backing {
            Backing::Cluster(cluster) => cluster.store.clone().attempt(get),
            Backing::Embedded(path) => match SqliteStore::open(path, false) {
                Err(StoreError::Missing { .. }) => Ok(None),
                opened => opened.and_then(|mut store| store.attempt(get)),
            },
        };
        let stored = stored.map_err(store_refused)?;
        Ok(stored.map(|stored| told(&stored.allocation, Timestamp::now())))
    }
}

fn release(store: &mut impl Store, asked: &Release) -> Result<Released, Refused> {
    let now = Timestamp::now();
    let released = match asked.address {
        None => berth_ipam::release(store, &asked.container_id, &asked.ifname, now)
            .map_err(store_refused)?,
        Some(address) => end_claim(store, address, asked.force, now)?,
    };
    Ok(Released { released })
}

/// Ends the claim on one address: it is anybody's after its cool-down.
fn end_claim(
    store: &mut impl Store,
    address: IpAddr,
    force: bool,
    now: Timestamp,
) -> Result<Vec<IpAddr>, Refused> {
    let taken = |problem: String| Refused {
        problem,
        reason: Reason::Taken,
    };
    store
        .attempt(|records| {
            let Some(stored) = records.get(address).map_err(Unreleased::from)? else {
                return Ok(Vec::new());
            };
            let mut record = stored.allocation.clone();
            if let Some(holder) = record.holder.take()
            && !force
        {
            return Err(Unreleased(taken(format!(
                "address {address} is held by {holder}; releasing it would let another pod take \
                 it while this one still answers on it, and both would lose packets: delete that \
                 pod first, or use --force if the sandbox is surely gone"
            ))));
        }
        record.claim.keep = Keep::Pod;
            record.released = Some(now);
            if records
                .replace(&record, &stored.revision)
                .map_err(Unreleased::from)?
            {
                Ok(vec![address])
            } else {
                Err(Unreleased(taken(format!(
                    "address {address} was taken or let go of meanwhile; look again with \
                 `berth ip who {address}`"
                ))))
            }
        })
        .map_err(|Unreleased(refused)| refused)
}

struct Unreleased(Refused);

impl From<StoreError> for Unreleased {
    fn from(error: StoreError) -> Self {
        Self(store_refused(error))
    }
}

fn told(record: &Allocation, now: Timestamp) -> Address {
    let claim = &record.claim;
    let (namespace, workload) = match &claim.owner {
        Owner::Pod(pod) => (&pod.namespace, &pod.name),
        Owner::PodName { namespace, name }
        | Owner::StatefulSet {
            namespace, name, ..
        }
        | Owner::Workload {
            namespace, name, ..
        } => (namespace, name),
    };
    let free_at = record.free_at();
    let state = match free_at {
        _ if record.holder.is_some() => AddressState::Held,
        None => AddressState::Kept,
        Some(at) if at > now => AddressState::Resting,
        Some(_) => AddressState::Free,
    };
    let holder = record.holder.as_ref();
    Address {
        address: record.address,
        pool: record.pool.clone(),
        state,
        owner: claim.owner.to_string(),
        namespace: namespace.clone(),
        workload: workload.clone(),
        pod: claim.pod.to_string(),
        keep: claim.keep.to_string(),
        since: claim.since.0,
        sandbox: holder.map(|holder| holder.container_id.clone()),
        node: holder.map(|holder| holder.node.clone()),
        released: record.released.map(|at| at.0),
        free_at: free_at.map(|at| at.0),
    }
}

#[cfg(test)]
mod tests {
    use berth_ipam::conformance::{get, pools, request};

    use super::*;

    #[test]
    fn an_address_is_told_listed_and_released_with_a_guard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ipam.db");
        let service = Service::new(Backing::Embedded(path.clone()), "node1", Metrics::default());
        assert_eq!(service.list(None).unwrap(), []);
        let address = IpAddr::from([10, 5, 0, 1]);
        assert_eq!(service.who(address).unwrap(), None);

        let all = pools(&[("a", "subnet: 10.5.0.0/24, default: true, coolDown: 60s")]);
        let mut allocator = Allocator::new(all, SqliteStore::open(&path, true).unwrap());
        let keep = [("berth.dev/keep", "forever")];
        get(&mut allocator, &request("web", &keep), Timestamp::now().0).unwrap();
        let who = service.who(address).unwrap().unwrap();
        assert_eq!((who.state, &*who.pod), (AddressState::Held, "shop/web"));
        assert_eq!(who.sandbox.as_deref(), Some("sandbox-web"));
        assert_eq!(service.list(Some("a")).unwrap().len(), 1);
        assert_eq!(service.list(Some("b")).unwrap().len(), 0);

        let end = |force| {
            let address = Some(address);
            service.release(&Release {
                address,
                force,
                ..Release::default()
            })
        };
        let refusal = end(false).unwrap_err();
        assert_eq!(refusal.reason, Reason::Taken);
        assert!(
            refusal.problem.contains("is held by pod shop/web"),
            "{}",
            refusal.problem
        );
        let sandbox = Release {
            container_id: "sandbox-web".to_owned(),
            ifname: "eth0".to_owned(),
            ..Release::default()
        };
        assert_eq!(service.release(&sandbox).unwrap().released, [address]);
        assert_eq!(
            service.who(address).unwrap().unwrap().state,
            AddressState::Kept
        );
        assert_eq!(end(false).unwrap().released, [address]);
        assert_eq!(
            service.who(address).unwrap().unwrap().state,
            AddressState::Resting
        );
    }
}
