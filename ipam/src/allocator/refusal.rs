//! The words of every refusal: pod, pool, address, holder, mend.

use std::net::IpAddr;

use super::Request;
use crate::allocation::{Taken, Timestamp};
use crate::error::Error;
use crate::keep::Keep;
use crate::pool::{Pool, Pools};
use crate::store::Records;

pub(super) fn contended(request: &Request) -> Error {
    Error::Contended {
        pod: request.pod.id.to_string(),
    }
}

fn names(pools: &Pools) -> String {
    let names: Vec<_> = pools.iter().map(|pool| pool.name.as_str()).collect();
    if names.is_empty() {
        "no pool is served".to_owned()
    } else {
        format!("served pools: {}", names.join(", "))
    }
}

pub(super) fn no_such_pool(pools: &Pools, request: &Request, pool: &str) -> Error {
    let pod = request.pod.id.to_string();
    let pool = pool.to_owned();
    match pools.refusal(&pool) {
        Some(refusal) => Error::RefusedPool {
            pod,
            pool,
            refusal: Box::new(refusal.clone()),
        },
        None => Error::UnknownPool {
            pod,
            pool,
            mend: format!("create it, or correct berth.dev/pool ({})", names(pools)),
        },
    }
}

pub(super) fn no_pool(pools: &Pools, request: &Request) -> Error {
    let mut mend = format!(
        "set spec.default on an IPPool, or name one in berth.dev/pool ({})",
        names(pools)
    );
    for refusal in pools.refusals() {
        mend.push_str(&format!("; refused: {refusal}"));
    }
    Error::NoPool {
        pod: request.pod.id.to_string(),
        mend,
    }
}

pub(super) fn outside(pools: &Pools, request: &Request, address: IpAddr) -> Error {
    let near = pools.iter().find(|pool| pool.subnet.contains(address));
    let mend = match near {
        Some(pool) if pool.gateway == Some(address) => format!(
            "it is the gateway of pool {}: choose one of {}",
            pool.name, pool.addresses
        ),
        Some(pool) => format!(
            "it is on the subnet of pool {}: widen that pool's spec.ranges, or choose one of {}",
            pool.name, pool.addresses
        ),
        None => format!(
            "make an IPPool for its subnet, or correct berth.dev/ip ({})",
            names(pools)
        ),
    };
    Error::OutsidePools {
        pod: request.pod.id.to_string(),
        address,
        mend,
    }
}

pub(super) fn in_another_pool(request: &Request, address: IpAddr, pool: &Pool) -> Error {
    Error::Annotation {
        pod: request.pod.id.to_string(),
        annotation: "berth.dev/pool".to_owned(),
        problem: format!(
            "{} is asked for, but address {address} of berth.dev/ip is in pool {}",
            request.wishes.pools.join(", "),
            pool.name
        ),
        mend: "leave berth.dev/pool out: the pool follows from the address".to_owned(),
    }
}

pub(super) fn list_too_short(request: &Request, ordinal: u32, size: u128) -> Error {
    Error::Annotation {
        pod: request.pod.id.to_string(),
        annotation: "berth.dev/ip".to_owned(),
        problem: format!("has {size} addresses, and none for ordinal {ordinal}"),
        mend: "add an address for every replica, or scale the StatefulSet down".to_owned(),
    }
}

fn by(taken: &Taken, now: Timestamp) -> String {
    match taken {
        Taken::Held(holder) => format!("is held by {holder}"),
        Taken::Claimed(owner, keep) => format!("is kept for {owner} (keep {keep})"),
        Taken::RestsUntil(at) => format!("is free again in {} s", at.since(now).as_secs() + 1),
    }
}

fn mend(taken: &Taken) -> &'static str {
    match taken {
        Taken::Held(_) => "delete that pod, or give one of the two another address",
        Taken::Claimed(_, Keep::Pod) => "delete that pod, or choose another address",
        Taken::Claimed(..) => "release the address from its owner, or choose another",
        Taken::RestsUntil(_) => "the runtime tries again by itself",
    }
}

pub(super) fn taken(
    request: &Request,
    address: IpAddr,
    pool: &Pool,
    taken: &Taken,
    now: Timestamp,
) -> Error {
    Error::Taken {
        pod: request.pod.id.to_string(),
        address,
        pool: pool.name.clone(),
        by: by(taken, now),
        mend: mend(taken).to_owned(),
    }
}

pub(super) fn list_taken(
    request: &Request,
    size: u128,
    refused: &[(IpAddr, Taken)],
    now: Timestamp,
) -> Error {
    const TOLD: usize = 3;
    let mut told: Vec<_> = refused
        .iter()
        .take(TOLD)
        .map(|(address, taken)| format!("{address} {}", by(taken, now)))
        .collect();
    if refused.len() > TOLD {
        told.push(format!("and {} more", refused.len() - TOLD));
    }
    Error::ListTaken {
        pod: request.pod.id.to_string(),
        size,
        by: told.join(", "),
        mend: "a rolling update needs one address more than there are replicas: add addresses, or set maxSurge to 0".to_owned(),
    }
}

pub(super) fn exhausted<T>(
    records: &mut dyn Records,
    request: &Request,
    pools: &[&Pool],
    now: Timestamp,
) -> Result<T, Error> {
    let mut told = Vec::new();
    let mut next: Option<Timestamp> = None;
    for pool in pools {
        let census = records.census(pool, now)?;
        told.push(format!(
            "pool {} has {} addresses, {} held by pods, {} kept for their owners, {} at rest",
            pool.name,
            pool.addresses.len(),
            census.held,
            census.kept,
            census.resting
        ));
        next = match (next, census.next) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    let retry_in = next.map(|at| at.since(now));
    let mut mend = "widen spec.ranges, or release addresses that are kept".to_owned();
    if let Some(wait) = retry_in {
        mend = format!("one comes free in {} s; else {mend}", wait.as_secs() + 1);
    }
    Err(Error::Exhausted {
        pod: request.pod.id.to_string(),
        pools: told.join("; "),
        mend,
        retry_in,
    })
}
