//! Unicast routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::address::family;
use crate::socket::{ADD, CHANGE, REPLACE};
use crate::{Handle, Result};

/// The table that routes are in if nobody says otherwise.
pub const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// How far away a route's destination is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Behind a gateway, or anywhere.
    #[default]
    Global,
    /// On the link itself. IPv6 has no such notion: read back as global.
    Link,
    /// On this host.
    Host,
    /// Any other scope, by number.
    Other(u8),
}

/// One unicast route. For adding, say `dst` or `gateway` (they give the
/// address family), and `oif` or `gateway`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination; none is the default route.
    pub dst: Option<IpNetwork>,
    /// Next hop; none is on-link.
    pub gateway: Option<IpAddr>,
    /// Number of the interface that packets leave by.
    pub oif: Option<u32>,
    /// The source address that this host's own packets take.
    pub src: Option<IpAddr>,
    /// How far away the destination is.
    pub scope: Scope,
    /// Table; [`MAIN_TABLE`] if nobody says otherwise.
    pub table: u32,
    /// Metric: the lowest is used. None lets the kernel choose.
    pub priority: Option<u32>,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            dst: None,
            gateway: None,
            oif: None,
            src: None,
            scope: Scope::Global,
            table: MAIN_TABLE,
            priority: None,
        }
    }
}

impl Handle {
    /// The unicast routes of `table`, IPv4 and IPv6.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn routes(&self, table: u32) -> Result<Vec<Route>> {
        let question = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        let answers = self.dump(|| "list routes".to_owned(), &question)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(message) => read(&message),
                _ => None,
            })
            .filter(|route| route.table == table)
            .collect())
    }

    /// Adds a route.
    ///
    /// # Errors
    /// [`crate::Error::is_exists`] if there is one with the same destination,
    /// table and metric; ENETUNREACH if the gateway is not on a link.
    pub fn add_route(&self, route: &Route) -> Result<()> {
        self.put_route("add", route, ADD)
    }

    /// Adds a route, or puts it in the place of the one with the same
    /// destination, table and metric.
    ///
    /// # Errors
    /// As [`Handle::add_route`], but for what is there already.
    pub fn replace_route(&self, route: &Route) -> Result<()> {
        self.put_route("replace", route, REPLACE)
    }

    fn put_route(&self, verb: &str, route: &Route, flags: u16) -> Result<()> {
        let mut message = write(route);
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        self.tell(
            || format!("{verb} {}", told(route)),
            RouteNetlinkMessage::NewRoute(message),
            flags,
        )
    }

    /// Removes a route. Fields that are none match anything.
    ///
    /// # Errors
    /// [`crate::Error::is_not_found`] if there is none.
    pub fn delete_route(&self, route: &Route) -> Result<()> {
        let mut message = write(route);
        // "Nowhere" is the kernel's word for "whatever scope it has".
        if route.scope == Scope::Global {
            message.header.scope = RouteScope::NoWhere;
        }
        self.tell(
            || format!("delete {}", told(route)),
            RouteNetlinkMessage::DelRoute(message),
            CHANGE,
        )
    }
}

fn told(route: &Route) -> String {
    let mut text = match route.dst {
        Some(dst) => format!("route to {dst}"),
        None => "default route".to_owned(),
    };
    if let Some(gateway) = route.gateway {
        text += &format!(" via {gateway}");
    }
    if let Some(oif) = route.oif {
        text += &format!(" on interface number {oif}");
    }
    text
}

fn write(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let any = route.dst.map(|dst| dst.network()).or(route.gateway);
    message.header.address_family = family(any.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    message.header.scope = route.scope.into();
    // Numbers above 255 go into the attribute alone.
    message.header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    if let Some(dst) = route.dst.filter(|dst| dst.prefix() > 0) {
        message.header.destination_prefix_length = dst.prefix();
        attributes.push(RouteAttribute::Destination(dst.network().into()));
    }
    attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    attributes.extend(route.src.map(|ip| RouteAttribute::PrefSource(ip.into())));
    attributes.extend(route.oif.map(RouteAttribute::Oif));
    attributes.extend(route.priority.map(RouteAttribute::Priority));
    message
}

fn read(message: &RouteMessage) -> Option<Route> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route {
        scope: message.header.scope.into(),
        table: message.header.table.into(),
        ..Route::default()
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                let prefix = message.header.destination_prefix_length;
                route.dst = IpNetwork::new(ip(to)?, prefix).ok();
            }
            RouteAttribute::Gateway(gateway) => route.gateway = ip(gateway),
            RouteAttribute::PrefSource(src) => route.src = ip(src),
            RouteAttribute::Oif(oif) => route.oif = Some(*oif),
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(priority) => route.priority = Some(*priority),
            _ => {}
        }
    }
    // An on-link default route has neither destination nor gateway, and would
    // lose its family.
    if route.dst.is_none() && route.gateway.is_none() {
        let any = match message.header.address_family {
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        route.dst = IpNetwork::new(any, 0).ok();
    }
    Some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

impl From<Scope> for RouteScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Global => Self::Universe,
            Scope::Link => Self::Link,
            Scope::Host => Self::Host,
            Scope::Other(number) => number.into(),
        }
    }
}

impl From<RouteScope> for Scope {
    fn from(scope: RouteScope) -> Self {
        match scope {
            RouteScope::Universe => Self::Global,
            RouteScope::Link => Self::Link,
            RouteScope::Host => Self::Host,
            other => Self::Other(other.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(route: &Route) -> Option<Route> {
        let mut message = write(route);
        message.header.kind = RouteType::Unicast;
        read(&message)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let to_pod = Route {
            dst: Some("10.20.0.57/32".parse().unwrap()),
            oif: Some(5),
            src: Some("10.20.0.11".parse().unwrap()),
            scope: Scope::Link,
            ..Route::default()
        };
        let default = Route {
            gateway: Some("fd00::1".parse().unwrap()),
            table: 1000,
            priority: Some(7),
            ..Route::default()
        };
        for route in [to_pod, default] {
            assert_eq!(round_trip(&route), Some(route));
        }
    }

    #[test]
    fn an_on_link_default_route_keeps_its_family() {
        let route = Route {
            dst: Some("::/0".parse().unwrap()),
            oif: Some(2),
            ..Route::default()
        };
        assert_eq!(round_trip(&route), Some(route));
    }

    #[test]
    fn says_which_route() {
        let route = Route {
            gateway: Some("10.20.0.1".parse().unwrap()),
            oif: Some(2),
            ..Route::default()
        };
        assert_eq!(
            told(&route),
            "default route via 10.20.0.1 on interface number 2"
        );
    }
}
