//! The cluster's zone: the Kubernetes DNS specification, version 1.1.0.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::record::Record;
use super::table::REVERSE;
use super::unit::{Data, Entry, Rank};
use crate::model::{Key, Port, Protocol, Service, ServiceKind, Slice};
use crate::name::{Name, NameError};

/// Index of the cluster's zone in the table.
pub(super) const CLUSTER: u16 = 1;

/// A ready endpoint: one address of one pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ready {
    pub(super) address: IpAddr,
    /// The hostname it was given, if it was given one.
    pub(super) hostname: Option<String>,
}

impl Ready {
    /// Its label in the cluster's zone: its hostname, else its address with
    /// dashes.
    fn label(&self) -> String {
        match &self.hostname {
            Some(hostname) => hostname.clone(),
            None => self.address.to_string().replace(['.', ':'], "-"),
        }
    }
}

/// The ready endpoints of a Service, each address once. An endpoint may stand
/// in two slices while the controller moves it between them.
pub(super) fn ready<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a Slice>,
) -> BTreeSet<Ready> {
    slices
        .flat_map(|slice| &slice.endpoints)
        .filter(|endpoint| endpoint.ready || service.publish_not_ready)
        .flat_map(|endpoint| {
            endpoint.addresses.iter().map(|address| Ready {
                address: *address,
                hostname: endpoint.hostname.clone(),
            })
        })
        .collect()
}

/// `svc.<zone>`.
pub(super) fn services(zone: &Name) -> Name {
    zone.child("svc").unwrap_or_else(|_| zone.clone())
}

/// What a Service says in the cluster's zone, and of its addresses.
///
/// # Errors
/// If the Service's own name does not fit into a DNS name.
pub(super) fn entries<'a>(
    zone: &Name,
    key: &Key,
    service: &Service,
    slices: impl Iterator<Item = &'a Slice> + Clone,
    rank: &Arc<Rank>,
) -> Result<Vec<Arc<Entry>>, NameError> {
    let namespace = services(zone).child(&key.namespace)?;
    let base = namespace.child(&key.name)?;
    let mut out = Entries {
        records: BTreeMap::new(),
        pointers: BTreeSet::new(),
    };
    // The namespace exists even if this Service has nothing to say now.
    out.records.entry(namespace).or_default();
    match &service.kind {
        ServiceKind::External(target) => out.record(&base, Record::Cname(target.clone())),
        ServiceKind::Cluster(addresses) => {
            for address in addresses {
                out.record(&base, Record::Address(*address));
                out.pointers.insert((*address, base.clone()));
            }
            for port in &service.ports {
                out.srv(&base, port, &base, addresses)?;
            }
        }
        ServiceKind::Headless => headless(&mut out, &base, service, slices)?,
    }
    Ok(out.finish(rank))
}

/// Without a ready endpoint there is nothing, not even an empty name: the
/// specification asks for NXDOMAIN.
fn headless<'a>(
    out: &mut Entries,
    base: &Name,
    service: &Service,
    slices: impl Iterator<Item = &'a Slice> + Clone,
) -> Result<(), NameError> {
    let mut hosts: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for endpoint in ready(service, slices.clone()) {
        hosts
            .entry(endpoint.label())
            .or_default()
            .push(endpoint.address);
    }
    for (label, addresses) in &hosts {
        let host = base.child(label)?;
        for address in addresses {
            out.record(base, Record::Address(*address));
            out.record(&host, Record::Address(*address));
            out.pointers.insert((*address, host.clone()));
        }
    }
    // Ports belong to a slice, so that each endpoint has its own number.
    for slice in slices {
        let labels: BTreeSet<String> = ready(service, std::iter::once(slice))
            .iter()
            .map(Ready::label)
            .collect();
        for label in labels {
            for port in &slice.ports {
                out.srv(base, port, &base.child(&label)?, &hosts[&label])?;
            }
        }
    }
    Ok(())
}

struct Entries {
    records: BTreeMap<Name, Vec<Record>>,
    pointers: BTreeSet<(IpAddr, Name)>,
}

impl Entries {
    fn record(&mut self, name: &Name, record: Record) {
        self.records.entry(name.clone()).or_default().push(record);
    }

    fn srv(
        &mut self,
        base: &Name,
        port: &Port,
        target: &Name,
        addresses: &[IpAddr],
    ) -> Result<(), NameError> {
        if port.name.is_empty() {
            return Ok(());
        }
        let name = srv_name(base, &port.name, port.protocol)?;
        let record = Record::Srv {
            port: port.port,
            target: target.clone(),
            addresses: addresses.to_vec(),
        };
        self.record(&name, record);
        Ok(())
    }

    fn finish(self, rank: &Arc<Rank>) -> Vec<Arc<Entry>> {
        let records = self.records.into_iter().map(|(name, records)| Entry {
            name,
            zone: CLUSTER,
            rank: Arc::clone(rank),
            data: Data::Shared(records),
        });
        let pointers = self.pointers.into_iter().map(|(address, target)| Entry {
            name: Name::reverse(address),
            zone: REVERSE,
            rank: Arc::clone(rank),
            data: Data::ClusterPointer(target),
        });
        records.chain(pointers).map(Arc::new).collect()
    }
}

/// `_port._proto.<base>` (RFC 2782).
fn srv_name(base: &Name, port: &str, protocol: Protocol) -> Result<Name, NameError> {
    base.child(protocol.label())?.child(&format!("_{port}"))
}
