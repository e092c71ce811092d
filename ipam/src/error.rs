//! Why a pod gets no address, in words that say what to do.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::Rejected;

use crate::store::StoreError;

/// Why no address was given. One variant per thing that a caller can do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An annotation cannot be read.
    #[error("pod {pod}: annotation {annotation}: {problem}; {mend}")]
    Annotation {
        /// Namespace and name of the pod.
        pod: String,
        /// The annotation's name, and where it stands if not on the pod.
        annotation: String,
        /// What is wrong with it.
        problem: String,
        /// What to write.
        mend: String,
    },
    /// No pool of that name.
    #[error("pod {pod}: pool {pool} does not exist; {mend}")]
    UnknownPool {
        /// Namespace and name of the pod.
        pod: String,
        /// The name that was asked for.
        pool: String,
        /// Create it, or use one of those that exist.
        mend: String,
    },
    /// The pool exists, but breaks a rule.
    #[error("pod {pod}: pool {pool} is not served: {refusal}")]
    RefusedPool {
        /// Namespace and name of the pod.
        pod: String,
        /// The pool.
        pool: String,
        /// Why.
        refusal: Box<Rejected>,
    },
    /// The pod names no pool, and there is no default one.
    #[error("pod {pod}: there is no default pool; {mend}")]
    NoPool {
        /// Namespace and name of the pod.
        pod: String,
        /// Set `spec.default`, or name a pool; and what was refused.
        mend: String,
    },
    /// A fixed address that no pool has.
    #[error("pod {pod}: address {address} is in no pool; {mend}")]
    OutsidePools {
        /// Namespace and name of the pod.
        pod: String,
        /// The address.
        address: IpAddr,
        /// What to do about it.
        mend: String,
    },
    /// Somebody else has the fixed address.
    #[error("pod {pod}: address {address} of pool {pool} {by}; {mend}")]
    Taken {
        /// Namespace and name of the pod.
        pod: String,
        /// The address.
        address: IpAddr,
        /// Its pool.
        pool: String,
        /// `is held by ...` or `is kept for ...`.
        by: String,
        /// What to do about it.
        mend: String,
    },
    /// Every address of the list has somebody.
    #[error("pod {pod}: none of the {size} addresses of berth.dev/ip is free: {by}; {mend}")]
    ListTaken {
        /// Namespace and name of the pod.
        pod: String,
        /// How many addresses the list has.
        size: u128,
        /// Who has them; the first few.
        by: String,
        /// What to do about it.
        mend: String,
    },
    /// No address is left.
    #[error("pod {pod}: no free address: {pools}; {mend}")]
    Exhausted {
        /// Namespace and name of the pod.
        pod: String,
        /// Each pool with its numbers.
        pools: String,
        /// What to do about it.
        mend: String,
        /// When the next address comes free by itself, if one will.
        retry_in: Option<Duration>,
    },
    /// Other writers were faster, again and again.
    #[error(
        "pod {pod}: other nodes took every address that was tried; the runtime tries again by itself"
    )]
    Contended {
        /// Namespace and name of the pod.
        pod: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// Whether asking again a little later may succeed with nothing changed by
    /// hand.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Contended { .. }
                | Self::Store(StoreError::Api {
                    is_temporary: true,
                    ..
                })
                | Self::Exhausted {
                    retry_in: Some(_),
                    ..
                }
        )
    }
}
