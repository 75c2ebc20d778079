//! The ordering argument of `table.rs`, checked under every order that the memory model allows.
//!
//! A model has a table of two buckets, a log of a few entries, one writer and one or two readers.
//! An entry is a number that names its key, stored before the slot that names the entry is
//! published, as the log does it. Run by:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --lib loom_tests
//! ```

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use loom::thread;

use super::Address;
use super::hash::KeyHash;
use super::table::{Pair, SlotFlags, Table};

/// A key; its number is what the log says of its entries. Never zero.
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
/// Other hash bits than `A`, which a fingerprint alone does not tell.
const C: Key = key(3, 100, 2);
/// The same hash bits as `A`.
const D: Key = key(4, 100, 1);

struct Model {
    tables: [Vec<Pair>; 2],
    /// Which of them is published.
    current: AtomicUsize,
    /// By entry, the number of its key; zero before it is written.
    log: [AtomicU64; 4],
}

impl Model {
    fn new() -> Self {
        Self {
            tables: [vec![Pair::default()], vec![Pair::default(), Pair::default()]],
            current: AtomicUsize::new(0),
            log: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    fn table(&self) -> Table<'_> {
        Table::from(&*self.tables[self.current.load(Ordering::Acquire)])
    }

    fn append(&self, entry: usize, key: Key) -> Address {
        // As a plain store into the mapping: its order comes from the publication alone.
        self.log[entry].store(key.number, Ordering::Relaxed);
        Address { segment: 0, offset: entry as u64 * 8 }
    }

    fn put(&self, entry: usize, key: Key) {
        let address = self.append(entry, key);
        self.table().insert(key.hash, address, SlotFlags::default());
    }

    fn overwrite(&self, old: usize, entry: usize, key: Key) {
        let new = self.append(entry, key);
        let old = Address { segment: 0, offset: old as u64 * 8 };
        assert!(self.table().replace(key.hash, old, new));
    }

    fn delete(&self, entry: usize, key: Key) {
        let address = Address { segment: 0, offset: entry as u64 * 8 };
        assert!(self.table().remove(key.hash, address));
    }

    /// Looks a key up as readers do; returns its entry.
    fn get(&self, key: Key) -> Option<usize> {
        let own = |address: Address, _| {
            let entry = address.offset as usize / 8;
            let number = self.log[entry].load(Ordering::Relaxed);
            assert_ne!(number, 0, "a slot names an entry that is not written");
            Ok((number == key.number).then_some(entry))
        };
        self.table().find(key.hash, own).unwrap()
    }
}

/// Runs a writer against readers.
fn run<const READERS: usize>(
    prepare: fn(&Model),
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
fn a_reader_sees_the_whole_of_an_entry_that_is_being_put() {
    let read = |model: &Model| {
        let first = model.get(A);
        assert!(first.is_none_or(|entry| entry == 0));
        // Once seen, it stays.
        assert!(first.is_none() || model.get(A) == Some(0));
    };
    run(|_| {}, |model| model.put(0, A), [read, read]);
}

#[test]
fn a_key_that_is_overwritten_is_never_absent_and_never_goes_back() {
    let read = |model: &Model| {
        let first = model.get(A).expect("it is there throughout");
        let second = model.get(A).expect("it is there throughout");
        assert!(first <= second, "entry {second} after entry {first}");
    };
    let write = |model: &Model| {
        model.overwrite(0, 1, A);
        model.overwrite(1, 2, A);
    };
    run(|model| model.put(0, A), write, [read]);
}

/// A removed slot is used again by `other`; readers look for both keys, and for one behind them.
fn reuse(other: Key) {
    fn read_first(model: &Model) {
        assert!(model.get(A).is_none_or(|entry| entry == 0));
    }
    fn read_neighbor(model: &Model) {
        assert_eq!(model.get(B), Some(1), "it is there throughout");
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
fn a_slot_that_another_key_uses_again_is_not_taken_for_its_own() {
    reuse(key(5, 300, 1));
    reuse(C);
    reuse(D);
}

#[test]
fn a_key_that_is_deleted_and_put_again_is_seen_as_it_was_or_is() {
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
        assert_eq!(model.get(A), Some(0), "it is there throughout");
        assert!(model.get(B).is_none_or(|entry| entry == 1));
        assert_eq!(model.get(A), Some(0), "it is there throughout");
    };
    let write = |model: &Model| {
        // As the writer of a shard does it: into a table that nobody sees, then published.
        model.table().copy_to(Table::from(&*model.tables[1]));
        model.current.store(1, Ordering::Release);
        model.put(1, B);
        assert_eq!(model.get(B), Some(1));
    };
    run(|model| model.put(0, A), write, [read]);
}
