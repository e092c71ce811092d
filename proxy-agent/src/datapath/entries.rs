//! Frontends as the two maps have them: keys of either family, written in
//! batches, read back.

use std::os::fd::BorrowedFd;

use berth_abi::{Frontend, FrontendKey4, FrontendKey6, Scope};
use zerocopy::FromZeros;

use super::{DatapathError, sys};
use crate::compile::FrontendKey;
use crate::model::Protocol;

/// A key as one of the two maps has it.
pub(super) enum Key {
    V4(FrontendKey4),
    V6(FrontendKey6),
}

impl Key {
    pub(super) fn of(key: &FrontendKey) -> Self {
        let (port_be, protocol) = (key.port.to_be(), key.protocol.number());
        let scope = key.scope as u8;
        let address = berth_abi::Addr::from(key.address);
        match address.v4_be() {
            Some(address_be) => Self::V4(FrontendKey4 {
                address_be,
                port_be,
                protocol,
                scope,
            }),
            None => Self::V6(FrontendKey6 {
                address,
                port_be,
                protocol,
                scope,
                reserved: 0,
            }),
        }
    }

    /// `None` for what no Berth of this version writes.
    pub(super) fn read(&self) -> Option<FrontendKey> {
        let (address, port_be, protocol, scope) = match self {
            Self::V4(key) => (
                berth_abi::Addr::from_v4_be(key.address_be).into(),
                key.port_be,
                key.protocol,
                key.scope,
            ),
            Self::V6(key) => (key.address.into(), key.port_be, key.protocol, key.scope),
        };
        let scope = [Scope::Socket, Scope::Wire]
            .into_iter()
            .find(|s| *s as u8 == scope)?;
        let protocol = Protocol::from_number(protocol)?;
        Some(FrontendKey {
            address,
            port: u16::from_be(port_be),
            protocol,
            scope,
        })
    }
}

pub(super) struct Batch<K> {
    keys: Vec<K>,
    values: Vec<Frontend>,
    positions: Vec<usize>,
}

impl<K> Default for Batch<K> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            values: Vec::new(),
            positions: Vec::new(),
        }
    }
}

impl<K> Batch<K> {
    pub(super) fn push(&mut self, key: K, value: Frontend, position: usize) {
        self.keys.push(key);
        self.values.push(value);
        self.positions.push(position);
    }

    pub(super) fn write(
        &self,
        map: BorrowedFd<'_>,
        name: &'static str,
        capacity: u32,
        results: &mut [Result<(), DatapathError>],
    ) {
        let mut from = 0;
        while from < self.keys.len() {
            let (done, result) = sys::update_batch(map, &self.keys[from..], &self.values[from..]);
            from += done;
            if let Err(source) = result {
                let is_full = source.raw_os_error() == Some(libc::E2BIG);
                results[self.positions[from]] = Err(if is_full {
                    DatapathError::Full {
                        map: name,
                        capacity,
                        mend: "start the agent with a larger --max-frontends",
                    }
                } else {
                    DatapathError::Kernel {
                        what: format!("write to {name}"),
                        error: source,
                    }
                });
                from += 1;
            }
        }
    }
}

/// A value read from the kernel, with a zero to begin with.
#[derive(Clone, Copy)]
pub(super) struct Raw<T>(pub(super) T);

impl<T: FromZeros> Default for Raw<T> {
    fn default() -> Self {
        Self(T::new_zeroed())
    }
}
