//! Stories of keys that share all their hash bits.
//!
//! - Each story runs with all entries in one segment and with a segment per entry, and ends in
//!   every way that a store can end. Then its keys are deleted one after the other, and no earlier
//!   value may come back.
//! - An entry is flagged if and only if another key with its bits has a slot. In a batch, it may
//!   also be flagged for a key that the batch itself removes; an unneeded flag is harmless.

use std::collections::BTreeSet;

use crate::store::tests::*;

const SEED: u64 = 42;

/// Returns keys with the same hash bits, one per letter, which it begins with.
fn key(letter: char) -> Vec<u8> {
    let hasher = KeyHasher::weak(SEED);
    let hash = hasher.hash(b"a0");
    let mut names = (0..).map(|number| format!("{letter}{number}").into_bytes());
    names.find(|name| hasher.hash(name) == hash).unwrap()
}

/// A store during a story, and its expected content.
struct Told {
    lab: Lab,
    db: Bitcask,
    model: Model,
    puts: usize,
}

impl Told {
    fn new(options: Options) -> Self {
        let lab = Lab::weak().seeded(SEED).with(options);
        let db = lab.open();
        Self { lab, db, model: Model::new(), puts: 0 }
    }

    fn value(&mut self, letter: char) -> Vec<u8> {
        self.puts += 1;
        format!("{letter} as put number {}", self.puts).into_bytes()
    }

    fn put(&mut self, letter: char) {
        let value = self.value(letter);
        self.db.put(key(letter), &value).unwrap();
        self.model.insert(key(letter), Stored { value, expiry: None });
    }

    /// Puts a key that expires immediately.
    fn put_expired(&mut self, letter: char) {
        let value = self.value(letter);
        let expiry = Some(self.db.inner.clock.now());
        let options = WriteOptions::new().ttl(Duration::ZERO);
        self.db.put_opt(key(letter), &value, options).unwrap();
        self.model.insert(key(letter), Stored { value, expiry });
    }

    fn delete(&mut self, letter: char) {
        let now = self.db.inner.clock.now();
        let existed = visible(&self.model, now).contains_key(&key(letter));
        assert_eq!(self.db.delete(key(letter)).unwrap(), existed);
        self.model.remove(&key(letter));
    }

    /// Writes a batch: a letter is a put, and a letter after a minus is a delete.
    fn batch(&mut self, changes: &[&str]) {
        let mut batch = Batch::new();
        for change in changes {
            let letter = change.chars().last().unwrap();
            if change.starts_with('-') {
                batch.delete(key(letter));
                self.model.remove(&key(letter));
            } else {
                let value = self.value(letter);
                batch.put(key(letter), &value);
                self.model.insert(key(letter), Stored { value, expiry: None });
            }
        }
        self.db.write(&batch).unwrap();
    }

    /// Returns the log in short: "a" is a put, "-a" a tombstone, and "a!" is flagged *collides*.
    fn log(&self) -> String {
        let entries = log_entries(&self.lab).into_iter();
        let of_keys = entries.filter(|entry| !entry.key.is_empty());
        let short = of_keys.map(|entry| {
            let minus = if entry.flags.has(Flags::TOMBSTONE) { "-" } else { "" };
            let flagged = if entry.flags.has(Flags::COLLIDES) { "!" } else { "" };
            format!("{minus}{}{flagged}", char::from(entry.key[0]))
        });
        short.collect::<Vec<_>>().join(" ")
    }
}

/// Ends a store in one way, and opens what is left. Returns the lab to continue with.
type Ending = fn(&Lab, Bitcask) -> (Lab, Bitcask);

const ENDINGS: [(&str, Ending); 8] = [
    ("closed and opened", |lab, db| (lab.clone(), lab.reopen(db))),
    ("closed, and opened without hints", |lab, db| {
        db.close().unwrap();
        lab.delete_hints();
        (lab.clone(), lab.open())
    }),
    ("killed", |lab, db| {
        kill(db);
        (lab.clone(), lab.open())
    }),
    ("killed with some segments sealed", |lab, db| {
        db.inner.seal_rotated().unwrap();
        kill(db);
        (lab.clone(), lab.open())
    }),
    ("killed, recovered, and opened without hints", |lab, db| {
        kill(db);
        let db = lab.open();
        db.close().unwrap();
        lab.delete_hints();
        (lab.clone(), lab.open())
    }),
    ("killed, recovered and killed", |lab, db| {
        kill(db);
        kill(lab.open());
        (lab.clone(), lab.open())
    }),
    ("synced, then a power cut", |lab, db| {
        db.sync().unwrap();
        let image = lab.powered_off(|_| false);
        (image.clone(), image.open())
    }),
    ("opened by a reader", |lab, db| {
        let image = lab.killed();
        drop(db);
        let reader = image.open_read_only();
        let seen = raw(&reader);
        drop(reader);
        let db = image.open();
        assert_eq!(raw(&db), seen);
        (image, db)
    }),
];

/// Runs a story in every layout with every ending.
fn tell(story: fn(&mut Told), log: &str) {
    let whole = Options::new().segment_size(64 << 10).sync_policy(SyncPolicy::Never);
    for options in [whole.clone(), whole.clone().segment_entries(1), whole.segment_entries(2)] {
        for (name, ending) in ENDINGS {
            let mut told = Told::new(options.clone());
            story(&mut told);
            assert_eq!(told.log(), log);
            check(&told.db, &told.model);
            let Told { lab, db, mut model, .. } = told;
            let (mut lab, mut db) = ending(&lab, db);
            println!("{name}, {} entries per segment", options.segment_entries);
            check(&db, &model);
            while let Some((key, _)) = model.pop_first() {
                db.delete(&key).unwrap();
                (lab, db) = ending(&lab, db);
                check(&db, &model);
            }
        }
    }
}

#[test]
fn a_batch_of_two_new_keys_flags_the_second_for_the_first() {
    // A rule that looked only at the keydir would find neither key present and flag neither entry.
    // The second would then shadow the first when the keydir is filled.
    tell(|told| told.batch(&["a", "b"]), "a b!");
    tell(|told| told.batch(&["a", "b", "c"]), "a b! c!");
    tell(|told| told.batch(&["b", "a"]), "b a!");
}

#[test]
fn a_batch_that_changes_a_key_twice_uses_its_last_change() {
    tell(|told| told.batch(&["a", "b", "a", "-b"]), "a");
    tell(|told| told.batch(&["-a", "b", "a"]), "b a!");
}

#[test]
fn a_batch_with_present_keys() {
    let story = |told: &mut Told| {
        told.put('a');
        told.batch(&["b", "a"]);
    };
    tell(story, "a b! a!");
    let story = |told: &mut Told| {
        told.put('a');
        told.batch(&["a", "b"]);
    };
    tell(story, "a a b!");
    let story = |told: &mut Told| {
        told.put('a');
        told.batch(&["b", "-a"]);
    };
    tell(story, "a b! -a!");
}

#[test]
fn a_batch_may_set_unneeded_flags_for_keys_it_removes() {
    let story = |told: &mut Told| {
        told.put('a');
        told.batch(&["-a", "b"]);
    };
    tell(story, "a -a b!");
    let story = |told: &mut Told| {
        told.batch(&["a", "b", "c"]);
        told.batch(&["-a", "-b", "-c"]);
    };
    tell(story, "a b! c! -a! -b! -c!");
}

#[test]
fn a_key_deleted_and_written_again() {
    let story = |told: &mut Told| {
        told.put('a');
        told.put('b');
        told.delete('a');
        told.put('a');
    };
    tell(story, "a b! -a! a!");
    let story = |told: &mut Told| {
        told.put('a');
        told.put('b');
        told.delete('b');
        told.put('b');
    };
    tell(story, "a b! -b! b!");
}

#[test]
fn both_keys_deleted_and_written_again_in_either_order() {
    let story = |told: &mut Told| {
        told.put('a');
        told.put('b');
        told.delete('a');
        told.delete('b');
        told.put('b');
        told.put('a');
    };
    tell(story, "a b! -a! -b b a!");
    let story = |told: &mut Told| {
        told.put('a');
        told.put('b');
        told.delete('b');
        told.delete('a');
        told.put('a');
        told.put('b');
    };
    tell(story, "a b! -b! -a a b!");
}

#[test]
fn the_other_key_written_again_once_the_first_is_deleted() {
    // The last entry is rightly unflagged: its key alone has a slot, and every older entry is dead.
    let story = |told: &mut Told| {
        told.put('a');
        told.put('b');
        told.delete('a');
        told.put('b');
    };
    tell(story, "a b! -a! b");
}

#[test]
fn an_unflagged_key_overwritten_once_the_other_is_deleted() {
    let story = |told: &mut Told| {
        told.put('a');
        told.put('b');
        told.delete('b');
        told.put('a');
    };
    tell(story, "a b! -b! a");
    let story = |told: &mut Told| {
        told.put('a');
        told.put('b');
        told.delete('b');
        told.put('a');
        told.put('b');
        told.delete('a');
    };
    tell(story, "a b! -b! a b! -a!");
}

#[test]
fn three_keys() {
    let story = |told: &mut Told| {
        told.put('a');
        told.put('b');
        told.put('c');
        told.delete('a');
        told.put('b');
        told.delete('c');
        told.put('a');
    };
    tell(story, "a b! c! -a! b! -c! a!");
    let story = |told: &mut Told| {
        told.put('a');
        told.put('b');
        told.delete('a');
        told.put('c');
        told.delete('b');
        told.put('c');
        told.put('a');
        told.delete('c');
        told.put('b');
    };
    tell(story, "a b! -a! c! -b! c a! -c! b!");
}

#[test]
fn a_tombstone_above_an_unflagged_key() {
    let story = |told: &mut Told| {
        told.put('a');
        told.put('b');
        told.delete('b');
    };
    tell(story, "a b! -b!");
}

#[test]
fn an_unflagged_tombstone_shadows_everything_older() {
    let story = |told: &mut Told| {
        told.put('a');
        told.put('b');
        told.delete('a');
        told.delete('b');
    };
    tell(story, "a b! -a! -b");
}

#[test]
fn an_expired_key_has_a_slot_and_counts() {
    // If the expired key did not count, the next entry would be unflagged, and would shadow the
    // expired key's slot when the keydir is filled. `len` and the figures would change.
    let story = |told: &mut Told| {
        told.put_expired('a');
        told.put('b');
    };
    tell(story, "a b!");
    let story = |told: &mut Told| {
        told.put('a');
        told.put_expired('b');
        told.put('a');
        told.delete('b');
        told.put('a');
    };
    tell(story, "a b! a! -b! a");
    let story = |told: &mut Told| {
        told.put_expired('a');
        told.put_expired('b');
        told.put('c');
        told.delete('a');
        told.put('b');
    };
    tell(story, "a b! c! -a! b!");
}

#[test]
fn a_delete_of_an_absent_key_writes_nothing() {
    let story = |told: &mut Told| {
        told.put('a');
        told.delete('b');
        told.batch(&["-b", "-c"]);
        told.put('a');
    };
    tell(story, "a a");
}

#[test]
fn keys_after_a_clear_are_independent_of_those_before() {
    let story = |told: &mut Told| {
        told.put('a');
        told.put('b');
        told.db.clear().unwrap();
        told.model.clear();
        told.put('b');
        told.put('a');
    };
    tell(story, "b a!");
}

#[test]
fn conditional_changes_affect_only_the_key_they_name() {
    for lab in [Lab::weak().seeded(SEED), Lab::new()] {
        let db = lab.open();
        assert!(db.put_if_absent(key('a'), "1").unwrap());
        assert!(db.put_if_absent(key('b'), "2").unwrap());
        assert!(!db.put_if_absent(key('a'), "3").unwrap());
        assert!(db.compare_and_swap(key('b'), Some(b"1"), Some(b"4")).unwrap().is_err());
        assert!(db.compare_and_swap(key('b'), Some(b"2"), Some(b"5")).unwrap().is_ok());
        assert!(db.compare_and_swap(key('c'), None, Some(b"6")).unwrap().is_ok());
        let updated = db.update(key('a'), |old| {
            assert_eq!(old, Some(&b"1"[..]));
            Some("7")
        });
        assert_eq!(updated.unwrap().unwrap(), "7");
        assert!(db.update(key('c'), |_| None::<&str>).unwrap().is_none());
        assert!(db.compare_and_swap(key('b'), Some(b"5"), None).unwrap().is_ok());
        let stored = Stored { value: b"7".to_vec(), expiry: None };
        let model = Model::from([(key('a'), stored)]);
        check_with(&db, &model, &[key('b'), key('c')]);
        check_with(&lab.reopen(db), &model, &[key('b'), key('c')]);
    }
}

/// Makes random changes of few keys, and compares every flag in the log with the slots at that
/// time.
#[test]
fn entries_are_flagged_exactly_when_another_key_with_their_bits_has_a_slot() {
    let lab = Lab::weak().seeded(SEED).with(Options::new().segment_size(700));
    let mut db = lab.open();
    let mut random = 1_u64;
    for _ in 0..600 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let dice = random >> 33;
        let key = format!("{}", dice % 12);
        match (dice >> 8) % 32 {
            0..12 => drop(db.delete(&key).unwrap()),
            12..14 => {
                db.write(Batch::new().put("0", "x").delete("1").put("2", "y").put(&key, "z"))
                    .unwrap();
            }
            14 => db = lab.reopen(db),
            15 => {
                let options = WriteOptions::new().ttl(Duration::ZERO);
                db.put_opt(&key, "gone", options).unwrap();
            }
            _ => db.put(&key, dice.to_string()).unwrap(),
        }
    }
    let hasher = KeyHasher::weak(SEED);
    let mut slots: BTreeSet<Vec<u8>> = BTreeSet::new();
    let (mut flagged, mut in_batch) = (0, false);
    for entry in log_entries(&lab) {
        if entry.flags.has(Flags::END) || entry.flags.has(Flags::MARK_ONLY) {
            continue;
        }
        let hash = hasher.hash(&entry.key);
        let others = slots.iter().any(|key| *key != entry.key && hasher.hash(key) == hash);
        let collides = entry.flags.has(Flags::COLLIDES);
        in_batch |= entry.flags.has(Flags::CONTINUES);
        assert!(collides || !others, "{entry:?} is not flagged");
        assert!(in_batch || others || !collides, "{entry:?} is flagged");
        in_batch = entry.flags.has(Flags::CONTINUES);
        flagged += u32::from(collides);
        if entry.flags.has(Flags::TOMBSTONE) {
            assert!(slots.remove(&entry.key), "a tombstone of a key that had no slot");
        } else {
            slots.insert(entry.key);
        }
    }
    assert!(flagged > 100);
    assert_eq!(raw(&db).into_keys().collect::<BTreeSet<_>>(), slots);
}
