//! One upstream server, and what is remembered of it.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::name::{Name, NameError};

/// An upstream as the operator writes it: `10.0.0.2:53`, or
/// `corp.example=10.0.0.2:53` for the names of one zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSpec {
    /// The zone it is asked about; the root for everything.
    pub zone: Name,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What is wrong with an upstream on the command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No address.
    #[error("{0:?} is not an address with a port; write 10.0.0.2:53 or [fd00::2]:53")]
    Address(String),
    /// No zone.
    #[error("upstream {text:?}: {error}")]
    Zone {
        /// The whole argument.
        text: String,
        /// What is wrong with its zone.
        #[source]
        error: NameError,
    },
}

impl FromStr for UpstreamSpec {
    type Err = UpstreamError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (zone, address) = match text.split_once('=') {
            None => (Name::root(), text),
            Some((zone, address)) => {
                let zone = Name::parse(zone).map_err(|error| UpstreamError::Zone {
                    text: text.to_owned(),
                    error,
                })?;
                (zone, address)
            }
        };
        let address = address
            .parse()
            .map_err(|_| UpstreamError::Address(address.to_owned()))?;
        Ok(Self { zone, address })
    }
}

/// An upstream and its health, as seen by our own questions.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    /// Milliseconds after `born` until which it is asked last; 0 is trusted.
    suspect_until: AtomicU64,
    born: Instant,
}

impl Upstream {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            suspect_until: AtomicU64::new(0),
            born: Instant::now(),
        }
    }

    fn age(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.age() < self.suspect_until.load(Ordering::Relaxed)
    }

    pub(super) fn suspect_for(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let until = self.age().saturating_add(millis);
        self.suspect_until.store(until, Ordering::Relaxed);
    }

    pub(super) fn trust(&self) {
        self.suspect_until.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_upstreams_with_and_without_a_zone() {
        let all: UpstreamSpec = "10.0.0.2:53".parse().unwrap();
        assert_eq!(all.zone, Name::root());
        let one: UpstreamSpec = "corp.example=[fd00::2]:53".parse().unwrap();
        assert_eq!(one.zone.to_string(), "corp.example");
        let told = "10.0.0.2".parse::<UpstreamSpec>().unwrap_err().to_string();
        assert!(told.contains("with a port; write 10.0.0.2:53"), "{told}");
        let told = "a..b=10.0.0.2:53"
            .parse::<UpstreamSpec>()
            .unwrap_err()
            .to_string();
        assert!(told.contains("empty label"), "{told}");
    }

    #[test]
    fn suspicion_passes_and_is_lifted() {
        let upstream = Upstream::new("127.0.0.1:53".parse().unwrap());
        assert!(!upstream.is_suspect());
        upstream.suspect_for(Duration::from_secs(3600));
        assert!(upstream.is_suspect());
        upstream.trust();
        assert!(!upstream.is_suspect());
        upstream.suspect_for(Duration::ZERO);
        assert!(!upstream.is_suspect());
    }
}
