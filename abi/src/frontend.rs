//! Frontends, slots and backends: how an address becomes a pod.
//!
//! ```text
//! FRONTENDS4/6: address, port, protocol, scope -> Frontend { first_slot, slot_count, ... }
//! SLOTS:        slot -> backend index          (one region a Frontend)
//! BACKENDS:     backend index -> Backend { address, port, ... }
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Addr;

/// Who asks. One frontend address can have different backends for the two.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// A socket on this node: a pod's or the node's own.
    Socket = 0,
    /// A packet that arrived on the uplink.
    Wire = 1,
}

/// Key of `FRONTENDS4`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FrontendKey4 {
    /// IPv4 address, network byte order.
    pub address_be: u32,
    /// Port, network byte order.
    pub port_be: u16,
    /// IP protocol number: 6, 17 or 132.
    pub protocol: u8,
    /// A [`Scope`].
    pub scope: u8,
}

/// Key of `FRONTENDS6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FrontendKey6 {
    /// IPv6 address.
    pub address: Addr,
    /// Port, network byte order.
    pub port_be: u16,
    /// IP protocol number: 6, 17 or 132.
    pub protocol: u8,
    /// A [`Scope`].
    pub scope: u8,
    /// Always 0.
    pub reserved: u32,
}

/// Value of `FRONTENDS4` and `FRONTENDS6`.
///
/// # Invariants
/// `first_slot .. first_slot + slot_count` is one region that no other
/// Frontend value points into, and every slot of it names a backend that is
/// written. The region's first `local_count` slots are this node's own pods.
/// A Service changes by a new region and one write of this value.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Frontend {
    /// Index into `SLOTS`.
    pub first_slot: u32,
    /// Length of the region; 0 is a Service that has nobody to serve it.
    pub slot_count: u32,
    /// How many of the first slots are on this node.
    pub local_count: u32,
    /// `sessionAffinity: ClientIP`: its timeout; 0 is none.
    pub affinity_seconds: u32,
    /// Which Service port this is; the same for all of its frontends.
    pub service: u32,
    /// [`flags`](Self::LOCAL_ONLY) below.
    pub flags: u32,
}

impl Frontend {
    /// A Local traffic policy without a local endpoint: endpoints exist, but
    /// elsewhere. With no slots, the error is another than "refused".
    pub const LOCAL_ONLY: u32 = 1;

    /// `loadBalancerSourceRanges`: only clients with an entry in `CLIENTS`.
    pub const RESTRICTED: u32 = 2;

    /// The slot for one new connection, from 32 random bits. Needs
    /// `slot_count > 0`.
    ///
    /// Scales by multiplication: no division, and a bias below one part in
    /// 2^32 / `slot_count`.
    #[inline(always)]
    #[must_use]
    pub const fn slot(&self, random: u32) -> u32 {
        self.first_slot + ((random as u64 * self.slot_count as u64) >> 32) as u32
    }
}

/// Value of `BACKENDS`.
///
/// # Invariants
/// Never changed in place while a slot names it: an endpoint that changes is
/// a new backend.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Backend {
    /// The endpoint's address; all zero is a free entry.
    pub address: Addr,
    /// The endpoint's port, network byte order.
    pub port_be: u16,
    /// The pod's MAC on the wire; all zero when it is not known to be on it.
    pub mac: [u8; 6],
    /// [`Self::ON_THIS_NODE`].
    pub flags: u16,
    /// Always 0.
    pub reserved: [u16; 3],
}

impl Backend {
    /// The endpoint is a pod on this node.
    pub const ON_THIS_NODE: u16 = 1;
}

/// Key of `AFFINITY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AffinityKey {
    /// The client: its address, or, on the socket path, where a connection has
    /// no source address yet, the cookie of its network namespace in `low`.
    pub client: Addr,
    /// [`Frontend::service`].
    pub service: u32,
    /// A [`Scope`], so that the two kinds of client never meet.
    pub scope: u32,
}

/// Value of `AFFINITY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AffinityValue {
    /// When the client last came, in nanoseconds of `CLOCK_MONOTONIC`.
    pub last_use_ns: u64,
    /// The backend index that it was given.
    pub backend: u32,
    /// Always 0.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<FrontendKey4>() == 8);
    assert!(size_of::<FrontendKey6>() == 24);
    assert!(size_of::<Frontend>() == 24);
    assert!(size_of::<Backend>() == 32);
    assert!(size_of::<AffinityKey>() == 24);
    assert!(size_of::<AffinityValue>() == 16);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_reached_and_none_outside() {
        let frontend = Frontend {
            first_slot: 100,
            slot_count: 7,
            ..Frontend::default()
        };
        let mut hits = [0_u32; 7];
        for i in 0..7_000_u32 {
            let random = i.wrapping_mul(0x9e37_79b9);
            let slot = frontend.slot(random);
            assert!((100..107).contains(&slot));
            hits[(slot - 100) as usize] += 1;
        }
        assert!(hits.iter().all(|hit| (900..1100).contains(hit)), "{hits:?}");
        assert_eq!(frontend.slot(u32::MAX), 106);
        assert_eq!(frontend.slot(0), 100);
    }
}
