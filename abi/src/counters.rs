//! What the programs count: one per-CPU 64-bit number for each reason.

/// Index into `COUNTERS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// A connect() went to an endpoint.
    Connected = 0,
    /// A datagram of an unconnected socket went to an endpoint.
    Datagram = 1,
    /// Refused: the Service has no usable endpoint.
    NoEndpoints = 2,
    /// Refused: a Local traffic policy, and no endpoint on this node.
    NoLocalEndpoints = 3,
    /// An affinity entry decided.
    AffinityHit = 4,
    /// The source of a datagram, or the peer of a socket, was shown as the Service.
    Reversed = 5,
    /// A slot named no backend: the maps are not whole. Always 0 in health.
    BrokenSlot = 6,
    /// The translation could not be remembered; replies show the endpoint.
    NotRemembered = 7,
    /// A process of the node was kept from binding a NodePort.
    NodePortBind = 8,
    /// Refused: the client is outside of the Service's source ranges.
    NotAllowed = 9,
}

impl Counter {
    /// Every counter, in the order of its index.
    pub const ALL: [Self; 10] = [
        Self::Connected,
        Self::Datagram,
        Self::NoEndpoints,
        Self::NoLocalEndpoints,
        Self::AffinityHit,
        Self::Reversed,
        Self::BrokenSlot,
        Self::NotRemembered,
        Self::NodePortBind,
        Self::NotAllowed,
    ];

    /// The counter's name in metrics and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Datagram => "datagram",
            Self::NoEndpoints => "no_endpoints",
            Self::NoLocalEndpoints => "no_local_endpoints",
            Self::AffinityHit => "affinity_hit",
            Self::Reversed => "reversed",
            Self::BrokenSlot => "broken_slot",
            Self::NotRemembered => "not_remembered",
            Self::NodePortBind => "node_port_bind",
            Self::NotAllowed => "not_allowed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_the_order_of_the_index() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
        }
    }
}
