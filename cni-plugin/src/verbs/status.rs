//! STATUS: whether an ADD could work now.

use berth_ipam::store::{Records, Store, StoreError};
use berth_ipam::{Allocator, Timestamp};
use berth_netlink::Handle;

use super::allocator;
use crate::config::Config;
use crate::delegate::Caller;
use crate::env::{Args, Attachment};
use crate::error::{CniError, Code};
use crate::network::parent;
use crate::objects::Objects;
use crate::state::State;

pub(super) fn status(config: &Config, caller: Caller<'_>) -> Result<String, CniError> {
    if let Some(plugin) = &config.delegate {
        caller.pass_on(plugin)?;
        parent::named(&Handle::new()?, config.master.as_deref())
            .map_err(|error| CniError::new(Code::Unavailable, error.message))?;
        return Ok(String::new());
    }
    let unavailable = |problem: String| CniError::new(Code::Unavailable, problem);
    let nobody = Attachment {
        container_id: String::new(),
        ifname: String::new(),
        netns: None,
        args: Args::default(),
    };
    let objects =
        Objects::read(&config.folder, &nobody).map_err(|error| unavailable(error.message))?;
    if objects.pools.iter().next().is_none() {
        let mut problem = format!(
            "folder {} has no usable IPPool; add one",
            config.folder.display()
        );
        for refusal in objects.pools.refusals() {
            problem.push_str(&format!("; refused: {refusal}"));
        }
        return Err(unavailable(problem));
    }
    let state = State::at(&config.state_dir);
    let mut allocator =
        allocator(config, &state, &objects).map_err(|error| unavailable(error.message))?;
    match every_pool_is_full(&mut allocator) {
        Ok(false) => Ok(String::new()),
        Ok(true) => Err(unavailable(
            "every pool is full; widen spec.ranges, or release addresses that are kept".to_owned(),
        )),
        Err(error) => Err(unavailable(error.to_string())),
    }
}

fn every_pool_is_full(allocator: &mut Allocator<impl Store>) -> Result<bool, StoreError> {
    let now = Timestamp::now();
    let pools = allocator.pools().clone();
    allocator.store().attempt(|records: &mut dyn Records| {
        for pool in pools.iter() {
            let free = records.unused(pool, None)?.is_some()
                || !records.lapsed(pool, now, 0, 1)?.is_empty();
            if free {
                return Ok(false);
            }
        }
        Ok(true)
    })
}
