//! The company's names for Services and pods.
//!
//! A Service has one name in each zone: the template's, or those of its
//! annotation. From inside it answers as in the cluster; from outside it
//! answers with the ready pods' own addresses, because a legacy VM cannot use
//! a ClusterIP. A pod with a hostname (a StatefulSet's) has a name of its own
//! below the Service's.
//!
//! The name exists as long as the Service does: without ready pods it has no
//! data, so that a resolver does not believe that it was abolished.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::cluster::{CLUSTER, Ready};
use super::config::Config;
use super::record::Record;
use super::table::REVERSE;
use super::unit::{Claim, Data, Entry, Owner, Rank};
use crate::model::{Hostname, Key, Pod, Service, ServiceKind};
use crate::name::Name;

/// What a Service asks for in the company's zones.
pub(super) fn service_claims(
    config: &Config,
    key: &Key,
    service: &Service,
    ready: &BTreeSet<Ready>,
    created: Option<&String>,
    warnings: &mut Vec<String>,
) -> Vec<Claim> {
    let owner = Owner::Service(key.clone());
    let mut names = annotated(config, &owner, &service.hostnames, warnings);
    for (zone, company) in (CLUSTER + 1..).zip(&config.company) {
        if names.iter().any(|(z, _)| *z == zone) {
            continue; // The annotation speaks instead of the template.
        }
        let problem = match company.name_of(key) {
            Ok(name) if zone_index(config, &name) == Some(zone) => {
                names.push((zone, name));
                continue;
            }
            Ok(name) => format!("{name} lies in another zone"),
            Err(error) => error.to_string(),
        };
        warnings.push(format!(
            "{owner}: no name in zone {}: {problem}; or name it with the annotation {}",
            company.apex,
            berth_api::annotations::HOSTNAME
        ));
    }
    names
        .into_iter()
        .map(|(zone, name)| {
            let rank = Rank::new(owner.clone(), created);
            let entries = service_entries(zone, &name, service, ready, &rank, warnings);
            Claim {
                name,
                rank,
                entries,
            }
        })
        .collect()
}

fn service_entries(
    zone: u16,
    base: &Name,
    service: &Service,
    ready: &BTreeSet<Ready>,
    rank: &Arc<Rank>,
    warnings: &mut Vec<String>,
) -> Vec<Arc<Entry>> {
    let pods: Vec<Record> = ready.iter().map(|r| Record::Address(r.address)).collect();
    let (inside, outside) = match &service.kind {
        ServiceKind::External(target) => {
            let alias = vec![Record::Cname(target.clone())];
            (alias.clone(), alias)
        }
        ServiceKind::Headless => (pods.clone(), pods),
        ServiceKind::Cluster(addresses) => (
            addresses.iter().map(|a| Record::Address(*a)).collect(),
            pods,
        ),
    };
    let mut out = vec![claimed(base, zone, rank, inside, outside)];
    if matches!(service.kind, ServiceKind::External(_)) {
        return out;
    }
    let mut hosts: BTreeMap<&str, Vec<Record>> = BTreeMap::new();
    for endpoint in ready {
        let mut target = base.clone();
        if let Some(hostname) = &endpoint.hostname {
            match base.child(hostname) {
                Ok(name) => target = name,
                Err(error) => {
                    warnings.push(format!("{}: no name for {hostname}: {error}", rank.owner));
                    continue;
                }
            }
            let record = Record::Address(endpoint.address);
            hosts.entry(hostname).or_default().push(record);
        }
        out.push(pointer(
            endpoint.address,
            target,
            endpoint.hostname.is_some(),
            zone,
            rank,
        ));
    }
    for (hostname, records) in hosts {
        if let Ok(name) = base.child(hostname) {
            out.push(claimed(&name, zone, rank, records.clone(), records));
        }
    }
    out
}

/// What a pod asks for by its own annotation.
pub(super) fn pod_claims(
    config: &Config,
    key: &Key,
    pod: &Pod,
    warnings: &mut Vec<String>,
) -> Vec<Claim> {
    let owner = Owner::Pod(key.clone());
    let addresses: &[IpAddr] = if pod.ready { &pod.addresses } else { &[] };
    annotated(config, &owner, &pod.hostnames, warnings)
        .into_iter()
        .map(|(zone, name)| {
            let rank = Rank::new(owner.clone(), pod.created.as_ref());
            let records: Vec<_> = addresses.iter().map(|a| Record::Address(*a)).collect();
            let mut entries = vec![claimed(&name, zone, &rank, records.clone(), records)];
            for address in addresses {
                entries.push(pointer(*address, name.clone(), true, zone, &rank));
            }
            Claim {
                name,
                rank,
                entries,
            }
        })
        .collect()
}

/// The annotated names that lie in a zone of ours, with the zone's index.
fn annotated(
    config: &Config,
    owner: &Owner,
    hostnames: &[Hostname],
    warnings: &mut Vec<String>,
) -> Vec<(u16, Name)> {
    let mut names = Vec::new();
    for hostname in hostnames {
        match zone_index(config, &hostname.name).filter(|zone| *zone != CLUSTER) {
            Some(zone) => {
                let named = (zone, hostname.name.clone());
                if !names.contains(&named) {
                    names.push(named);
                }
            }
            None if hostname.own => {
                let zones: Vec<_> = config.company.iter().map(|z| z.apex.to_string()).collect();
                warnings.push(format!(
                    "{owner}: metadata.annotations[{}]: {} lies in no company zone; \
                     write a name below one of: {}",
                    berth_api::annotations::HOSTNAME,
                    hostname.name,
                    if zones.is_empty() {
                        "(none is served; see --company-zone)".to_owned()
                    } else {
                        zones.join(", ")
                    },
                ));
            }
            None => {}
        }
    }
    names
}

/// Index in the table of the innermost zone that holds the name.
fn zone_index(config: &Config, name: &Name) -> Option<u16> {
    let place = config.zone_of(name)?;
    u16::try_from(place).ok()?.checked_add(CLUSTER)
}

fn claimed(
    name: &Name,
    zone: u16,
    rank: &Arc<Rank>,
    inside: Vec<Record>,
    outside: Vec<Record>,
) -> Arc<Entry> {
    Arc::new(Entry {
        name: name.clone(),
        zone,
        rank: Arc::clone(rank),
        data: Data::Claimed { inside, outside },
    })
}

fn pointer(address: IpAddr, target: Name, alone: bool, zone: u16, rank: &Arc<Rank>) -> Arc<Entry> {
    Arc::new(Entry {
        name: Name::reverse(address),
        zone: REVERSE,
        rank: Arc::clone(rank),
        data: Data::CompanyPointer {
            target,
            alone,
            zone,
        },
    })
}
