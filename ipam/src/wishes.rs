//! What a pod asks for: its annotations, its workload, and the owner and keep
//! policy that follow.

pub mod aliases;
pub mod surge;

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_api::annotations;

use crate::address::{AddressRange, Family};
use crate::allocation::{Owner, PodRef};
use crate::error::Error;
use crate::keep::Keep;

/// The longest list that `berth.dev/ip` may hold: it is walked address by
/// address. Anything longer is a pool.
pub const MAX_LIST: u128 = 4096;

/// The kind of a KubeVirt machine, as an owner.
pub const MACHINE: &str = "VirtualMachine";

/// The controller that made a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// `StatefulSet`, `Deployment`, `DaemonSet`, ...
    pub kind: String,
    /// Its name; the namespace is the pod's.
    pub name: String,
    /// The pod's index in a StatefulSet.
    pub ordinal: Option<u32>,
}

/// A pod, and what made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Which pod.
    pub id: PodRef,
    /// Its controller; none for a bare pod.
    pub workload: Option<Workload>,
}

impl Pod {
    /// Who owns this pod's address under a keep policy.
    #[must_use]
    pub fn owner(&self, keep: Keep) -> Owner {
        let namespace = self.id.namespace.clone();
        match &self.workload {
            _ if keep == Keep::Pod => Owner::Pod(self.id.clone()),
            None => Owner::PodName {
                namespace,
                name: self.id.name.clone(),
            },
            Some(Workload {
                kind,
                name,
                ordinal: Some(ordinal),
            }) if kind == "StatefulSet" => Owner::StatefulSet {
                namespace,
                name: name.clone(),
                ordinal: *ordinal,
            },
            Some(workload) => Owner::Workload {
                workload: workload.kind.clone(),
                namespace,
                name: workload.name.clone(),
            },
        }
    }

    /// Whether the pod is a KubeVirt machine's: it is made anew whenever the
    /// machine starts, and the machine is what has the address.
    #[must_use]
    pub fn is_machine(&self) -> bool {
        let workload = self.workload.as_ref();
        workload.is_some_and(|workload| workload.kind == MACHINE)
    }

    /// The pod's index, if it is one of a StatefulSet's.
    #[must_use]
    pub fn ordinal(&self) -> Option<u32> {
        self.workload
            .as_ref()
            .filter(|workload| workload.kind == "StatefulSet")
            .and_then(|workload| workload.ordinal)
    }
}

/// What the annotations ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Fixed addresses, in the order in which they are written.
    pub addresses: Vec<AddressRange>,
    /// Pools in order of preference; empty means the default pools.
    pub pools: Vec<String>,
    /// The keep policy.
    pub keep: Option<Keep>,
}

impl Wishes {
    /// Reads the pod's annotations, and the namespace's where the pod is
    /// silent. `berth.dev/ip` counts on the pod alone: one address for a whole
    /// namespace is a mistake.
    ///
    /// # Errors
    /// Names the pod, the annotation and what to write instead.
    pub fn read(
        pod: &PodRef,
        of_pod: &BTreeMap<String, String>,
        of_namespace: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let find = |name: &str| {
            let own = of_pod.get(name).map(|text| (text, name.to_owned()));
            own.or_else(|| {
                let text = of_namespace.get(name)?;
                Some((text, format!("{name} of namespace {}", pod.namespace)))
            })
        };
        let refuse = |annotation: String, problem: String, mend: &str| Error::Annotation {
            pod: pod.to_string(),
            annotation,
            problem,
            mend: mend.to_owned(),
        };
        let mut wishes = Self::default();
        if let Some(text) = of_pod.get(annotations::IP) {
            let ip = || annotations::IP.to_owned();
            for part in text.split(',').map(str::trim) {
                if part.contains('/') {
                    return Err(refuse(
                        ip(),
                        format!("{part:?} is a subnet, and its ends are not for pods"),
                        "write an address, a range such as 10.20.0.57-10.20.0.61, or a list",
                    ));
                }
                let range: AddressRange =
                    part.parse().map_err(|e: crate::address::ParseRangeError| {
                        refuse(
                            ip(),
                            e.to_string(),
                            "write an address, a range or a list of them",
                        )
                    })?;
                wishes.addresses.push(range);
            }
            let size = list_size(&wishes.addresses);
            if size > MAX_LIST {
                return Err(refuse(
                    ip(),
                    format!("{size} addresses are too many for a list"),
                    "make a pool of them, and name it in berth.dev/pool",
                ));
            }
        }
        if let Some((text, annotation)) = find(annotations::POOL) {
            wishes.pools = text.split(',').map(|name| name.trim().to_owned()).collect();
            if wishes.pools.iter().any(String::is_empty) {
                return Err(refuse(
                    annotation,
                    format!("{text:?} has an empty name in it"),
                    "write one pool, or several with commas between them",
                ));
            }
        }
        if let Some((text, annotation)) = find(annotations::KEEP) {
            let keep = text.parse().map_err(|e: crate::keep::ParseKeepError| {
                refuse(annotation, e.to_string(), "correct it")
            })?;
            wishes.keep = Some(keep);
        }
        Ok(wishes)
    }

    /// The keep policy, given what the pool says. Without either a
    /// StatefulSet's pods, machines and fixed addresses are kept for the app,
    /// others for the pod.
    #[must_use]
    pub fn keep_policy(&self, pod: &Pod, of_pool: Option<Keep>) -> Keep {
        let lasting = pod.ordinal().is_some() || pod.is_machine();
        let usual = if lasting || !self.addresses.is_empty() {
            Keep::App
        } else {
            Keep::Pod
        };
        self.keep.or(of_pool).unwrap_or(usual)
    }

    /// The listed ranges of one family, in order.
    #[must_use]
    pub fn list(&self, family: Family) -> Vec<AddressRange> {
        self.addresses
            .iter()
            .copied()
            .filter(|range| range.family() == family)
            .collect()
    }
}

/// How many addresses a list has.
#[must_use]
pub fn list_size(list: &[AddressRange]) -> u128 {
    list.iter()
        .fold(0, |sum: u128, range| sum.saturating_add(range.len()))
}

/// The address at place `index` of a list.
#[must_use]
pub fn list_nth(list: &[AddressRange], mut index: u128) -> Option<IpAddr> {
    for range in list {
        if index < range.len() {
            return range.nth(index);
        }
        index -= range.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn pod() -> PodRef {
        PodRef {
            namespace: "shop".to_owned(),
            name: "db-2".to_owned(),
            uid: "u".to_owned(),
        }
    }

    fn of(kind: &str, ordinal: Option<u32>) -> Pod {
        Pod {
            id: pod(),
            workload: Some(Workload {
                kind: kind.to_owned(),
                name: "db".to_owned(),
                ordinal,
            }),
        }
    }

    #[test]
    fn a_machine_keeps_its_address_through_its_pods() {
        let machine = of(MACHINE, None);
        let keep = Wishes::default().keep_policy(&machine, None);
        assert_eq!(keep, Keep::App);
        let Owner::Workload { workload, name, .. } = machine.owner(keep) else {
            panic!("{:?}", machine.owner(keep));
        };
        assert_eq!((&*workload, &*name), (MACHINE, "db"));
        let plain = of("Deployment", None);
        assert_eq!(Wishes::default().keep_policy(&plain, None), Keep::Pod);
    }

    #[test]
    fn a_list_is_counted_in_the_order_it_is_written() {
        let wishes = Wishes::read(
            &pod(),
            &map(&[("berth.dev/ip", "10.20.0.70, 10.20.0.57-10.20.0.59,fd00::1")]),
            &map(&[]),
        )
        .unwrap();
        let list = wishes.list(Family::V4);
        assert_eq!(list_size(&list), 4);
        let told: Vec<_> = (0..5)
            .map(|i| list_nth(&list, i).map(|a| a.to_string()))
            .collect();
        assert_eq!(
            told,
            [
                Some("10.20.0.70"),
                Some("10.20.0.57"),
                Some("10.20.0.58"),
                Some("10.20.0.59"),
                None
            ]
            .map(|a| a.map(str::to_owned))
        );
        assert_eq!(
            list_nth(&wishes.list(Family::V6), 0),
            Some("fd00::1".parse().unwrap())
        );
    }

    #[test]
    fn the_pod_speaks_before_its_namespace_and_alone_on_addresses() {
        let namespace = map(&[
            ("berth.dev/pool", "payments"),
            ("berth.dev/keep", "forever"),
            ("berth.dev/ip", "10.20.0.57"),
        ]);
        let silent = Wishes::read(&pod(), &map(&[]), &namespace).unwrap();
        assert_eq!(silent.pools, ["payments"]);
        assert_eq!(
            (silent.keep, silent.addresses.len()),
            (Some(Keep::Forever), 0)
        );
        let own = map(&[("berth.dev/pool", "a, b"), ("berth.dev/keep", "24h")]);
        let spoken = Wishes::read(&pod(), &own, &namespace).unwrap();
        assert_eq!(spoken.pools, ["a", "b"]);
        assert_eq!(spoken.keep, Some("24h".parse().unwrap()));
    }

    #[test]
    fn each_refusal_names_pod_annotation_and_mend() {
        for (annotation, text, told) in [
            (
                "berth.dev/ip",
                "10.20.0",
                "pod shop/db-2: annotation berth.dev/ip: \"10.20.0\" is not an address",
            ),
            ("berth.dev/ip", "10.20.0.0/24", "is a subnet"),
            ("berth.dev/ip", "10.20.0.1,", "\"\" is not an address"),
            (
                "berth.dev/ip",
                "10.0.0.0-10.255.255.255",
                "too many for a list; make a pool",
            ),
            (
                "berth.dev/pool",
                "a,,b",
                "has an empty name in it; write one pool",
            ),
            (
                "berth.dev/keep",
                "always",
                "\"always\" is not a keep policy; write pod, app",
            ),
        ] {
            let error = Wishes::read(&pod(), &map(&[(annotation, text)]), &map(&[]))
                .unwrap_err()
                .to_string();
            assert!(error.contains(told), "{error}");
        }
        let error = Wishes::read(&pod(), &map(&[]), &map(&[("berth.dev/keep", "x")]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("berth.dev/keep of namespace shop"),
            "{error}"
        );
    }

    #[test]
    fn owner_and_keep_follow_from_the_workload() {
        let bare = Pod {
            id: pod(),
            workload: None,
        };
        let plain = Wishes::default();
        let fixed = Wishes {
            addresses: vec!["10.20.0.57".parse().unwrap()],
            ..Wishes::default()
        };
        assert_eq!(plain.keep_policy(&bare, None), Keep::Pod);
        assert_eq!(plain.keep_policy(&bare, Some(Keep::Forever)), Keep::Forever);
        assert_eq!(plain.keep_policy(&of("Deployment", None), None), Keep::Pod);
        assert_eq!(
            plain.keep_policy(&of("StatefulSet", Some(2)), None),
            Keep::App
        );
        assert_eq!(fixed.keep_policy(&of("Deployment", None), None), Keep::App);

        assert_eq!(
            of("StatefulSet", Some(2)).owner(Keep::Pod),
            Owner::Pod(pod())
        );
        assert_eq!(
            of("StatefulSet", Some(2)).owner(Keep::App).to_string(),
            "StatefulSet shop/db ordinal 2"
        );
        assert_eq!(
            of("Deployment", None).owner(Keep::App).to_string(),
            "Deployment shop/db"
        );
        assert_eq!(bare.owner(Keep::App).to_string(), "pod shop/db-2");
    }
}
