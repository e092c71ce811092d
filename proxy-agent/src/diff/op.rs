//! What can be done to the maps, and what they hold.

use berth_abi::{Backend, ClientKey, Frontend};

use crate::compile::FrontendKey;

/// One operation on the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Fill in a free backend entry.
    WriteBackend {
        /// Its index.
        index: u32,
        /// What it says.
        backend: Backend,
    },
    /// Fill in a region of slots that no frontend points at.
    WriteSlots {
        /// The first slot.
        first: u32,
        /// Backend indices.
        backends: Vec<u32>,
    },
    /// Point a frontend at its region: the one moment at which it changes.
    SetFrontend {
        /// Its address.
        key: FrontendKey,
        /// What it says.
        frontend: Frontend,
    },
    /// Take a frontend away.
    DeleteFrontend {
        /// Its address.
        key: FrontendKey,
    },
    /// Forget that clients of a Service port are bound to these backends.
    ForgetAffinity {
        /// [`Frontend::service`].
        service: u32,
        /// Backend indices.
        backends: Vec<u32>,
    },
    /// Let a namespace use a restricted Service port, or opt it out.
    SetClient {
        /// Which, and what.
        key: ClientKey,
    },
    /// Take that back.
    DeleteClient {
        /// Which, and what.
        key: ClientKey,
    },
    /// What the programs need not look for.
    SetSettings {
        /// Bits such as [`berth_abi::maps::SOME_OPTED_OUT`].
        bits: u32,
    },
    /// Empty a backend entry that no slot has named for a grace period.
    ClearBackend {
        /// Its index.
        index: u32,
    },
}

/// How much the maps can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Frontends of one family.
    pub frontends: u32,
    /// Slots.
    pub slots: u32,
    /// Backends.
    pub backends: u32,
}

/// What the maps hold, as read from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// Every frontend, in no order.
    pub frontends: Vec<(FrontendKey, Frontend)>,
    /// Slots from 0; what lies beyond the end is unused.
    pub slots: Vec<u32>,
    /// Backends from 0; a port of 0 is a free entry.
    pub backends: Vec<Backend>,
    /// Every client entry, in no order.
    pub clients: Vec<ClientKey>,
    /// The programs' settings.
    pub settings: u32,
}
