//! Records, and the finished bytes of an answer.
//!
//! # Invariants
//! An [`Answer`] is only ever sent right after a question that holds exactly
//! the node's name, uncompressed. So every offset in the message is known
//! beforehand, and compression pointers are part of the finished bytes.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::name::Name;

/// Record types (IANA "Resource Record (RR) TYPEs").
pub mod rtype {
    /// IPv4 address.
    pub const A: u16 = 1;
    /// Name server.
    pub const NS: u16 = 2;
    /// Alias.
    pub const CNAME: u16 = 5;
    /// Start of a zone.
    pub const SOA: u16 = 6;
    /// Name of an address.
    pub const PTR: u16 = 12;
    /// Text.
    pub const TXT: u16 = 16;
    /// IPv6 address.
    pub const AAAA: u16 = 28;
    /// Service location (RFC 2782).
    pub const SRV: u16 = 33;
    /// EDNS pseudo record (RFC 6891).
    pub const OPT: u16 = 41;
    /// Incremental zone transfer.
    pub const IXFR: u16 = 251;
    /// Zone transfer.
    pub const AXFR: u16 = 252;
    /// Any type (RFC 8482).
    pub const ANY: u16 = 255;
}

/// Class Internet.
pub(crate) const CLASS_IN: u16 = 1;
/// Octets of a header.
pub(crate) const HEADER: usize = 12;
/// A pointer to the question's name, which follows the header.
const QUESTION_NAME: [u8; 2] = [0xc0, HEADER as u8];
/// Octets of one record before its data, with a pointer for a name.
const FIXED: usize = 12;
/// First offset that a compression pointer cannot say (RFC 1035, 4.1.4).
const POINTER_END: usize = 0x4000;
/// Largest answer: the largest message, less room for an OPT record.
const LARGEST: usize = u16::MAX as usize - 16;

/// One record's data.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Record {
    Address(IpAddr),
    Cname(Name),
    Ptr(Name),
    Txt(String),
    /// The target's addresses go along as additional records.
    Ns(Name, Vec<IpAddr>),
    Srv {
        port: u16,
        target: Name,
        addresses: Vec<IpAddr>,
    },
}

impl Record {
    fn rtype(&self) -> u16 {
        match self {
            Self::Address(address) => address_type(address),
            Self::Cname(_) => rtype::CNAME,
            Self::Ptr(_) => rtype::PTR,
            Self::Txt(_) => rtype::TXT,
            Self::Ns(..) => rtype::NS,
            Self::Srv { .. } => rtype::SRV,
        }
    }

    /// The target whose addresses go along, if there is one.
    fn glue(&self) -> Option<(&Name, &[IpAddr])> {
        match self {
            Self::Ns(target, addresses)
            | Self::Srv {
                target, addresses, ..
            } => Some((target, addresses)),
            _ => None,
        }
    }
}

fn address_type(address: &IpAddr) -> u16 {
    match address {
        IpAddr::V4(_) => rtype::A,
        IpAddr::V6(_) => rtype::AAAA,
    }
}

/// The answers that one name has for one view.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// By type, ascending. Few, so that a walk beats a search.
    answers: Box<[(u16, Answer)]>,
}

impl Records {
    pub(super) fn compile(name: &Name, mut records: Vec<Record>, ttl: u32) -> Self {
        records.sort();
        records.dedup();
        let mut by_type: BTreeMap<u16, Vec<Record>> = BTreeMap::new();
        for record in records {
            by_type.entry(record.rtype()).or_default().push(record);
        }
        // An alias stands alone (RFC 2181 section 10.1).
        if let Some(mut cname) = by_type.remove(&rtype::CNAME) {
            cname.truncate(1);
            by_type = BTreeMap::from([(rtype::CNAME, cname)]);
        }
        let answers = by_type
            .into_iter()
            .map(|(rtype, set)| (rtype, Answer::compile(name, &set, ttl)))
            .collect();
        Self { answers }
    }

    /// The answer to a question for `rtype`.
    #[must_use]
    pub fn get(&self, rtype: u16) -> Option<&Answer> {
        self.answers
            .iter()
            .find(|(t, _)| *t == rtype)
            .map(|(_, a)| a)
    }

    /// Any one answer, for a question for ANY (RFC 8482 section 4.1).
    #[must_use]
    pub fn first(&self) -> Option<&Answer> {
        self.answers.first().map(|(_, a)| a)
    }

    /// The types there are.
    pub fn types(&self) -> impl Iterator<Item = u16> {
        self.answers.iter().map(|(t, _)| *t)
    }
}

/// The finished bytes that follow the question.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The answer's records, then the additional ones.
    pub bytes: Box<[u8]>,
    /// How many octets, and records, are the answer proper.
    pub answer: Set,
    /// Octets of each of the answer's records if they are all alike, else 0:
    /// then any rotation of them is an answer too.
    pub stride: u16,
    /// The sets of additional records, each of which may be left out.
    pub additional: Box<[Set]>,
}

/// A run of records that are sent all or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// Where the set ends in [`Answer::bytes`].
    pub end: u16,
    /// How many records it has.
    pub count: u16,
}

impl Answer {
    fn compile(name: &Name, records: &[Record], ttl: u32) -> Self {
        let mut writer = Writer {
            bytes: Vec::new(),
            base: HEADER + name.as_wire().len() + 4,
            ttl,
            targets: HashMap::new(),
        };
        let mut count = 0;
        let mut lengths = Vec::new();
        for record in records {
            let before = writer.bytes.len();
            // More than one message can hold: the rest is left out, because
            // the client could not get it in any way.
            if !writer.record(record) {
                break;
            }
            lengths.push(writer.bytes.len() - before);
            count += 1;
        }
        let answer = writer.set(count);
        let additional = writer.additional(records);
        let stride = match lengths.first() {
            Some(first) if lengths.iter().all(|l| l == first) && count > 1 => *first,
            _ => 0,
        };
        // Pointers to targets must stay true, so only sets without them turn.
        let turns = matches!(records.first(), Some(Record::Address(_)));
        Self {
            bytes: writer.bytes.into(),
            answer,
            stride: if turns {
                u16::try_from(stride).unwrap_or(0)
            } else {
                0
            },
            additional: additional.into(),
        }
    }
}

struct Writer {
    bytes: Vec<u8>,
    /// Offset in the message at which `bytes` begins.
    base: usize,
    ttl: u32,
    /// Offsets at which targets stand, for owners of additional records.
    targets: HashMap<Name, usize>,
}

impl Writer {
    fn set(&self, count: u16) -> Set {
        Set {
            end: u16::try_from(self.bytes.len()).expect("the writer keeps below LARGEST"),
            count,
        }
    }

    /// Appends one record of the question's name; false if it has no room.
    fn record(&mut self, record: &Record) -> bool {
        let at_data = self.base + self.bytes.len() + FIXED;
        let mut data = Vec::new();
        let mut target = None;
        match record {
            Record::Address(IpAddr::V4(v4)) => data.extend(v4.octets()),
            Record::Address(IpAddr::V6(v6)) => data.extend(v6.octets()),
            Record::Cname(name) | Record::Ptr(name) => data.extend(name.as_wire()),
            Record::Txt(text) => {
                for piece in text.as_bytes().chunks(255) {
                    data.push(u8::try_from(piece.len()).expect("chunks of at most 255"));
                    data.extend(piece);
                }
            }
            Record::Ns(name, _) => {
                target = Some((name, at_data));
                data.extend(name.as_wire());
            }
            Record::Srv {
                port, target: name, ..
            } => {
                // Priority 0, weight 100: one rank, evenly.
                data.extend([0, 0, 0, 100]);
                data.extend(port.to_be_bytes());
                target = Some((name, at_data + data.len()));
                // Not compressed: RFC 2782.
                data.extend(name.as_wire());
            }
        }
        if !self.append(&QUESTION_NAME, record.rtype(), &data) {
            return false;
        }
        if let Some((name, offset)) = target {
            self.targets.entry(name.clone()).or_insert(offset);
        }
        true
    }

    fn append(&mut self, owner: &[u8], rtype: u16, data: &[u8]) -> bool {
        let end = self.base + self.bytes.len() + owner.len() + FIXED - 2 + data.len();
        if end > LARGEST {
            return false;
        }
        self.bytes.extend(owner);
        self.bytes.extend(rtype.to_be_bytes());
        self.bytes.extend(CLASS_IN.to_be_bytes());
        self.bytes.extend(self.ttl.to_be_bytes());
        let length = u16::try_from(data.len()).expect("below LARGEST, checked above");
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend(data);
        true
    }

    /// The addresses of the targets, one set for each target and family.
    fn additional(&mut self, records: &[Record]) -> Vec<Set> {
        let mut addresses: BTreeMap<(&Name, u16), Vec<IpAddr>> = BTreeMap::new();
        for (target, list) in records.iter().filter_map(Record::glue) {
            for address in list {
                let set = addresses
                    .entry((target, address_type(address)))
                    .or_default();
                if !set.contains(address) {
                    set.push(*address);
                }
            }
        }
        let mut sets = Vec::new();
        for ((target, rtype), addresses) in addresses {
            let owner = match self.targets.get(target) {
                Some(&offset) if offset < POINTER_END => {
                    let offset = u16::try_from(offset).expect("below POINTER_END");
                    (0xc000 | offset).to_be_bytes().to_vec()
                }
                Some(_) => target.as_wire().to_vec(),
                // Its record did not fit, so its addresses are of no use.
                None => continue,
            };
            let before = self.bytes.len();
            let mut count = 0;
            for address in &addresses {
                let fits = match address {
                    IpAddr::V4(v4) => self.append(&owner, rtype, &v4.octets()),
                    IpAddr::V6(v6) => self.append(&owner, rtype, &v6.octets()),
                };
                if !fits {
                    self.bytes.truncate(before);
                    return sets;
                }
                count += 1;
            }
            sets.push(self.set(count));
        }
        sets
    }
}
