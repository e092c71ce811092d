//! What a translated socket remembers. It lives in socket storage: as long as
//! the socket, never evicted, gone with it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Addr;

/// Value of `CONNECTED`: the Service that a connected socket was asked for
/// and the endpoint that it got.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Translation {
    /// What the application asked for.
    pub frontend: Addr,
    /// What it got.
    pub backend: Addr,
    /// Port of `frontend`, network byte order.
    pub frontend_port_be: u16,
    /// Port of `backend`, network byte order.
    pub backend_port_be: u16,
    /// [`Frontend::service`](crate::Frontend::service).
    pub service: u32,
}

/// Value of `DATAGRAMS`: the translations that an unconnected UDP socket used
/// last, so that each reply is shown to come from the Service it was sent to.
///
/// A socket that talks to more Services at once than [`Self::LEN`] sees the
/// endpoint's own address on replies from the ones it used longest ago.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct DatagramPeers {
    /// Unused entries are all zero.
    pub peers: [Translation; DatagramPeers::LEN],
    /// The entry to be overwritten next, modulo [`Self::LEN`].
    pub next: u32,
    /// Always 0.
    pub reserved: u32,
}

impl DatagramPeers {
    /// A resolver talks to a handful of servers; eight cover them.
    pub const LEN: usize = 8;
}

/// What the iterator over `CONNECTED` says about one socket.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct TranslatedSocket {
    /// The socket's cookie (`SO_COOKIE`), unique while the machine is up.
    pub cookie: u64,
    /// Its entry.
    pub translation: Translation,
}

const _: () = {
    assert!(size_of::<TranslatedSocket>() == 48);
    assert!(size_of::<Translation>() == 40);
    assert!(size_of::<DatagramPeers>() == 328);
};
