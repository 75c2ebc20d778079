//! Gaps: the skipped rows show nothing at any moment, and the memory for gaps stays bounded.

use super::super::bounds::Direction;
use super::super::gaps::{Edge, Gap, SIZE_MAX};
use super::*;

/// Segments that are merged, and views of moments that share their gaps.
struct Shared {
    world: World,
    gaps: Arc<Gaps>,
    /// The segments that make up the store.
    set: Vec<usize>,
    views: Vec<View>,
    random: Random,
    now: u64,
    /// The time of the last merge: entries that had expired by then are gone.
    merged: u64,
}

/// A moment, and the segments of that moment.
#[derive(Clone)]
struct View {
    moment: Moment,
    set: Vec<usize>,
    merged: u64,
}

impl Shared {
    fn new(seed: u64) -> Self {
        let (world, gaps, set) = (World::new(1), Arc::default(), vec![0]);
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self { world, gaps, set, views: Vec::new(), random, now: 100, merged: 0 }
    }

    fn active(&self) -> usize {
        *self.set.last().unwrap()
    }

    fn put(&mut self, key: &[u8], expiry: Option<u64>) {
        let (active, timestamp) = (self.active(), self.world.clock + 1);
        self.world.append(active, key, RowVersion { timestamp, is_put: true, expiry });
    }

    fn delete(&mut self, key: &[u8]) {
        let (active, timestamp) = (self.active(), self.world.clock + 1);
        self.world.append(active, key, RowVersion { timestamp, is_put: false, expiry: None });
    }

    fn rotate(&mut self) {
        let active = self.active();
        self.world.seal(active);
        self.world.add_segment();
        self.set.push(self.world.actives.len() - 1);
    }

    fn view(&mut self) -> View {
        let moment = Moment { timestamp: self.world.clock, now: self.now };
        View { moment, set: self.set.clone(), merged: self.merged }
    }

    fn parts(&self, view: &View) -> Vec<Part> {
        let all = view.set.iter().map(|at| self.world.segment(*at));
        let runs = all.map(|segment| (segment, segment.runs(&self.world.context).unwrap()));
        runs.flat_map(|(segment, runs)| runs.into_iter().map(|run| (Arc::clone(segment), run)))
            .collect()
    }

    /// Merges some sealed segments as `merge` does: live entries are copied with their timestamps,
    /// and an absent key keeps a tombstone with the highest timestamp of all.
    fn merge(&mut self) {
        let sealed: Vec<_> = self.set.split_last().unwrap().1.to_vec();
        let inputs: Vec<_> = sealed.into_iter().filter(|_| self.random.one_in(2)).collect();
        let mut rows = BTreeMap::new();
        let mut last = 0;
        for at in &inputs {
            let segment = self.world.segment(*at);
            let run = segment.runs(&self.world.context).unwrap().pop().unwrap();
            let mut number = 0;
            while let Some(block) = run.block(number, segment).unwrap() {
                for row in block.rows() {
                    last = last.max(row.timestamp);
                    rows.entry(row.key.to_vec()).or_insert_with(Vec::new).push(row.timestamp);
                }
                number += 1;
            }
        }
        if rows.is_empty() {
            return;
        }
        self.world.add_segment();
        let output = self.world.actives.len() - 1;
        let (versions, clock) = (self.world.versions.clone(), self.world.clock);
        for (key, times) in rows {
            let newest = *versions[&key].iter().max_by_key(|v| (v.timestamp, v.is_put)).unwrap();
            let exists = newest.is_put && newest.expiry.is_none_or(|expiry| expiry > self.now);
            if exists && times.contains(&newest.timestamp) {
                self.world.append(output, &key, newest);
            } else if !exists {
                let is_expired = newest.is_put && times.contains(&newest.timestamp);
                let timestamp = if is_expired { newest.timestamp } else { last };
                let tombstone = RowVersion { timestamp, is_put: false, expiry: None };
                self.world.append(output, &key, tombstone);
            }
        }
        // A copy is not a separate version.
        self.world.versions = versions;
        self.world.seal(output);
        self.merged = self.now;
        assert!(self.world.clock >= clock);
        self.set.retain(|at| !inputs.contains(at));
        self.set.insert(0, output);
    }

    fn bounds(&mut self, keys: &[Vec<u8>]) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let mut bound = || {
            let key = keys[usize::try_from(self.random.below(keys.len() as u64)).unwrap()].clone();
            match self.random.below(5) {
                0 => Bound::Included(key),
                1 => Bound::Excluded(key),
                _ => Bound::Unbounded,
            }
        };
        (bound(), bound())
    }

    /// Scans a view, mostly not to its end, with the gaps that all others have found.
    fn check(&mut self, view: &View, keys: &[Vec<u8>]) {
        let bounds = self.bounds(keys);
        let story = format!("{bounds:?}, {:?}", view.moment);
        let expected = self.world.expected(&bounds, view.moment);
        let merged = Merged::new(self.parts(view), bounds, view.moment).with_gaps(&self.gaps);
        let (direction, random) = (self.random.below(6), &mut self.random);
        match direction {
            0 => assert_eq!(World::walk_all(merged, || true), expected, "{story}"),
            1 => assert_eq!(World::walk_all(merged, || false), expected, "{story}"),
            2 | 3 => {
                let shown = World::walk_all(merged, || random.one_in(2));
                assert_eq!(shown, expected, "{story}");
            }
            direction => {
                let mut merged = merged;
                let mut expected = expected.into_iter();
                for _ in 0..=random.below(3) {
                    let (hit, expected) = match direction {
                        4 => (merged.next().unwrap(), expected.next()),
                        _ => (merged.next_back().unwrap(), expected.next_back()),
                    };
                    let shown = hit.map(|hit| World::shown(&hit, merged.segment(&hit).unwrap()));
                    assert_eq!(shown, expected, "{story}");
                }
            }
        }
    }

    fn step(&mut self, keys: &[Vec<u8>], at: usize) {
        // The puts move along and the deletes follow them, which leaves long empty stretches.
        let key =
            |back: u64| &keys[(at + keys.len() - usize::try_from(back).unwrap()) % keys.len()];
        let back = self.random.below(keys.len() as u64 / 4);
        match self.random.below(20) {
            0..=6 => self.put(key(back / 4), None),
            7 | 8 => {
                let expiry = Some(self.now + self.random.below(30));
                self.put(key(back / 4), expiry);
            }
            9..=16 => self.delete(key(back)),
            17 => self.now += self.random.below(20),
            18 if self.random.one_in(6) => self.rotate(),
            19 if self.random.one_in(12) => self.merge(),
            _ => {}
        }
    }
}

#[test]
fn skipped_rows_show_nothing_at_any_moment() {
    let long: Vec<_> = (0..30).map(|at| [vec![at; 300], vec![at]].concat()).collect();
    let sets = [short_keys(), alike(), long, alike()];
    for (seed, keys) in (1..).zip(sets.iter().cycle().take(24)) {
        let mut shared = Shared::new(seed);
        let mut keys = keys.clone();
        keys.sort();
        for at in 0..600 {
            shared.step(&keys, at / 4);
            let now = shared.view();
            shared.check(&now, &keys);
            if shared.random.one_in(10) {
                shared.views.push(now);
                if shared.views.len() > 5 {
                    let oldest = usize::try_from(shared.random.below(5)).unwrap();
                    shared.views.swap_remove(oldest);
                }
            }
            if shared.random.one_in(3) && !shared.views.is_empty() {
                let at = shared.random.below(shared.views.len() as u64);
                let mut view = shared.views[usize::try_from(at).unwrap()].clone();
                // A clock may be set back between two views of the same moment.
                if shared.random.one_in(4) {
                    let earlier = view.moment.now - shared.random.below(50);
                    view.moment.now = earlier.max(view.merged).min(view.moment.now);
                }
                shared.check(&view, &keys);
            }
        }
        assert!(shared.gaps.size() > 0);
    }
}

/// A put that a merge has moved to a younger file than the tombstone that hides it.
#[test]
fn a_put_in_a_younger_file_than_its_tombstone_stays_hidden() {
    let mut shared = Shared::new(1);
    let keys: Vec<_> = (0..20).map(|at| vec![b'k', at]).collect();
    for key in &keys {
        shared.put(key, None);
    }
    let puts = shared.world.versions.clone();
    for key in &keys {
        shared.delete(key);
    }
    shared.rotate();
    let view = shared.view();
    let first = |shared: &Shared, view: &View| {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let merged = Merged::new(shared.parts(view), all, view.moment).with_gaps(&shared.gaps);
        World::walk_all(merged, || true)
    };
    assert!(first(&shared, &view).is_empty());
    // Copies of the puts, in a segment that also has a row younger than the gap.
    let active = shared.active();
    for (key, versions) in puts {
        for version in versions {
            shared.world.append(active, &key, version);
        }
    }
    shared.put(b"z", None);
    let view = shared.view();
    let shown = first(&shared, &view);
    assert_eq!(shown.iter().map(|(key, ..)| key.as_slice()).collect::<Vec<_>>(), [b"z"]);
}

fn gap(start: u32, end: u32, time: u64) -> Gap {
    let cut = |at: u32| Edge::At(at.to_be_bytes().to_vec(), false);
    Gap { start: cut(start), end: cut(end), time, expired: 0 }
}

#[test]
fn known_gaps_are_returned_in_order_with_their_latest_time() {
    for seed in 1..50 {
        let (gaps, mut random) = (Gaps::default(), Random(seed * 0x9e37_79b9));
        let mut times = [0_u64; 40];
        for time in 1..60 {
            let start = random.below(40);
            let end = start + random.below(12);
            // A gap that arrives late from an early moment may be left out, and has no other
            // effect.
            let late = time - random.below(time.min(4));
            let (from, to) =
                (usize::try_from(start).unwrap(), usize::try_from(end.min(40)).unwrap());
            let is_older = times[from..to].iter().any(|known| *known > late);
            gaps.learn(gap(u32::try_from(start).unwrap(), u32::try_from(to).unwrap(), late));
            if !is_older {
                times[from..to].fill(late);
            }
            let moment = Moment { timestamp: random.below(60), now: 0 };
            let mut told = [0_u64; 40];
            let mut walk = |direction: Direction| {
                let (mut from, to) = match direction {
                    Direction::Forward => (Edge::Lowest, Edge::Highest),
                    Direction::Backward => (Edge::Highest, Edge::Lowest),
                };
                while let Some(gap) = gaps.next(&from, &to, direction, moment) {
                    from = gap.far_end(direction).clone();
                    for (at, told) in told.iter_mut().enumerate() {
                        let key = u32::try_from(at).unwrap().to_be_bytes();
                        if gap.start.is_below(&key) && !gap.end.is_below(&key) {
                            *told = gap.time;
                        }
                    }
                }
                std::mem::replace(&mut told, [0; 40])
            };
            let known = times.map(|time| if time <= moment.timestamp { time } else { 0 });
            assert_eq!(walk(Direction::Forward), known);
            assert_eq!(walk(Direction::Backward), known);
        }
    }
}

#[test]
fn gaps_stay_within_their_memory_limit_and_used_ones_are_kept() {
    let gaps = Gaps::default();
    gaps.learn(gap(0, 1, 1));
    let moment = Moment { timestamp: u64::MAX - 1, now: 0 };
    for at in 1..1000 {
        gaps.learn(gap(2 * at, 2 * at + 1, 1));
        let first = gaps.next(&Edge::Lowest, &Edge::Highest, Direction::Forward, moment).unwrap();
        assert_eq!(*first, gap(0, 1, 1));
        assert!(gaps.size() <= SIZE_MAX);
    }
    let mut from = Edge::Lowest;
    for at in 0..1000 {
        // All gaps are used.
        while let Some(gap) = gaps.next(&from, &Edge::Highest, Direction::Forward, moment) {
            from = gap.end.clone();
        }
        gaps.learn(gap(4000 + 2 * at, 4001 + 2 * at, 2));
        assert!((1..=SIZE_MAX).contains(&gaps.size()));
    }
    let long = Edge::At(vec![1; 65_535], false);
    gaps.learn(Gap { start: Edge::Lowest, end: long, time: 3, expired: 0 });
    gaps.learn(gap(1, 2, 4));
    gaps.learn(gap(3, 4, 4));
    assert!(gaps.size() <= SIZE_MAX);
}
