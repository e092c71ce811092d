//! What the eBPF programs and the agent agree on: the keys and values of the
//! maps, the maps' names and sizes, and the pure rules that both sides use.
//!
//! `no_std`, no dependencies but derives that turn a stray byte of padding
//! into a compile error. A change to anything here changes [`VERSION`], which
//! names the folder that the maps are pinned in: an agent never opens a map of
//! another layout.
#![no_std]
#![forbid(unsafe_code)]

pub mod addr;
pub mod client;
pub mod counters;
pub mod frontend;
pub mod maps;
pub mod socket;

pub use addr::Addr;
pub use client::ClientKey;
pub use counters::Counter;
pub use frontend::{
    AffinityKey, AffinityValue, Backend, Frontend, FrontendKey4, FrontendKey6, Scope,
};
pub use socket::{DatagramPeers, TranslatedSocket, Translation};

/// The layout of everything in this crate. Part of the pin path.
pub const VERSION: u32 = 1;
