//! The effect of the defaults on a store in which every key is overwritten, simulated by its
//! figures.

use super::tests::{ids, pool};
use super::*;

/// Keys that are written over and over, in a store with a hundredth of the usual sizes.
#[derive(Default)]
struct Overwriting {
    segments: Vec<(SegmentStats, Vec<usize>)>,
    /// Where each key's newest entry is.
    home: Vec<(u32, usize)>,
    next_id: u32,
    copied: u64,
}

impl Overwriting {
    const KEYS: usize = 20_000;
    /// A key of 16 bytes and a value of 100: as a pair, in the log, and in the hint.
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
        self.home[key] = (id, keys.len());
        keys.push(key);
        stats.size += Self::ENTRY;
        stats.entries += 1;
    }

    fn put(&mut self, key: usize) {
        let is_active =
            |(stats, keys): &&(SegmentStats, Vec<usize>)| !stats.merged && keys.len() < Self::FULL;
        let active = self.segments.last().filter(is_active).map(|(stats, _)| stats.id);
        let id = active.unwrap_or_else(|| self.fresh_id());
        self.append(key, id, false);
    }

    fn fresh_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    /// Returns those keys of a segment that are live in it.
    fn live(&self, (stats, keys): &(SegmentStats, Vec<usize>)) -> Vec<usize> {
        let is_live = |(at, key): &(usize, &usize)| self.home[**key] == (stats.id, *at);
        keys.iter().enumerate().filter(is_live).map(|(_, key)| *key).collect()
    }

    /// Plans over the sealed segments, and merges. Returns whether the plan had any segments.
    fn merge(&mut self, policy: &AutoMerge, idle: bool) -> bool {
        // Closing seals the last segment; while the store is written to, it is not sealed.
        let active = if idle { None } else { self.segments.pop() };
        let live: Vec<_> = self.segments.iter().map(|segment| self.live(segment)).collect();
        let with_live = |((stats, _), live): (&(SegmentStats, _), &Vec<usize>)| SegmentStats {
            live_size: live.len() as u64 * Self::ENTRY,
            ..*stats
        };
        let stats: Vec<_> = self.segments.iter().zip(&live).map(with_live).collect();
        let pool = Pool { segment_size: (128 << 20) / 100, ..pool(&stats) };
        let inputs = ids(&plan_auto(pool, policy, PlanContext { hour: 0, idle }));
        let is_input = |stats: &SegmentStats| inputs.contains(&stats.id);
        self.segments.retain(|(stats, _)| !is_input(stats));
        let copied = stats.iter().zip(live).filter(|(stats, _)| is_input(stats));
        let copied: Vec<usize> = copied.flat_map(|(_, live)| live).collect();
        self.copied += copied.len() as u64 * Self::ENTRY;
        for keys in copied.chunks(Self::FULL) {
            let id = self.fresh_id();
            for key in keys {
                self.append(*key, id, true);
            }
        }
        self.segments.extend(active);
        !inputs.is_empty()
    }
}

/// Writes every key, then three times as many keys again. Returns the size of the idle store in per
/// cent of its keys and values, and the copied bytes in per cent of the written ones.
fn overwritten(next: impl Fn(&mut u64, usize) -> usize) -> (u64, u64) {
    let mut policy = AutoMerge::default();
    // A hundredth, like everything else.
    for size in [&mut policy.trigger_dead_size, &mut policy.dead_size, &mut policy.small_size] {
        *size /= 100;
    }
    let keys = Overwriting::KEYS;
    let mut store = Overwriting { home: vec![(0, 0); keys], ..Overwriting::default() };
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
    (taken * 100 / pairs, store.copied * 100 / written)
}

#[test]
#[cfg_attr(miri, ignore = "takes too many steps")]
fn an_idle_store_takes_little_more_than_its_live_entries() {
    let in_order = |_: &mut u64, write| write % Overwriting::KEYS;
    // Each key once per round, scattered: the factor and the number of keys have no common divisor.
    let scattered = |_: &mut u64, write| write * 7919 % Overwriting::KEYS;
    let at_random = |random: &mut u64, _| {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*random >> 33) as usize % Overwriting::KEYS
    };
    for (taken, copied) in [overwritten(in_order), overwritten(scattered), overwritten(at_random)] {
        println!("takes {taken} % of the pairs, has copied {copied} % of the written bytes");
        assert!(taken <= 160 && copied <= 100, "{taken} {copied}");
    }
}
