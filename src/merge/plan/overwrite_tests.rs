//! What the defaults come to: a store of which every key is overwritten, simulated by its figures.

use super::tests::{ids, pool};
use super::*;

/// Keys that are written over and over, in a store of a hundredth of the usual sizes.
#[derive(Default)]
struct Overwriting {
    segments: Vec<(SegmentStats, Vec<usize>)>,
    /// Where each key's newest entry is.
    home: Vec<u32>,
    next_id: u32,
    copied: u64,
}

impl Overwriting {
    const KEYS: usize = 20_000;
    /// 16 bytes of key and 100 of value, as a pair, in the log, and in the hint.
    const PAIR: u64 = 116;
    const ENTRY: u64 = 136;
    const SLOT: u64 = 16;
    const FULL: usize = 9868;

    fn append(&mut self, key: usize, id: u32, merged: bool) {
        if self.segments.last().is_none_or(|(stats, _)| stats.id != id) {
            let mut stats = SegmentStats::default();
            (stats.id, stats.size, stats.merged) = (id, SegmentStats::HEADER_SIZE, merged);
            self.segments.push((stats, Vec::new()));
        }
        let (stats, keys) = self.segments.last_mut().unwrap();
        keys.push(key);
        stats.size += Self::ENTRY;
        stats.entries += 1;
        self.home[key] = id;
    }

    fn put(&mut self, key: usize) {
        if self.segments.last().is_none_or(|(stats, keys)| stats.merged || keys.len() == Self::FULL)
        {
            self.next_id += 1;
        }
        self.append(key, self.next_id, false);
    }

    /// Plans over what is sealed, and merges it; says whether there was anything.
    fn merge(&mut self, policy: &AutoMerge, idle: bool) -> bool {
        // Closing seals the last one; while the store is written to, it is not sealed.
        let active = if idle { None } else { self.segments.pop() };
        for (stats, keys) in &mut self.segments {
            let live = keys.iter().filter(|key| self.home[**key] == stats.id).count();
            stats.live_size = live as u64 * Self::ENTRY;
        }
        let stats: Vec<_> = self.segments.iter().map(|(stats, _)| *stats).collect();
        let pool = Pool { segment_size: (128 << 20) / 100, ..pool(&stats) };
        let inputs = ids(&plan_auto(pool, policy, Moment { hour: 0, idle }));
        let segments = std::mem::take(&mut self.segments);
        let (read, kept) =
            segments.into_iter().partition::<Vec<_>, _>(|(stats, _)| inputs.contains(&stats.id));
        self.segments = kept;
        let home = self.home.clone();
        let live = |(stats, keys): (SegmentStats, Vec<usize>)| {
            keys.into_iter().filter(|key| home[*key] == stats.id).collect::<Vec<_>>()
        };
        let live: Vec<usize> = read.into_iter().flat_map(live).collect();
        self.copied += live.len() as u64 * Self::ENTRY;
        for keys in live.chunks(Self::FULL) {
            self.next_id += 1;
            keys.iter().for_each(|key| self.append(*key, self.next_id, true));
        }
        self.segments.extend(active);
        !inputs.is_empty()
    }
}

/// Writes every key, then as many again as there are, three times; returns what the store takes
/// once it is at rest, as a multiple of its keys and values, and what was copied, as a multiple of
/// what was written.
fn overwritten(next: impl Fn(&mut u64, usize) -> usize) -> (f64, f64) {
    let mut policy = AutoMerge::default();
    // A hundredth, as all else.
    for size in [&mut policy.trigger_dead_size, &mut policy.dead_size, &mut policy.small_size] {
        *size /= 100;
    }
    let keys = Overwriting::KEYS;
    let mut store = Overwriting { home: vec![0; keys], ..Overwriting::default() };
    let mut random = 1;
    for write in 0..4 * keys {
        store.put(if write < keys { write } else { next(&mut random, write) });
        if write % 2000 == 0 {
            store.merge(&policy, false);
        }
    }
    while store.merge(&policy, true) {}
    let taken = |(stats, keys): &(SegmentStats, Vec<usize>)| {
        stats.size + keys.len() as u64 * Overwriting::SLOT
    };
    let taken: u64 = store.segments.iter().map(taken).sum();
    let (pairs, written) = (keys as u64 * Overwriting::PAIR, 4 * keys as u64 * Overwriting::ENTRY);
    (taken as f64 / pairs as f64, store.copied as f64 / written as f64)
}

#[test]
#[cfg_attr(miri, ignore = "takes too many steps")]
fn a_store_at_rest_takes_little_more_than_what_is_live() {
    let in_order = |_: &mut u64, write| write % Overwriting::KEYS;
    // Each key once a round, scattered: the factor has no divisor in common with the number.
    let scattered = |_: &mut u64, write| write * 7919 % Overwriting::KEYS;
    let at_random = |random: &mut u64, _| {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*random >> 33) as usize % Overwriting::KEYS
    };
    for (taken, copied) in [overwritten(in_order), overwritten(scattered), overwritten(at_random)] {
        println!("{taken:.2} times the pairs, {copied:.2} times what was written");
        assert!(taken <= 1.6 && copied <= 1.0, "{taken} {copied}");
    }
}
