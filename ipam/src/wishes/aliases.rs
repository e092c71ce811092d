//! Other projects' annotations, read as Berth's own: a manifest that was
//! written for them gets its address here without a change.
//!
//! A pod's own `berth.dev/ip` or `berth.dev/pool` silences them all, so a
//! manifest that carries both means what Berth's say. `docs/annotations.md`
//! has the table.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Multus: networks with addresses.
pub const MULTUS: &str = "k8s.v1.cni.cncf.io/networks";
/// Multus: the network that eth0 is on.
pub const MULTUS_DEFAULT: &str = "v1.multus-cni.io/default-network";
/// Kube-OVN: one address, or one a family.
pub const KUBE_OVN_IP: &str = "ovn.kubernetes.io/ip_address";
/// Kube-OVN: a list of addresses, or a pool's name.
pub const KUBE_OVN_POOL: &str = "ovn.kubernetes.io/ip_pool";
/// Kube-OVN: a fixed MAC.
pub const KUBE_OVN_MAC: &str = "ovn.kubernetes.io/mac_address";
/// Calico: addresses, a JSON list.
pub const CALICO_IPS: &str = "cni.projectcalico.org/ipAddrs";
/// Calico: pools, a JSON list.
pub const CALICO_POOLS: [&str; 2] = [
    "cni.projectcalico.org/ipv4pools",
    "cni.projectcalico.org/ipv6pools",
];
/// Spiderpool: pools by family, for the interface that is asked for.
pub const SPIDERPOOL: &str = "ipam.spidernet.io/ippool";
/// Spiderpool: the same for every interface.
pub const SPIDERPOOL_ALL: &str = "ipam.spidernet.io/ippools";
/// hybridnet: a list of addresses.
pub const HYBRIDNET: &str = "networking.alibaba.com/ip-pool";

/// What other projects' annotations ask for, and which of them did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases {
    /// In the form of `berth.dev/ip`, with the annotation's name.
    pub ip: Option<(String, &'static str)>,
    /// In the form of `berth.dev/pool`.
    pub pool: Option<(String, &'static str)>,
    /// A MAC.
    pub mac: Option<(String, &'static str)>,
}

/// An alias that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation}: {problem}; correct it, or write berth.dev/ip or berth.dev/pool")]
pub struct Unreadable {
    /// Its name.
    pub annotation: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// One network of Multus' annotation, as far as Berth reads it.
#[derive(Deserialize)]
struct Selection {
    name: String,
    interface: Option<String>,
    #[serde(default)]
    ips: Vec<String>,
    mac: Option<String>,
}

#[derive(Deserialize)]
struct Spider {
    interface: Option<String>,
    #[serde(default)]
    ipv4: Vec<String>,
    #[serde(default)]
    ipv6: Vec<String>,
}

impl Aliases {
    /// Reads a pod's annotations for its interface `ifname` on the network
    /// `network`. Of several projects the first in this order counts: Multus,
    /// Kube-OVN, Calico, hybridnet, Spiderpool.
    ///
    /// # Errors
    /// Names the first annotation that cannot be read.
    pub fn read(
        annotations: &BTreeMap<String, String>,
        network: &str,
        ifname: &str,
    ) -> Result<Self, Unreadable> {
        let text = |name: &'static str| {
            let text = annotations.get(name).map(|text| text.trim());
            text.filter(|text| !text.is_empty())
                .map(|text| (text, name))
        };
        let mut found = Self::default();
        for name in [MULTUS, MULTUS_DEFAULT] {
            if let Some((text, name)) = text(name) {
                found.add_selection(text, name, network, ifname)?;
            }
        }
        if let Some((text, name)) = text(KUBE_OVN_IP) {
            found.add_ips(text.split(','), name);
        }
        if let Some((text, name)) = text(KUBE_OVN_POOL) {
            // Pairs of both families are parted by semicolons, ranges by dots.
            if text.contains(['.', ':']) {
                let ranges = text.replace("..", "-");
                found.add_ips(ranges.split([',', ';']), name);
            } else {
                found.add_pools([text], name);
            }
        }
        if let Some((text, name)) = text(CALICO_IPS) {
            let ips: Vec<String> = json(text, name)?;
            found.add_ips(ips.iter().map(String::as_str), name);
        }
        let mut calico = Vec::new();
        for (text, name) in CALICO_POOLS.into_iter().filter_map(text) {
            calico.extend(json::<Vec<String>>(text, name)?);
        }
        found.add_pools(calico.iter().map(String::as_str), CALICO_POOLS[0]);
        if let Some((text, name)) = text(HYBRIDNET) {
            found.add_ips(text.split([',', '/']), name);
        }
        if let Some((text, name)) = text(SPIDERPOOL) {
            found.add_spider(&json(text, name)?, name);
        }
        if let Some((text, name)) = text(SPIDERPOOL_ALL) {
            let all: Vec<Spider> = json(text, name)?;
            let here = |s: &&Spider| s.interface.as_deref().unwrap_or("eth0") == ifname;
            if let Some(spider) = all.iter().find(here) {
                found.add_spider(spider, name);
            }
        }
        if let Some((text, name)) = text(KUBE_OVN_MAC) {
            found.mac.get_or_insert((text.to_owned(), name));
        }
        Ok(found)
    }

    /// Multus takes names alone too; those ask for no address.
    fn add_selection(
        &mut self,
        text: &str,
        name: &'static str,
        network: &str,
        ifname: &str,
    ) -> Result<(), Unreadable> {
        if !text.starts_with(['[', '{']) {
            return Ok(());
        }
        let all: Vec<Selection> = match json(text, name)? {
            Value::Array(list) => json(&Value::Array(list).to_string(), name)?,
            one => vec![json(&one.to_string(), name)?],
        };
        let ours = |selection: &&Selection| {
            let here = selection.interface.as_deref().is_none_or(|i| i == ifname);
            selection.name == network && here
        };
        if let Some(selection) = all.iter().find(ours) {
            self.add_ips(selection.ips.iter().map(String::as_str), name);
            if let Some(mac) = &selection.mac {
                self.mac.get_or_insert((mac.clone(), name));
            }
        }
        Ok(())
    }

    fn add_spider(&mut self, spider: &Spider, name: &'static str) {
        let pools = spider.ipv4.iter().chain(&spider.ipv6);
        self.add_pools(pools.map(String::as_str), name);
    }

    /// Prefix lengths are dropped: the pool knows them better.
    fn add_ips<'a>(&mut self, ips: impl IntoIterator<Item = &'a str>, name: &'static str) {
        let bare = |ip: &'a str| ip.split('/').next().unwrap_or_default().trim();
        join(&mut self.ip, ips.into_iter().map(bare), name);
    }

    fn add_pools<'a>(&mut self, pools: impl IntoIterator<Item = &'a str>, name: &'static str) {
        join(&mut self.pool, pools.into_iter().map(str::trim), name);
    }
}

fn join<'a>(
    into: &mut Option<(String, &'static str)>,
    parts: impl Iterator<Item = &'a str>,
    name: &'static str,
) {
    let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
    if into.is_none() && !parts.is_empty() {
        *into = Some((parts.join(","), name));
    }
}

fn json<T: serde::de::DeserializeOwned>(
    text: &str,
    annotation: &'static str,
) -> Result<T, Unreadable> {
    serde_json::from_str(text).map_err(|error| Unreadable {
        annotation,
        problem: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Aliases {
        let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        Aliases::read(&pairs.iter().map(owned).collect(), "berth", "eth0").unwrap()
    }

    #[test]
    fn every_projects_annotation_comes_to_berths_own() {
        for (name, text, ip, pool) in [
            (
                MULTUS,
                r#"[{"name":"other","ips":["192.0.2.1"]},{"name":"berth","ips":["10.20.0.57/24"]}]"#,
                "10.20.0.57",
                "",
            ),
            (
                MULTUS_DEFAULT,
                r#"{"name":"berth","ips":["10.20.0.57","fd20::57/64"]}"#,
                "10.20.0.57,fd20::57",
                "",
            ),
            (MULTUS, "berth,other/net@net1", "", ""),
            (
                MULTUS,
                r#"[{"name":"berth","interface":"net1","ips":["10.20.0.57"]}]"#,
                "",
                "",
            ),
            (
                KUBE_OVN_IP,
                "10.20.0.57,fd20::57",
                "10.20.0.57,fd20::57",
                "",
            ),
            (
                KUBE_OVN_POOL,
                "10.20.0.57, 10.20.0.60..10.20.0.61",
                "10.20.0.57,10.20.0.60-10.20.0.61",
                "",
            ),
            (
                KUBE_OVN_POOL,
                "10.20.0.57,fd20::57;10.20.0.58,fd20::58",
                "10.20.0.57,fd20::57,10.20.0.58,fd20::58",
                "",
            ),
            (KUBE_OVN_POOL, "payments", "", "payments"),
            (CALICO_IPS, r#"["10.20.0.57"]"#, "10.20.0.57", ""),
            (CALICO_POOLS[0], r#"["a","b"]"#, "", "a,b"),
            (CALICO_POOLS[1], r#"["six"]"#, "", "six"),
            (
                HYBRIDNET,
                "10.20.0.57,10.20.0.58",
                "10.20.0.57,10.20.0.58",
                "",
            ),
            (SPIDERPOOL, r#"{"ipv4":["a"],"ipv6":["b"]}"#, "", "a,b"),
            (
                SPIDERPOOL_ALL,
                r#"[{"interface":"net1","ipv4":["x"]},{"interface":"eth0","ipv4":["a"]}]"#,
                "",
                "a",
            ),
            (KUBE_OVN_IP, " ", "", ""),
        ] {
            let found = read(&[(name, text)]);
            let or_empty = |it: &Option<(String, _)>| it.clone().map(|i| i.0).unwrap_or_default();
            assert_eq!(or_empty(&found.ip), ip, "{name}: {text}");
            assert_eq!(or_empty(&found.pool), pool, "{name}: {text}");
        }
    }

    #[test]
    fn the_first_project_counts_and_macs_are_read() {
        let found = read(&[
            (HYBRIDNET, "10.20.0.58"),
            (KUBE_OVN_IP, "10.20.0.57"),
            (KUBE_OVN_MAC, "06:00:00:00:00:01"),
            (MULTUS, r#"[{"name":"berth","mac":"06:00:00:00:00:02"}]"#),
        ]);
        assert_eq!(found.ip, Some(("10.20.0.57".to_owned(), KUBE_OVN_IP)));
        assert_eq!(found.mac, Some(("06:00:00:00:00:02".to_owned(), MULTUS)));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (name, text) in [
            (CALICO_IPS, "10.20.0.57"),
            (SPIDERPOOL, "a"),
            (MULTUS, r#"[{"ips":[]}]"#),
        ] {
            let annotations = BTreeMap::from([(name.to_owned(), text.to_owned())]);
            let error = Aliases::read(&annotations, "berth", "eth0").unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("annotation {name}: ")),
                "{error}"
            );
        }
    }
}
