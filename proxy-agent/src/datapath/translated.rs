//! The sockets that the programs have connected to an endpoint.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use aya::maps::{MapData, RingBuf};
use aya::programs::Iter;
use aya::{Btf, Ebpf};
use berth_abi::{TranslatedSocket, Translation, maps};
use zerocopy::FromBytes as _;

use super::{DatapathError, sys};

/// The program's name, and that of what it iterates over.
const PROGRAM: &str = "translated";
const TARGET: &str = "bpf_sk_storage_map";
/// A million sockets a round, or a full ring buffer: then the kernel wants to
/// be asked again. So often without a single socket is not a kernel that works.
const EMPTY_ROUNDS: u32 = 64;

/// Lists the entries of `CONNECTED`, of every network namespace.
pub struct TranslatedSockets {
    link: OwnedFd,
    told: Mutex<RingBuf<MapData>>,
}

impl std::fmt::Debug for TranslatedSockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TranslatedSockets").finish_non_exhaustive()
    }
}

impl TranslatedSockets {
    pub(super) fn load(
        object: &mut Ebpf,
        connected: BorrowedFd<'_>,
    ) -> Result<Self, DatapathError> {
        let load = |error: &dyn std::error::Error| DatapathError::Load(super::chain(error));
        let btf = Btf::from_sys_fs().map_err(|e| load(&e))?;
        let program: &mut Iter = object
            .program_mut(PROGRAM)
            .ok_or_else(|| DatapathError::Load(format!("no program {PROGRAM}")))?
            .try_into()
            .map_err(|e: aya::programs::ProgramError| load(&e))?;
        program.load(TARGET, &btf).map_err(|e| load(&e))?;
        let fd = program.fd().map_err(|e| load(&e))?;
        let link =
            sys::link_iterator(fd.as_fd(), connected).map_err(|error| DatapathError::Kernel {
                what: "attach the iterator over CONNECTED".to_owned(),
                error,
            })?;
        let told = object
            .take_map(maps::TRANSLATED)
            .ok_or_else(|| DatapathError::Load("no map TRANSLATED".to_owned()))?
            .try_into()
            .map_err(|e: aya::maps::MapError| load(&e))?;
        Ok(Self {
            link,
            told: Mutex::new(told),
        })
    }

    /// Every socket that has an entry, by its cookie.
    ///
    /// # Errors
    /// When the kernel does not let the sockets be listed.
    pub fn list(&self) -> io::Result<HashMap<u64, Translation>> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut iterator = File::from(sys::iterator(self.link.as_fd())?);
        let mut found = HashMap::new();
        let mut empty = 0;
        loop {
            // The program says what it sees through the ring buffer, since
            // writing to this file is for programs under the GPL. A read runs
            // it until all is seen or the ring buffer is full.
            let done = match iterator.read(&mut [0; 64]) {
                Ok(length) => length == 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
                Err(error) => return Err(error),
            };
            let before = found.len();
            while let Some(item) = told.next() {
                if let Ok((socket, _)) = TranslatedSocket::read_from_prefix(&item) {
                    found.insert(socket.cookie, socket.translation);
                }
            }
            if done {
                return Ok(found);
            }
            empty = if found.len() == before { empty + 1 } else { 0 };
            if empty > EMPTY_ROUNDS {
                return Err(io::Error::other("the iterator over CONNECTED does not end"));
            }
        }
    }
}
