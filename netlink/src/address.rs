//! Addresses of interfaces.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags as KernelFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::socket::{ADD, CHANGE};
use crate::{Handle, Result};

/// One address on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface's number.
    pub index: u32,
    /// The address itself with its prefix length, such as `10.20.0.57/24`.
    pub network: IpNetwork,
    /// IPv6: duplicate detection is still going on.
    pub tentative: bool,
    /// IPv6: duplicate detection found another holder.
    pub dad_failed: bool,
}

/// How an address is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressFlags {
    /// IPv6: use it at once, without duplicate detection (which takes 1.7 s).
    pub nodad: bool,
}

impl Handle {
    /// The addresses of one interface, or of all.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn addresses(&self, index: Option<u32>) -> Result<Vec<Address>> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.dump(|| "list addresses".to_owned(), &question)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(message) => read(&message),
                _ => None,
            })
            .filter(|address| index.is_none_or(|index| address.index == index))
            .collect())
    }

    /// Adds an address.
    ///
    /// # Errors
    /// [`crate::Error::is_exists`] if the interface has it already. The same
    /// IPv4 address on two interfaces is accepted without a word.
    pub fn add_address(&self, index: u32, network: IpNetwork, flags: AddressFlags) -> Result<()> {
        let mut message = write(index, network);
        if flags.nodad {
            message.header.flags = AddressHeaderFlags::Nodad;
            message
                .attributes
                .push(AddressAttribute::Flags(KernelFlags::Nodad));
        }
        self.tell(
            || format!("add address {network} to interface number {index}"),
            RouteNetlinkMessage::NewAddress(message),
            ADD,
        )
    }

    /// Removes an address.
    ///
    /// # Errors
    /// [`crate::Error::is_not_found`] if the interface does not have it.
    pub fn delete_address(&self, index: u32, network: IpNetwork) -> Result<()> {
        self.tell(
            || format!("delete address {network} from interface number {index}"),
            RouteNetlinkMessage::DelAddress(write(index, network)),
            CHANGE,
        )
    }
}

pub(crate) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn write(index: u32, network: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(network.ip());
    message.header.prefix_len = network.prefix();
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(network.ip()),
        AddressAttribute::Address(network.ip()),
    ];
    message
}

fn read(message: &AddressMessage) -> Option<Address> {
    let (mut own, mut other) = (None, None);
    let mut flags = KernelFlags::empty();
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => own = Some(*ip),
            AddressAttribute::Address(ip) => other = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // On a point-to-point link `Address` is the far end; IPv6 has no `Local`.
    Some(Address {
        index: message.header.index,
        network: IpNetwork::new(own.or(other)?, message.header.prefix_len).ok()?,
        tentative: flags.contains(KernelFlags::Tentative),
        dad_failed: flags.contains(KernelFlags::Dadfailed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["10.20.0.57/24", "fd00::57/64"] {
            let network: IpNetwork = text.parse().unwrap();
            let address = read(&write(4, network)).unwrap();
            assert_eq!((address.index, address.network), (4, network));
        }
    }

    #[test]
    fn the_near_end_of_a_point_to_point_link_counts() {
        let mut message = write(4, "10.0.0.1/32".parse().unwrap());
        message.attributes[1] = AddressAttribute::Address("10.0.0.2".parse().unwrap());
        assert_eq!(
            read(&message).unwrap().network,
            "10.0.0.1/32".parse().unwrap()
        );
    }
}
