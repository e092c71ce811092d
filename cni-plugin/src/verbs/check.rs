//! CHECK: whether everything is still as ADD left it.

use std::net::IpAddr;

use berth_ipam::store::{SqliteStore, Store, StoreError};
use berth_netlink::{Handle, MAIN_TABLE};

use berth_api::mac::MacAddr;

use crate::config::Config;
use crate::delegate::Caller;
use crate::env::Attachment;
use crate::error::{CniError, Code};
use crate::network::{PodNetns, alone};
use crate::result::mac_of;
use crate::state::{Record, State};

pub(super) fn check(
    config: &Config,
    attachment: &Attachment,
    caller: Caller<'_>,
    delegated: bool,
) -> Result<String, CniError> {
    let Attachment {
        container_id,
        ifname,
        ..
    } = attachment;
    if delegated {
        return if held(config, container_id, ifname)?.is_empty() {
            Err(unknown(container_id, ifname))
        } else {
            Ok(String::new())
        };
    }
    let state = State::at(&config.state_dir);
    let record = state
        .record(container_id, ifname)
        .filter(|record| record.complete)
        .ok_or_else(|| unknown(container_id, ifname))?;
    if let Some(plugin) = &config.delegate {
        caller.pass_on(plugin)?;
    }
    let held = match &record.delegated {
        Some(_) => record.addresses.clone(),
        None => held(config, container_id, ifname)?,
    };
    if held != record.addresses {
        return Err(changed(format!(
            "allocation: the store has {held:?} for this sandbox, and it was given {:?}",
            record.addresses
        )));
    }
    let path = attachment.netns.as_deref().unwrap_or(&record.netns);
    let netns = PodNetns::open(path)?;
    // All plugins of the list together made the previous result, so where it
    // differs from what ADD did, it counts.
    let mut mac = record.mac;
    if let Some(previous) = &config.prev_result {
        check_previous(previous, &record)?;
        if let Some(told) = mac_of(previous, ifname) {
            mac = Some(
                told.parse::<MacAddr>()
                    .map_err(|e| CniError::new(Code::InvalidConfig, format!("prevResult: {e}")))?,
            );
        }
    }
    check_pod(&netns, &record, mac)?;
    check_host(&record)?;
    Ok(String::new())
}

fn unknown(container_id: &str, ifname: &str) -> CniError {
    CniError::new(
        Code::UnknownContainer,
        format!("sandbox {container_id} has no interface {ifname} of Berth's"),
    )
}

fn changed(problem: impl Into<String>) -> CniError {
    CniError::new(
        Code::Changed,
        format!("{}; delete the pod, and it is made anew", problem.into()),
    )
}

fn held(config: &Config, container_id: &str, ifname: &str) -> Result<Vec<IpAddr>, CniError> {
    let mut store = match SqliteStore::open(&config.database, false) {
        Err(StoreError::Missing { .. }) => return Ok(Vec::new()),
        other => other?,
    };
    let all = store.attempt(|records| {
        records
            .of_container(container_id)
            .map_err(|e: StoreError| e)
    })?;
    let mut addresses: Vec<IpAddr> = all
        .into_iter()
        .filter(|stored| {
            let holder = stored.allocation.holder.as_ref();
            holder.is_some_and(|holder| holder.ifname == ifname)
        })
        .map(|stored| stored.allocation.address)
        .collect();
    addresses.sort();
    Ok(addresses)
}

/// The runtime must be talking of the attachment that ADD made.
fn check_previous(previous: &serde_json::Value, record: &Record) -> Result<(), CniError> {
    let told: Vec<IpAddr> = previous["ips"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok())
        .collect();
    match record.addresses.iter().find(|ip| !told.contains(ip)) {
        None => Ok(()),
        Some(missing) => Err(changed(format!(
            "prevResult: {missing} was given to this sandbox, and the runtime knows {told:?}"
        ))),
    }
}

fn check_pod(netns: &PodNetns, record: &Record, mac: Option<MacAddr>) -> Result<(), CniError> {
    let ifname = &record.ifname;
    let link = netns
        .handle
        .link_by_name(ifname)
        .map_err(|error| changed(format!("link: {error}")))?;
    if link.mac != mac.map(|mac| mac.0) {
        return Err(changed(format!(
            "MAC: {ifname} has another MAC than it was given"
        )));
    }
    if !link.up {
        return Err(changed(format!("link: {ifname} is down")));
    }
    let present = netns.handle.addresses(Some(link.index))?;
    for address in &record.addresses {
        if !present.iter().any(|p| p.network.ip() == *address) {
            return Err(changed(format!("address: {address} is not on {ifname}")));
        }
    }
    let routes = netns.handle.routes(MAIN_TABLE)?;
    for (dst, via) in &record.routes {
        let wanted = Some(*dst).filter(|dst| dst.prefix() > 0);
        let there = routes
            .iter()
            .any(|route| route.dst == wanted && route.gateway == *via);
        if !there {
            let via = via.map(|via| format!(" via {via}")).unwrap_or_default();
            return Err(changed(format!("route: {dst}{via} is missing in the pod")));
        }
    }
    Ok(())
}

fn check_host(record: &Record) -> Result<(), CniError> {
    let Some(shim) = &record.shim else {
        return Ok(());
    };
    let host = Handle::new()?;
    let link = host
        .link_by_name(shim)
        .map_err(|error| changed(format!("shim: {error}")))?;
    let routes = host.routes(MAIN_TABLE)?;
    for address in &record.host_routes {
        let there = routes
            .iter()
            .any(|route| route.dst == Some(alone(*address)) && route.oif == Some(link.index));
        if !there {
            return Err(changed(format!(
                "shim route: the node has no route to {address} through {shim}"
            )));
        }
    }
    Ok(())
}
