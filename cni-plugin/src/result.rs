//! The answer to ADD, in the shape of the version that was asked for.

use serde_json::{Value, json};

use crate::plan::Plan;

/// The interface in the pod; none for `berth-ipam`, which makes none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interface<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: &'a str,
    pub(crate) mtu: u32,
    pub(crate) sandbox: &'a str,
}

/// A result by the specification: 0.3.1 and 0.4.0 say the family of each
/// address, 1.1.0 says the interface's MTU. What the plugins before this one
/// in the list did, `previous`, comes first and stays as it is.
pub(crate) fn render(
    version: &str,
    previous: Option<&Value>,
    interface: Option<Interface<'_>>,
    plan: &Plan,
) -> String {
    let before_one = version.starts_with("0.");
    let before = |field: &str| -> Vec<Value> {
        let list = previous.and_then(|previous| previous[field].as_array());
        list.cloned().unwrap_or_default()
    };
    let (mut interfaces, mut ips, mut routes) =
        (before("interfaces"), before("ips"), before("routes"));
    for address in &plan.addresses {
        let mut ip = json!({ "address": address.network.to_string() });
        if before_one {
            ip["version"] = json!(if address.network.is_ipv4() { "4" } else { "6" });
        }
        if let Some(gateway) = address.gateway {
            ip["gateway"] = json!(gateway);
        }
        if interface.is_some() {
            ip["interface"] = json!(interfaces.len());
        }
        ips.push(ip);
    }
    routes.extend(plan.routes.iter().map(|route| route.told.clone()));
    let dns = previous
        .map(|previous| &previous["dns"])
        .filter(|dns| dns.as_object().is_some_and(|fields| !fields.is_empty()))
        .or(plan.dns.as_ref());
    let mut result = json!({
        "cniVersion": version,
        "ips": ips,
        "routes": routes,
        "dns": dns.cloned().unwrap_or_else(|| json!({})),
    });
    if let Some(interface) = interface {
        let mut told = json!({
            "name": interface.name,
            "mac": interface.mac,
            "sandbox": interface.sandbox,
        });
        if version == "1.1.0" {
            told["mtu"] = json!(interface.mtu);
        }
        interfaces.push(told);
    }
    if !interfaces.is_empty() {
        result["interfaces"] = json!(interfaces);
    }
    format!("{result}\n")
}

/// The MAC that `result` tells for the interface `ifname` of a sandbox: a
/// later plugin, such as tuning, may have changed it.
pub(crate) fn mac_of<'a>(result: &'a Value, ifname: &str) -> Option<&'a str> {
    let interfaces = result["interfaces"].as_array()?;
    let ours = interfaces.iter().find(|interface| {
        interface["name"] == ifname && interface["sandbox"].as_str().is_some_and(|s| !s.is_empty())
    })?;
    ours["mac"].as_str().filter(|mac| !mac.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PlannedAddress;

    #[test]
    fn what_earlier_plugins_did_comes_first() {
        let previous = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "br0"}, {"name": "net1", "sandbox": "/n"}],
            "ips": [{"address": "10.1.0.2/24", "interface": 1}],
            "dns": {"nameservers": ["10.1.0.53"]},
        });
        let plan = Plan {
            addresses: vec![PlannedAddress {
                network: "10.20.0.57/24".parse().unwrap(),
                gateway: None,
            }],
            dns: Some(json!({"nameservers": ["10.2.0.53"]})),
            ..Plan::default()
        };
        let interface = Interface {
            name: "eth0",
            mac: "02:be:0a:14:00:39",
            mtu: 1500,
            sandbox: "/n",
        };
        let text = render("1.0.0", Some(&previous), Some(interface), &plan);
        let result: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 3);
        assert_eq!(result["ips"][0], previous["ips"][0]);
        assert_eq!(result["ips"][1]["interface"], 2);
        assert_eq!(result["dns"]["nameservers"][0], "10.1.0.53");
        assert_eq!(mac_of(&result, "eth0"), Some("02:be:0a:14:00:39"));
        assert_eq!(mac_of(&result, "br0"), None, "not in a sandbox");
    }
}
