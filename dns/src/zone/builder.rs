//! Keeps the units and makes the next table from what changed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::cluster::{self, CLUSTER};
use super::company;
use super::config::Config;
use super::merge::merge;
use super::record::Record;
use super::table::{REVERSE, Table};
use super::unit::{Claim, Data, Entry, Owner, Rank, Unit};
use crate::model::{Dirty, Key, Model};
use crate::name::{Name, suffixes};

/// The version of the specification that the cluster's zone follows.
const DNS_VERSION: &str = "1.1.0";

/// All zones: what each object says of them, and the table made from that.
#[derive(Debug)]
pub struct Zones {
    config: Config,
    units: HashMap<Owner, Arc<Unit>>,
    names: HashMap<Name, Said>,
    claims: HashMap<Name, Claimants>,
    table: Table,
}

/// What is said of one name.
#[derive(Debug, Default)]
struct Said {
    zone: u16,
    /// How many names lie below it: they alone make it exist.
    below: u32,
    entries: Vec<Arc<Entry>>,
}

/// Who asks for one company name.
#[derive(Debug, Default)]
struct Claimants {
    ranks: BTreeSet<Arc<Rank>>,
    /// The one whose entries stand in `names` now.
    winner: Option<Arc<Rank>>,
    /// Those whose loss has been told.
    told: HashSet<Arc<Rank>>,
}

/// What one update touches.
#[derive(Default)]
struct Touched {
    names: BTreeSet<Name>,
    claims: BTreeSet<Name>,
}

impl Zones {
    /// Zones in which nothing is known yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let table = Table::unread(&config);
        let mut zones = Self {
            config,
            units: HashMap::new(),
            names: HashMap::new(),
            claims: HashMap::new(),
            table,
        };
        let mut touched = Touched::default();
        let unit = zones.own_unit();
        zones.replace(Owner::Zones, Some(unit), &mut touched);
        for name in std::mem::take(&mut touched.claims) {
            zones.settle(&name, &mut touched, &mut Vec::new());
        }
        zones.rebuild(&touched.names, 0);
        zones
    }

    /// The table as it stands.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        Arc::new(self.table.clone())
    }

    /// Takes in what changed and makes the next table. `now` is the time in
    /// seconds since 1970: the least serial number of a zone that changes, so
    /// that serials rise across restarts. The sentences are for the operator,
    /// each told once.
    pub fn update(&mut self, model: &Model, dirty: &Dirty, now: u32) -> (Arc<Table>, Vec<String>) {
        let mut touched = Touched::default();
        let mut warnings = Vec::new();
        let namespaces = dirty.namespaces.iter().cloned().map(Owner::Namespace);
        let services = dirty.services.iter().cloned().map(Owner::Service);
        let pods = dirty.pods.iter().cloned().map(Owner::Pod);
        for owner in namespaces.chain(services).chain(pods) {
            let unit = match &owner {
                Owner::Zones => continue,
                Owner::Namespace(name) => self.namespace_unit(model, name),
                Owner::Service(key) => self.service_unit(model, key),
                Owner::Pod(key) => self.pod_unit(model, key),
            };
            let known = self.units.get(&owner).map(|unit| unit.warnings.as_slice());
            let new = unit.iter().flat_map(|unit| &unit.warnings);
            warnings.extend(
                new.filter(|w| !known.is_some_and(|k| k.contains(w)))
                    .cloned(),
            );
            self.replace(owner, unit, &mut touched);
        }
        for name in std::mem::take(&mut touched.claims) {
            self.settle(&name, &mut touched, &mut warnings);
        }
        self.rebuild(&touched.names, now);
        for address in &dirty.addresses {
            if model.is_inside(address) {
                self.table.inside.put(*address);
            } else {
                self.table.inside.remove(address);
            }
        }
        if model.is_complete() && !self.table.ready {
            // A secondary of an earlier run knows a serial of that time.
            for serial in &mut self.table.serials {
                serial.raise(now);
            }
            self.table.ready = true;
        }
        (self.table(), warnings)
    }

    /// The apex of each zone and what always stands below it. The name of the
    /// server is claimed, so that no Service can take it.
    fn own_unit(&self) -> Unit {
        let rank = Rank::zones();
        let entry = |name: &Name, zone, records| {
            Arc::new(Entry {
                name: name.clone(),
                zone,
                rank: Arc::clone(&rank),
                data: Data::Shared(records),
            })
        };
        let mut unit = Unit::default();
        for (zone, apex) in (CLUSTER..).zip(self.config.apexes()) {
            let addresses = self.config.server_addresses.clone();
            // An apex that is so long that these do not fit has none.
            if let Ok(server) = apex.child("dns").and_then(|name| name.child("ns")) {
                let glue = addresses.iter().copied().map(Record::Address).collect();
                unit.claims.push(Claim {
                    name: server.clone(),
                    rank: Arc::clone(&rank),
                    entries: vec![entry(&server, zone, glue)],
                });
                let server = vec![Record::Ns(server, addresses)];
                unit.entries.push(entry(apex, zone, server));
            }
        }
        let version = vec![Record::Txt(DNS_VERSION.to_owned())];
        for (label, records) in [("dns-version", version), ("svc", vec![]), ("pod", vec![])] {
            if let Ok(name) = self.config.cluster.child(label) {
                unit.entries.push(entry(&name, CLUSTER, records));
            }
        }
        unit
    }

    fn namespace_unit(&self, model: &Model, namespace: &str) -> Option<Unit> {
        if !model.has_namespace(namespace) {
            return None;
        }
        let name = cluster::services(&self.config.cluster)
            .child(namespace)
            .ok()?;
        let entry = Entry {
            name,
            zone: CLUSTER,
            rank: Rank::new(Owner::Namespace(namespace.to_owned()), None),
            data: Data::Shared(Vec::new()),
        };
        Some(Unit {
            entries: vec![Arc::new(entry)],
            ..Unit::default()
        })
    }

    fn service_unit(&self, model: &Model, key: &Key) -> Option<Unit> {
        let service = model.service(key)?;
        let slices: Vec<_> = model.slices(key).collect();
        let slices = slices.iter().copied();
        let created = service.created.as_ref();
        let rank = Rank::new(Owner::Service(key.clone()), created);
        let mut unit = Unit::default();
        match cluster::entries(&self.config.cluster, key, service, slices.clone(), &rank) {
            Ok(entries) => unit.entries = entries,
            Err(error) => unit.warnings.push(format!(
                "{}: no name in zone {}: {error}",
                rank.owner, self.config.cluster
            )),
        }
        let ready = cluster::ready(service, slices);
        unit.claims = company::service_claims(
            &self.config,
            key,
            service,
            &ready,
            created,
            &mut unit.warnings,
        );
        Some(unit)
    }

    fn pod_unit(&self, model: &Model, key: &Key) -> Option<Unit> {
        let pod = model.pod(key).filter(|pod| !pod.hostnames.is_empty())?;
        let mut unit = Unit::default();
        unit.claims = company::pod_claims(&self.config, key, pod, &mut unit.warnings);
        Some(unit)
    }

    /// Withdraws what `owner` said before and notes what it says now.
    fn replace(&mut self, owner: Owner, unit: Option<Unit>, touched: &mut Touched) {
        if let Some(old) = self.units.remove(&owner) {
            for entry in &old.entries {
                self.withdraw(entry, touched);
            }
            for claim in &old.claims {
                touched.claims.insert(claim.name.clone());
                let claimants = self.claims.entry(claim.name.clone()).or_default();
                claimants.ranks.remove(&claim.rank);
                if claimants.winner.as_ref() == Some(&claim.rank) {
                    claimants.winner = None;
                    for entry in &claim.entries {
                        self.withdraw(entry, touched);
                    }
                }
            }
        }
        let Some(unit) = unit else { return };
        for entry in &unit.entries {
            self.say(entry, touched);
        }
        for claim in &unit.claims {
            touched.claims.insert(claim.name.clone());
            let claimants = self.claims.entry(claim.name.clone()).or_default();
            claimants.ranks.insert(Arc::clone(&claim.rank));
        }
        self.units.insert(owner, Arc::new(unit));
    }

    /// Decides who has a company name, and changes what is said accordingly.
    fn settle(&mut self, name: &Name, touched: &mut Touched, warnings: &mut Vec<String>) {
        let Some(claimants) = self.claims.get_mut(name) else {
            return;
        };
        let ranks = &claimants.ranks;
        claimants.told.retain(|rank| ranks.contains(rank));
        let best = ranks.first().cloned();
        for loser in ranks.iter().skip(1) {
            if let Some(best) = &best
                && claimants.told.insert(Arc::clone(loser))
            {
                warnings.push(format!(
                    "{}: the name {name} belongs to {}, which is older or comes first by name; give this one another \
                     name with the annotation {}",
                    loser.owner,
                    best.owner,
                    berth_api::annotations::HOSTNAME
                ));
            }
        }
        let before = std::mem::replace(&mut claimants.winner, best.clone());
        if best.is_none() {
            self.claims.remove(name);
        }
        if before == best {
            return;
        }
        for entry in before
            .iter()
            .flat_map(|rank| self.claimed(rank, name))
            .collect::<Vec<_>>()
        {
            self.withdraw(&entry, touched);
        }
        for entry in best
            .iter()
            .flat_map(|rank| self.claimed(rank, name))
            .collect::<Vec<_>>()
        {
            self.say(&entry, touched);
        }
    }

    fn claimed(&self, rank: &Rank, name: &Name) -> Vec<Arc<Entry>> {
        let unit = self.units.get(&rank.owner);
        let claim = unit.and_then(|unit| unit.claims.iter().find(|c| c.name == *name));
        claim.map(|claim| claim.entries.clone()).unwrap_or_default()
    }

    fn say(&mut self, entry: &Arc<Entry>, touched: &mut Touched) {
        let said = self.names.entry(entry.name.clone()).or_default();
        said.zone = entry.zone;
        said.entries.push(Arc::clone(entry));
        touched.names.insert(entry.name.clone());
        for name in self.between(entry) {
            let said = self.names.entry(name.clone()).or_default();
            said.zone = entry.zone;
            said.below += 1;
            if said.below == 1 {
                touched.names.insert(name);
            }
        }
    }

    fn withdraw(&mut self, entry: &Arc<Entry>, touched: &mut Touched) {
        touched.names.insert(entry.name.clone());
        if let Some(said) = self.names.get_mut(&entry.name) {
            said.entries.retain(|e| !Arc::ptr_eq(e, entry));
        }
        for name in self.between(entry) {
            if let Some(said) = self.names.get_mut(&name) {
                said.below -= 1;
                if said.below == 0 {
                    touched.names.insert(name);
                }
            }
        }
    }

    /// The names strictly between an entry's name and its zone's apex, which
    /// exist because it does (RFC 4592 section 2.2.2).
    fn between(&self, entry: &Entry) -> Vec<Name> {
        if entry.zone == REVERSE {
            return Vec::new();
        }
        let apex = self.table.zones[usize::from(entry.zone)].as_wire().len();
        std::iter::successors(entry.name.parent(), Name::parent)
            .take_while(|name| name.as_wire().len() > apex)
            .collect()
    }

    /// Makes the nodes of the touched names anew, and raises the serials of
    /// the zones in which that changed something.
    fn rebuild(&mut self, names: &BTreeSet<Name>, now: u32) {
        let mut changed = BTreeSet::new();
        for name in names {
            let Some(said) = self.names.get(name) else {
                continue;
            };
            if said.entries.is_empty() && said.below == 0 {
                changed.insert(said.zone);
                self.table.nodes.remove(name.as_wire());
                self.names.remove(name);
                continue;
            }
            let apex_len = match said.zone {
                REVERSE => name.as_wire().len(),
                zone => self.table.zones[usize::from(zone)].as_wire().len(),
            };
            debug_assert!(suffixes(name.as_wire()).any(|s| s.len() == apex_len));
            let node = merge(
                name.clone(),
                said.zone,
                apex_len,
                &said.entries,
                self.config.ttl,
            );
            if self
                .table
                .nodes
                .get(name.as_wire())
                .is_none_or(|old| **old != node)
            {
                changed.insert(said.zone);
                self.table.nodes.put(Arc::new(node));
            }
        }
        for zone in changed {
            self.table.serials[usize::from(zone)].raise(now);
        }
    }
}
