//! The maps' names, which are also the names of their pins, and their sizes.

/// `FrontendKey4 -> Frontend`, hash.
pub const FRONTENDS4: &str = "FRONTENDS4";
/// `FrontendKey6 -> Frontend`, hash.
pub const FRONTENDS6: &str = "FRONTENDS6";
/// `slot: u32 -> backend index: u32`, array, mapped into the agent's memory.
pub const SLOTS: &str = "SLOTS";
/// `backend index: u32 -> Backend`, array, mapped into the agent's memory.
pub const BACKENDS: &str = "BACKENDS";
/// `AffinityKey -> AffinityValue`, LRU hash.
pub const AFFINITY: &str = "AFFINITY";
/// `ClientKey -> 1`, hash.
pub const CLIENTS: &str = "CLIENTS";
/// `0 -> bits`, array of one: what the programs need not look for.
pub const SETTINGS: &str = "SETTINGS";
/// `socket -> Translation`, socket storage.
pub const CONNECTED: &str = "CONNECTED";
/// `socket -> DatagramPeers`, socket storage.
pub const DATAGRAMS: &str = "DATAGRAMS";
/// [`crate::TranslatedSocket`]s on their way to the agent, ring buffer; not
/// pinned: each agent has its own.
pub const TRANSLATED: &str = "TRANSLATED";
/// `Counter -> u64`, per-CPU array.
pub const COUNTERS: &str = "COUNTERS";

/// Frontends of one family: 50,000 Services with two ports each.
pub const DEFAULT_FRONTENDS: u32 = 131_072;
/// Slots: 4 MiB.
pub const DEFAULT_SLOTS: u32 = 1 << 20;
/// Backends: 8 MiB.
pub const DEFAULT_BACKENDS: u32 = 1 << 18;
/// Clients with session affinity.
pub const DEFAULT_AFFINITY: u32 = 65_536;
/// Pairs of a namespace and a restricted Service port, and opted-out namespaces.
pub const DEFAULT_CLIENTS: u32 = 65_536;

/// Bit of `SETTINGS`: some namespace has opted out.
pub const SOME_OPTED_OUT: u32 = 1;
/// Bit of `SETTINGS`: some cgroup has opted out.
pub const SOME_CGROUP_OPTED_OUT: u32 = 2;
/// How deep below the cgroup2 mount a cgroup that opts out may be. The
/// kubelet's pods are four levels deep, their containers five.
pub const OPT_OUT_DEPTH: i32 = 8;

/// Octets of `TRANSLATED`, a power of two; the agent empties it and goes on.
pub const TRANSLATED_BYTES: u32 = 1 << 18;

/// `BPF_F_MMAPABLE` of `linux/bpf.h`.
pub const F_MMAPABLE: u32 = 1 << 10;
/// `BPF_F_NO_PREALLOC` of `linux/bpf.h`.
pub const F_NO_PREALLOC: u32 = 1;
