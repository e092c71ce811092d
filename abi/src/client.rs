//! Who may use what: clients of the socket path are told apart by the cookie
//! of their network namespace, since a connect() has no source address yet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of `CLIENTS`. An entry says that the namespace may use a Service port
/// that is restricted to source ranges, or, with [`Self::OPTED_OUT`], that its
/// sockets are left alone.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct ClientKey {
    /// The namespace, as `SO_NETNS_COOKIE` tells it; with
    /// [`Self::OPTED_OUT_CGROUP`] the id of a cgroup, which is its inode.
    pub netns_cookie: u64,
    /// [`Frontend::service`](crate::Frontend::service), or [`Self::OPTED_OUT`].
    pub service: u32,
    /// Always 0.
    pub reserved: u32,
}

impl ClientKey {
    /// In the place of a Service port: none of them is translated.
    pub const OPTED_OUT: u32 = u32::MAX;

    /// As [`Self::OPTED_OUT`], for a cgroup and all below it.
    pub const OPTED_OUT_CGROUP: u32 = u32::MAX - 1;

    /// The key for a Service port, or for [`Self::OPTED_OUT`].
    #[inline(always)]
    #[must_use]
    pub const fn new(netns_cookie: u64, service: u32) -> Self {
        Self {
            netns_cookie,
            service,
            reserved: 0,
        }
    }
}

const _: () = assert!(size_of::<ClientKey>() == 16);
