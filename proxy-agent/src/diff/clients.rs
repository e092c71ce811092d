//! Which network namespaces may use what: the mirror of `CLIENTS` and
//! `SETTINGS`, and the plan for them.

use std::collections::BTreeSet;

use berth_abi::{ClientKey, maps};

use super::op::Op;

/// What the two maps hold.
#[derive(Debug, Default)]
pub(super) struct Clients {
    entries: BTreeSet<ClientKey>,
    settings: u32,
}

impl Clients {
    pub(super) fn restore(entries: Vec<ClientKey>, settings: u32) -> Self {
        Self {
            entries: entries.into_iter().collect(),
            settings,
        }
    }

    /// What to do before the frontends of the same plan, and what after: who
    /// is let in is let in before a frontend closes to all others.
    pub(super) fn plan(&self, desired: &BTreeSet<ClientKey>) -> (Vec<Op>, Vec<Op>) {
        let bits = desired.iter().fold(0, |bits, key| {
            bits | match key.service {
                ClientKey::OPTED_OUT => maps::SOME_OPTED_OUT,
                ClientKey::OPTED_OUT_CGROUP => maps::SOME_CGROUP_OPTED_OUT,
                _ => 0,
            }
        });
        let settings = (bits != self.settings).then_some(Op::SetSettings { bits });
        let added = desired.difference(&self.entries);
        let gone = self.entries.difference(desired);
        let mut before: Vec<_> = added.map(|key| Op::SetClient { key: *key }).collect();
        before.extend(settings);
        (
            before,
            gone.map(|key| Op::DeleteClient { key: *key }).collect(),
        )
    }

    /// Notes that an operation was done.
    pub(super) fn settle(&mut self, op: &Op) {
        match op {
            Op::SetClient { key } => drop(self.entries.insert(*key)),
            Op::DeleteClient { key } => drop(self.entries.remove(key)),
            Op::SetSettings { bits } => self.settings = *bits,
            _ => {}
        }
    }

    /// Every entry, sorted.
    pub(super) fn entries(&self) -> &BTreeSet<ClientKey> {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_in_before_and_out_after() {
        let key = |cookie, service| ClientKey::new(cookie, service);
        let mut clients = Clients::restore(vec![key(1, 7), key(2, 7)], 0);
        let desired = BTreeSet::from([key(2, 7), key(3, 7), key(4, ClientKey::OPTED_OUT)]);
        let (before, after) = clients.plan(&desired);
        assert_eq!(
            before,
            [
                Op::SetClient { key: key(3, 7) },
                Op::SetClient {
                    key: key(4, ClientKey::OPTED_OUT)
                },
                Op::SetSettings {
                    bits: maps::SOME_OPTED_OUT
                },
            ]
        );
        assert_eq!(after, [Op::DeleteClient { key: key(1, 7) }]);
        for op in before.iter().chain(&after) {
            clients.settle(op);
        }
        assert_eq!(clients.plan(&desired), (vec![], vec![]));
        assert_eq!(clients.entries(), &desired);
    }
}
