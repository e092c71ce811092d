//! A hash table in pieces, cheap to copy and change a little.
//!
//! Readers hold a whole consistent copy; the next copy shares every piece that
//! did not change. 1,024 pieces make a copy about 1,024 counter increments,
//! and a change in it a copy of one thousandth of the entries.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

const PIECES: usize = 1024;

/// What an entry is found by.
pub(super) trait Keyed {
    type Key: Hash + Eq + ?Sized;
    fn key(&self) -> &Self::Key;
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Shards<T> {
    pieces: Box<[Arc<HashTable<T>>]>,
    hasher: DefaultHashBuilder,
}

impl<T> Default for Shards<T> {
    fn default() -> Self {
        let empty = Arc::new(HashTable::new());
        Self {
            pieces: std::iter::repeat_n(empty, PIECES).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

/// Which piece a hash belongs to. The table inside takes its bucket from the
/// low bits and its tag from the top seven, so these come from between.
fn piece(hash: u64) -> usize {
    (hash >> 40) as usize % PIECES
}

impl<T: Keyed + Clone> Shards<T> {
    pub(super) fn get(&self, key: &T::Key) -> Option<&T> {
        let hash = self.hasher.hash_one(key);
        self.pieces[piece(hash)].find(hash, |entry| entry.key() == key)
    }

    pub(super) fn put(&mut self, entry: T) {
        let hash = self.hasher.hash_one(entry.key());
        let table = Arc::make_mut(&mut self.pieces[piece(hash)]);
        match table.find_mut(hash, |old| old.key() == entry.key()) {
            Some(old) => *old = entry,
            None => {
                table.insert_unique(hash, entry, |e| self.hasher.hash_one(e.key()));
            }
        }
    }

    pub(super) fn remove(&mut self, key: &T::Key) {
        let hash = self.hasher.hash_one(key);
        if self.get(key).is_some() {
            let table = Arc::make_mut(&mut self.pieces[piece(hash)]);
            if let Ok(found) = table.find_entry(hash, |e| e.key() == key) {
                found.remove();
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }
}
