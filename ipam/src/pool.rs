//! Pools: what an admin wrote, checked, and the addresses it comes to.
//!
//! A pool that breaks a rule is refused alone, with the file, the object, the
//! field and the mend; the others are served.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use berth_api::pool::{API_VERSION, IpPool, PoolMode};
use berth_api::{Object, Rejected};
use ipnetwork::IpNetwork;

use crate::address::{AddressRange, AddressSet, Family};
use crate::keep::{Keep, parse_duration};

/// How long a free address rests where the pool does not say: long enough for
/// a sandbox that is made anew to find its own address, and for the clients
/// of the last pod to give up.
pub const DEFAULT_COOL_DOWN: Duration = Duration::from_secs(10);

/// A checked pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// The subnet that its addresses are on.
    pub subnet: IpNetwork,
    /// The addresses that pods may have; never empty.
    pub addresses: AddressSet,
    /// The subnet's router.
    pub gateway: Option<IpAddr>,
    /// Further routes: destination and next hop.
    pub routes: Vec<(IpNetwork, IpAddr)>,
    /// 802.1Q tag.
    pub vlan: Option<u16>,
    /// The node's interface; without it, the one that holds the subnet.
    pub parent: Option<String>,
    /// How pods share the parent.
    pub mode: PoolMode,
    /// MTU of the pods' interface; without it, the parent's.
    pub mtu: Option<u32>,
    /// Whether pods that name no pool get addresses here.
    pub default: bool,
    /// Higher is taken first.
    pub priority: i32,
    /// The keep policy of pods that name none.
    pub keep: Option<Keep>,
    /// How long a free address rests.
    pub cool_down: Duration,
}

impl Pool {
    /// IPv4 or IPv6.
    #[must_use]
    pub fn family(&self) -> Family {
        self.addresses.family()
    }

    /// Checks one `IPPool` by itself.
    ///
    /// # Errors
    /// Names the field that breaks a rule, and the mend.
    pub fn from_object(object: &Object) -> Result<Self, Rejected> {
        let IpPool { metadata, spec } = object.decode()?;
        let reject = |field: &str, problem: String, mend: &str| object.reject(field, problem, mend);
        let subnet = IpNetwork::new(spec.subnet.network(), spec.subnet.prefix())
            .expect("a prefix that was read is in bounds");
        let whole = AddressRange::of_network(subnet);
        let family = whole.family();

        let read = |field: &str, texts: &[String]| -> Result<Vec<AddressRange>, Rejected> {
            texts
                .iter()
                .enumerate()
                .map(|(index, text)| {
                    let field = format!("spec.{field}[{index}]");
                    let range: AddressRange = text
                        .parse()
                        .map_err(|e| object.reject(&field, format!("{e}"), "correct it"))?;
                    if whole.contains(range.first()) && whole.contains(range.last()) {
                        Ok(range)
                    } else {
                        Err(object.reject(
                            &field,
                            format!("{range} is not inside the subnet {subnet}"),
                            "keep the range inside spec.subnet, or correct the subnet",
                        ))
                    }
                })
                .collect()
        };
        let mut ranges = read("ranges", &spec.ranges)?;
        if ranges.is_empty() {
            ranges.push(whole);
        }
        let mut addresses = AddressSet::new(family, ranges);
        for range in read("exclude", &spec.exclude)? {
            addresses.remove(range);
        }
        for reserved in reserved(subnet) {
            addresses.remove(AddressRange::single(reserved));
        }
        if let Some(gateway) = spec.gateway {
            if !whole.contains(gateway) {
                return Err(reject(
                    "spec.gateway",
                    format!("{gateway} is not inside the subnet {subnet}"),
                    "name the subnet's own router, or correct the subnet",
                ));
            }
            addresses.remove(AddressRange::single(gateway));
        }
        if addresses.is_empty() {
            return Err(reject(
                "spec.ranges",
                "no address is left for pods".to_owned(),
                "widen spec.ranges; the gateway, the excluded, the network and the broadcast address do not count",
            ));
        }

        let mut routes = Vec::with_capacity(spec.routes.len());
        for (index, route) in spec.routes.iter().enumerate() {
            let field = format!("spec.routes[{index}]");
            let Some(via) = route.gw.or(spec.gateway) else {
                return Err(reject(
                    &field,
                    format!("{} has no next hop", route.dst),
                    "give the route a gw, or the pool a gateway",
                ));
            };
            if Family::of(route.dst.ip()) != family || !whole.contains(via) {
                return Err(reject(
                    &field,
                    format!(
                        "{} via {via} cannot be reached from the subnet {subnet}",
                        route.dst
                    ),
                    "use a destination of the subnet's family and a next hop inside the subnet",
                ));
            }
            routes.push((route.dst, via));
        }
        if let Some(tag) = spec.vlan.filter(|tag| !(1..=4094).contains(tag)) {
            return Err(reject(
                "spec.vlan",
                format!("{tag} is not a VLAN"),
                "use 1 to 4094, or leave it out",
            ));
        }
        let least = match family {
            Family::V4 => 68,
            Family::V6 => 1280,
        };
        if let Some(mtu) = spec.mtu.filter(|mtu| !(least..=65_535).contains(mtu)) {
            return Err(reject(
                "spec.mtu",
                format!("{mtu} is no MTU for {family}"),
                "use at most the parent's MTU, or leave it out",
            ));
        }
        if let Some(parent) = spec.parent.as_deref().filter(|p| !is_interface_name(p)) {
            return Err(reject(
                "spec.parent",
                format!("{parent:?} is not an interface name"),
                "use 1 to 15 bytes without spaces or slashes",
            ));
        }
        let keep = spec
            .keep
            .as_deref()
            .map(|text| text.parse::<Keep>())
            .transpose()
            .map_err(|e| reject("spec.keep", e.to_string(), "correct it"))?;
        let cool_down = spec
            .cool_down
            .as_deref()
            .map_or(Ok(DEFAULT_COOL_DOWN), parse_duration)
            .map_err(|e| reject("spec.coolDown", e.to_string(), "correct it"))?;
        Ok(Self {
            name: metadata.name,
            subnet,
            addresses,
            gateway: spec.gateway,
            routes,
            vlan: spec.vlan,
            parent: spec.parent,
            mode: spec.mode,
            mtu: spec.mtu,
            default: spec.default,
            priority: spec.priority,
            keep,
            cool_down,
        })
    }
}

/// Addresses of a subnet that no machine may have: network and broadcast (not
/// on a /31 or /32, RFC 3021), and the IPv6 subnet-router anycast address (not
/// on a /127 or /128, RFC 6164).
fn reserved(subnet: IpNetwork) -> Vec<IpAddr> {
    match subnet {
        IpNetwork::V4(v4) if v4.prefix() < 31 => vec![v4.network().into(), v4.broadcast().into()],
        IpNetwork::V6(v6) if v6.prefix() < 127 => vec![v6.network().into()],
        _ => Vec::new(),
    }
}

/// The kernel's rule for interface names (`dev_valid_name`), and no colon,
/// which the CNI specification forbids.
#[must_use]
pub fn is_interface_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= 15
        && !name
            .bytes()
            .any(|b| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace() || b == 0x0b)
}

/// All pools that are served, and why the others are not.
#[derive(Clone, Debug, Default)]
pub struct Pools {
    served: BTreeMap<String, Pool>,
    refused: BTreeMap<String, Rejected>,
}

impl Pools {
    /// Checks every `IPPool` of Berth's among `objects`; other kinds, and other
    /// projects' `IPPool`s, are passed over. Of two pools that overlap, the
    /// later by name is refused.
    #[must_use]
    pub fn compile<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Self {
        let (group, _) = API_VERSION.split_once('/').expect("a group and a version");
        let mut pools = Self::default();
        let mut checked = BTreeMap::new();
        for object in objects {
            let ours =
                object.key.kind == "IPPool" && object.api_version.split('/').next() == Some(group);
            if !ours {
                continue;
            }
            let result = if object.api_version == API_VERSION {
                Pool::from_object(object)
            } else {
                Err(object.reject(
                    "apiVersion",
                    format!("{} is not known", object.api_version),
                    format!("use {API_VERSION}"),
                ))
            };
            match result {
                Ok(pool) => {
                    checked.insert(pool.name.clone(), (pool, object));
                }
                Err(refusal) => {
                    pools.refused.insert(object.key.name.clone(), refusal);
                }
            }
        }
        for (name, (pool, object)) in checked {
            let clash = pools.served.values().find_map(|other| {
                let address = pool.addresses.first_common(&other.addresses)?;
                Some((other.name.clone(), address))
            });
            match clash {
                Some((other, address)) => {
                    let refusal = object.reject(
                        "spec.ranges",
                        format!("overlaps pool {other}, which has {address} too"),
                        format!("give the two pools different ranges, or exclude {address} and what else they share from one of them"),
                    );
                    pools.refused.insert(name, refusal);
                }
                None => {
                    pools.served.insert(name, pool);
                }
            }
        }
        pools
    }

    /// The pool of that name, if it is served.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Pool> {
        self.served.get(name)
    }

    /// Why the pool of that name is not served.
    #[must_use]
    pub fn refusal(&self, name: &str) -> Option<&Rejected> {
        self.refused.get(name)
    }

    /// Every refusal, by name.
    pub fn refusals(&self) -> impl Iterator<Item = &Rejected> {
        self.refused.values()
    }

    /// The pools that are served, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.served.values()
    }

    /// The one pool that `address` is in.
    #[must_use]
    pub fn holding(&self, address: IpAddr) -> Option<&Pool> {
        self.served
            .values()
            .find(|pool| pool.addresses.contains(address))
    }

    /// Default pools, in the order in which they are tried: highest priority
    /// first, then by name.
    #[must_use]
    pub fn defaults(&self) -> Vec<&Pool> {
        let mut pools: Vec<_> = self.served.values().filter(|pool| pool.default).collect();
        pools.sort_by_key(|pool| std::cmp::Reverse(pool.priority));
        pools
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn compile(documents: &[&str]) -> Pools {
        let text = documents
            .iter()
            .map(|spec| {
                let (name, spec) = spec.split_once(' ').unwrap();
                format!(
                    "---\napiVersion: berth.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
                )
            })
            .collect::<String>();
        let parsed = berth_api::folder::parse(Path::new("pools.yaml"), &text);
        assert_eq!(parsed.rejected, []);
        Pools::compile(&parsed.objects)
    }

    #[test]
    fn the_gateway_and_the_ends_of_the_subnet_are_not_for_pods() {
        let pools = compile(&["a subnet: 10.20.0.0/29, gateway: 10.20.0.1, exclude: [10.20.0.4]"]);
        let pool = pools.get("a").unwrap();
        assert_eq!(
            pool.addresses.to_string(),
            "10.20.0.2-10.20.0.3,10.20.0.5-10.20.0.6"
        );
        let pools = compile(&[
            "a subnet: 10.20.0.8/31",
            "b subnet: 'fd00::/126', mtu: 1400",
        ]);
        assert_eq!(pools.get("a").unwrap().addresses.len(), 2);
        assert_eq!(
            pools.get("b").unwrap().addresses.to_string(),
            "fd00::1-fd00::3"
        );
    }

    #[test]
    fn a_big_pool_is_as_cheap_as_a_small_one() {
        let pools = compile(&["a subnet: 10.0.0.0/8", "b subnet: 'fd00::/64'"]);
        assert_eq!(pools.get("a").unwrap().addresses.len(), (1 << 24) - 2);
        assert_eq!(pools.get("b").unwrap().addresses.len(), (1 << 64) - 1);
    }

    #[test]
    fn each_refusal_names_file_object_field_and_mend() {
        for (spec, told) in [
            (
                "subnet: 10.20.0.0/24, ranges: [10.20.1.5]",
                "pools.yaml:2: IPPool a: spec.ranges[0]: 10.20.1.5 is not inside the subnet 10.20.0.0/24; keep the range inside spec.subnet",
            ),
            (
                "subnet: 10.20.0.0/24, ranges: [10.20.0.9-10.20.0.5]",
                "spec.ranges[0]: the range \"10.20.0.9-10.20.0.5\" ends before it starts; correct it",
            ),
            (
                "subnet: 10.20.0.0/24, ranges: ['fd00::1']",
                "spec.ranges[0]: fd00::1 is not inside",
            ),
            (
                "subnet: 10.20.0.0/24, exclude: [x]",
                "spec.exclude[0]: \"x\" is not an address",
            ),
            (
                "subnet: 10.20.0.0/24, gateway: 10.21.0.1",
                "spec.gateway: 10.21.0.1 is not inside",
            ),
            (
                "subnet: 10.20.0.0/24, gateway: 'fd00::1'",
                "spec.gateway: fd00::1 is not inside",
            ),
            (
                "subnet: 10.20.0.0/24, gateway: 10.20.0.1, ranges: [10.20.0.1]",
                "spec.ranges: no address is left",
            ),
            (
                "subnet: 10.20.0.0/24, routes: [{dst: 10.9.0.0/16}]",
                "spec.routes[0]: 10.9.0.0/16 has no next hop; give the route a gw",
            ),
            (
                "subnet: 10.20.0.0/24, routes: [{dst: 'fd01::/64', gw: 10.20.0.2}]",
                "spec.routes[0]: fd01::/64 via 10.20.0.2 cannot be reached",
            ),
            (
                "subnet: 10.20.0.0/24, vlan: 4095",
                "spec.vlan: 4095 is not a VLAN",
            ),
            (
                "subnet: 'fd00::/64', mtu: 1000",
                "spec.mtu: 1000 is no MTU for IPv6",
            ),
            (
                "subnet: 10.20.0.0/24, parent: an-interface-too-long",
                "spec.parent: \"an-interface-too-long\" is not an interface name",
            ),
            (
                "subnet: 10.20.0.0/24, keep: always",
                "spec.keep: \"always\" is not a keep policy",
            ),
            (
                "subnet: 10.20.0.0/24, coolDown: soon",
                "spec.coolDown: \"soon\" is not a duration",
            ),
            ("subnet: 10.20.0.0/33", "IPPool a: spec.subnet: "),
            ("subnet: 10.20.0.0/24, gatewya: 10.20.0.1", "gatewya"),
        ] {
            let pools = compile(&[&format!("a {spec}")]);
            assert!(pools.get("a").is_none(), "{spec}");
            let refusal = pools.refusal("a").unwrap().to_string();
            assert!(refusal.contains(told), "{refusal}");
        }
    }

    #[test]
    fn of_two_overlapping_pools_the_first_by_name_is_served() {
        let pools = compile(&[
            "b subnet: 10.20.0.0/24, ranges: [10.20.0.60-10.20.0.80]",
            "a subnet: 10.20.0.0/24, ranges: [10.20.0.50-10.20.0.60]",
            "c subnet: 10.20.0.0/24, ranges: [10.20.0.61-10.20.0.70]",
        ]);
        assert!(pools.get("a").is_some() && pools.get("c").is_some());
        assert_eq!(
            pools.refusal("b").unwrap().to_string(),
            "pools.yaml:2: IPPool b: spec.ranges: overlaps pool a, which has 10.20.0.60 too; \
             give the two pools different ranges, or exclude 10.20.0.60 and what else they share from one of them"
        );
        assert_eq!(
            pools.holding("10.20.0.61".parse().unwrap()).unwrap().name,
            "c"
        );
    }

    #[test]
    fn other_projects_pools_are_passed_over() {
        let text = "apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata: {name: a}\nspec: {cidr: 10.0.0.0/8}\n\
                    ---\napiVersion: berth.dev/v9\nkind: IPPool\nmetadata: {name: b}\nspec: {}\n";
        let parsed = berth_api::folder::parse(Path::new("p.yaml"), text);
        let pools = Pools::compile(&parsed.objects);
        let told: Vec<_> = pools.refusals().map(ToString::to_string).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].contains("berth.dev/v9 is not known; use berth.dev/v1alpha1"),
            "{told:?}"
        );
    }

    #[test]
    fn default_pools_come_by_priority_then_name() {
        let pools = compile(&[
            "a subnet: 10.1.0.0/24, default: true",
            "b subnet: 10.2.0.0/24, default: true, priority: 5",
            "c subnet: 10.3.0.0/24, default: true",
            "d subnet: 10.4.0.0/24",
        ]);
        let names: Vec<_> = pools.defaults().iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["b", "a", "c"]);
    }
}
