//! All that is said of one name, to what is answered.

use std::sync::Arc;

use super::record::{Record, Records};
use super::table::{Node, REVERSE};
use super::unit::{Data, Entry};
use crate::name::Name;

/// The node that the entries of one name make; none of them makes an empty
/// non-terminal.
///
/// Company names: the oldest object has the name alone. Reverse names: in the
/// cluster's view every cluster name, as the specification wants; from outside
/// the one company name that is most the address's own (a pod's own name
/// before its Service's, then the older object's). Either view takes the
/// other's names where it has none.
pub(super) fn merge(
    name: Name,
    zone: u16,
    apex_len: usize,
    entries: &[Arc<Entry>],
    ttl: u32,
) -> Node {
    let (inside, outside) = if zone == REVERSE {
        pointers(entries)
    } else {
        forward(entries)
    };
    let inside = Arc::new(Records::compile(&name, inside, ttl));
    let outside = match outside {
        None => Arc::clone(&inside),
        Some(outside) => Arc::new(Records::compile(&name, outside, ttl)),
    };
    Node {
        apex_len: u8::try_from(apex_len).expect("a name has at most 255 octets"),
        zone,
        inside,
        outside,
        name,
    }
}

/// The records from inside, and from outside where those differ.
type Views = (Vec<Record>, Option<Vec<Record>>);

fn forward(entries: &[Arc<Entry>]) -> Views {
    let shared = entries.iter().filter_map(|entry| match &entry.data {
        Data::Shared(records) => Some(records),
        _ => None,
    });
    let shared: Vec<Record> = shared.flatten().cloned().collect();
    let oldest = entries
        .iter()
        .filter_map(|entry| match &entry.data {
            Data::Claimed { inside, outside } => Some((&entry.rank, inside, outside)),
            _ => None,
        })
        .min_by_key(|(rank, ..)| *rank);
    let Some((_, inside, outside)) = oldest else {
        return (shared, None);
    };
    let with = |own: &[Record]| [own, &shared].concat();
    let outside = (inside != outside).then(|| with(outside));
    (with(inside), outside)
}

fn pointers(entries: &[Arc<Entry>]) -> Views {
    let cluster: Vec<Record> = entries
        .iter()
        .filter_map(|entry| match &entry.data {
            Data::ClusterPointer(target) => Some(Record::Ptr(target.clone())),
            _ => None,
        })
        .collect();
    let company = entries
        .iter()
        .filter_map(|entry| match &entry.data {
            Data::CompanyPointer {
                target,
                alone,
                zone,
            } => Some((!alone, &entry.rank, zone, target)),
            _ => None,
        })
        .min()
        .map(|(_, _, _, target)| Record::Ptr(target.clone()));
    match company {
        None => (cluster, None),
        Some(record) if cluster.is_empty() => (vec![record], None),
        Some(record) => (cluster, Some(vec![record])),
    }
}
