//! The desired state of all Services and hostPorts together.

use std::collections::{BTreeSet, HashMap};

use super::frontends::{DesiredFrontend, FrontendKey};
use crate::model::Owner;

/// An address that two claim. The one that sorts first has it: a Service before
/// a pod's hostPort, then by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub key: FrontendKey,
    /// Who has it.
    pub winner: Owner,
    /// Who does not.
    pub loser: Owner,
}

/// What [`Desired::replace`] changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// The keys to look at again; each is in [`Desired`] or is to go.
    pub touched: BTreeSet<FrontendKey>,
    /// Claims that were refused.
    pub conflicts: Vec<Conflict>,
}

/// What the maps should say, for every owner.
#[derive(Debug, Default)]
pub struct Desired {
    /// Sorted by claimant, so that the winner does not depend on who came
    /// first. Almost always one.
    frontends: HashMap<FrontendKey, Vec<DesiredFrontend>>,
    keys: HashMap<Owner, Vec<FrontendKey>>,
}

impl Desired {
    /// Puts `frontends` in the place of all that `owner` had.
    pub fn replace(&mut self, owner: &Owner, frontends: Vec<DesiredFrontend>, update: &mut Update) {
        let before = self.keys.remove(owner).unwrap_or_default();
        if !frontends.is_empty() {
            let keys = frontends.iter().map(|frontend| frontend.key).collect();
            self.keys.insert(owner.clone(), keys);
        }
        for frontend in frontends {
            let key = frontend.key;
            update.touched.insert(key);
            let claims = self
                .frontends
                .entry(key)
                .or_insert_with(|| Vec::with_capacity(1));
            match claims.binary_search_by(|claim| claim.owner.owner.cmp(owner)) {
                Ok(index) => claims[index] = frontend,
                Err(index) => claims.insert(index, frontend),
            }
            if let [winner, losers @ ..] = claims.as_slice() {
                update.conflicts.extend(losers.iter().map(|loser| Conflict {
                    key,
                    winner: winner.owner.owner.clone(),
                    loser: loser.owner.owner.clone(),
                }));
            }
        }
        let after = self.keys.get(owner).map(Vec::as_slice).unwrap_or_default();
        for key in before {
            if after.binary_search(&key).is_ok() {
                continue;
            }
            update.touched.insert(key);
            if let Some(claims) = self.frontends.get_mut(&key) {
                claims.retain(|claim| claim.owner.owner != *owner);
                if claims.is_empty() {
                    self.frontends.remove(&key);
                }
            }
        }
    }

    /// What the maps should say about `key`; `None`: nothing.
    #[must_use]
    pub fn get(&self, key: &FrontendKey) -> Option<&DesiredFrontend> {
        self.frontends.get(key)?.first()
    }

    /// Everything, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &DesiredFrontend> {
        self.frontends.values().filter_map(|claims| claims.first())
    }

    /// The frontends that one owner has, sorted by key; not those it lost.
    pub fn of<'a>(&'a self, owner: &'a Owner) -> impl Iterator<Item = &'a DesiredFrontend> + 'a {
        let keys = self.keys.get(owner).map(Vec::as_slice).unwrap_or_default();
        keys.iter()
            .filter_map(|key| self.get(key))
            .filter(move |f| f.owner.owner == *owner)
    }

    /// How many frontends there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frontends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::frontends::socket_key;
    use crate::model::{NamespacedName, PortId, Protocol};

    /// Whoever comes first: a Service has the address before a pod, and of two
    /// pods the one whose name sorts first.
    #[test]
    fn who_has_an_address_does_not_depend_on_who_came_first() {
        let name = |name| NamespacedName::new("shop", name);
        let owners = [
            Owner::Service(name("z")),
            Owner::Pod(name("a")),
            Owner::Pod(name("b")),
        ];
        let key = socket_key([10, 20, 0, 11].into(), 53, Protocol::Udp);
        let claim = |owner: &Owner| DesiredFrontend {
            key,
            owner: PortId {
                owner: owner.clone(),
                port: 53,
                protocol: Protocol::Udp,
            },
            backends: vec![],
            local_count: 0,
            affinity_seconds: 0,
            flags: 0,
        };
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let (mut desired, mut update) = (Desired::default(), Update::default());
            for index in order {
                let owner = &owners[index];
                desired.replace(owner, vec![claim(owner)], &mut update);
            }
            for (index, winner) in owners.iter().enumerate() {
                let told = desired.get(&key).map(|frontend| &frontend.owner.owner);
                assert_eq!(told, Some(winner), "{order:?}");
                for loser in &owners[index + 1..] {
                    let conflict = Conflict {
                        key,
                        winner: winner.clone(),
                        loser: loser.clone(),
                    };
                    assert!(update.conflicts.contains(&conflict), "{conflict:?}");
                }
                desired.replace(winner, vec![], &mut update);
                for owner in &owners[index + 1..] {
                    desired.replace(owner, vec![claim(owner)], &mut update);
                }
            }
            assert!(desired.is_empty());
        }
    }
}
