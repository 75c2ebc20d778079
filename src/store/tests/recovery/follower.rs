//! Read-only stores that are refreshed while a writer uses the same disk.

use crate::Value;
use crate::options::MergeOptions;
use crate::store::tests::changes::follow::Dice;
use crate::store::tests::*;

/// Checks that everything a reader shows is what the writer holds.
fn check_same(reader: &Reader, writer: &Bitcask) {
    assert_eq!(snapshot(reader), snapshot(writer));
    check_figures(reader);
    let segments = reader.inner.segments.all();
    let listed = reader.inner.manifest.get(Clone::clone);
    for (_, segment) in &segments {
        assert_eq!(segment.summary().is_some(), listed.lists(segment.id()), "{}", segment.id());
    }
    assert!(listed.sealed.iter().all(|it| segments.iter().any(|(_, open)| open.id() == it.id)));
    assert_eq!(reader.position(), writer.position());
}

fn merge_all(db: &Bitcask) {
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
}

/// Returns the numbers of the reader's segments, which all change if it reloads everything.
fn numbers(reader: &Reader) -> Vec<u32> {
    reader.inner.segments.all().iter().map(|(number, _)| *number).collect()
}

#[test]
fn a_refresh_reads_only_the_new_part_of_a_grown_log() {
    for lab in [Lab::new(), Lab::weak()] {
        let db = lab.open();
        let reader = lab.open_read_only();
        assert!(!reader.refresh().unwrap());
        for round in 0..40 {
            db.put("same", format!("{round}")).unwrap();
            assert!(reader.refresh().unwrap());
            db.put(format!("k{round}"), "x".repeat(round * 10)).unwrap();
            db.write(Batch::new().put("a", "1").delete("same").put("b", "x".repeat(round)))
                .unwrap();
            if round % 3 == 0 {
                db.delete(format!("k{}", round / 2)).unwrap();
            }
            if round % 5 == 0 {
                db.inner.work();
            }
            let before = numbers(&reader);
            assert!(reader.refresh().unwrap());
            let after = numbers(&reader);
            assert!(
                before.iter().all(|number| after.contains(number)),
                "the refresh must not reload everything"
            );
            check_same(&reader, &db);
            assert!(!reader.refresh().unwrap(), "nothing is new");
            assert_eq!(numbers(&reader), after);
        }
        assert!(lab.logs().len() > 8);
        db.close().unwrap();
        assert!(!reader.refresh().unwrap());
        let db = lab.open();
        check_same(&reader, &db);
        let told = |db: &Reader| {
            let mut changes = db.changes(Position::START).unwrap();
            std::iter::from_fn(|| changes.try_recv().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(told(&reader), told(&db));
    }
}

#[test]
fn a_refresh_reloads_everything_after_a_merge_or_a_clear_and_held_values_stay() {
    let lab = Lab::new();
    let db = lab.open();
    for number in 0..30 {
        db.put(format!("k{number}"), "x".repeat(100)).unwrap();
    }
    let reader = lab.open_read_only();
    let held: Vec<(Value, Value)> = reader.iter_unordered().map(Result::unwrap).collect();
    let mut iter = reader.iter_unordered();
    let first = iter.next().unwrap().unwrap();
    for number in 0..20 {
        db.delete(format!("k{number}")).unwrap();
    }
    merge_all(&db);
    assert!(reader.refresh().unwrap());
    check_same(&reader, &db);
    db.clear().unwrap();
    db.put("new", "1").unwrap();
    assert!(reader.refresh().unwrap());
    check_same(&reader, &db);
    assert!(held.contains(&first) && held.iter().all(|(_, value)| *value == "x".repeat(100)));
    assert!(iter.map(Result::unwrap).all(|pair| held.contains(&pair) || pair.0 == "new"));
    merge_all(&db);
    db.delete("new").unwrap();
    assert!(reader.refresh().unwrap());
    check_same(&reader, &db);
    db.close().unwrap();
    reader.refresh().unwrap();
    assert!(reader.is_empty().unwrap());
}

// The writer copies an entry into a mapping, and a concurrent reader of the file may see any part
// of it.
#[test]
fn a_partly_written_entry_or_batch_is_not_visible() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    let reader = lab.killed().open_read_only();
    db.write(Batch::new().put("b", "2").put("c", "3").put("d", "4")).unwrap();
    let (_, path) = lab.logs().remove(0);
    let whole = lab.twin.contents(&path).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let Fs::Twin(twin) = &reader.inner.fs else { unreachable!() };
    let start = usize::try_from(reader.position().place().offset).unwrap();
    for end in start..used {
        let mut torn = whole.clone();
        torn[end..].fill(0);
        twin.put_file(&path, torn);
        assert!(!reader.refresh().unwrap(), "{end}");
        assert_eq!(reader.len().unwrap(), 1);
    }
    twin.put_file(&path, whole);
    assert!(reader.refresh().unwrap());
    assert_eq!(reader.len().unwrap(), 4);
}

#[test]
fn damage_below_a_mark_is_an_error_and_the_reader_recovers_once_it_is_mended() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    let reader = lab.killed().open_read_only();
    db.put("b", "2").unwrap();
    db.sync().unwrap();
    db.put("c", "3").unwrap();
    let (_, path) = lab.logs().remove(0);
    let whole = lab.twin.contents(&path).unwrap();
    let Fs::Twin(twin) = &reader.inner.fs else { unreachable!() };
    let mut damaged = whole.clone();
    damaged[usize::try_from(reader.position().place().offset).unwrap() + 8] ^= 1;
    twin.put_file(&path, damaged);
    assert!(reader.refresh().unwrap_err().is_corruption());
    assert_eq!(snapshot(&reader).len(), 1, "the reader keeps its earlier state");
    twin.put_file(&path, whole);
    assert!(reader.refresh().unwrap());
    check_same(&reader, &db);
}

#[test]
fn a_missing_or_foreign_manifest_is_an_error() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    let reader = lab.open_read_only();
    let path = Dir::new(DIR.into()).manifest();
    let own = lab.twin.contents(&path).unwrap();
    lab.twin.delete_file(&path);
    assert!(reader.refresh().unwrap_err().is_corruption());
    let other = Manifest::new(Identity { store_id: 1, hash_seed: 2 });
    lab.twin.put_file(&path, other.encode().into_bytes());
    assert!(reader.refresh().unwrap_err().to_string().contains("another store"));
    lab.twin.put_file(&path, own);
    reader.refresh().unwrap();
    check_same(&reader, &db);
}

/// A reader, a follower of it, and values held from it.
struct Observer {
    db: ReadOnly,
    changes: Changes,
    copy: Pairs,
    held: Vec<(Value, Vec<u8>)>,
}

impl Observer {
    fn open(lab: &Lab) -> Self {
        let db = lab.open_read_only();
        let (changes, copy) = (db.changes(db.position()).unwrap(), snapshot(&db));
        Self { db, changes, copy, held: Vec::new() }
    }

    fn refresh(&mut self, writer: &Bitcask) {
        let is_new = self.db.refresh().unwrap();
        assert!(is_new || snapshot(&self.db) == self.copy);
        check_same(&self.db, writer);
        loop {
            match self.changes.try_recv() {
                Ok(Some(change)) => match change.operation {
                    Operation::Put { value, .. } => {
                        self.copy.insert(change.key.to_vec(), value.to_vec());
                        self.held.push((value.clone(), value.to_vec()));
                    }
                    Operation::Delete => drop(self.copy.remove(&*change.key)),
                },
                Ok(None) => break,
                Err(error) => {
                    assert!(matches!(error, Error::HistoryGone { .. }), "{error}");
                    self.changes = self.db.changes(self.db.position()).unwrap();
                    self.copy = snapshot(&self.db);
                }
            }
        }
        assert_eq!(self.copy, snapshot(&self.db));
        assert!(self.held.iter().all(|(value, copy)| value == copy), "a held value has changed");
    }
}

fn act(lab: &Lab, db: Bitcask, dice: &mut Dice) -> Bitcask {
    let key = |dice: &mut Dice| vec![b'a' + u8::try_from(dice.below(12)).unwrap()];
    match dice.below(30) {
        0..=11 => db.put(key(dice), vec![b'x'; dice.below(120)]).unwrap(),
        12..=15 => drop(db.delete(key(dice)).unwrap()),
        16..=17 => {
            let [first, second, third] = [key(dice), key(dice), key(dice)];
            db.write(Batch::new().put(first, "1").delete(second).put(third, "3")).unwrap();
        }
        18..=20 => drop(db.inner.work()),
        21 => db.inner.log().unwrap().rotate_active().unwrap(),
        22 => {
            db.sync().unwrap();
            db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
        }
        23..=24 => {
            let mut merge = begin_merge(&db, dice.below(1 << 20) as u64);
            let steps = if dice.one_in(2) { usize::MAX } else { dice.below(9) };
            let _ = (0..steps).all(|_| merge.step(&*db.inner).unwrap().is_some());
            merge.publish(&*db.inner).unwrap();
            db.inner.segments.free_retired();
        }
        25 if dice.one_in(3) => db.clear().unwrap(),
        26 => return lab.reopen(db),
        27 => {
            db.close().unwrap();
            lab.delete_hints();
            return lab.open();
        }
        28 => {
            kill(db);
            return lab.open();
        }
        _ => {}
    }
    db
}

#[test]
fn refreshed_readers_match_the_writer_whatever_it_has_done() {
    let long: u64 = std::env::var("BITCASK_LONG").map_or(1, |long| long.parse().unwrap());
    for seed in 0..25 * long {
        let lab = if seed.is_multiple_of(3) { Lab::weak() } else { Lab::new() };
        let options =
            Options::new().segment_size(600 + 100 * (seed % 7)).sync_policy(SyncPolicy::Never);
        let lab = lab.with(options).seeded(seed + 1);
        let mut dice = Dice(seed);
        let mut db = lab.open();
        let mut readers = [Observer::open(&lab), Observer::open(&lab)];
        for _ in 0..150 {
            db = act(&lab, db, &mut dice);
            if dice.one_in(6) {
                let at = dice.below(2);
                readers[at].refresh(&db);
                if dice.one_in(9) {
                    readers[at] = Observer::open(&lab);
                }
            }
        }
        db.close().unwrap();
        let db = lab.open();
        for reader in &mut readers {
            reader.refresh(&db);
        }
    }
}

#[test]
fn followers_of_a_reader_must_resync_if_the_writer_lost_received_changes() {
    // Regression: they continued with what the writer wrote next, as if nothing were missing.
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    let durable = db.position();
    db.put("b", "2").unwrap();
    let reader = lab.open_read_only();
    let mut changes = reader.changes(Position::START).unwrap();
    assert_eq!(std::iter::from_fn(|| changes.try_recv().unwrap()).count(), 2);
    db.kill();
    // After a failed sync, the unwritten pages are gone.
    let (_, path) = lab.logs().remove(0);
    let mut bytes = lab.twin.contents(&path).unwrap();
    bytes.truncate(usize::try_from(durable.place().offset).unwrap());
    lab.twin.put_file(&path, bytes);
    let db = lab.open();
    db.put("c", "3").unwrap();
    assert!(reader.refresh().unwrap());
    let error = changes.try_recv().unwrap_err();
    assert!(matches!(error, Error::PositionLost { .. }), "{error}");
}

/// Regression: each refresh that could not refill the keydir, because a segment and its hint were
/// damaged, added all segments of the store again.
#[test]
fn failing_refreshes_do_not_accumulate_segments() {
    let lab = Lab::new();
    let db = lab.open();
    for number in 0..40 {
        db.put(format!("k{number}"), "v".repeat(100)).unwrap();
    }
    let reader = lab.open_read_only();
    db.inner.work();
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    db.close().unwrap();
    let damage = |path: &Path, from_end: usize| {
        let mut bytes = lab.twin.contents(path).unwrap();
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        lab.twin.put_file(path, bytes);
    };
    let whole: Vec<_> = lab.logs().into_iter().chain(lab.hints()).map(|(_, path)| path).collect();
    let contents: Vec<_> = whole.iter().map(|path| lab.twin.contents(path).unwrap()).collect();
    lab.logs().iter().for_each(|(_, path)| damage(path, 200));
    lab.hints().iter().for_each(|(_, path)| damage(path, 30));
    let mut held = Vec::new();
    for _ in 0..10 {
        assert!(reader.refresh().unwrap_err().is_corruption());
        held.push(reader.inner.segments.all().len());
    }
    assert!(held[9] <= held[1], "{held:?}");
    for (path, bytes) in whole.iter().zip(contents) {
        lab.twin.put_file(path, bytes);
    }
    assert!(reader.refresh().unwrap());
    assert_eq!(reader.inner.segments.all().len(), lab.logs().len());
    assert_eq!(snapshot(&reader).len(), 40);
}

fn big_batch(value: &str) -> Batch {
    (0..4_000_u32).map(|key| (key.to_be_bytes(), value)).collect()
}

/// Refreshes a reader with a large batch while `look` examines it. `look` gets the reader's
/// position from before and the batch's value.
fn during_a_refresh(look: impl Fn(&ReadOnly, Position, &str)) {
    let lab = Lab::new().with(Options::new().segment_size(8 << 20).sync_policy(SyncPolicy::Never));
    let db = lab.open();
    db.write(&big_batch("old")).unwrap();
    let reader = lab.open_read_only();
    for round in 0..8 {
        let (before, value) = (reader.position(), format!("new {round}"));
        db.write(&big_batch(&value)).unwrap();
        std::thread::scope(|scope| {
            let refresh = scope.spawn(|| reader.refresh().unwrap());
            while !refresh.is_finished() {
                look(&reader, before, &value);
            }
        });
    }
}

/// A refresh makes a batch readable as a whole, but publishes it key by key.
#[test]
fn a_readers_position_is_not_ahead_of_reads() {
    let last = 3_999_u32.to_be_bytes();
    during_a_refresh(|reader, before, value| {
        if reader.position() > before {
            assert_eq!(reader.get(last).unwrap().unwrap(), value);
        }
    });
}

#[test]
fn a_verification_of_a_reader_during_a_refresh_finds_no_damage() {
    during_a_refresh(|reader, _, _| assert_eq!(reader.verify().unwrap().damage, []));
}
