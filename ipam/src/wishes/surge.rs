//! Whether a workload's list of fixed addresses is long enough to be updated.
//!
//! A Deployment starts new pods before it ends old ones. With as many
//! addresses as replicas the first new pod waits for an address that an old
//! one gives back only when the new one is ready: the update never ends.

use std::fmt;

/// `maxSurge` of a Deployment: a number of pods, or a share of the replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxSurge {
    /// So many pods.
    Pods(u32),
    /// Per cent of the replicas, rounded up.
    Percent(u32),
}

impl MaxSurge {
    /// What an API server puts in where nothing is written.
    pub const DEFAULT: Self = Self::Percent(25);

    /// Reads `2` or `25%`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            Some(share) => share.parse().ok().map(Self::Percent),
            None => text.parse().ok().map(Self::Pods),
        }
    }

    /// How many pods more than `replicas` there may be at once.
    #[must_use]
    pub fn of(self, replicas: u32) -> u64 {
        match self {
            Self::Pods(pods) => u64::from(pods),
            Self::Percent(share) => (u64::from(replicas) * u64::from(share)).div_ceil(100),
        }
    }
}

/// A list of fixed addresses that is too short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Pods in the steady state.
    pub replicas: u32,
    /// Pods at once during an update.
    pub at_once: u64,
    /// Fixed addresses.
    pub addresses: u128,
}

impl Shortage {
    /// Whether there are too few even without an update.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        u128::from(self.replicas) > self.addresses
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            replicas,
            at_once,
            addresses,
        } = self;
        if self.is_permanent() {
            write!(
                f,
                "{replicas} replicas have {addresses} fixed addresses; add {}, or scale down",
                u128::from(*at_once) - addresses
            )
        } else {
            write!(
                f,
                "an update runs up to {at_once} pods at once, and there are {addresses} fixed addresses: \
                 it would wait for ever; add {}, or set maxSurge to {}",
                u128::from(*at_once) - addresses,
                addresses - u128::from(*replicas)
            )
        }
    }
}

/// Compares a Deployment's pods with its fixed addresses of one family. For a
/// StatefulSet, a DaemonSet, and the strategy Recreate, which never run more
/// pods than there are replicas, `surge` is `MaxSurge::Pods(0)`.
///
/// `None`: there are enough.
#[must_use]
pub fn shortage(replicas: u32, surge: MaxSurge, addresses: u128) -> Option<Shortage> {
    let at_once = u64::from(replicas) + surge.of(replicas);
    (u128::from(at_once) > addresses).then_some(Shortage {
        replicas,
        at_once,
        addresses,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up_as_kubernetes_does() {
        assert_eq!(MaxSurge::parse("25%"), Some(MaxSurge::DEFAULT));
        assert_eq!(MaxSurge::parse("2"), Some(MaxSurge::Pods(2)));
        for text in ["", "%", "-1", "x", "1.5", "25 %"] {
            assert_eq!(MaxSurge::parse(text), None, "{text}");
        }
        for (replicas, more) in [(0, 0), (1, 1), (4, 1), (5, 2), (u32::MAX, 1 << 30)] {
            assert_eq!(MaxSurge::DEFAULT.of(replicas), more);
        }
    }

    #[test]
    fn as_many_addresses_as_replicas_deadlock_an_update() {
        let short = shortage(3, MaxSurge::DEFAULT, 3).unwrap();
        assert!(!short.is_permanent());
        assert_eq!(
            short.to_string(),
            "an update runs up to 4 pods at once, and there are 3 fixed addresses: \
             it would wait for ever; add 1, or set maxSurge to 0"
        );
        assert_eq!(shortage(3, MaxSurge::DEFAULT, 4), None);
        assert_eq!(shortage(3, MaxSurge::Pods(0), 3), None);
        let short = shortage(5, MaxSurge::Pods(0), 3).unwrap();
        assert!(short.is_permanent());
        assert_eq!(
            short.to_string(),
            "5 replicas have 3 fixed addresses; add 2, or scale down"
        );
    }
}
