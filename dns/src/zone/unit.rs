//! What one object has to say, apart from all others.

use std::sync::Arc;

use super::record::Record;
use crate::model::Key;
use crate::name::Name;

/// Who speaks. Also the order of age in which clashes are decided: the older
/// `created` first, one without after those with, then by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Rank {
    /// False sorts first: objects with a time are older than those without.
    pub(super) undated: bool,
    pub(super) created: String,
    pub(super) owner: Owner,
}

impl Rank {
    pub(super) fn new(owner: Owner, created: Option<&String>) -> Arc<Self> {
        Arc::new(Self {
            undated: created.is_none(),
            created: created.cloned().unwrap_or_default(),
            owner,
        })
    }

    /// Older than every object: what the zones themselves say.
    pub(super) fn zones() -> Arc<Self> {
        Self::new(Owner::Zones, Some(&String::new()))
    }
}

/// One source of entries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Owner {
    /// The zones themselves: apex, SOA, `dns-version`.
    Zones,
    Namespace(String),
    Service(Key),
    Pod(Key),
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Zones => write!(f, "the zone itself"),
            Self::Namespace(name) => write!(f, "Namespace {name}"),
            Self::Service(key) => write!(f, "Service {key}"),
            Self::Pod(key) => write!(f, "Pod {key}"),
        }
    }
}

/// One object's contribution to one name.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Name,
    /// Index into the table's zones.
    pub(super) zone: u16,
    pub(super) rank: Arc<Rank>,
    pub(super) data: Data,
}

/// What is said of the name.
#[derive(Debug)]
pub(super) enum Data {
    /// The same for every client; joined with what others say.
    Shared(Vec<Record>),
    /// A company name, which only one object can have.
    Claimed {
        inside: Vec<Record>,
        outside: Vec<Record>,
    },
    /// A reverse name leads to this name in the cluster's zone.
    ClusterPointer(Name),
    /// A reverse name leads to this company name.
    CompanyPointer {
        target: Name,
        /// The name is this address's only, and not its Service's.
        alone: bool,
        /// Index of the target's zone: the order of the command line.
        zone: u16,
    },
}

/// Everything one object says.
#[derive(Debug, Default)]
pub(super) struct Unit {
    /// Said in any case.
    pub(super) entries: Vec<Arc<Entry>>,
    /// Company names asked for, and what is said if the name is won.
    pub(super) claims: Vec<Claim>,
    /// Sentences for the operator.
    pub(super) warnings: Vec<String>,
}

/// One company name asked for, with all that hangs on it.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) name: Name,
    pub(super) rank: Arc<Rank>,
    pub(super) entries: Vec<Arc<Entry>>,
}
