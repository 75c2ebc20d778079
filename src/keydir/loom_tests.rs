//! The ordering argument of `table.rs`, checked under every order that the memory model allows.
//!
//! A model has a table of two buckets, a log of two segments and a few entries, one or two writers,
//! and one or two readers. An entry is a number that names its key. As in the real log, the entry
//! is stored and its segment's readable end moved past it before the slot that names the entry is
//! published. Only the table and the pointer to it impose an order in the model. All other stores
//! are Relaxed, so a reader can't see them in time by chance.
//!
//! The model leaves out that replaced tables are freed only when no reader is left, and that a
//! segment's number is not reused before that; `store/loom_tests.rs` covers these.
//! `docs/testing.md` lists what the model checker leaves out, and which planted mistakes these
//! tests find. To run them:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --lib loom_tests
//! ```

use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::Address;
use super::slot::{Pair, SlotFlags};
use super::table::Table;
use crate::key_hash::KeyHash;

/// A key. Its number is what the log holds for its entries. Never zero.
#[derive(Clone, Copy)]
struct Key {
    number: u64,
    hash: KeyHash,
}

const fn key(number: u64, fingerprint: u64, extra: u16) -> Key {
    Key { number, hash: KeyHash { fingerprint, extra } }
}

const A: Key = key(1, 100, 1);
const B: Key = key(2, 200, 1);
/// The fingerprint of `A`, but different extra bits.
const C: Key = key(3, 100, 2);
/// The same hash bits as `A`.
const D: Key = key(4, 100, 1);

const SEGMENT_LEN: usize = 4;

/// What a lookup of one key finds before the first change and after each.
type History = &'static [Option<usize>];

struct Model {
    tables: [Vec<Pair>; 2],
    /// Index of the published table.
    current: AtomicUsize,
    /// The shard's lock.
    shard: Mutex<()>,
    /// For each entry, the number of its key; zero before it is written.
    log: [AtomicU64; 2 * SEGMENT_LEN],
    /// The readable end of the second segment; zero before the segment is in the set.
    end: AtomicUsize,
    /// Number of completed changes.
    over: AtomicUsize,
    /// Number of started changes. It imposes no order, so the model checker does not need to know
    /// it.
    begun: std::sync::atomic::AtomicUsize,
}

impl Model {
    fn new() -> Self {
        Self {
            tables: [vec![Pair::default()], vec![Pair::default(), Pair::default()]],
            current: AtomicUsize::new(0),
            shard: Mutex::new(()),
            log: std::array::from_fn(|_| AtomicU64::new(0)),
            end: AtomicUsize::new(0),
            over: AtomicUsize::new(0),
            begun: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    fn table(&self) -> Table<'_> {
        Table::from(&*self.tables[self.current.load(Ordering::Acquire)])
    }

    /// Stores like plain stores into the mapping: only the publication orders them.
    fn append(&self, entry: usize, key: Key) -> Address {
        self.log[entry].store(key.number, Ordering::Relaxed);
        if entry >= SEGMENT_LEN {
            self.end.store(entry + 1, Ordering::Relaxed);
        }
        address(entry)
    }

    fn put(&self, entry: usize, key: Key) {
        let address = self.append(entry, key);
        self.table().insert(key.hash, address, SlotFlags::default());
    }

    fn overwrite(&self, old: usize, entry: usize, key: Key) {
        let new = self.append(entry, key);
        assert!(self.table().replace(key.hash, address(old), new));
    }

    fn delete(&self, entry: usize, key: Key) {
        assert!(self.table().remove(key.hash, address(entry)));
    }

    /// Grows the table as a shard's writer does: into a table that no reader sees, which is then
    /// published.
    fn grow(&self) {
        self.table().copy_to(Table::from(&*self.tables[1]));
        self.current.store(1, Ordering::Release);
    }

    /// Prepares a model that starts in the larger table.
    fn large(prepare: fn(&Model)) -> impl Fn(&Model) + Copy + Send + Sync + 'static {
        move |model| {
            model.current.store(1, Ordering::Release);
            prepare(model);
        }
    }

    /// The reverse of `grow`.
    fn shrink(&self) {
        self.table().copy_to(Table::from(&*self.tables[0]));
        self.current.store(0, Ordering::Release);
    }

    /// Makes one change, and tells readers from when on it may be visible, and from when on it must
    /// be.
    fn change(&self, make: impl FnOnce(&Self)) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        make(self);
        self.over.fetch_add(1, Ordering::Release);
    }

    /// Looks a key up as readers do; returns its entry.
    fn get(&self, key: Key) -> Option<usize> {
        let own = |address: Address| {
            let entry = address.offset as usize / 8;
            let in_reach = entry < SEGMENT_LEN || entry < self.end.load(Ordering::Relaxed);
            assert!(in_reach, "a slot names an entry beyond the end of its segment");
            let number = self.log[entry].load(Ordering::Relaxed);
            assert_ne!(number, 0, "a slot names an entry that is not written");
            (number == key.number).then_some(entry)
        };
        self.table().probe(key.hash).find_map(|(_, slot)| own(slot.address()))
    }

    /// Looks a key up. The result must have been correct at some moment of the lookup.
    fn get_of(&self, key: Key, history: History) {
        let over = self.over.load(Ordering::Acquire);
        let found = self.get(key);
        let begun = self.begun.load(Ordering::Relaxed);
        let possible = &history[over..=begun];
        assert!(possible.contains(&found), "{found:?}, possible is {possible:?}");
    }
}

fn address(entry: usize) -> Address {
    Address { segment: (entry / SEGMENT_LEN) as u32, offset: entry as u64 * 8 }
}

/// Runs a writer against readers.
fn run<const READERS: usize>(
    prepare: impl Fn(&Model) + Copy + Send + Sync + 'static,
    write: impl Fn(&Model) + Copy + Send + Sync + 'static,
    readers: [fn(&Model); READERS],
) {
    loom::model(move || {
        let model = Arc::new(Model::new());
        prepare(&model);
        let threads: Vec<_> = readers
            .into_iter()
            .map(|read| {
                let model = Arc::clone(&model);
                thread::spawn(move || read(&model))
            })
            .collect();
        write(&model);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_reader_sees_an_entry_whole_or_not_at_all() {
    let read = |model: &Model| {
        let first = model.get(A);
        assert!(first.is_none_or(|entry| entry == 0));
        // Once seen, it stays.
        assert!(first.is_none() || model.get(A) == Some(0));
    };
    run(|_| {}, |model| model.put(0, A), [read, read]);
}

#[test]
fn an_overwritten_key_is_never_absent_and_never_goes_back() {
    let read = |model: &Model| {
        let first = model.get(A).expect("it is present throughout");
        let second = model.get(A).expect("it is present throughout");
        assert!(first <= second, "entry {second} after entry {first}");
    };
    let write = |model: &Model| {
        model.overwrite(0, 1, A);
        model.overwrite(1, 2, A);
    };
    run(|model| model.put(0, A), write, [read]);
}

/// `other` reuses a removed slot. Readers look for both keys, and for one after them in the chain.
fn reuse(other: Key) {
    fn read_first(model: &Model) {
        assert!(model.get(A).is_none_or(|entry| entry == 0));
    }
    fn read_neighbor(model: &Model) {
        assert_eq!(model.get(B), Some(1), "it is present throughout");
    }
    let prepare = |model: &Model| {
        model.put(0, A);
        model.put(1, B);
    };
    let write = move |model: &Model| {
        model.delete(0, A);
        model.put(2, other);
        assert_eq!(model.get(other), Some(2));
        assert_eq!(model.get(A), None);
    };
    run(prepare, write, [read_first, read_neighbor]);
}

#[test]
fn a_slot_reused_by_another_key_is_not_mistaken_for_the_old_key() {
    reuse(key(5, 300, 1));
    reuse(C);
    reuse(D);
}

/// Keys that fill the first bucket, in which all keys here belong. `A` is the fifth key.
const FULL: [Key; 4] = [key(6, 400, 1), key(7, 500, 1), key(8, 600, 1), key(9, 700, 1)];

fn fill_first_bucket(model: &Model) {
    FULL.into_iter().enumerate().for_each(|(entry, key)| model.put(entry, key));
}

#[test]
fn a_key_that_overflows_from_its_bucket_is_seen_in_time() {
    const HISTORY: History = &[None, Some(4), Some(4)];
    let read = |model: &Model| model.get_of(A, HISTORY);
    // The second change rewrites the word that has the bit of `A`.
    let write = |model: &Model| {
        model.change(|model| model.put(4, A));
        model.change(|model| model.overwrite(0, 5, FULL[0]));
    };
    run(fill_first_bucket, write, [read]);
}

#[test]
fn a_key_that_has_overflowed_stays_found_while_slots_before_it_are_reused() {
    let read = |model: &Model| assert_eq!(model.get(A), Some(4), "it is present throughout");
    let prepare = |model: &Model| {
        fill_first_bucket(model);
        model.put(4, A);
    };
    let write = |model: &Model| {
        model.delete(0, FULL[0]);
        model.put(5, key(10, 800, 1));
        assert_eq!(model.get(A), Some(4));
    };
    run(prepare, write, [read]);
}

#[test]
fn a_key_that_is_deleted_and_put_again_is_seen_in_its_old_or_new_state() {
    let read = |model: &Model| {
        let first = model.get(A);
        let second = model.get(A);
        assert!(second.or(Some(2)) >= first, "{second:?} after {first:?}");
        assert!([None, Some(0), Some(2)].contains(&first));
    };
    let write = |model: &Model| {
        model.delete(0, A);
        model.put(2, A);
    };
    run(|model| model.put(0, A), write, [read]);
}

#[test]
fn keys_are_found_while_the_table_grows() {
    let read = |model: &Model| {
        assert_eq!(model.get(A), Some(0), "it is present throughout");
        assert!(model.get(B).is_none_or(|entry| entry == 1));
        assert_eq!(model.get(A), Some(0), "it is present throughout");
    };
    let write = |model: &Model| {
        model.grow();
        model.put(1, B);
        assert_eq!(model.get(B), Some(1));
    };
    run(|model| model.put(0, A), write, [read]);
}

#[test]
fn a_lookup_during_puts_and_deletes_is_linearizable() {
    const HISTORY: History = &[Some(0), None, Some(1), Some(2)];
    let read = |model: &Model| model.get_of(A, HISTORY);
    let write = |model: &Model| {
        model.change(|model| model.delete(0, A));
        model.change(|model| model.put(1, A));
        model.change(|model| model.overwrite(1, 2, A));
    };
    run(|model| model.put(0, A), write, [read]);
}

#[test]
fn a_key_that_returns_after_its_old_slot_is_seen_in_time() {
    const HISTORY: History = &[Some(0), None, None, Some(2)];
    let read = |model: &Model| model.get_of(A, HISTORY);
    // The key's first slot has the same hash bits again, but belongs to another key.
    let write = |model: &Model| {
        model.change(|model| model.delete(0, A));
        model.change(|model| model.put(1, D));
        model.change(|model| model.put(2, A));
    };
    run(|model| model.put(0, A), write, [read]);
}

#[test]
fn a_key_that_returns_before_its_old_slot_is_seen_in_time() {
    const HISTORY: History = &[Some(1), Some(1), None, Some(2)];
    let read = |model: &Model| model.get_of(A, HISTORY);
    let prepare = |model: &Model| {
        model.put(0, D);
        model.put(1, A);
    };
    let write = |model: &Model| {
        model.change(|model| model.delete(0, D));
        model.change(|model| model.delete(1, A));
        model.change(|model| model.put(2, A));
    };
    run(prepare, write, [read]);
}

#[test]
fn a_lookup_during_growth_is_linearizable() {
    const HISTORY: History = &[Some(0), Some(0), Some(1), None];
    let read = |model: &Model| model.get_of(A, HISTORY);
    let write = |model: &Model| {
        model.change(Model::grow);
        model.change(|model| model.overwrite(0, 1, A));
        model.change(|model| model.delete(1, A));
    };
    run(|model| model.put(0, A), write, [read]);
}

#[test]
fn keys_are_found_while_the_table_shrinks() {
    let prepare = Model::large(|model| {
        model.put(0, A);
        model.put(1, B);
    });
    let read = |model: &Model| {
        assert_eq!(model.get(A), Some(0), "it is present throughout");
        assert!(model.get(B).is_none_or(|entry| entry == 1));
        assert_eq!(model.get(A), Some(0), "it is present throughout");
    };
    let write = |model: &Model| {
        model.delete(1, B);
        model.shrink();
        assert_eq!(model.get(B), None);
    };
    run(prepare, write, [read]);
}

#[test]
fn a_lookup_during_shrinking_is_linearizable() {
    const HISTORY: History = &[Some(0), None, None, Some(2)];
    let prepare = Model::large(|model| {
        model.put(0, A);
        model.put(1, B);
    });
    let read = |model: &Model| {
        model.get_of(A, HISTORY);
        assert_eq!(model.get(B), Some(1), "it is present throughout");
    };
    let write = |model: &Model| {
        model.change(|model| model.delete(0, A));
        model.change(Model::shrink);
        model.change(|model| model.put(2, A));
    };
    run(prepare, write, [read]);
}

#[test]
fn a_slot_in_a_new_segment_is_seen_after_the_segment() {
    const HISTORY: History = &[Some(0), Some(SEGMENT_LEN), Some(SEGMENT_LEN + 1)];
    let read = |model: &Model| model.get_of(A, HISTORY);
    let write = |model: &Model| {
        model.change(|model| model.overwrite(0, SEGMENT_LEN, A));
        model.change(|model| model.overwrite(SEGMENT_LEN, SEGMENT_LEN + 1, A));
    };
    run(|model| model.put(0, A), write, [read]);
}

#[test]
fn a_key_in_the_second_bucket_of_its_chain_is_found_while_the_first_changes() {
    let prepare = |model: &Model| {
        for (entry, fingerprint) in [100, 200, 300, 400, 500].into_iter().enumerate() {
            model.put(entry, key(entry as u64 + 1, fingerprint, 1));
        }
    };
    let read = |model: &Model| {
        assert_eq!(model.get(key(5, 500, 1)), Some(4), "it is present throughout");
    };
    let write = |model: &Model| {
        model.delete(1, key(2, 200, 1));
        model.put(5, key(6, 500, 1));
        model.delete(3, key(4, 400, 1));
    };
    run(prepare, write, [read]);
}

#[test]
fn a_reader_that_misses_a_deleted_key_sees_earlier_puts() {
    let read = |model: &Model| {
        if model.get(A).is_none() {
            assert_eq!(model.get(B), Some(1), "it was put before");
        }
    };
    let write = |model: &Model| {
        model.put(1, B);
        model.delete(0, A);
    };
    run(|model| model.put(0, A), write, [read]);
}

#[test]
fn successive_writers_are_seen_in_order() {
    let overwrite = |model: &Model| {
        let _locked = model.shard.lock().unwrap();
        if let Some(newest) = model.get(A) {
            model.overwrite(newest, 1, A);
        }
    };
    let replace_by_another = |model: &Model| {
        let _locked = model.shard.lock().unwrap();
        let newest = model.get(A).expect("only this writer removes it");
        model.delete(newest, A);
        model.put(2, D);
    };
    let read = |model: &Model| {
        assert!([None, Some(0), Some(1)].contains(&model.get(A)));
    };
    run(|model| model.put(0, A), replace_by_another, [overwrite, read]);
}
