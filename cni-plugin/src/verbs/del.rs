//! DEL: takes back everything that ADD did, from the record on disk. What is
//! missing already is no error; what fails does not stop the rest.

use berth_ipam::store::SqliteStore;
use berth_netlink::Handle;

use super::{drain, give_back};
use berth_api::mac::MacAddr;

use crate::config::Config;
use crate::delegate::{Caller, Delegated};
use crate::env::Attachment;
use crate::error::CniError;
use crate::network::{PodNetns, pod, shim};
use crate::result::mac_of;
use crate::state::{Record, Release, State};
use crate::step::{Observer, Step};

pub(super) fn del(
    config: &Config,
    attachment: &Attachment,
    caller: Caller<'_>,
    observer: Observer<'_>,
) -> Result<String, CniError> {
    let state = State::at(&config.state_dir);
    let Attachment {
        container_id,
        ifname,
        ..
    } = attachment;
    let netns = attachment.netns.as_deref().and_then(PodNetns::if_alive);
    match state.record(container_id, ifname) {
        Some(record) => {
            let told = config.prev_result.as_ref();
            let call = Call {
                caller,
                netns: netns.as_ref(),
                config: Some(config),
                mac: told.and_then(|result| mac_of(result, ifname)?.parse().ok()),
            };
            detach(&state, &record, call, observer)?;
        }
        None => match &config.delegate {
            Some(plugin) => {
                state.remove_record(container_id, ifname)?;
                caller.pass_on(plugin)?;
            }
            None => forgotten(config, &state, container_id, ifname)?,
        },
    }
    // Opening the database reads its log through: not for nothing.
    if config.delegate.is_none()
        && !state.queued().is_empty()
        && let Ok(mut store) = SqliteStore::open(&config.database, false)
    {
        drain(config, &state, &mut store)?;
    }
    Ok(String::new())
}

/// How an attachment comes to be undone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    caller: Caller<'a>,
    netns: Option<&'a PodNetns>,
    /// The configuration, if the runtime's call is about this attachment.
    config: Option<&'a Config>,
    /// The MAC that a later plugin gave the interface.
    mac: Option<MacAddr>,
}

impl<'a> Call<'a> {
    /// The ADD of this very attachment failed.
    pub(super) fn failed_add(caller: Caller<'a>, netns: &'a PodNetns, config: &'a Config) -> Self {
        Self {
            caller,
            netns: Some(netns),
            config: Some(config),
            mac: None,
        }
    }

    /// The runtime's call is not about this attachment.
    pub(super) fn recorded(caller: Caller<'a>) -> Self {
        Self {
            caller,
            netns: None,
            config: None,
            mac: None,
        }
    }
}

/// Undoes one attachment, in the reverse order of ADD. The address is released
/// only when no interface can have it any more.
///
/// # Errors
/// The first thing that could not be undone; the record stays for the next try.
pub(super) fn detach(
    state: &State,
    record: &Record,
    call: Call<'_>,
    observer: Observer<'_>,
) -> Result<(), CniError> {
    let mut errors = Vec::new();
    errors.extend(unroute(state, record).err());
    observer(Step::HostUnrouted);
    if let Some(delegated) = &record.delegated {
        // Before the interface goes: a DHCP lease is given back through it.
        errors.extend(del_delegated(record, delegated, call).err());
    }
    errors.extend(unlink(record, call).err());
    observer(Step::LinkGone);
    if errors.is_empty() {
        if record.delegated.is_none() {
            release(
                state,
                &record.database,
                &record.container_id,
                &record.ifname,
            )?;
        }
        observer(Step::Released);
        return state.remove_record(&record.container_id, &record.ifname);
    }
    let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let first = errors.swap_remove(0);
    Err(match all.len() {
        1 => first,
        _ => first.with_details(all.join("; ")),
    })
}

/// The host's way to the pod, unless a newer sandbox has the address by now.
fn unroute(state: &State, record: &Record) -> Result<(), CniError> {
    let Some(shim) = &record.shim else {
        return Ok(());
    };
    let _lock = state.lock_shims()?;
    let mut addresses = record.addresses.clone();
    addresses.retain(|address| state.others_with(record, *address).is_empty());
    shim::disconnect(&Handle::new()?, state, shim, &addresses)
}

/// Tells the plugin that gave the addresses, with what it was told at ADD
/// unless the runtime says the same.
fn del_delegated(record: &Record, delegated: &Delegated, call: Call<'_>) -> Result<(), CniError> {
    let same = |config: &Config| {
        config.delegate.as_deref() == Some(&*delegated.plugin) && config.name == record.network
    };
    match call.config {
        Some(config) if same(config) => call.caller.pass_on_as("DEL", &delegated.plugin).map(drop),
        other => {
            // An empty CNI_NETNS stays one, if the call is about this sandbox.
            let netns = match other {
                Some(_) if call.netns.is_none() => Default::default(),
                _ if !record.netns.exists() => Default::default(),
                _ => record.netns.clone().into_os_string(),
            };
            call.caller
                .del_recorded(delegated, &record.container_id, &record.ifname, netns)
        }
    }
}

fn unlink(record: &Record, call: Call<'_>) -> Result<(), CniError> {
    let Some(mac) = record.mac else {
        return Ok(()); // Nothing was made yet.
    };
    // An empty CNI_NETNS says that the runtime has let go of it, not that it
    // is gone: another process may hold it.
    let own = match call.netns {
        Some(_) => None,
        None => PodNetns::if_alive(&record.netns),
    };
    let macs: Vec<MacAddr> = std::iter::once(mac).chain(call.mac).collect();
    match call.netns.or(own.as_ref()) {
        Some(netns) => Ok(pod::remove(netns, &record.ifname, &macs)?),
        None => Ok(()),
    }
}

/// Gives the address back, or writes down that it is to be given back.
pub(super) fn release(
    state: &State,
    database: &std::path::Path,
    container_id: &str,
    ifname: &str,
) -> Result<(), CniError> {
    let now = SqliteStore::open(database, false)
        .map_err(CniError::from)
        .and_then(|mut store| give_back(&mut store, container_id, ifname));
    match now {
        Ok(_) => Ok(()),
        Err(_) => state.queue(&Release {
            container_id: container_id.to_owned(),
            ifname: ifname.to_owned(),
            database: database.to_owned(),
        }),
    }
}

/// DEL without a record: done already, or the state folder was lost. Then the
/// store knows the addresses, and the host's routes to them can still be found;
/// the interface goes with its namespace.
fn forgotten(
    config: &Config,
    state: &State,
    container_id: &str,
    ifname: &str,
) -> Result<(), CniError> {
    // What could not be read is removed too.
    state.remove_record(container_id, ifname)?;
    let Ok(mut store) = SqliteStore::open(&config.database, false) else {
        return release(state, &config.database, container_id, ifname);
    };
    let Ok(addresses) = give_back(&mut store, container_id, ifname) else {
        return release(state, &config.database, container_id, ifname);
    };
    if addresses.is_empty() {
        return Ok(());
    }
    let _lock = state.lock_shims()?;
    let host = Handle::new()?;
    for name in shim::all(&host)? {
        shim::disconnect(&host, state, &name, &addresses)?;
    }
    Ok(())
}
