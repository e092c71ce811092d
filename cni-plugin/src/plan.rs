//! What one interface gets, wherever its addresses came from: Berth's own
//! pools, or another IPAM plugin's answer.

use std::net::IpAddr;

use berth_ipam::Grant;
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{CniError, Code};

/// One address, with the prefix length of its subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlannedAddress {
    pub(crate) network: IpNetwork,
    pub(crate) gateway: Option<IpAddr>,
}

/// One route of the pod's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlannedRoute {
    pub(crate) dst: IpNetwork,
    /// Next hop; without one the destination is on the link.
    pub(crate) via: Option<IpAddr>,
    /// The kernel's metric.
    pub(crate) priority: Option<u32>,
    /// The routing table; none is the main one.
    pub(crate) table: Option<u32>,
    /// The route as the result tells it.
    pub(crate) told: Value,
}

/// Addresses and routes of one interface.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) addresses: Vec<PlannedAddress>,
    pub(crate) routes: Vec<PlannedRoute>,
    /// The `dns` of the result.
    pub(crate) dns: Option<Value>,
}

/// An IPAM plugin's answer. Before 0.3.0 it had one object a family.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    ips: Vec<AnswerIp>,
    #[serde(default)]
    routes: Vec<Value>,
    #[serde(default)]
    dns: Option<Value>,
    ip4: Option<OldIp>,
    ip6: Option<OldIp>,
}

#[derive(Deserialize)]
struct AnswerIp {
    address: IpNetwork,
    gateway: Option<IpAddr>,
}

#[derive(Deserialize)]
struct OldIp {
    ip: IpNetwork,
    gateway: Option<IpAddr>,
    #[serde(default)]
    routes: Vec<Value>,
}

#[derive(Deserialize)]
struct AnswerRoute {
    dst: IpNetwork,
    gw: Option<IpAddr>,
    priority: Option<u32>,
    table: Option<u32>,
}

impl Plan {
    /// The default route through each pool's gateway, then the pools' own.
    pub(crate) fn of_grants(grants: &[Grant<'_>]) -> Self {
        let mut plan = Self::default();
        for grant in grants {
            let network = IpNetwork::new(grant.address, grant.pool.subnet.prefix())
                .expect("an address of the pool is of its subnet's family");
            plan.addresses.push(PlannedAddress {
                network,
                gateway: grant.pool.gateway,
            });
            let through = grant
                .pool
                .gateway
                .map(|gateway| (everything(gateway), gateway));
            for (dst, via) in through.into_iter().chain(grant.pool.routes.iter().copied()) {
                plan.routes.push(PlannedRoute {
                    dst,
                    via: Some(via),
                    priority: None,
                    table: None,
                    told: json!({ "dst": dst.to_string(), "gw": via }),
                });
            }
        }
        plan
    }

    /// Reads the answer of the IPAM plugin `plugin`, in the shape of any
    /// version of the specification. A route without a next hop goes through
    /// the gateway of its family, if the plugin names one.
    pub(crate) fn of_answer(plugin: &str, answer: &[u8]) -> Result<Self, CniError> {
        let wrong = |problem: String| {
            CniError::new(
                Code::Delegate,
                format!(
                    "ipam plugin {plugin}: its result cannot be used: {problem}; call it by hand with the same input"
                ),
            )
        };
        let Answer {
            mut ips,
            mut routes,
            dns,
            ip4,
            ip6,
        } = serde_json::from_slice(answer).map_err(|error| wrong(error.to_string()))?;
        for old in [ip4, ip6].into_iter().flatten() {
            ips.push(AnswerIp {
                address: old.ip,
                gateway: old.gateway,
            });
            routes.extend(old.routes);
        }
        if ips.is_empty() {
            return Err(wrong("it has no address".to_owned()));
        }
        let gateway = |v4: bool| {
            let mut gateways = ips.iter().filter_map(|ip| ip.gateway);
            gateways.find(|gateway| gateway.is_ipv4() == v4)
        };
        let routes = routes
            .into_iter()
            .map(|told| {
                let route = AnswerRoute::deserialize(&told)
                    .map_err(|error| wrong(format!("route {told}: {error}")))?;
                let dst = IpNetwork::new(route.dst.network(), route.dst.prefix())
                    .expect("a prefix that was read is in bounds");
                Ok(PlannedRoute {
                    dst,
                    via: route.gw.or_else(|| gateway(dst.is_ipv4())),
                    priority: route.priority,
                    table: route.table,
                    told,
                })
            })
            .collect::<Result<_, CniError>>()?;
        Ok(Self {
            addresses: ips
                .into_iter()
                .map(|ip| PlannedAddress {
                    network: ip.address,
                    gateway: ip.gateway,
                })
                .collect(),
            routes,
            dns: dns.filter(|dns| !dns.is_null()),
        })
    }

    /// The addresses alone.
    pub(crate) fn ips(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(|a| a.network.ip()).collect()
    }

    /// What CHECK looks for: the routes of the main table.
    pub(crate) fn checkable_routes(&self) -> Vec<(IpNetwork, Option<IpAddr>)> {
        let main = self.routes.iter().filter(|route| route.table.is_none());
        main.map(|route| (route.dst, route.via)).collect()
    }
}

fn everything(like: IpAddr) -> IpNetwork {
    let all = if like.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    all.parse().expect("a constant")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: &Value) -> Plan {
        Plan::of_answer("x", answer.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn an_answer_of_every_version_comes_to_the_same() {
        let route = json!({"dst": "0.0.0.0/0"});
        let new = read(&json!({"cniVersion": "1.0.0", "routes": [route],
            "ips": [{"address": "10.20.0.9/24", "gateway": "10.20.0.1"}]}));
        assert_eq!(new.addresses[0].network, "10.20.0.9/24".parse().unwrap());
        assert_eq!(new.routes[0].via, Some("10.20.0.1".parse().unwrap()));
        for older in [
            json!({"cniVersion": "0.3.1", "routes": [route], "dns": null,
                "ips": [{"version": "4", "address": "10.20.0.9/24", "gateway": "10.20.0.1"}]}),
            json!({"cniVersion": "0.2.0",
                "ip4": {"ip": "10.20.0.9/24", "gateway": "10.20.0.1", "routes": [route]}}),
        ] {
            assert_eq!(read(&older), new, "{older}");
        }
    }

    #[test]
    fn a_route_goes_where_its_plugin_says() {
        let plan = read(&json!({
            "ips": [{"address": "fd20::9/64"}, {"address": "10.20.0.9/24", "gateway": "10.20.0.1"}],
            "routes": [
                {"dst": "10.9.1.1/16", "gw": "10.20.0.2"},
                {"dst": "::/0"},
                {"dst": "10.8.0.0/16", "table": 100, "priority": 7, "mtu": 1400},
            ],
        }));
        let via: Vec<_> = plan.routes.iter().map(|route| route.via).collect();
        assert_eq!(
            via,
            [
                Some("10.20.0.2".parse().unwrap()),
                None,
                Some("10.20.0.1".parse().unwrap())
            ]
        );
        assert_eq!(plan.routes[0].dst, "10.9.0.0/16".parse().unwrap());
        assert_eq!(
            plan.routes[2].told["mtu"], 1400,
            "the result repeats it all"
        );
        assert_eq!(
            plan.checkable_routes().len(),
            2,
            "another table's is left out"
        );
    }

    #[test]
    fn what_is_no_result_is_refused_with_the_plugins_name() {
        for (answer, told) in [
            ("", "EOF"),
            ("{}", "it has no address"),
            (r#"{"ips":[{"address":"x"}]}"#, "invalid address"),
            (
                r#"{"ips":[{"address":"10.0.0.1/8"}],"routes":[{"gw":"10.0.0.2"}]}"#,
                "missing field `dst`",
            ),
        ] {
            let error = Plan::of_answer("whereabouts", answer.as_bytes()).unwrap_err();
            assert_eq!(error.code, Code::Delegate);
            assert!(error.message.starts_with("ipam plugin whereabouts: "));
            assert!(error.message.contains(told), "{}", error.message);
        }
    }
}
