//! Neighbour entries: which MAC an address on the link has.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use crate::address::family;
use crate::socket::{CHANGE, REPLACE};
use crate::{Handle, Mac, Result};

/// One neighbour entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface's number.
    pub index: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its MAC; none while nobody has answered.
    pub mac: Option<Mac>,
    /// Whether it stays until somebody removes it.
    pub permanent: bool,
}

impl Handle {
    /// The neighbour entries of one interface, or of all.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn neighbours(&self, index: Option<u32>) -> Result<Vec<Neighbour>> {
        let question = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let answers = self.dump(|| "list neighbours".to_owned(), &question)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => read(message),
                _ => None,
            })
            .filter(|neighbour| index.is_none_or(|index| neighbour.index == index))
            .collect())
    }

    /// Says which MAC `address` has, in the place of what was known. An entry
    /// that is not permanent counts as just confirmed, and ages.
    ///
    /// # Errors
    /// If there is no such interface, or it has no neighbours (loopback).
    pub fn set_neighbour(
        &self,
        index: u32,
        address: IpAddr,
        mac: Mac,
        permanent: bool,
    ) -> Result<()> {
        let mut message = write(index, address);
        message.header.state = if permanent {
            NeighbourState::Permanent
        } else {
            NeighbourState::Reachable
        };
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        self.tell(
            || format!("set neighbour {address} on interface number {index}"),
            RouteNetlinkMessage::NewNeighbour(message),
            REPLACE,
        )
    }

    /// Has the kernel ask the link for `address` now, as if a packet were on
    /// its way there (`NTF_USE`): up to `mcast_solicit` requests, 3 by default,
    /// a second apart. Does not wait for an answer.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn probe_neighbour(&self, index: u32, address: IpAddr) -> Result<()> {
        let mut message = write(index, address);
        message.header.flags = NeighbourFlags::Use;
        self.tell(
            || format!("probe neighbour {address} on interface number {index}"),
            RouteNetlinkMessage::NewNeighbour(message),
            REPLACE,
        )
    }

    /// Forgets `address`.
    ///
    /// # Errors
    /// [`crate::Error::is_not_found`] if it is not known.
    pub fn delete_neighbour(&self, index: u32, address: IpAddr) -> Result<()> {
        self.tell(
            || format!("delete neighbour {address} from interface number {index}"),
            RouteNetlinkMessage::DelNeighbour(write(index, address)),
            CHANGE,
        )
    }
}

fn write(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message
        .attributes
        .push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        }));
    message
}

fn read(message: NeighbourMessage) -> Option<Neighbour> {
    let (mut address, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok(),
            _ => {}
        }
    }
    Some(Neighbour {
        index: message.header.ifindex,
        address: address?,
        mac,
        permanent: message.header.state == NeighbourState::Permanent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["10.20.0.57", "fd00::57"] {
            let address: IpAddr = text.parse().unwrap();
            let expected = Neighbour {
                index: 3,
                address,
                mac: None,
                permanent: false,
            };
            assert_eq!(read(write(3, address)), Some(expected));
        }
    }
}
