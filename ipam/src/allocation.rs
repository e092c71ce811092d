//! One record per address, and what may become of it.
//!
//! ```text
//!            acquire                 release
//!  no record ------> claimed, held <-------> claimed, idle --(claim ends)--> anybody's
//!                        ^  acquire by the owner  |
//!                        '------------------------'
//! ```
//!
//! Nothing here reads a clock or a store: the same functions decide in SQLite,
//! in Kubernetes and in the tests' model.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::keep::Keep;

/// A moment, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The machine's clock; 1970 if it is set earlier.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// This moment and `time` more.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long it is from `earlier` to this moment; zero if it is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// One pod object. A pod that is made again under the same name has another
/// UID and is another pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// `metadata.namespace`; empty outside Kubernetes.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`; outside Kubernetes the container ID.
    pub uid: String,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Who owns an address for long.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Owner {
    /// This one pod object.
    Pod(PodRef),
    /// Whatever pod has this name: a bare pod that keeps its address.
    PodName {
        /// Namespace of the pod.
        namespace: String,
        /// Name of the pod.
        name: String,
    },
    /// One ordinal of a StatefulSet.
    StatefulSet {
        /// Namespace of the StatefulSet.
        namespace: String,
        /// Name of the StatefulSet.
        name: String,
        /// The pod's index.
        ordinal: u32,
    },
    /// Any pod of a Deployment or another controller.
    Workload {
        /// `Deployment`, `DaemonSet`, `Job`, ...
        workload: String,
        /// Namespace of the workload.
        namespace: String,
        /// Name of the workload.
        name: String,
    },
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(pod) => write!(f, "pod {pod} (UID {})", pod.uid),
            Self::PodName { namespace, name } => write!(f, "pod {namespace}/{name}"),
            Self::StatefulSet {
                namespace,
                name,
                ordinal,
            } => write!(f, "StatefulSet {namespace}/{name} ordinal {ordinal}"),
            Self::Workload {
                workload,
                namespace,
                name,
            } => write!(f, "{workload} {namespace}/{name}"),
        }
    }
}

/// Who owns an address for long, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The owner.
    pub owner: Owner,
    /// Which of the owner's interfaces.
    pub ifname: String,
    /// What becomes of the claim when the sandbox has gone.
    pub keep: Keep,
    /// How long the address rests once the claim has ended.
    #[serde(rename = "coolDownSeconds", with = "seconds")]
    pub cool_down: Duration,
    /// The pod that used it last, or uses it now.
    pub pod: PodRef,
    /// When the owner got it.
    pub since: Timestamp,
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(time.as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        u64::deserialize(d).map(Duration::from_secs)
    }
}

/// The live sandbox that uses an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// The sandbox's pod.
    pub pod: PodRef,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// The node that the sandbox is on.
    pub node: String,
    /// When it got the address.
    pub since: Timestamp,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short: String = self.container_id.chars().take(12).collect();
        write!(f, "pod {} (sandbox {short}", self.pod)?;
        if !self.node.is_empty() {
            write!(f, " on node {}", self.node)?;
        }
        f.write_str(")")
    }
}

/// The record of one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// The address: the record's name.
    pub address: IpAddr,
    /// The pool that it came from.
    pub pool: String,
    /// Who owns it for long, or owned it last.
    pub claim: Claim,
    /// Who uses it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// When it was last let go of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Timestamp>,
}

/// What a sandbox asks of one address.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// The pool that the address is in.
    pub pool: &'a str,
    /// Who shall own it.
    pub owner: &'a Owner,
    /// How long.
    pub keep: Keep,
    /// The pool's cool-down.
    pub cool_down: Duration,
    /// Who shall use it; its `since` is the time of asking.
    pub holder: &'a Holder,
}

/// Why an address cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A live sandbox uses it.
    Held(Holder),
    /// Nobody uses it, but it is kept for its owner.
    Claimed(Owner, Keep),
    /// It is free, but rests.
    RestsUntil(Timestamp),
}

impl Allocation {
    /// When the claim on this address ends and others may have it, given that
    /// its pod has gone. `None`: while it is held, or never.
    #[must_use]
    pub fn free_at(&self) -> Option<Timestamp> {
        if self.holder.is_some() {
            return None;
        }
        let rest = match (&self.claim.keep, &self.claim.owner) {
            (Keep::Forever, _) => return None,
            (Keep::For(time), _) => self.claim.cool_down.max(*time),
            // A bare pod is its own app: it has gone when its DEL has come.
            (Keep::Pod, _) | (Keep::App, Owner::Pod(_) | Owner::PodName { .. }) => {
                self.claim.cool_down
            }
            (Keep::App, _) => return None,
        };
        Some(self.released.unwrap_or_default().plus(rest))
    }

    /// What becomes of the record of `address` if `ask` is granted.
    ///
    /// `pod_is_live` says whether the pod that used the address last still
    /// exists; it is asked only if the answer matters.
    ///
    /// # Errors
    /// Says who has the address, or until when it rests.
    pub fn acquire(
        record: Option<&Self>,
        address: IpAddr,
        ask: &Ask<'_>,
        pod_is_live: impl FnOnce(&Claim) -> bool,
    ) -> Result<Self, Taken> {
        let now = ask.holder.since;
        let mut since = now;
        if let Some(record) = record {
            let same_pod = record.claim.pod.uid == ask.holder.pod.uid
                && record.claim.ifname == ask.holder.ifname;
            let same_owner =
                record.claim.owner == *ask.owner && record.claim.ifname == ask.holder.ifname;
            match &record.holder {
                // A new sandbox of the same pod: the runtime may have lost the
                // old one without a DEL, and a late DEL names the old one.
                Some(_) if same_pod => {}
                Some(holder) => return Err(Taken::Held(holder.clone())),
                None if same_pod => {}
                // Of a workload's pods each keeps its own while it exists.
                None if same_owner => {
                    let claim = &record.claim;
                    if matches!(claim.owner, Owner::Workload { .. }) && pod_is_live(claim) {
                        return Err(Taken::Claimed(Owner::Pod(claim.pod.clone()), Keep::Pod));
                    }
                }
                None => {
                    let claim = &record.claim;
                    let claimed = || Taken::Claimed(claim.owner.clone(), claim.keep);
                    let free_at = record.free_at().ok_or_else(claimed)?;
                    if free_at > now {
                        return Err(Taken::RestsUntil(free_at));
                    }
                    if pod_is_live(claim) {
                        return Err(claimed());
                    }
                }
            }
            if same_owner {
                since = record.claim.since;
            }
        }
        Ok(Self {
            address,
            pool: ask.pool.to_owned(),
            claim: Claim {
                owner: ask.owner.clone(),
                ifname: ask.holder.ifname.clone(),
                keep: ask.keep,
                cool_down: ask.cool_down,
                pod: ask.holder.pod.clone(),
                since,
            },
            holder: Some(ask.holder.clone()),
            released: record.and_then(|record| record.released),
        })
    }

    /// The record after the sandbox `container_id` let go of interface
    /// `ifname`. `None` if that sandbox does not hold it: a late DEL changes
    /// nothing.
    #[must_use]
    pub fn release(&self, container_id: &str, ifname: &str, now: Timestamp) -> Option<Self> {
        let holder = self.holder.as_ref()?;
        (holder.container_id == container_id && holder.ifname == ifname).then(|| Self {
            holder: None,
            released: Some(now),
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "10.20.0.57";

    fn pod(name: &str, uid: &str) -> PodRef {
        PodRef {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        }
    }

    fn holder(pod: PodRef, container: &str, at: u64) -> Holder {
        Holder {
            pod,
            container_id: container.to_owned(),
            ifname: "eth0".to_owned(),
            netns: "/run/netns/x".to_owned(),
            node: "node1".to_owned(),
            since: Timestamp(at),
        }
    }

    fn acquire(
        record: Option<&Allocation>,
        owner: &Owner,
        keep: Keep,
        holder: &Holder,
    ) -> Result<Allocation, Taken> {
        let ask = Ask {
            pool: "main",
            owner,
            keep,
            cool_down: Duration::from_secs(10),
            holder,
        };
        Allocation::acquire(record, ADDRESS.parse().unwrap(), &ask, |_| false)
    }

    fn ordinal(ordinal: u32) -> Owner {
        Owner::StatefulSet {
            namespace: "shop".to_owned(),
            name: "db".to_owned(),
            ordinal,
        }
    }

    #[test]
    fn a_new_sandbox_of_the_same_pod_keeps_the_address_and_a_late_del_changes_nothing() {
        let owner = Owner::Pod(pod("a", "1"));
        let first = acquire(None, &owner, Keep::Pod, &holder(pod("a", "1"), "c1", 1)).unwrap();
        let second = acquire(
            Some(&first),
            &owner,
            Keep::Pod,
            &holder(pod("a", "1"), "c2", 2),
        )
        .unwrap();
        assert_eq!(second.claim.since, Timestamp(1));
        assert_eq!(second.release("c1", "eth0", Timestamp(3)), None);
        assert_eq!(second.release("c2", "eth1", Timestamp(3)), None);
        let idle = second.release("c2", "eth0", Timestamp(3)).unwrap();
        assert_eq!(
            idle.release("c2", "eth0", Timestamp(4)),
            None,
            "a second DEL"
        );
        assert!(
            acquire(
                Some(&idle),
                &owner,
                Keep::Pod,
                &holder(pod("a", "1"), "c3", 4)
            )
            .is_ok()
        );
    }

    #[test]
    fn a_live_sandbox_is_never_displaced() {
        let set = acquire(
            None,
            &ordinal(0),
            Keep::App,
            &holder(pod("db-0", "1"), "c1", 1),
        )
        .unwrap();
        let refused = acquire(
            Some(&set),
            &ordinal(0),
            Keep::App,
            &holder(pod("db-0", "2"), "c2", 2),
        );
        assert_eq!(refused, Err(Taken::Held(holder(pod("db-0", "1"), "c1", 1))));
        assert_eq!(
            set.holder.unwrap().to_string(),
            "pod shop/db-0 (sandbox c1 on node node1)"
        );
    }

    #[test]
    fn claims_end_by_their_keep_policy() {
        let day = Duration::from_secs(86_400);
        let other = Owner::Pod(pod("b", "2"));
        for (owner, keep, ends) in [
            (Owner::Pod(pod("a", "1")), Keep::Pod, Some(10_005)),
            (ordinal(0), Keep::App, None),
            (ordinal(0), Keep::Forever, None),
            (ordinal(0), Keep::For(day), Some(86_400_005)),
            (ordinal(0), Keep::For(Duration::from_secs(1)), Some(10_005)),
            (
                Owner::PodName {
                    namespace: "shop".to_owned(),
                    name: "a".to_owned(),
                },
                Keep::App,
                Some(10_005),
            ),
        ] {
            let record = acquire(None, &owner, keep, &holder(pod("a", "1"), "c1", 1)).unwrap();
            assert_eq!(record.free_at(), None, "held");
            let idle = record.release("c1", "eth0", Timestamp(5)).unwrap();
            assert_eq!(idle.free_at(), ends.map(Timestamp), "{owner} {keep}");
            let at = |now| {
                acquire(
                    Some(&idle),
                    &other,
                    Keep::Pod,
                    &holder(pod("b", "2"), "c2", now),
                )
            };
            match ends {
                Some(end) => {
                    assert_eq!(at(end - 1), Err(Taken::RestsUntil(Timestamp(end))));
                    assert_eq!(at(end).unwrap().claim.owner, other);
                }
                None => assert_eq!(at(u64::MAX), Err(Taken::Claimed(owner, keep))),
            }
        }
    }

    #[test]
    fn the_address_of_a_pod_that_still_exists_is_not_given_away() {
        let owner = Owner::Pod(pod("a", "1"));
        let record = acquire(None, &owner, Keep::Pod, &holder(pod("a", "1"), "c1", 1)).unwrap();
        let idle = record.release("c1", "eth0", Timestamp(5)).unwrap();
        let other = Owner::Pod(pod("b", "2"));
        let newcomer = holder(pod("b", "2"), "c2", 1_000_000);
        let ask = Ask {
            pool: "main",
            owner: &other,
            keep: Keep::Pod,
            cool_down: Duration::ZERO,
            holder: &newcomer,
        };
        let refused = Allocation::acquire(Some(&idle), idle.address, &ask, |claim| {
            claim.pod.uid == "1"
        });
        assert_eq!(refused, Err(Taken::Claimed(owner, Keep::Pod)));
    }

    #[test]
    fn a_record_survives_writing() {
        for owner in [
            Owner::Pod(pod("a", "1")),
            ordinal(3),
            Owner::PodName {
                namespace: "n".to_owned(),
                name: "p".to_owned(),
            },
            Owner::Workload {
                workload: "Deployment".to_owned(),
                namespace: "n".to_owned(),
                name: "w".to_owned(),
            },
        ] {
            let record = acquire(
                None,
                &owner,
                Keep::For(Duration::from_secs(90)),
                &holder(pod("a", "1"), "c", 1),
            )
            .unwrap();
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(
                serde_json::from_str::<Allocation>(&text).unwrap(),
                record,
                "{text}"
            );
        }
    }
}
