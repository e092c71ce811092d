//! Getting and giving back addresses: the order in which records are looked
//! at, one attempt after another.

use std::net::IpAddr;

use crate::address::{AddressRange, Family};
use crate::allocation::{Allocation, Ask, Claim, Holder, Owner, Taken, Timestamp};
use crate::error::Error;
use crate::pool::{Pool, Pools};
use crate::store::{Records, Store, StoreError, Stored};
use crate::wishes::{Pod, Wishes, list_nth, list_size};

mod refusal;

/// Attempts at one address before giving up, on a store where others keep
/// being faster.
const ATTEMPTS: usize = 16;

/// An address that has been free for this long is taken before one that never
/// was used: that bounds the records of an IPv6 pool, which would otherwise
/// grow by one with every pod.
const LONG_FREE_MS: u64 = 24 * 60 * 60 * 1000;

/// Records looked at together when a pool has only used addresses left.
const PAGE: usize = 16;

/// One sandbox's interface asking for its addresses.
#[derive(Clone, Debug)]
pub struct Request {
    /// The pod.
    pub pod: Pod,
    /// What its annotations ask for.
    pub wishes: Wishes,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// The node that asks.
    pub node: String,
}

/// One address given.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// The address.
    pub address: IpAddr,
    /// The pool that says how it is wired.
    pub pool: &'a Pool,
}

/// Gives and takes addresses.
#[derive(Debug)]
pub struct Allocator<S> {
    pools: Pools,
    store: S,
}

/// What one address family comes down to.
enum Want<'a> {
    /// This address: written alone, or a StatefulSet's by ordinal.
    Exactly(IpAddr, &'a Pool),
    /// One of these, in order.
    OneOf(Vec<(AddressRange, &'a Pool)>, u128),
    /// Any of these pools', in order.
    AnyOf(Family, Vec<&'a Pool>),
}

impl Want<'_> {
    fn allows(&self, address: IpAddr) -> bool {
        match self {
            Self::Exactly(exact, _) => *exact == address,
            Self::OneOf(list, _) => list.iter().any(|(range, _)| range.contains(address)),
            Self::AnyOf(_, pools) => pools.iter().any(|pool| pool.addresses.contains(address)),
        }
    }

    fn family(&self) -> Family {
        match self {
            Self::Exactly(address, _) => Family::of(*address),
            Self::OneOf(list, _) => list[0].0.family(),
            Self::AnyOf(family, _) => *family,
        }
    }
}

impl<S: Store> Allocator<S> {
    /// An allocator of `pools`' addresses with its records in `store`.
    pub fn new(pools: Pools, store: S) -> Self {
        Self { pools, store }
    }

    /// The pools.
    #[must_use]
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// The store.
    pub fn store(&mut self) -> &mut S {
        &mut self.store
    }

    /// The store again.
    pub fn into_store(self) -> S {
        self.store
    }

    /// Gets the addresses of one interface: one of each family that its pools
    /// or fixed addresses have, or none at all. Asked again for the same pod
    /// and interface it gives the same addresses, whatever the sandbox.
    ///
    /// `pod_is_live` says whether the pod that last used an idle address still
    /// exists; its address is then not given to others.
    ///
    /// # Errors
    /// Says which pod, pool, address and holder stand in the way, and the mend.
    pub fn allocate(
        &mut self,
        request: &Request,
        pod_is_live: &dyn Fn(&Claim) -> bool,
        now: Timestamp,
    ) -> Result<Vec<Grant<'_>>, Error> {
        let wants = wants(&self.pools, request)?;
        let attempt = Attempt {
            pools: &self.pools,
            request,
            pod_is_live,
            now,
        };
        self.store.attempt(|records| attempt.all(records, &wants))
    }

    /// Gives back what the sandbox `container_id` holds for `ifname`, and says
    /// which addresses those were: none if it holds none any more.
    ///
    /// # Errors
    /// If the store fails.
    pub fn release(
        &mut self,
        container_id: &str,
        ifname: &str,
        now: Timestamp,
    ) -> Result<Vec<IpAddr>, StoreError> {
        release(&mut self.store, container_id, ifname, now)
    }
}

/// [`Allocator::release`] for a caller that has no pools: nothing but the
/// record is needed to let go of an address.
///
/// # Errors
/// If the store fails.
pub fn release(
    store: &mut impl Store,
    container_id: &str,
    ifname: &str,
    now: Timestamp,
) -> Result<Vec<IpAddr>, StoreError> {
    store.attempt(|records| {
        let mut freed = Vec::new();
        // A record that somebody else wrote in between is read again: it may
        // still be ours. Each round has one writer that gets through.
        loop {
            let mut again = false;
            for stored in records.of_container(container_id)? {
                let Some(idle) = stored.allocation.release(container_id, ifname, now) else {
                    continue;
                };
                if records.replace(&idle, &stored.revision)? {
                    freed.push(idle.address);
                } else {
                    again = true;
                }
            }
            if !again {
                return Ok(freed);
            }
        }
    })
}

/// What the wishes come down to, one entry a family.
fn wants<'a>(pools: &'a Pools, request: &Request) -> Result<Vec<Want<'a>>, Error> {
    let wishes = &request.wishes;
    let named = wishes
        .pools
        .iter()
        .map(|name| {
            pools
                .get(name)
                .ok_or_else(|| refusal::no_such_pool(pools, request, name))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut wants = Vec::new();
    for family in [Family::V4, Family::V6] {
        let list = wishes.list(family);
        if !list.is_empty() {
            wants.push(fixed(pools, &named, request, &list)?);
        } else if wishes.addresses.is_empty() {
            let of_family = |all: Vec<&'a Pool>| -> Vec<&'a Pool> {
                all.into_iter().filter(|p| p.family() == family).collect()
            };
            let choice = of_family(if wishes.pools.is_empty() {
                pools.defaults()
            } else {
                named.clone()
            });
            if !choice.is_empty() {
                wants.push(Want::AnyOf(family, choice));
            }
        }
    }
    if wants.is_empty() {
        return Err(refusal::no_pool(pools, request));
    }
    Ok(wants)
}

fn fixed<'a>(
    pools: &'a Pools,
    named: &[&Pool],
    request: &Request,
    list: &[AddressRange],
) -> Result<Want<'a>, Error> {
    let pool_of = |address: IpAddr| {
        let pool = pools
            .holding(address)
            .ok_or_else(|| refusal::outside(pools, request, address))?;
        if named.is_empty() || named.iter().any(|n| n.name == pool.name) {
            Ok(pool)
        } else {
            Err(refusal::in_another_pool(request, address, pool))
        }
    };
    let size = list_size(list);
    let exact = match request.pod.ordinal() {
        Some(ordinal) => Some(
            list_nth(list, u128::from(ordinal))
                .ok_or_else(|| refusal::list_too_short(request, ordinal, size))?,
        ),
        None if size == 1 => list_nth(list, 0),
        None => None,
    };
    if let Some(address) = exact {
        return Ok(Want::Exactly(address, pool_of(address)?));
    }
    let mut pooled = Vec::new();
    for range in list {
        // Each address must be some pool's: a list that is half right would
        // fail later, when the right half is used up.
        for index in 0..range.len() {
            let address = range.nth(index).expect("index is below the range's length");
            pooled.push((AddressRange::single(address), pool_of(address)?));
        }
    }
    Ok(Want::OneOf(pooled, size))
}

/// One attempt at all addresses of a request.
struct Attempt<'a, 'r> {
    pools: &'a Pools,
    request: &'r Request,
    pod_is_live: &'r dyn Fn(&Claim) -> bool,
    now: Timestamp,
}

impl<'a> Attempt<'a, '_> {
    fn all(&self, records: &mut dyn Records, wants: &[Want<'a>]) -> Result<Vec<Grant<'a>>, Error> {
        let mut grants: Vec<Grant<'a>> = Vec::new();
        for want in wants {
            match self.one_at_last(records, want) {
                Ok(grant) => grants.push(grant),
                Err(error) => {
                    // All or nothing, also where the store has no transaction.
                    for grant in grants {
                        self.give_back(records, grant.address)?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(grants)
    }

    fn give_back(&self, records: &mut dyn Records, address: IpAddr) -> Result<(), Error> {
        while let Some(stored) = records.get(address)? {
            let request = self.request;
            let idle = stored
                .allocation
                .release(&request.container_id, &request.ifname, self.now);
            match idle {
                Some(idle) if !records.replace(&idle, &stored.revision)? => {}
                _ => break,
            }
        }
        Ok(())
    }

    /// [`Attempt::one`], again for as long as others are faster.
    fn one_at_last(&self, records: &mut dyn Records, want: &Want<'a>) -> Result<Grant<'a>, Error> {
        for _ in 1..ATTEMPTS {
            match self.one(records, want) {
                Err(Error::Contended { .. }) => {}
                other => return other,
            }
        }
        self.one(records, want)
    }

    fn one(&self, records: &mut dyn Records, want: &Want<'a>) -> Result<Grant<'a>, Error> {
        if let Some(grant) = self.own(records, want)? {
            return Ok(grant);
        }
        match want {
            Want::Exactly(address, pool) => match self.take(records, *address, pool)? {
                Ok(grant) => Ok(grant),
                Err(taken) => Err(refusal::taken(
                    self.request,
                    *address,
                    pool,
                    &taken,
                    self.now,
                )),
            },
            Want::OneOf(list, size) => {
                let mut refused = Vec::new();
                for (range, pool) in list {
                    match self.take(records, range.first(), pool)? {
                        Ok(grant) => return Ok(grant),
                        Err(taken) => refused.push((range.first(), taken)),
                    }
                }
                Err(refusal::list_taken(self.request, *size, &refused, self.now))
            }
            Want::AnyOf(_, pools) => {
                for pool in pools {
                    if let Some(grant) = self.choose(records, pool)? {
                        return Ok(grant);
                    }
                }
                refusal::exhausted(records, self.request, pools, self.now)
            }
        }
    }

    /// The address that this pod, or else its owner, has already.
    fn own(&self, records: &mut dyn Records, want: &Want<'a>) -> Result<Option<Grant<'a>>, Error> {
        let request = self.request;
        let fits = |stored: &Stored| {
            let record = &stored.allocation;
            record.claim.ifname == request.ifname
                && Family::of(record.address) == want.family()
                && want.allows(record.address)
        };
        let mine = records.of_pod(&request.pod.id.uid)?;
        for stored in mine.iter().filter(|stored| fits(stored)) {
            if let Some(pool) = self.pools.holding(stored.allocation.address)
                && let Ok(grant) =
                    self.write(records, Some(stored), stored.allocation.address, pool)?
            {
                return Ok(Some(grant));
            }
        }
        // The owner depends on the keep policy, and that on the pool.
        let mut owners: Vec<Owner> = Vec::new();
        for pool in self.pools_of(want) {
            let owner = self.owner(pool);
            if !matches!(owner, Owner::Pod(_)) && !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        for owner in owners {
            let mut claimed = records.of_owner(&owner)?;
            claimed.sort_by_key(|stored| stored.allocation.released);
            for stored in &claimed {
                let record = &stored.allocation;
                let Some(pool) = self.pools.holding(record.address).filter(|_| fits(stored)) else {
                    self.let_lapse(records, stored, want, &owner)?;
                    continue;
                };
                match self.write(records, Some(stored), record.address, pool)? {
                    Ok(grant) => return Ok(Some(grant)),
                    // Another pod of the workload has it. A name or ordinal has
                    // one pod at a time: its successor waits for its DEL.
                    Err(_) if matches!(owner, Owner::Workload { .. }) => {}
                    Err(taken) => {
                        return Err(refusal::taken(
                            request,
                            record.address,
                            pool,
                            &taken,
                            self.now,
                        ));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The owner of one address has moved on, because its annotation names
    /// another: the old claim ends as a pod's would.
    fn let_lapse(
        &self,
        records: &mut dyn Records,
        stored: &Stored,
        want: &Want<'a>,
        owner: &Owner,
    ) -> Result<(), Error> {
        let record = &stored.allocation;
        let left = !matches!(owner, Owner::Workload { .. })
            && record.holder.is_none()
            && record.claim.ifname == self.request.ifname
            && Family::of(record.address) == want.family()
            && !want.allows(record.address);
        if left {
            let mut ended = record.clone();
            ended.claim.keep = crate::Keep::Pod;
            // If somebody else wrote it meanwhile, the next ADD sees it again.
            records.replace(&ended, &stored.revision)?;
        }
        Ok(())
    }

    fn pools_of(&self, want: &Want<'a>) -> Vec<&'a Pool> {
        match want {
            Want::Exactly(_, pool) => vec![pool],
            Want::OneOf(list, _) => {
                let mut pools: Vec<&Pool> = list.iter().map(|(_, pool)| *pool).collect();
                pools.dedup_by_key(|pool| &pool.name);
                pools
            }
            Want::AnyOf(_, pools) => pools.clone(),
        }
    }

    fn owner(&self, pool: &Pool) -> Owner {
        let keep = self
            .request
            .wishes
            .keep_policy(&self.request.pod, pool.keep);
        self.request.pod.owner(keep)
    }

    /// A free address of the pool: least recently used first, and one that was
    /// never used is the least recently used of all.
    fn choose(
        &self,
        records: &mut dyn Records,
        pool: &'a Pool,
    ) -> Result<Option<Grant<'a>>, Error> {
        let long_ago = Timestamp(self.now.0.saturating_sub(LONG_FREE_MS));
        if let Some(grant) = self.lapsed(records, pool, long_ago, PAGE)? {
            return Ok(Some(grant));
        }
        let mut after = None;
        while let Some(address) = records.unused(pool, after)? {
            if let Ok(grant) = self.write(records, None, address, pool)? {
                return Ok(Some(grant));
            }
            after = Some(address);
        }
        self.lapsed(records, pool, self.now, usize::MAX)
    }

    /// Looks through at most `most` records whose claim ended by `by`.
    fn lapsed(
        &self,
        records: &mut dyn Records,
        pool: &'a Pool,
        by: Timestamp,
        most: usize,
    ) -> Result<Option<Grant<'a>>, Error> {
        let mut skip = 0;
        while skip < most {
            let page = records.lapsed(pool, by, skip, PAGE)?;
            for stored in &page {
                let address = stored.allocation.address;
                if pool.addresses.contains(address)
                    && let Ok(grant) = self.write(records, Some(stored), address, pool)?
                {
                    return Ok(Some(grant));
                }
            }
            if page.len() < PAGE {
                break;
            }
            skip += PAGE;
        }
        Ok(None)
    }

    fn take(
        &self,
        records: &mut dyn Records,
        address: IpAddr,
        pool: &'a Pool,
    ) -> Result<Result<Grant<'a>, Taken>, Error> {
        let stored = records.get(address)?;
        self.write(records, stored.as_ref(), address, pool)
    }

    /// Decides on one record and writes the decision.
    fn write(
        &self,
        records: &mut dyn Records,
        stored: Option<&Stored>,
        address: IpAddr,
        pool: &'a Pool,
    ) -> Result<Result<Grant<'a>, Taken>, Error> {
        let request = self.request;
        let keep = request.wishes.keep_policy(&request.pod, pool.keep);
        let holder = Holder {
            pod: request.pod.id.clone(),
            container_id: request.container_id.clone(),
            ifname: request.ifname.clone(),
            netns: request.netns.clone(),
            node: request.node.clone(),
            since: self.now,
        };
        let ask = Ask {
            pool: &pool.name,
            owner: &request.pod.owner(keep),
            keep,
            cool_down: pool.cool_down,
            holder: &holder,
        };
        let record = stored.map(|stored| &stored.allocation);
        let granted = match Allocation::acquire(record, address, &ask, self.pod_is_live) {
            Ok(granted) => granted,
            Err(taken) => return Ok(Err(taken)),
        };
        let written = match stored {
            None => records.create(&granted)?,
            Some(stored) => records.replace(&granted, &stored.revision)?,
        };
        if written {
            Ok(Ok(Grant { address, pool }))
        } else {
            Err(refusal::contended(request))
        }
    }
}
