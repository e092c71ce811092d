//! The maps, and the one small function through which each is read. A reader
//! returns a copy: no reference into a map lives past a helper call.

use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, SkStorage};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::SockAddrContext;
use berth_abi::maps::{
    DEFAULT_AFFINITY, DEFAULT_BACKENDS, DEFAULT_CLIENTS, DEFAULT_FRONTENDS, DEFAULT_SLOTS,
    F_MMAPABLE, F_NO_PREALLOC,
};
use berth_abi::{
    Addr, AffinityKey, AffinityValue, Backend, ClientKey, Counter, DatagramPeers, Frontend,
    FrontendKey4, FrontendKey6, Translation,
};

const FRONTENDS: usize = DEFAULT_FRONTENDS as usize;
const NO_PREALLOC: usize = F_NO_PREALLOC as usize;
const MMAPABLE: usize = F_MMAPABLE as usize;

#[btf_map]
static FRONTENDS4: HashMap<FrontendKey4, Frontend, FRONTENDS, NO_PREALLOC> = HashMap::new();
#[btf_map]
static FRONTENDS6: HashMap<FrontendKey6, Frontend, FRONTENDS, NO_PREALLOC> = HashMap::new();
#[btf_map]
static SLOTS: Array<u32, { DEFAULT_SLOTS as usize }, MMAPABLE> = Array::new();
#[btf_map]
static BACKENDS: Array<Backend, { DEFAULT_BACKENDS as usize }, MMAPABLE> = Array::new();
#[btf_map]
static AFFINITY: LruHashMap<AffinityKey, AffinityValue, { DEFAULT_AFFINITY as usize }> =
    LruHashMap::new();
#[btf_map]
static CLIENTS: HashMap<ClientKey, u32, { DEFAULT_CLIENTS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static SETTINGS: Array<u32, 1> = Array::new();
#[btf_map]
static COUNTERS: PerCpuArray<u64, { Counter::ALL.len() }> = PerCpuArray::new();
#[btf_map]
static CONNECTED: SkStorage<Translation> = SkStorage::new();
#[btf_map]
static DATAGRAMS: SkStorage<DatagramPeers> = SkStorage::new();

#[inline(always)]
pub(crate) fn frontend(address: Addr, port_be: u16, protocol: u8, scope: u8) -> Option<Frontend> {
    match address.v4_be() {
        Some(address_be) => {
            let key = FrontendKey4 {
                address_be,
                port_be,
                protocol,
                scope,
            };
            // SAFETY: copied at once; the kernel frees an element of a map
            // without preallocation only after running programs have ended.
            unsafe { FRONTENDS4.get(&key) }.copied()
        }
        None => {
            let key = FrontendKey6 {
                address,
                port_be,
                protocol,
                scope,
                reserved: 0,
            };
            // SAFETY: as above.
            unsafe { FRONTENDS6.get(&key) }.copied()
        }
    }
}

#[inline(always)]
pub(crate) fn backend_at(slot: u32) -> Option<u32> {
    SLOTS.get(slot).copied()
}

#[inline(always)]
pub(crate) fn backend(index: u32) -> Option<Backend> {
    BACKENDS.get(index).copied()
}

/// The entry itself, so that a use refreshes it in place: an entry that the
/// agent has deleted meanwhile does not come back.
#[inline(always)]
pub(crate) fn affinity(key: &AffinityKey) -> Option<&mut AffinityValue> {
    let entry = AFFINITY.get_ptr_mut(key)?;
    // SAFETY: non-null, and used before any further helper call.
    Some(unsafe { &mut *entry })
}

#[inline(always)]
pub(crate) fn remember_affinity(key: &AffinityKey, value: &AffinityValue) {
    // An LRU map makes room by itself; a failure costs the affinity of one
    // connection and nothing else.
    let _ = AFFINITY.insert(key, value, 0);
}

#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(number) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: non-null, and this CPU's own.
        unsafe { *number = (*number).wrapping_add(1) };
    }
}

/// Whether `CLIENTS` has an entry.
#[inline(always)]
pub(crate) fn is_client(key: &ClientKey) -> bool {
    CLIENTS.get_ptr(key).is_some()
}

/// The bits of `SETTINGS`.
#[inline(always)]
pub(crate) fn settings() -> u32 {
    SETTINGS.get(0).copied().unwrap_or(0)
}

/// What a connected socket was asked for and got.
#[inline(always)]
pub(crate) fn connected(ctx: &SockAddrContext) -> Option<&mut Translation> {
    // SAFETY: the context's socket is valid while the program runs, and the
    // storage lives as long as the socket.
    unsafe { CONNECTED.get_ptr_mut(ctx).as_mut() }
}

/// As [`connected`], made if it is not there; `None` when memory is short.
#[inline(always)]
pub(crate) fn connected_or_new(ctx: &SockAddrContext) -> Option<&mut Translation> {
    // SAFETY: as in `connected`.
    unsafe { CONNECTED.get_or_insert_ptr_mut(ctx, None).as_mut() }
}

/// The translations that an unconnected socket used last.
#[inline(always)]
pub(crate) fn datagram_peers(ctx: &SockAddrContext) -> Option<&mut DatagramPeers> {
    // SAFETY: as in `connected`.
    unsafe { DATAGRAMS.get_ptr_mut(ctx).as_mut() }
}

/// As [`datagram_peers`], made if it is not there; `None` when memory is short.
#[inline(always)]
pub(crate) fn datagram_peers_or_new(ctx: &SockAddrContext) -> Option<&mut DatagramPeers> {
    // SAFETY: as in `connected`.
    unsafe { DATAGRAMS.get_or_insert_ptr_mut(ctx, None).as_mut() }
}
