//! Regions of slots: which are free.

use std::collections::{BTreeMap, BTreeSet};

/// A free list of `0..capacity`, best fit, neighbours merged. Costs
/// O(log free regions) for each call.
#[derive(Debug)]
pub(super) struct Regions {
    by_start: BTreeMap<u32, u32>,
    by_length: BTreeSet<(u32, u32)>,
    free: u32,
}

impl Regions {
    /// All of `0..capacity` is free.
    pub(super) fn new(capacity: u32) -> Self {
        let mut regions = Self {
            by_start: BTreeMap::new(),
            by_length: BTreeSet::new(),
            free: 0,
        };
        regions.release(0, capacity);
        regions
    }

    /// Takes `length` slots in a row; `None` when no free region is that long.
    pub(super) fn take(&mut self, length: u32) -> Option<u32> {
        if length == 0 {
            return Some(0);
        }
        let &(found, start) = self.by_length.range((length, 0)..).next()?;
        self.remove(start, found);
        self.insert(start + length, found - length);
        Some(start)
    }

    /// Takes just this region; `false` if any of it is taken already.
    pub(super) fn take_at(&mut self, start: u32, length: u32) -> bool {
        if length == 0 {
            return true;
        }
        let Some((&from, &found)) = self.by_start.range(..=start).next_back() else {
            return false;
        };
        let ends = (start.checked_add(length), from + found);
        let (Some(end), free_end) = ends else {
            return false;
        };
        if end > free_end {
            return false;
        }
        self.remove(from, found);
        self.insert(from, start - from);
        self.insert(end, free_end - end);
        true
    }

    /// Gives a region back.
    pub(super) fn release(&mut self, start: u32, length: u32) {
        let (mut start, mut length) = (start, length);
        if length == 0 {
            return;
        }
        if let Some((&before, &found)) = self.by_start.range(..start).next_back()
            && before + found == start
        {
            self.remove(before, found);
            start = before;
            length += found;
        }
        if let Some(&found) = self.by_start.get(&(start + length)) {
            self.remove(start + length, found);
            length += found;
        }
        self.insert(start, length);
    }

    /// How many slots are free.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    fn insert(&mut self, start: u32, length: u32) {
        if length > 0 {
            self.by_start.insert(start, length);
            self.by_length.insert((length, start));
            self.free += length;
        }
    }

    fn remove(&mut self, start: u32, length: u32) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
        self.free -= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn merges_neighbours_and_takes_the_best_fit() {
        let mut regions = Regions::new(10);
        let (a, b, c) = (
            regions.take(3).unwrap(),
            regions.take(3).unwrap(),
            regions.take(4).unwrap(),
        );
        assert_eq!((a, b, c), (0, 3, 6));
        assert_eq!(regions.take(1), None);
        regions.release(a, 3);
        regions.release(c, 4);
        assert_eq!(regions.take(4), Some(6));
        regions.release(b, 3);
        assert_eq!(regions.take(6), Some(0));
        assert_eq!(regions.free(), 0);
    }

    #[test]
    fn takes_a_given_region_once() {
        let mut regions = Regions::new(10);
        assert!(regions.take_at(4, 3));
        assert!(!regions.take_at(6, 2));
        assert!(!regions.take_at(9, 2));
        assert!(!regions.take_at(u32::MAX, 2));
        assert!(regions.take_at(0, 4));
        assert_eq!(regions.free(), 3);
    }

    proptest! {
        #[test]
        fn never_gives_a_slot_twice_and_loses_none(lengths in prop::collection::vec(1_u32..9, 1..40), keep in any::<u64>()) {
            let mut regions = Regions::new(100);
            let mut taken: Vec<(u32, u32)> = Vec::new();
            for (i, length) in lengths.into_iter().enumerate() {
                match regions.take(length) {
                    Some(start) => taken.push((start, length)),
                    None => prop_assert!(regions.by_length.iter().all(|(l, _)| *l < length)),
                }
                if keep >> (i % 64) & 1 == 1 && !taken.is_empty() {
                    let (start, length) = taken.swap_remove(i % taken.len());
                    regions.release(start, length);
                }
                let mut used = [false; 100];
                for (start, length) in &taken {
                    for slot in *start..start + length {
                        prop_assert!(!used[slot as usize], "slot {} given twice", slot);
                        used[slot as usize] = true;
                    }
                }
                let count = u32::try_from(used.iter().filter(|u| **u).count()).unwrap();
                prop_assert_eq!(regions.free(), 100 - count);
            }
        }
    }
}
