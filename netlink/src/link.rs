//! Network interfaces.

use std::os::fd::AsRawFd;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, InfoVeth, InfoVlan, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, MacVlanMode,
};

use crate::socket::{ADD, CHANGE};
use crate::{Error, Handle, Mac, Netns, Result};

/// One interface, as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Number of the interface in its namespace, from 1.
    pub index: u32,
    /// Name, at most 15 bytes.
    pub name: String,
    /// MAC address; none on interfaces that are not Ethernet-like.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it has a carrier and can carry packets.
    pub running: bool,
    /// Whether it is a loopback interface.
    pub loopback: bool,
    /// `veth`, `macvlan`, `bridge`, ...; none for hardware.
    pub kind: Option<String>,
    /// Index of the interface it is stacked on (a macvlan's parent), or a
    /// veth's peer. In this namespace only if `parent_netns_id` is none.
    pub parent: Option<u32>,
    /// Set if the parent is in another namespace: the kernel's number for that
    /// namespace, which holds only within this one.
    pub parent_netns_id: Option<i32>,
    /// Index of the bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// 802.1Q tag of a VLAN interface.
    pub vlan: Option<u16>,
    /// How a macvlan talks to its siblings.
    pub macvlan_mode: Option<MacvlanMode>,
}

/// How a macvlan talks to others on the same parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MacvlanMode {
    /// Directly.
    #[default]
    Bridge,
    /// Not at all.
    Private,
    /// Through the switch outside.
    Vepa,
    /// Any other mode; not made by this crate's users.
    Other(u32),
}

/// A macvlan to be made.
#[derive(Debug)]
pub struct NewMacvlan<'a> {
    /// Name in the target namespace.
    pub name: &'a str,
    /// The parent, in the handle's namespace.
    pub parent_index: u32,
    /// How it talks to its siblings.
    pub mode: MacvlanMode,
    /// Its MAC; the kernel makes one up if none.
    pub mac: Option<Mac>,
    /// Its MTU; the parent's if none.
    pub mtu: Option<u32>,
    /// The namespace that it is made in; the handle's if none.
    pub netns: Option<&'a Netns>,
}

impl Handle {
    /// The interface called `name`.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if there is none.
    pub fn link_by_name(&self, name: &str) -> Result<Link> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.get_link(|| format!("look up interface {name}"), message)
    }

    /// The interface with the number `index`.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if there is none.
    pub fn link_by_index(&self, index: u32) -> Result<Link> {
        self.get_link(|| format!("look up interface number {index}"), at(index))
    }

    fn get_link(&self, what: impl Fn() -> String, message: LinkMessage) -> Result<Link> {
        match self.get(&what, RouteNetlinkMessage::GetLink(message))? {
            RouteNetlinkMessage::NewLink(message) => Ok(read(message)),
            _ => Err(Error::Unexpected { what: what() }),
        }
    }

    /// All interfaces of the namespace.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn links(&self) -> Result<Vec<Link>> {
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.dump(|| "list interfaces".to_owned(), &question)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(read(message)),
                _ => None,
            })
            .collect())
    }

    /// Makes a veth pair: `name` here, `peer` in `peer_netns` (or here).
    ///
    /// # Errors
    /// [`Error::is_exists`] if either name is taken.
    pub fn add_veth(&self, name: &str, peer: &str, peer_netns: Option<&Netns>) -> Result<()> {
        let mut other = LinkMessage::default();
        other
            .attributes
            .push(LinkAttribute::IfName(peer.to_owned()));
        other.attributes.extend(peer_netns.map(in_netns));
        let data = InfoData::Veth(InfoVeth::Peer(other));
        self.add_link(name, InfoKind::Veth, Some(data), Vec::new())
    }

    /// Makes a bridge.
    ///
    /// # Errors
    /// [`Error::is_exists`] if the name is taken.
    pub fn add_bridge(&self, name: &str) -> Result<()> {
        self.add_link(name, InfoKind::Bridge, None, Vec::new())
    }

    /// Makes a macvlan, directly in its namespace: 0.15 ms, where moving it
    /// there afterwards would wait for the kernel's grace periods.
    ///
    /// # Errors
    /// [`Error::is_exists`] if the name is taken; EBUSY if the parent is a
    /// port of a bridge.
    pub fn add_macvlan(&self, new: &NewMacvlan<'_>) -> Result<()> {
        let data = InfoData::MacVlan(vec![InfoMacVlan::Mode(new.mode.into())]);
        let mut attributes = vec![LinkAttribute::Link(new.parent_index)];
        attributes.extend(new.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        attributes.extend(new.mtu.map(LinkAttribute::Mtu));
        attributes.extend(new.netns.map(in_netns));
        self.add_link(new.name, InfoKind::MacVlan, Some(data), attributes)
    }

    /// Makes an 802.1Q interface with the tag `vlan` on `parent_index`.
    ///
    /// # Errors
    /// [`Error::is_exists`] if the name or the tag is taken; EOPNOTSUPP if the
    /// kernel has no 802.1Q.
    pub fn add_vlan(&self, name: &str, parent_index: u32, vlan: u16) -> Result<()> {
        let data = InfoData::Vlan(vec![InfoVlan::Id(vlan)]);
        let attributes = vec![LinkAttribute::Link(parent_index)];
        self.add_link(name, InfoKind::Vlan, Some(data), attributes)
    }

    fn add_link(
        &self,
        name: &str,
        kind: InfoKind,
        data: Option<InfoData>,
        attributes: Vec<LinkAttribute>,
    ) -> Result<()> {
        let what = || format!("add {kind} {name}");
        let mut info = vec![LinkInfo::Kind(kind.clone())];
        info.extend(data.map(LinkInfo::Data));
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(info),
        ];
        message.attributes.extend(attributes);
        self.tell(what, RouteNetlinkMessage::NewLink(message), ADD)
    }

    /// Brings the interface up.
    ///
    /// # Errors
    /// EADDRINUSE if it is a macvlan whose MAC a sibling has already.
    pub fn set_up(&self, index: u32) -> Result<()> {
        let mut message = at(index);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.set(|| format!("bring up interface number {index}"), message)
    }

    /// Brings the interface down.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn set_down(&self, index: u32) -> Result<()> {
        let mut message = at(index);
        message.header.change_mask = LinkFlags::Up;
        self.set(|| format!("bring down interface number {index}"), message)
    }

    /// Gives the interface a MAC.
    ///
    /// # Errors
    /// EBUSY if its driver wants it to be down first.
    pub fn set_mac(&self, index: u32, mac: Mac) -> Result<()> {
        let attribute = LinkAttribute::Address(mac.to_vec());
        self.set(
            || format!("set the MAC of interface number {index}"),
            with(index, attribute),
        )
    }

    /// Makes the interface a port of the bridge `master`, or of none.
    ///
    /// # Errors
    /// If either is not there, or the interface is a port already.
    pub fn set_master(&self, index: u32, master: Option<u32>) -> Result<()> {
        let attribute = LinkAttribute::Controller(master.unwrap_or(0));
        self.set(
            || format!("set the bridge of interface number {index}"),
            with(index, attribute),
        )
    }

    /// Sets the MTU in bytes.
    ///
    /// # Errors
    /// If the interface cannot have that MTU.
    pub fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        self.set(
            || format!("set the MTU of interface number {index} to {mtu}"),
            with(index, LinkAttribute::Mtu(mtu)),
        )
    }

    /// Gives the interface another name.
    ///
    /// # Errors
    /// [`Error::is_exists`] if the name is taken.
    pub fn rename(&self, index: u32, name: &str) -> Result<()> {
        self.set(
            || format!("rename interface number {index} to {name}"),
            with(index, LinkAttribute::IfName(name.to_owned())),
        )
    }

    /// Moves the interface to another namespace, where it is down.
    ///
    /// # Errors
    /// [`Error::is_exists`] if its name is taken there.
    pub fn move_to_netns(&self, index: u32, netns: &Netns) -> Result<()> {
        self.set(
            || format!("move interface number {index} to another namespace"),
            with(index, in_netns(netns)),
        )
    }

    /// Removes the interface; a veth's peer, and all macvlans on it, go too.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if there is none.
    pub fn delete_link(&self, index: u32) -> Result<()> {
        self.tell(
            || format!("delete interface number {index}"),
            RouteNetlinkMessage::DelLink(at(index)),
            CHANGE,
        )
    }

    fn set(&self, what: impl Fn() -> String, message: LinkMessage) -> Result<()> {
        self.tell(what, RouteNetlinkMessage::SetLink(message), CHANGE)
    }
}

fn at(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn with(index: u32, attribute: LinkAttribute) -> LinkMessage {
    let mut message = at(index);
    message.attributes.push(attribute);
    message
}

fn in_netns(netns: &Netns) -> LinkAttribute {
    LinkAttribute::NetNsFd(netns.as_raw_fd())
}

fn read(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Running),
        loopback: flags.contains(LinkFlags::Loopback),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = mac.try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Link(parent) => link.parent = Some(parent),
            LinkAttribute::LinkNetNsId(id) => link.parent_netns_id = Some(id),
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::LinkInfo(info) => read_info(info, &mut link),
            _ => {}
        }
    }
    link
}

fn read_info(info: Vec<LinkInfo>, link: &mut Link) {
    for item in info {
        match item {
            LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
            LinkInfo::Data(InfoData::Vlan(data)) => {
                link.vlan = data.iter().find_map(|item| match item {
                    InfoVlan::Id(id) => Some(*id),
                    _ => None,
                });
            }
            LinkInfo::Data(InfoData::MacVlan(data)) => {
                link.macvlan_mode = data.iter().find_map(|item| match item {
                    InfoMacVlan::Mode(mode) => Some((*mode).into()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
}

impl From<MacvlanMode> for MacVlanMode {
    fn from(mode: MacvlanMode) -> Self {
        match mode {
            MacvlanMode::Bridge => Self::Bridge,
            MacvlanMode::Private => Self::Private,
            MacvlanMode::Vepa => Self::Vepa,
            MacvlanMode::Other(number) => number.into(),
        }
    }
}

impl From<MacVlanMode> for MacvlanMode {
    fn from(mode: MacVlanMode) -> Self {
        match mode {
            MacVlanMode::Bridge => Self::Bridge,
            MacVlanMode::Private => Self::Private,
            MacVlanMode::Vepa => Self::Vepa,
            other => Self::Other(other.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_macvlan_whose_parent_is_elsewhere() {
        let mut message = at(7);
        message.header.flags = LinkFlags::Up | LinkFlags::Running;
        message.attributes = vec![
            LinkAttribute::IfName("eth0".to_owned()),
            LinkAttribute::Address(vec![2, 0xbe, 10, 20, 0, 57]),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Link(3),
            LinkAttribute::LinkNetNsId(0),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::MacVlan),
                LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(
                    MacVlanMode::Bridge,
                )])),
            ]),
        ];
        let expected = Link {
            index: 7,
            name: "eth0".to_owned(),
            mac: Some([2, 0xbe, 10, 20, 0, 57]),
            mtu: 1500,
            up: true,
            running: true,
            kind: Some("macvlan".to_owned()),
            parent: Some(3),
            parent_netns_id: Some(0),
            macvlan_mode: Some(MacvlanMode::Bridge),
            ..Link::default()
        };
        assert_eq!(read(message), expected);
    }
}
