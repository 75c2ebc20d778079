//! Durable puts, compared with a bare `fdatasync`.
//!
//! The limit writes entries of the same size into a preallocated file, with `pwrite` or through a
//! mapping, and syncs each. It uses one thread, whatever number of threads the store uses.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use bitcask::{Batch, Bitcask, Options, SyncPolicy};
use fs2::FileExt as _;

use crate::support::keys::{self, Key};
use crate::support::raw::{Raw, Shape, entry_size};
use crate::support::report::{Target, compare, head};
use crate::support::{VALUE_SIZE, directory, timed, timed_in_threads, value};

/// Number of slices, and of puts per slice over all threads. The slices are short and many, so that
/// other processes' syncs affect both sides alike.
const ONE_THREAD: (usize, usize) = (200, 4);
const THREADS: (usize, usize) = (30, 64);
const BATCHES: usize = 40;
const BATCH_LEN: usize = 1000;

pub(crate) fn run() {
    let directory = directory();
    let options = Options::new().sync_policy(SyncPolicy::Always);
    let db = Bitcask::open(directory.path().join("store"), options).unwrap();
    let keys = keys::shuffled(2 * puts(ONE_THREAD) + 2 * puts(THREADS), 31);
    let (mut rest, value) = (keys.as_slice(), value(VALUE_SIZE));
    // Every put of every row has a new key.
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at(count);
        rest = left;
        taken
    };

    head("Durable: every put synced, values of 100 B", "bare");
    let ops = ONE_THREAD.1;
    let mut bare = Bare::new(directory.path(), puts(ONE_THREAD), entry_size(VALUE_SIZE));
    let ours = |_| timed(|| put(&db, take(ops), &value));
    let name = "put, 1 thread; `pwrite` + `fdatasync`";
    compare(name, Target::AtMost(1.1), ONE_THREAD, ours, |_| bare.write_and_sync(ops));

    let mut raw = Raw::new(directory.path(), Shape::new(puts(ONE_THREAD), VALUE_SIZE));
    let ours = |_| timed(|| put(&db, take(ops), &value));
    let mapped = |_| timed(|| store_and_sync(&mut raw, ops, &value));
    compare("put, 1 thread; store + `fdatasync`", Target::None, ONE_THREAD, ours, mapped);

    let ops = THREADS.1;
    for threads in [8, 16] {
        let mut bare = Bare::new(directory.path(), puts(THREADS), entry_size(VALUE_SIZE));
        let ours = |_| put_in_threads(&db, threads, take(ops), &value);
        let name = format!("put, {threads} threads; one `fdatasync` each");
        compare(&name, Target::Speed, THREADS, ours, |_| bare.write_and_sync(ops));
    }
    batches(&db, directory.path(), &value);
}

fn puts((slices, ops): (usize, usize)) -> usize {
    slices * ops
}

fn put(db: &Bitcask, keys: &[Key], value: &[u8]) {
    for key in keys {
        db.put(key, value).unwrap();
    }
}

fn put_in_threads(db: &Bitcask, threads: usize, keys: &[Key], value: &[u8]) -> Duration {
    let each = keys.len() / threads;
    timed_in_threads(threads, |thread| {
        put(db, &keys[thread * each..(thread + 1) * each], value);
    })
}

fn store_and_sync(raw: &mut Raw, ops: usize, value: &[u8]) {
    for number in 0..ops as u64 {
        raw.append(&keys::key(number), value, 0);
        raw.sync();
    }
}

/// Batches of 1,000 puts. Building a batch is not timed.
fn batches(db: &Bitcask, directory: &Path, value: &[u8]) {
    let keys = keys::shuffled(BATCHES * BATCH_LEN, 32);
    let mut bare = Bare::new(directory, BATCHES, BATCH_LEN * entry_size(value.len()));
    let ours = |slice: usize| {
        let keys = &keys[slice * BATCH_LEN..(slice + 1) * BATCH_LEN];
        let batch = keys.iter().map(|key| (key, value)).collect::<Batch>();
        timed(|| db.write(&batch).unwrap())
    };
    let name = "a put of a batch of 1,000; one `pwrite` + `fdatasync`";
    compare(name, Target::None, (BATCHES, BATCH_LEN), ours, |_| bare.write_and_sync(1));
}

/// A preallocated file that is written in order.
struct Bare {
    file: File,
    bytes: Vec<u8>,
    end: u64,
}

impl Bare {
    fn new(directory: &Path, writes: usize, size: usize) -> Self {
        let file = tempfile::tempfile_in(directory).unwrap();
        file.allocate((writes * size) as u64).unwrap();
        file.sync_all().unwrap();
        Self { file, bytes: vec![0xa5; size], end: 0 }
    }

    fn write_and_sync(&mut self, writes: usize) -> Duration {
        timed(|| {
            for _ in 0..writes {
                self.file.write_all_at(&self.bytes, self.end).unwrap();
                self.file.sync_data().unwrap();
                self.end += self.bytes.len() as u64;
            }
        })
    }
}
