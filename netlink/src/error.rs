//! What can go wrong: the kernel said no, or it could not be asked.

use std::io;

use netlink_packet_core::DecodeError;
use nix::errno::Errno;

/// Why something could not be done. `what` names the action and the object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error("cannot {what}: {}{}", errno.desc(), said(detail))]
    Kernel {
        /// Action and object, such as `add macvlan eth0`.
        what: String,
        /// The kernel's answer.
        errno: Errno,
        /// The kernel's own words (extended acknowledgement); often empty.
        detail: String,
    },
    /// The socket or the namespace file failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// Action and object.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer could not be read.
    #[error("cannot {what}: the kernel's answer is not understood: {source}")]
    Decode {
        /// Action and object.
        what: String,
        /// The cause.
        #[source]
        source: DecodeError,
    },
    /// The kernel's answer was not one to this question.
    #[error(
        "cannot {what}: the kernel answered with something else; this is a bug in berth-netlink"
    )]
    Unexpected {
        /// Action and object.
        what: String,
    },
}

impl Error {
    /// The kernel's errno, whatever the way it came.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            Self::Io { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::Decode { .. } | Self::Unexpected { .. } => None,
        }
    }

    /// Whether the object is there already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    /// Whether the object (or the namespace file) is not there. The kernel has
    /// a different errno for each kind: links ENODEV, routes ESRCH, addresses
    /// EADDRNOTAVAIL, neighbours ENOENT.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.errno(),
            Some(Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL)
        )
    }

    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }
}

fn said(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(" ({detail})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(errno: Errno, detail: &str) -> Error {
        Error::Kernel {
            what: "add macvlan eth0".to_owned(),
            errno,
            detail: detail.to_owned(),
        }
    }

    #[test]
    fn says_what_was_tried_and_what_the_kernel_said() {
        assert_eq!(
            kernel(Errno::EBUSY, "").to_string(),
            "cannot add macvlan eth0: Device or resource busy"
        );
        assert_eq!(
            kernel(Errno::EINVAL, "Device is a bridge port").to_string(),
            "cannot add macvlan eth0: Invalid argument (Device is a bridge port)"
        );
    }

    #[test]
    fn tells_already_there_from_not_there() {
        assert!(kernel(Errno::EEXIST, "").is_exists());
        assert!(!kernel(Errno::EEXIST, "").is_not_found());
        for errno in [Errno::ENODEV, Errno::ESRCH, Errno::EADDRNOTAVAIL] {
            assert!(kernel(errno, "").is_not_found());
            assert!(!kernel(errno, "").is_exists());
        }
        let missing = Error::io("open /run/netns/x", io::Error::from_raw_os_error(2));
        assert!(missing.is_not_found());
    }
}
