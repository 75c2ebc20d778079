//! Several shards, locked together.

use super::{SHARD_COUNT, Shard};
use crate::key_hash::KeyHash;

const WORDS: usize = SHARD_COUNT.div_ceil(64);

/// A set of shards, by number: one bit for each.
#[derive(Debug, Clone)]
pub(crate) struct ShardSet([u64; WORDS]);

impl Default for ShardSet {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl FromIterator<usize> for ShardSet {
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        let mut set = Self::default();
        numbers.into_iter().for_each(|number| set.add(number));
        set
    }
}

impl ShardSet {
    fn add(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// Returns the numbers in ascending order.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(at * 64 + bit)
            })
        })
    }
}

/// Several shards, locked.
#[derive(Debug)]
pub(crate) struct LockedShards<'a> {
    set: ShardSet,
    /// For each word of the set, the number of shards in the words before it.
    ranks: [u32; WORDS],
    shards: Vec<Shard<'a>>,
}

impl<'a> LockedShards<'a> {
    /// Takes shards that were locked in ascending order.
    pub(crate) fn new(shards: Vec<Shard<'a>>) -> Self {
        let (mut set, mut ranks) = (ShardSet::default(), [0; WORDS]);
        for (rank, shard) in (0..).zip(&shards) {
            let at = shard.number() / 64;
            if set.0.get(at) == Some(&0)
                && let Some(first) = ranks.get_mut(at)
            {
                *first = rank;
            }
            set.add(shard.number());
        }
        Self { set, ranks, shards }
    }

    /// Returns the shard of a key, which must be among them.
    pub(crate) fn of(&mut self, hash: KeyHash) -> &mut Shard<'a> {
        let number = hash.shard();
        let (at, bit) = (number / 64, number % 64);
        let place = self.set.0.get(at).zip(self.ranks.get(at)).and_then(|(word, rank)| {
            let before = (word & ((1 << bit) - 1)).count_ones();
            (word >> bit & 1 == 1).then_some((*rank + before) as usize)
        });
        match place.and_then(|place| self.shards.get_mut(place)) {
            Some(shard) => shard,
            None => unreachable!("the shard of {hash:?} was not locked"),
        }
    }

    /// Empties the shards, as of a time in the log.
    pub(super) fn clear(&mut self, time: u64) {
        self.shards.iter_mut().for_each(|shard| shard.clear(time));
    }
}
