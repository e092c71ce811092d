//! `berth-ipam`: addresses alone, for another plugin that makes the interface.

use berth_ipam::Timestamp;

use super::{allocator, del, request};
use crate::config::Config;
use crate::env::Attachment;
use crate::error::CniError;
use crate::objects::Objects;
use crate::plan::Plan;
use crate::result::render;
use crate::state::State;
use crate::step::{Observer, Step};

/// Gives addresses. One transaction, so there is nothing to undo.
pub(super) fn add(
    config: &Config,
    attachment: &Attachment,
    observer: Observer<'_>,
) -> Result<String, CniError> {
    let objects = Objects::read(&config.folder, attachment)?;
    let request = request(config, attachment, &objects)?;
    let state = State::at(&config.state_dir);
    let mut allocator = allocator(config, &state, &objects)?;
    let live = |claim: &_| objects.pod_is_live(claim);
    let grants = allocator.allocate(&request, &live, Timestamp::now())?;
    observer(Step::Allocated);
    Ok(render(
        &config.cni_version,
        None,
        None,
        &Plan::of_grants(&grants),
    ))
}

/// Takes them back, now or later.
pub(super) fn del(
    config: &Config,
    attachment: &Attachment,
    observer: Observer<'_>,
) -> Result<String, CniError> {
    let state = State::at(&config.state_dir);
    del::release(
        &state,
        &config.database,
        &attachment.container_id,
        &attachment.ifname,
    )?;
    observer(Step::Released);
    Ok(String::new())
}
