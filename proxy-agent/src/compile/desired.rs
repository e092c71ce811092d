//! The desired state of all Services together.

use std::collections::{BTreeSet, HashMap};

use super::frontends::{DesiredFrontend, FrontendKey};
use crate::model::NamespacedName;

/// An address that two Services claim. The one whose name sorts first has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub key: FrontendKey,
    /// Who has it.
    pub winner: NamespacedName,
    /// Who does not.
    pub loser: NamespacedName,
}

/// What [`Desired::replace`] changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// The keys to look at again; each is in [`Desired`] or is to go.
    pub touched: BTreeSet<FrontendKey>,
    /// Claims that were refused.
    pub conflicts: Vec<Conflict>,
}

/// What the maps should say, for every Service.
#[derive(Debug, Default)]
pub struct Desired {
    /// Sorted by claimant, so that the winner does not depend on who came
    /// first. Almost always one.
    frontends: HashMap<FrontendKey, Vec<DesiredFrontend>>,
    keys: HashMap<NamespacedName, Vec<FrontendKey>>,
}

impl Desired {
    /// Puts `frontends` in the place of all that `service` had.
    pub fn replace(
        &mut self,
        service: &NamespacedName,
        frontends: Vec<DesiredFrontend>,
        update: &mut Update,
    ) {
        let before = self.keys.remove(service).unwrap_or_default();
        if !frontends.is_empty() {
            let keys = frontends.iter().map(|frontend| frontend.key).collect();
            self.keys.insert(service.clone(), keys);
        }
        for frontend in frontends {
            let key = frontend.key;
            update.touched.insert(key);
            let claims = self
                .frontends
                .entry(key)
                .or_insert_with(|| Vec::with_capacity(1));
            match claims.binary_search_by(|claim| claim.owner.service.cmp(service)) {
                Ok(index) => claims[index] = frontend,
                Err(index) => claims.insert(index, frontend),
            }
            if let [winner, losers @ ..] = claims.as_slice() {
                update.conflicts.extend(losers.iter().map(|loser| Conflict {
                    key,
                    winner: winner.owner.service.clone(),
                    loser: loser.owner.service.clone(),
                }));
            }
        }
        let after = self
            .keys
            .get(service)
            .map(Vec::as_slice)
            .unwrap_or_default();
        for key in before {
            if after.binary_search(&key).is_ok() {
                continue;
            }
            update.touched.insert(key);
            if let Some(claims) = self.frontends.get_mut(&key) {
                claims.retain(|claim| claim.owner.service != *service);
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

    /// The frontends that one Service has, sorted by key; not those it lost.
    pub fn of_service<'a>(
        &'a self,
        service: &'a NamespacedName,
    ) -> impl Iterator<Item = &'a DesiredFrontend> + 'a {
        let keys = self
            .keys
            .get(service)
            .map(Vec::as_slice)
            .unwrap_or_default();
        keys.iter()
            .filter_map(|key| self.get(key))
            .filter(move |f| f.owner.service == *service)
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
