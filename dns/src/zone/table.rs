//! The finished table: what the threads that answer look things up in.

use std::net::IpAddr;
use std::sync::Arc;

use super::config::Config;
use super::record::Records;
use super::shards::{Keyed, Shards};
use crate::name::{Name, suffixes};

/// Whose eyes a question is seen with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Pods and nodes: they can use a ClusterIP.
    Inside,
    /// Everybody else, such as legacy VMs: they need the pods' own addresses.
    Outside,
}

/// One immutable state of all zones.
#[derive(Clone, Debug)]
pub struct Table {
    /// False until every source has been read once. Until then nobody can
    /// know that a name does not exist.
    pub ready: bool,
    /// Seconds for which an answer, also a negative one, may be kept.
    pub ttl: u32,
    pub(super) zones: Arc<[Name]>,
    pub(super) serials: Vec<ZoneSerial>,
    pub(super) nodes: Shards<Arc<Node>>,
    pub(super) inside: Shards<IpAddr>,
}

/// The serial number of a zone (RFC 1982), rising with each change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneSerial(pub u32);

impl ZoneSerial {
    /// To `now`, in seconds since 1970, or by one if it is there already.
    pub(super) fn raise(&mut self, now: u32) {
        self.0 = now.max(self.0.wrapping_add(1));
    }
}

/// The index of the one pseudo zone that all reverse names belong to: each is
/// the apex of a zone of its own, because the zones around them are not ours.
pub(super) const REVERSE: u16 = 0;

/// One name that exists.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    /// The name.
    pub name: Name,
    /// Octets of the zone's apex, which is a suffix of the name.
    pub apex_len: u8,
    pub(super) zone: u16,
    pub(super) inside: Arc<Records>,
    /// The same allocation as `inside` where the views agree.
    pub(super) outside: Arc<Records>,
}

impl Node {
    /// The records as `view` sees them.
    #[must_use]
    pub fn records(&self, view: View) -> &Records {
        match view {
            View::Inside => &self.inside,
            View::Outside => &self.outside,
        }
    }

    /// Whether the name is its zone's apex.
    #[must_use]
    pub fn is_apex(&self) -> bool {
        usize::from(self.apex_len) == self.name.as_wire().len()
    }
}

impl Keyed for Arc<Node> {
    type Key = [u8];
    fn key(&self) -> &[u8] {
        self.name.as_wire()
    }
}

impl Keyed for IpAddr {
    type Key = Self;
    fn key(&self) -> &Self {
        self
    }
}

/// What a name is to us.
#[derive(Debug)]
pub enum Found<'a> {
    /// It exists.
    Node(&'a Node, ZoneSerial),
    /// It would be in this zone, whose apex has so many octets, but is not.
    Missing {
        /// Octets of the apex, a suffix of the name.
        apex_len: u8,
        /// The zone's serial.
        serial: ZoneSerial,
    },
    /// It would be in one of our zones, but these have not been read yet.
    Unknown,
    /// Not ours.
    Elsewhere,
}

const IN_ADDR_ARPA: &[u8] = b"\x07in-addr\x04arpa\x00";
const IP6_ARPA: &[u8] = b"\x03ip6\x04arpa\x00";

impl Table {
    /// A table that knows its zones and nothing in them.
    #[must_use]
    pub fn unread(config: &Config) -> Self {
        let zones: Arc<[Name]> = std::iter::once(Name::root())
            .chain(config.apexes().cloned())
            .collect();
        Self {
            ready: false,
            ttl: config.ttl,
            serials: vec![ZoneSerial(0); zones.len()],
            zones,
            nodes: Shards::default(),
            inside: Shards::default(),
        }
    }

    /// Looks up a wire name in lower case.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Found<'_> {
        if self.ready
            && let Some(node) = self.nodes.get(name)
        {
            return Found::Node(node, self.serials[usize::from(node.zone)]);
        }
        // The longest suffix comes first, so an inner zone beats an outer one.
        for suffix in suffixes(name) {
            let Some(zone) = self
                .zones
                .iter()
                .skip(1)
                .position(|z| z.as_wire() == suffix)
            else {
                if !self.ready && (suffix == IN_ADDR_ARPA || suffix == IP6_ARPA) {
                    return Found::Unknown;
                }
                continue;
            };
            if !self.ready {
                return Found::Unknown;
            }
            return Found::Missing {
                apex_len: u8::try_from(suffix.len()).expect("a name has at most 255 octets"),
                serial: self.serials[zone + 1],
            };
        }
        Found::Elsewhere
    }

    /// With whose eyes a client sees the zones: a pod's, a node's or this
    /// machine's own address sees them from inside.
    #[must_use]
    pub fn view(&self, client: IpAddr) -> View {
        let client = client.to_canonical();
        if client.is_loopback() || self.inside.get(&client).is_some() {
            View::Inside
        } else {
            View::Outside
        }
    }

    /// Every name that exists, in no order.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().map(Arc::as_ref)
    }

    /// The serial of the zone with this apex.
    #[must_use]
    pub fn serial(&self, apex: &Name) -> Option<ZoneSerial> {
        let zone = self.zones.iter().skip(1).position(|z| z == apex)?;
        Some(self.serials[zone + 1])
    }
}
