//! GC: undoes every attachment that the runtime does not know any more.

use super::{del, drain};
use crate::config::{Config, ValidAttachment};
use crate::delegate::Caller;
use crate::error::{CniError, Code};
use crate::state::State;
use crate::step::Observer;
use berth_ipam::store::{SqliteStore, Store, StoreError};

pub(super) fn gc(
    config: &Config,
    caller: Caller<'_>,
    delegated: bool,
    observer: Observer<'_>,
) -> Result<String, CniError> {
    let Some(valid) = config
        .valid_attachments
        .as_ref()
        .or(config.attachments.as_ref())
    else {
        return Err(CniError::new(
            Code::InvalidConfig,
            "cni.dev/valid-attachments: is missing; GC without it would undo every attachment",
        ));
    };
    let known = |container_id: &str, ifname: &str| {
        valid.contains(&ValidAttachment {
            container_id: container_id.to_owned(),
            ifname: ifname.to_owned(),
        })
    };
    let state = State::at(&config.state_dir);
    let mut errors = Vec::new();
    for record in state.records() {
        let ours = record.network == config.name && record.database == config.database;
        if !delegated && ours && !known(&record.container_id, &record.ifname) {
            errors
                .extend(del::detach(&state, &record, del::Call::recorded(caller), observer).err());
        }
    }
    // The plugin that gives the addresses may hold some of attachments that
    // have no record here.
    if let Some(plugin) = &config.delegate {
        errors.extend(caller.pass_on(plugin).err());
    } else if let Ok(mut store) = SqliteStore::open(&config.database, false) {
        drain(config, &state, &mut store)?;
        if delegated {
            errors.extend(release_unknown(config, &state, &mut store, &known).err());
        }
    }
    match errors.into_iter().next() {
        None => Ok(String::new()),
        Some(error) => Err(error),
    }
}

/// `berth-ipam` keeps no records: the store says what this node holds. Those
/// with a record belong to Berth's own interfaces, not to a delegating plugin.
fn release_unknown(
    config: &Config,
    state: &State,
    store: &mut SqliteStore,
    known: &dyn Fn(&str, &str) -> bool,
) -> Result<(), CniError> {
    let node = super::node_name(config);
    let held = store.attempt(|records| records.held().map_err(|e: StoreError| e))?;
    for holder in held
        .into_iter()
        .filter_map(|stored| stored.allocation.holder)
    {
        let recorded = state.record(&holder.container_id, &holder.ifname).is_some();
        if holder.node == node && !recorded && !known(&holder.container_id, &holder.ifname) {
            super::give_back(store, &holder.container_id, &holder.ifname)?;
        }
    }
    Ok(())
}
