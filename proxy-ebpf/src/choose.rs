//! Which backend one new connection gets.

use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use berth_abi::{Addr, AffinityKey, AffinityValue, Backend, Counter, Frontend, Scope};

use crate::maps;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// A backend for `client`, or `None` if the maps are not whole.
#[inline(always)]
pub(crate) fn backend(
    frontend: &Frontend,
    scope: Scope,
    client: impl FnOnce() -> Addr,
) -> Option<Backend> {
    if frontend.affinity_seconds == 0 {
        let (_, backend) = random(frontend)?;
        return Some(backend);
    }
    let key = AffinityKey {
        client: client(),
        service: frontend.service,
        scope: scope as u32,
    };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(entry) = maps::affinity(&key) {
        let age = now.saturating_sub(entry.last_use_ns);
        if age < u64::from(frontend.affinity_seconds) * NS_PER_SECOND {
            entry.last_use_ns = now;
            let index = entry.backend;
            if let Some(backend) = written(index) {
                maps::count(Counter::AffinityHit);
                return Some(backend);
            }
        }
    }
    let (index, backend) = random(frontend)?;
    maps::remember_affinity(
        &key,
        &AffinityValue {
            last_use_ns: now,
            backend: index,
            reserved: 0,
        },
    );
    Some(backend)
}

#[inline(always)]
fn random(frontend: &Frontend) -> Option<(u32, Backend)> {
    // SAFETY: the helper has no preconditions.
    let number = unsafe { bpf_get_prandom_u32() };
    let index = maps::backend_at(frontend.slot(number))?;
    Some((index, written(index)?))
}

/// The backend, unless its entry is free.
#[inline(always)]
fn written(index: u32) -> Option<Backend> {
    maps::backend(index).filter(|backend| backend.port_be != 0)
}
