//! Ranges and sets of addresses, never listed one by one: a /8 and an IPv6
//! /64 cost as much as a single address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// 32-bit addresses.
    V4,
    /// 128-bit addresses.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The address whose number is `bits`; `None` if IPv4 has no such number.
    fn address(self, bits: u128) -> Option<IpAddr> {
        match self {
            Self::V4 => u32::try_from(bits)
                .ok()
                .map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
            Self::V6 => Some(IpAddr::V6(Ipv6Addr::from_bits(bits))),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// An address as a number, in host order.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Addresses from `first` to `last`, both included, of one family.
///
/// # Invariants
/// `first` and `last` are of one family, and `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Why a text is not a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseRangeError {
    /// Not an address, range or CIDR at all.
    #[error("{0:?} is not an address, a range such as 10.20.0.50-10.20.0.99, or a CIDR")]
    Shape(String),
    /// The ends are in the wrong order.
    #[error("the range {0:?} ends before it starts")]
    Order(String),
    /// One end is IPv4, the other IPv6.
    #[error("the range {0:?} mixes IPv4 and IPv6")]
    Families(String),
}

impl AddressRange {
    /// Exactly one address.
    #[must_use]
    pub fn single(address: IpAddr) -> Self {
        Self {
            first: address,
            last: address,
        }
    }

    /// Every address of a subnet, its network and broadcast address included.
    #[must_use]
    pub fn of_network(network: IpNetwork) -> Self {
        Self {
            first: network.network(),
            last: network.broadcast(),
        }
    }

    /// The lowest address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// The family of both ends.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.first)
    }

    /// How many addresses; the whole of IPv6 counts one less than it has.
    #[must_use]
    pub fn len(&self) -> u128 {
        (bits(self.last) - bits(self.first)).saturating_add(1)
    }

    /// Never: a range holds at least one address.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The address `index` places after the first.
    #[must_use]
    pub fn nth(&self, index: u128) -> Option<IpAddr> {
        let at = bits(self.first).checked_add(index)?;
        (at <= bits(self.last))
            .then(|| self.family().address(at))
            .flatten()
    }

    /// Whether `address` lies in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family() && self.first <= address && address <= self.last
    }
}

impl FromStr for AddressRange {
    type Err = ParseRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let shape = || ParseRangeError::Shape(text.to_owned());
        if let Some((first, last)) = text.split_once('-') {
            let first: IpAddr = first.trim().parse().map_err(|_| shape())?;
            let last: IpAddr = last.trim().parse().map_err(|_| shape())?;
            if Family::of(first) != Family::of(last) {
                Err(ParseRangeError::Families(text.to_owned()))
            } else if last < first {
                Err(ParseRangeError::Order(text.to_owned()))
            } else {
                Ok(Self { first, last })
            }
        } else if text.contains('/') {
            text.parse().map(Self::of_network).map_err(|_| shape())
        } else {
            text.parse().map(Self::single).map_err(|_| shape())
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// A set of addresses of one family.
///
/// # Invariants
/// The ranges are in rising order and neither overlap nor touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSet {
    family: Family,
    ranges: Vec<(u128, u128)>,
}

impl AddressSet {
    /// Every address in `ranges`; ranges of another family are left out.
    #[must_use]
    pub fn new(family: Family, ranges: impl IntoIterator<Item = AddressRange>) -> Self {
        let mut sorted: Vec<_> = ranges
            .into_iter()
            .filter(|range| range.family() == family)
            .map(|range| (bits(range.first), bits(range.last)))
            .collect();
        sorted.sort_unstable();
        let mut ranges: Vec<(u128, u128)> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match ranges.last_mut() {
                Some(previous) if first <= previous.1.saturating_add(1) => {
                    previous.1 = previous.1.max(last);
                }
                _ => ranges.push((first, last)),
            }
        }
        Self { family, ranges }
    }

    /// Takes the addresses of `range` out.
    pub fn remove(&mut self, range: AddressRange) {
        if range.family() != self.family {
            return;
        }
        let (low, high) = (bits(range.first), bits(range.last));
        let mut left = Vec::with_capacity(self.ranges.len() + 1);
        for &(first, last) in &self.ranges {
            if last < low || high < first {
                left.push((first, last));
                continue;
            }
            if first < low {
                left.push((first, low - 1));
            }
            if high < last {
                left.push((high + 1, last));
            }
        }
        self.ranges = left;
    }

    /// The family of every address in the set.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// How many addresses, saturating at `u128::MAX`.
    #[must_use]
    pub fn len(&self) -> u128 {
        self.ranges.iter().fold(0, |sum: u128, (first, last)| {
            sum.saturating_add((last - first).saturating_add(1))
        })
    }

    /// Whether the set holds no address.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether `address` is in the set; logarithmic in the number of ranges.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family && {
            let at = bits(address);
            let after = self.ranges.partition_point(|(_, last)| *last < at);
            self.ranges
                .get(after)
                .is_some_and(|(first, _)| *first <= at)
        }
    }

    /// The lowest address of the set that is not below `from`.
    #[must_use]
    pub fn at_or_after(&self, from: IpAddr) -> Option<IpAddr> {
        if Family::of(from) != self.family {
            return None;
        }
        let at = bits(from);
        let index = self.ranges.partition_point(|(_, last)| *last < at);
        let (first, _) = self.ranges.get(index)?;
        self.family.address(at.max(*first))
    }

    /// The lowest address of the set that is above `address`.
    #[must_use]
    pub fn after(&self, address: IpAddr) -> Option<IpAddr> {
        let next = bits(address).checked_add(1)?;
        self.at_or_after(Family::of(address).address(next)?)
    }

    /// The lowest address.
    #[must_use]
    pub fn first(&self) -> Option<IpAddr> {
        let (first, _) = self.ranges.first()?;
        self.family.address(*first)
    }

    /// The lowest address that is in both sets.
    #[must_use]
    pub fn first_common(&self, other: &Self) -> Option<IpAddr> {
        if self.family != other.family {
            return None;
        }
        self.ranges
            .iter()
            .flat_map(|&(a, b)| {
                other
                    .ranges
                    .iter()
                    .filter(move |&&(c, d)| a <= d && c <= b)
                    .map(move |&(c, _)| a.max(c))
            })
            .min()
            .and_then(|at| self.family.address(at))
    }

    /// The ranges, in rising order.
    pub fn ranges(&self) -> impl Iterator<Item = AddressRange> + '_ {
        self.ranges.iter().filter_map(|&(first, last)| {
            Some(AddressRange {
                first: self.family.address(first)?,
                last: self.family.address(last)?,
            })
        })
    }
}

impl fmt::Display for AddressSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{range}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn reads_addresses_ranges_and_cidrs() {
        assert_eq!(range("10.20.0.7").len(), 1);
        assert_eq!(range(" 10.20.0.50 - 10.20.0.99 ").len(), 50);
        assert_eq!(range("10.20.0.0/24").to_string(), "10.20.0.0-10.20.0.255");
        assert_eq!(range("fd00::/64").len(), 1 << 64);
        assert_eq!(range("10.0.0.0/8").nth(65_536), Some(ip("10.1.0.0")));
        assert_eq!(range("10.20.0.7").nth(1), None);
        for (text, told) in [
            ("10.20.0.9-10.20.0.1", "ends before it starts"),
            ("10.20.0.9-fd00::1", "mixes IPv4 and IPv6"),
            ("10.20.0", "is not an address"),
            ("10.20.0.0/40", "is not an address"),
            ("", "is not an address"),
        ] {
            let error = text.parse::<AddressRange>().unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn a_set_merges_splits_and_finds() {
        let mut set = AddressSet::new(
            Family::V4,
            [
                range("10.0.0.20-10.0.0.30"),
                range("10.0.0.1-10.0.0.9"),
                range("10.0.0.10"),
                range("fd00::1"),
            ],
        );
        assert_eq!(set.to_string(), "10.0.0.1-10.0.0.10,10.0.0.20-10.0.0.30");
        set.remove(range("10.0.0.5-10.0.0.24"));
        assert_eq!(set.to_string(), "10.0.0.1-10.0.0.4,10.0.0.25-10.0.0.30");
        assert_eq!(set.len(), 10);
        assert_eq!(set.after(ip("10.0.0.4")), Some(ip("10.0.0.25")));
        assert_eq!(set.after(ip("10.0.0.30")), None);
        assert!(!set.contains(ip("fd00::1")));
        assert_eq!(
            AddressSet::new(Family::V4, [range("255.255.255.255")]).after(ip("255.255.255.255")),
            None
        );
        let other = AddressSet::new(Family::V4, [range("10.0.0.28-10.0.0.99")]);
        assert_eq!(set.first_common(&other), Some(ip("10.0.0.28")));
    }

    #[test]
    fn all_of_ipv6_is_no_trouble() {
        let mut set = AddressSet::new(Family::V6, [range("::/0")]);
        assert_eq!(set.len(), u128::MAX);
        set.remove(range("::1"));
        assert_eq!(set.after(ip("::")), Some(ip("::2")));
    }

    proptest! {
        /// The set agrees with a plain list of addresses.
        #[test]
        fn agrees_with_a_list(
            kept in prop::collection::vec((0_u8..=255, 0_u8..=255), 0..8),
            removed in prop::collection::vec((0_u8..=255, 0_u8..=255), 0..8),
        ) {
            let span = |(a, b): (u8, u8)| AddressRange {
                first: IpAddr::from([10, 0, 0, a.min(b)]),
                last: IpAddr::from([10, 0, 0, a.max(b)]),
            };
            let mut set = AddressSet::new(Family::V4, kept.iter().copied().map(span));
            for gone in removed.iter().copied().map(span) {
                set.remove(gone);
            }
            let listed: Vec<IpAddr> = (0..=255_u8)
                .map(|last| IpAddr::from([10, 0, 0, last]))
                .filter(|a| kept.iter().any(|r| span(*r).contains(*a)))
                .filter(|a| !removed.iter().any(|r| span(*r).contains(*a)))
                .collect();
            prop_assert_eq!(set.len(), listed.len() as u128);
            let mut walked = Vec::new();
            let mut at = set.first();
            while let Some(address) = at {
                prop_assert!(set.contains(address));
                walked.push(address);
                at = set.after(address);
            }
            prop_assert_eq!(walked, listed);
        }
    }
}
