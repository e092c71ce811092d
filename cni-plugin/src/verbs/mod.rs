//! One file a verb; here, which one is meant.

mod add;
mod check;
mod del;
mod gc;
mod ipam;
mod status;

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_api::annotations;
use berth_ipam::store::SqliteStore;
use berth_ipam::wishes::aliases::Aliases;
use berth_ipam::{Allocator, PodRef, Request, Timestamp, Wishes};
use serde_json::json;

use crate::config::{Config, VERSIONS, Versioned};
use crate::delegate::Caller;
use crate::env::{Attachment, Environment};
use crate::error::{CniError, Code};
use crate::objects::Objects;
use crate::state::State;
use crate::step::Observer;

/// Runs the verb; what it returns goes to stdout.
pub(crate) fn serve(
    environment: &Environment,
    stdin: &[u8],
    observer: Observer<'_>,
    asked: &mut String,
) -> Result<String, CniError> {
    let command = environment.command()?;
    let versioned = Versioned::parse(stdin)?;
    if !versioned.cni_version.is_empty() {
        asked.clone_from(&versioned.cni_version);
    }
    if command == "VERSION" {
        return Ok(format!(
            "{}\n",
            json!({ "cniVersion": asked.as_str(), "supportedVersions": VERSIONS })
        ));
    }
    versioned.check()?;
    let since = |least: &str| {
        let place = |version: &str| VERSIONS.iter().position(|known| *known == version);
        if place(asked) >= place(least) {
            Ok(())
        } else {
            Err(CniError::new(
                Code::InvalidEnvironment,
                format!("CNI_COMMAND {command} is not in CNI {asked}; it came with {least}"),
            ))
        }
    };
    let delegated = environment.program == "berth-ipam";
    let config = if delegated {
        Config::parse_delegated(stdin)?
    } else {
        Config::parse(stdin)?
    };
    let caller = Caller { environment, stdin };
    match command {
        "ADD" if delegated => ipam::add(&config, &environment.attachment()?, observer),
        "ADD" => add::add(&config, &environment.attachment()?, caller, observer),
        "DEL" if delegated => ipam::del(&config, &environment.attachment()?, observer),
        "DEL" => del::del(&config, &environment.attachment()?, caller, observer),
        "CHECK" => {
            since("0.4.0")?;
            check::check(&config, &environment.attachment()?, caller, delegated)
        }
        "GC" => {
            since("1.1.0")?;
            gc::gc(&config, caller, delegated, observer)
        }
        "STATUS" => {
            since("1.1.0")?;
            status::status(&config, caller)
        }
        other => Err(CniError::new(
            Code::InvalidEnvironment,
            format!(
                "CNI_COMMAND {other:?} is not known; it is ADD, DEL, CHECK, GC, STATUS or VERSION"
            ),
        )),
    }
}

/// What the pod asks for: its annotations as the runtime passes them, else as
/// the folder has them; a fixed address may also come by CNI's own ways.
fn wishes(config: &Config, attachment: &Attachment, objects: &Objects) -> Result<Wishes, CniError> {
    let mut of_pod = pod_annotations(config, objects);
    let runtime = &config.runtime_config;
    if !of_pod.contains_key(annotations::IP) {
        let ips = [
            runtime.ips.clone().unwrap_or_default(),
            config.args.cni.ips.clone(),
            attachment.args.ip.iter().cloned().collect(),
        ]
        .into_iter()
        .find(|ips| !ips.is_empty());
        if let Some(ips) = ips {
            // These may carry a prefix length; the pool knows it better.
            let bare: Vec<_> = ips
                .iter()
                .map(|ip| ip.split('/').next().unwrap_or_default())
                .collect();
            of_pod.insert(annotations::IP.to_owned(), bare.join(","));
        }
    }
    let found = aliases(config, &attachment.ifname, &objects.pod.id, &of_pod)?;
    // As in those projects an address says more than a pool.
    if let Some((text, _)) = found.ip {
        of_pod.insert(annotations::IP.to_owned(), text);
    } else if let Some((text, _)) = found.pool {
        of_pod.insert(annotations::POOL.to_owned(), text);
    }
    Ok(Wishes::read(
        &objects.pod.id,
        &of_pod,
        &objects.namespace_annotations,
    )?)
}

/// The pod's annotations: as the runtime passes them, else as the folder has
/// them.
fn pod_annotations(config: &Config, objects: &Objects) -> BTreeMap<String, String> {
    let mut of_pod = objects.pod_annotations.clone();
    of_pod.extend(
        config
            .runtime_config
            .annotations
            .clone()
            .unwrap_or_default(),
    );
    of_pod
}

/// Other projects' annotations, where the pod has none of Berth's own.
fn aliases(
    config: &Config,
    ifname: &str,
    pod: &PodRef,
    of_pod: &BTreeMap<String, String>,
) -> Result<Aliases, CniError> {
    if of_pod.contains_key(annotations::IP) || of_pod.contains_key(annotations::POOL) {
        return Ok(Aliases::default());
    }
    Aliases::read(of_pod, &config.name, ifname)
        .map_err(|error| CniError::new(Code::Annotation, format!("pod {pod}: {error}")))
}

fn node_name(config: &Config) -> String {
    if config.node_name.is_empty() {
        std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map(|name| name.trim().to_owned())
            .unwrap_or_default()
    } else {
        config.node_name.clone()
    }
}

/// What the store is asked for this attachment.
fn request(
    config: &Config,
    attachment: &Attachment,
    objects: &Objects,
) -> Result<Request, CniError> {
    Ok(Request {
        pod: objects.pod.clone(),
        wishes: wishes(config, attachment, objects)?,
        container_id: attachment.container_id.clone(),
        ifname: attachment.ifname.clone(),
        netns: attachment
            .netns
            .as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        node: node_name(config),
    })
}

/// Opens the database, makes it if need be, and first of all does the releases
/// that earlier calls could not.
fn allocator(
    config: &Config,
    state: &State,
    objects: &Objects,
) -> Result<Allocator<SqliteStore>, CniError> {
    let mut store = SqliteStore::open(&config.database, true)?;
    drain(config, state, &mut store)?;
    Ok(Allocator::new(objects.pools.clone(), store))
}

fn drain(config: &Config, state: &State, store: &mut SqliteStore) -> Result<(), CniError> {
    for release in state.queued() {
        if release.database == config.database {
            give_back(store, &release.container_id, &release.ifname)?;
            state.dequeue(&release)?;
        }
    }
    Ok(())
}

fn give_back(
    store: &mut SqliteStore,
    container_id: &str,
    ifname: &str,
) -> Result<Vec<IpAddr>, CniError> {
    Ok(berth_ipam::release(
        store,
        container_id,
        ifname,
        Timestamp::now(),
    )?)
}
