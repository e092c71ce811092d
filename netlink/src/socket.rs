//! One route socket: questions, acknowledgements and dumps.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL,
    NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

use crate::{Error, Netns, Result};

/// Add it; refuse if it is there.
pub(crate) const ADD: u16 = NLM_F_CREATE | NLM_F_EXCL;
/// Add it, or put it in the place of what is there.
pub(crate) const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;
/// Change or remove what is there.
pub(crate) const CHANGE: u16 = 0;

/// How often a dump is begun again because something changed meanwhile.
const DUMP_TRIES: usize = 16;
/// Length of the request's header, which every refusal repeats.
const HEADER_LEN: usize = 16;
/// `NLMSGERR_ATTR_MSG` of linux/netlink.h: a sentence in English.
const ATTR_MSG: u16 = 1;

/// A route socket in one network namespace. May be shared between threads;
/// one question is asked at a time.
pub struct Handle {
    inner: Mutex<Inner>,
}

struct Inner {
    socket: Socket,
    sequence: u32,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    /// A socket in the calling thread's namespace.
    ///
    /// # Errors
    /// If the kernel gives no socket.
    pub fn new() -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // The kernel's own words with a refusal, and the request not
            // repeated in front of them (both Linux 4.12).
            socket.set_cap_ack(true)?;
            socket.set_ext_ack(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|error| Error::io("open a route socket", error))?;
        Ok(Self {
            inner: Mutex::new(Inner {
                socket,
                sequence: 0,
            }),
        })
    }

    /// A socket in the namespace `netns`.
    ///
    /// # Errors
    /// If the namespace may not be entered, or the kernel gives no socket.
    pub fn in_netns(netns: &Netns) -> Result<Self> {
        netns.run(Self::new)?
    }

    /// Tells the kernel to do something, and waits for its yes.
    pub(crate) fn tell(
        &self,
        what: impl Fn() -> String,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<()> {
        self.exchange(&what, message, NLM_F_ACK | flags).map(drop)
    }

    /// Asks for one object.
    pub(crate) fn get(
        &self,
        what: impl Fn() -> String,
        message: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage> {
        self.exchange(&what, message, 0)?
            .pop()
            .ok_or_else(|| Error::Unexpected { what: what() })
    }

    /// Asks for all objects of a kind. The list is of one moment: if something
    /// changed while the kernel was listing, it is asked again.
    pub(crate) fn dump(
        &self,
        what: impl Fn() -> String,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let mut tries = 0;
        loop {
            match self.exchange(&what, message.clone(), NLM_F_DUMP) {
                Err(error) if error.errno() == Some(Errno::EINTR) && tries < DUMP_TRIES => {
                    tries += 1
                }
                done => return done,
            }
        }
    }

    fn exchange(
        &self,
        what: &dyn Fn() -> String,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.send(what, message, flags)?;
        inner.receive(what, flags)
    }
}

impl Inner {
    fn send(
        &mut self,
        what: &dyn Fn() -> String,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket
            .send(&bytes, 0)
            .map(drop)
            .map_err(|error| Error::io(what(), error))
    }

    /// Reads datagrams until the question is answered: by an acknowledgement,
    /// by the end of the list, or by the one object that was asked for.
    fn receive(
        &mut self,
        what: &dyn Fn() -> String,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let is_dump = flags & NLM_F_DUMP == NLM_F_DUMP;
        let wants_ack = flags & NLM_F_ACK != 0;
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let (bytes, _) = self
                .socket
                .recv_from_full()
                .map_err(|error| Error::io(what(), error))?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let message =
                    NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|source| {
                        Error::Decode {
                            what: what(),
                            source,
                        }
                    })?;
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length.max(HEADER_LEN)..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue; // The end of an answer that an earlier error cut short.
                }
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::Error(error) => {
                        return match refusal(&error, message.header.flags) {
                            None => Ok(answers),
                            Some((errno, detail)) => Err(Error::Kernel {
                                what: what(),
                                errno,
                                detail,
                            }),
                        };
                    }
                    NetlinkPayload::Done(_) if interrupted => {
                        return Err(Error::Kernel {
                            what: what(),
                            errno: Errno::EINTR,
                            detail: "it changed while it was being listed".to_owned(),
                        });
                    }
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    _ => {}
                }
                if !is_dump && !wants_ack {
                    return Ok(answers);
                }
            }
        }
    }
}

/// The errno and the kernel's sentence; `None` if it was an acknowledgement.
fn refusal(error: &ErrorMessage, flags: u16) -> Option<(Errno, String)> {
    let errno = Errno::from_raw(error.code?.get().wrapping_neg());
    let mut detail = String::new();
    if flags & NLM_F_ACK_TLVS != 0 {
        let attributes = error.header.get(HEADER_LEN..).unwrap_or_default();
        for attribute in NlasIterator::new(attributes).flatten() {
            if attribute.kind() == ATTR_MSG {
                let text = String::from_utf8_lossy(attribute.value());
                detail = text.trim_end_matches('\0').to_owned();
            }
        }
    }
    Some((errno, detail))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroI32;

    use super::*;

    #[test]
    fn an_acknowledgement_is_no_refusal() {
        assert_eq!(refusal(&ErrorMessage::default(), 0), None);
    }

    #[test]
    fn reads_the_kernels_own_words() {
        let mut error = ErrorMessage::default();
        error.code = NonZeroI32::new(-16);
        error.header = vec![0; HEADER_LEN];
        error.header.extend([9, 0, 1, 0]);
        error.header.extend(b"busy\0\0\0\0");
        assert_eq!(
            refusal(&error, NLM_F_ACK_TLVS),
            Some((Errno::EBUSY, "busy".to_owned()))
        );
        assert_eq!(refusal(&error, 0), Some((Errno::EBUSY, String::new())));
    }

    #[test]
    fn an_unprivileged_process_may_list_links() {
        let handle = Handle::new().unwrap();
        let links = handle.links().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!(&handle.link_by_index(lo.index).unwrap(), lo);
        assert_eq!(&handle.link_by_name("lo").unwrap(), lo);
        let error = handle.link_by_name("berth-none").unwrap_err();
        assert!(error.is_not_found(), "{error}");
        assert!(error.to_string().contains("berth-none"), "{error}");
    }
}
