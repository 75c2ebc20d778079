//! Two threads compared with one, and a reader during writes compared with a reader alone.
//!
//! The limit of these rows is the store itself, with one thread or without the writer. Each time is
//! the total time of all threads divided by the number of their operations.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use bitcask::Bitcask;

use crate::support::keys::{self, Key};
use crate::support::report::{Target, compare, head};
use crate::support::{
    VALUE_SIZE, directory, key_count, loaded, options, timed_in_threads, value, warm,
};

const SLICES: usize = 10;
/// Number of operations per thread in a slice.
const OPS: usize = 100_000;

pub(crate) fn run() {
    let (directory, count) = (directory(), key_count());
    let loading = keys::shuffled(count, 1);
    let db = loaded(&directory.path().join("store"), options(), &loading, &value(VALUE_SIZE));
    warm(&db);
    let ops = OPS.min(count);
    let streams = [21, 22].map(|seed| keys::uniform(count, SLICES * ops, seed));

    head("Threads: values of 100 B, compared with one thread or a reader alone", "alone");
    let bench = Bench { db: &db, streams: &streams, ops, value: &value(VALUE_SIZE) };
    bench.two_threads("`get_with` in 2 threads", Target::Faster(1.8), Bench::get);
    bench.reader_during_writes("`get_with` during writes");
    bench.two_threads("overwrite in 2 threads", Target::Speed, Bench::put);
    bench.two_threads("half gets, half puts in 2 threads", Target::Faster(1.0), Bench::half);
}

struct Bench<'a> {
    db: &'a Bitcask,
    /// Keys for each of two threads.
    streams: &'a [Vec<Key>; 2],
    /// Number of operations per thread in a slice.
    ops: usize,
    value: &'a [u8],
}

impl Bench<'_> {
    fn keys(&self, thread: usize, slice: usize) -> &[Key] {
        &self.streams[thread][slice * self.ops..(slice + 1) * self.ops]
    }

    fn get(&self, key: &Key) {
        black_box(self.db.get_with(key, |value| value.first().copied()).unwrap());
    }

    fn put(&self, key: &Key) {
        self.db.put(key, self.value).unwrap();
    }

    fn half(&self, key: &Key) {
        if key[15].is_multiple_of(2) { self.get(key) } else { self.put(key) }
    }

    fn two_threads(&self, name: &str, target: Target, act: fn(&Self, &Key)) {
        let run = |thread, slice| self.keys(thread, slice).iter().for_each(|key| act(self, key));
        let two = |slice| timed_in_threads(2, |thread| run(thread, slice));
        let one = |slice| timed_in_threads(1, |_| (0..2).for_each(|thread| run(thread, slice)));
        compare(name, target, (SLICES, 2 * self.ops), two, one);
    }

    fn reader_during_writes(&self, name: &str) {
        let read = |slice| {
            timed_in_threads(1, |_| self.keys(0, slice).iter().for_each(|key| self.get(key)))
        };
        let target = Target::AtMost(1.3);
        compare(name, target, (SLICES, self.ops), |slice| self.during_writes(|| read(slice)), read);
    }

    /// Runs a closure while another thread overwrites keys without a pause.
    fn during_writes<T>(&self, act: impl FnOnce() -> T) -> T {
        let (started, done) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let keys = self.streams[1].iter().cycle();
                for key in keys.take_while(|_| !done.load(Ordering::Relaxed)) {
                    self.put(key);
                    started.store(true, Ordering::Relaxed);
                }
            });
            while !started.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            let result = act();
            done.store(true, Ordering::Relaxed);
            result
        })
    }
}
