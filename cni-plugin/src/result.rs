//! The answer to ADD, in the shape of the version that was asked for.

use berth_ipam::Grant;
use ipnetwork::IpNetwork;
use serde_json::{Value, json};

/// The interface in the pod; none for `berth-ipam`, which makes none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interface<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: &'a str,
    pub(crate) mtu: u32,
    pub(crate) sandbox: &'a str,
}

/// A result by the specification: 0.3.1 and 0.4.0 say the family of each
/// address, 1.1.0 says the interface's MTU.
pub(crate) fn render(
    version: &str,
    interface: Option<Interface<'_>>,
    grants: &[Grant<'_>],
) -> String {
    let before_one = version.starts_with("0.");
    let ips: Vec<Value> = grants
        .iter()
        .map(|grant| {
            let mut ip = json!({ "address": in_subnet(grant).to_string() });
            if before_one {
                ip["version"] = json!(if grant.address.is_ipv4() { "4" } else { "6" });
            }
            if let Some(gateway) = grant.pool.gateway {
                ip["gateway"] = json!(gateway);
            }
            if interface.is_some() {
                ip["interface"] = json!(0);
            }
            ip
        })
        .collect();
    let routes: Vec<Value> = grants
        .iter()
        .flat_map(|grant| routes(grant))
        .map(|(dst, via)| json!({ "dst": dst.to_string(), "gw": via }))
        .collect();
    let mut result = json!({ "cniVersion": version, "ips": ips, "routes": routes, "dns": {} });
    if let Some(interface) = interface {
        let mut told = json!({
            "name": interface.name,
            "mac": interface.mac,
            "sandbox": interface.sandbox,
        });
        if version == "1.1.0" {
            told["mtu"] = json!(interface.mtu);
        }
        result["interfaces"] = json!([told]);
    }
    format!("{result}\n")
}

/// The address with its subnet's prefix length.
pub(crate) fn in_subnet(grant: &Grant<'_>) -> IpNetwork {
    IpNetwork::new(grant.address, grant.pool.subnet.prefix())
        .expect("an address of the pool is of its subnet's family")
}

/// Destination and next hop of each route that a pod gets: the default route,
/// then the pool's own.
pub(crate) fn routes(grant: &Grant<'_>) -> Vec<(IpNetwork, std::net::IpAddr)> {
    let default: IpNetwork = if grant.address.is_ipv4() {
        "0.0.0.0/0".parse()
    } else {
        "::/0".parse()
    }
    .expect("a constant");
    let through = grant.pool.gateway.map(|gateway| (default, gateway));
    through
        .into_iter()
        .chain(grant.pool.routes.iter().copied())
        .collect()
}
