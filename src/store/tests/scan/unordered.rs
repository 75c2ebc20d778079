//! Unordered iteration, concurrent with everything that moves slots and entries.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::options::MergeOptions;
use crate::store::scan::entries::Entries;
use crate::store::tests::story::Random;
use crate::store::tests::*;

/// An iteration that goes on between operations, and what it may and must return.
struct Iteration<'a> {
    entries: Entries<'a>,
    /// The keys that have existed since it began.
    throughout: BTreeSet<Vec<u8>>,
    /// The values that each key has had since then.
    values: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
    seen: BTreeSet<Vec<u8>>,
}

impl<'a> Iteration<'a> {
    fn begin(db: &'a Bitcask, present: &Pairs) -> Self {
        let (values, seen) = (BTreeMap::new(), BTreeSet::new());
        let throughout = present.keys().cloned().collect();
        let mut iteration = Self { entries: Entries::new(&db.inner), throughout, values, seen };
        iteration.note(present);
        iteration
    }

    /// Records what exists now.
    fn note(&mut self, present: &Pairs) {
        self.throughout.retain(|key| present.contains_key(key));
        for (key, value) in present {
            self.values.entry(key.clone()).or_default().insert(value.clone());
        }
    }

    /// Takes some steps. Returns whether the iteration continues.
    fn step(&mut self, steps: u64) -> bool {
        for _ in 0..steps {
            let take = |stored: &crate::segment::StoredEntry<'_>| {
                Ok((stored.entry().key().to_vec(), stored.raw_value()?.into_owned()))
            };
            let Some(pair) = self.entries.next(take) else {
                let missing: Vec<_> = self.throughout.difference(&self.seen).collect();
                assert!(missing.is_empty(), "{missing:?} existed throughout");
                return false;
            };
            let (key, value) = pair.unwrap();
            let had = self.values.get(&key).is_some_and(|values| values.contains(&value));
            assert!(had, "{key:?} has not had the value {value:?}");
            assert!(self.seen.insert(key.clone()), "{key:?} appears twice");
        }
        true
    }
}

/// Makes one random change. Returns its name, for messages.
fn change(lab: &Lab, db: &Bitcask, random: &mut Random, model: &mut Model, merge: &mut Merge) {
    let key = format!("key {}", random.below(40)).into_bytes();
    let value = vec![
        u8::try_from(random.below(251)).unwrap();
        1 + usize::try_from(random.below(60)).unwrap()
    ];
    let inner = &db.inner;
    match random.below(40) {
        0..18 => {
            db.put(&key, &value).unwrap();
            model.insert(key, Stored { value, expiry: None });
        }
        18..24 => {
            db.delete(&key).unwrap();
            model.remove(&key);
        }
        24..28 => {
            let seconds = random.below(30);
            let ttl = WriteOptions::new().ttl(Duration::from_secs(seconds));
            db.put_opt(&key, &value, ttl).unwrap();
            let expiry = Some(inner.clock.now() + seconds * 1_000_000);
            model.insert(key, Stored { value, expiry });
        }
        28 => {
            if db.persist(&key).unwrap() {
                model.get_mut(&key).unwrap().expiry = None;
            }
        }
        29 => lab.hands.advance(Duration::from_secs(random.below(10))),
        30..32 => drop(inner.work()),
        32..34 => {
            merge.publish(&**inner).unwrap();
            inner.work();
            *merge = begin_merge(db, random.below(u64::MAX));
        }
        34..39 => drop((0..random.below(8)).find(|_| merge.step(&**inner).unwrap().is_none())),
        _ if random.below(8) == 0 => {
            merge.publish(&**inner).unwrap();
            *merge = begin_merge(db, 0);
            db.clear().unwrap();
            model.clear();
        }
        _ => {
            merge.publish(&**inner).unwrap();
            *merge = begin_merge(db, 0);
            db.merge_opt(MergeOptions::new().force(true)).unwrap();
        }
    }
}

/// The rule of iteration: a key that exists throughout appears exactly once, no key appears twice,
/// and each with a value that it had meanwhile.
#[test]
fn a_key_that_exists_throughout_appears_exactly_once_whatever_happens_between_steps() {
    for seed in 0..120 {
        let lab = if seed % 2 == 0 { Lab::new() } else { Lab::weak() }.seeded(seed);
        let db = lab.open();
        let (mut random, mut model) = (Random(seed), Model::new());
        let (mut merge, mut iterations) = (begin_merge(&db, 0), Vec::new());
        for _ in 0..400 {
            change(&lab, &db, &mut random, &mut model, &mut merge);
            let present = visible_in(&db, &model);
            for iteration in &mut iterations {
                Iteration::note(iteration, &present);
            }
            if random.below(20) == 0 {
                iterations.push(Iteration::begin(&db, &present));
            }
            iterations.retain_mut(|iteration| {
                let steps = random.below(4);
                iteration.step(steps)
            });
        }
        merge.publish(&*db.inner).unwrap();
        assert!(iterations.iter_mut().all(|iteration| !iteration.step(u64::MAX)));
        assert_eq!(snapshot(&db), visible_in(&db, &model));
    }
}

#[test]
fn pairs_are_lent_until_the_closure_breaks_or_an_entry_is_damaged() {
    let lab = Lab::new();
    let db = lab.open();
    for key in 0..100_u8 {
        db.put([key], vec![key; 20]).unwrap();
    }
    let (mut pairs, mut left) = (Pairs::new(), 30);
    let all = |key: &[u8], value: &[u8]| {
        assert_eq!(pairs.insert(key.to_vec(), value.to_vec()), None);
        ControlFlow::Continue(())
    };
    assert!(db.iter_unordered_with(all).unwrap().is_continue());
    assert_eq!(pairs, snapshot(&db));
    let some = |_: &[u8], _: &[u8]| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert!(db.iter_unordered_with(some).unwrap().is_break());
    assert_eq!(left, 0);
    let db = lab.reopen(db);
    let (_, path) = lab.logs().remove(0);
    let mut bytes = lab.twin.contents(&path).unwrap();
    let last = bytes.iter().rposition(|byte| *byte == 5).unwrap();
    bytes[last] = 6;
    lab.twin.put_file(&path, bytes);
    drop(db);
    let db = lab.open();
    assert!(db.iter_unordered_with(|_, _| ControlFlow::Continue(())).unwrap_err().is_corruption());
}

/// Within each part, entries come in the order in which they lie on the disk.
#[test]
fn entries_are_read_in_the_order_of_the_log() {
    let lab = Lab::new();
    let db = lab.open();
    for key in 0..200_u8 {
        db.put([key], vec![key; 20]).unwrap();
    }
    let (mut entries, mut falls, mut last) = (Entries::new(&db.inner), 0, (SegmentId(0), 0));
    while let Some(place) = entries.next(|stored| Ok((stored.segment.id(), stored.offset))) {
        let place = place.unwrap();
        falls += u32::from(place < last);
        last = place;
    }
    assert!(falls < u32::try_from(SHARD_COUNT).unwrap(), "{falls}");
}
