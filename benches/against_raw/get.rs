//! Gets of present and absent keys, compared with the raw look-up.
//!
//! One store of 100-byte values, loaded in random order, opened without and with checksums, and
//! read through once before the measurement.

use std::hint::black_box;
use std::path::Path;

use bitcask::Bitcask;

use crate::support::keys::{self, Key};
use crate::support::raw::{Raw, Shape};
use crate::support::report::{Target, compare, head};
use crate::support::{VALUE_SIZE, directory, key_count, loaded, options, timed, value, warm};

const SLICES: usize = 20;
/// Number of keys per `get_many` call.
const MANY: usize = 16;

pub(crate) fn run() {
    let (directory, count) = (directory(), key_count());
    let store = directory.path().join("store");
    let (loading, value) = (keys::shuffled(count, 1), value(VALUE_SIZE));
    loaded(&store, options(), &loading, &value).close().unwrap();
    let mut raw = Raw::loaded(directory.path(), Shape::new(count, VALUE_SIZE), &loading, &value);
    drop(loading);
    let len = count.clamp(SLICES, 1_000_000);
    let uniform = keys::uniform(count, len, 11);

    head("Get: one thread, values of 100 B", "raw");
    raw.set_checksums(false);
    let db = open(&store, false);
    let limit = Target::AtMost(1.3);
    get_into("`get_into`, uniform, no checksums", limit, &db, &raw, &uniform);
    get_with("`get_with`, uniform, no checksums", &db, &raw, &uniform);
    db.close().unwrap();

    raw.set_checksums(true);
    let db = open(&store, true);
    get_into("`get_into`, uniform", limit, &db, &raw, &uniform);
    get_into("`get_into`, Zipf 0.99", limit, &db, &raw, &keys::zipf(count, len, 12));
    get_with("`get_with`, uniform", &db, &raw, &uniform);
    get("`get`, uniform", &db, &raw, &uniform);
    let absent = keys::absent(count, len, 13);
    get_into("miss", Target::Nanos(200.0), &db, &raw, &absent);

    head("Get: 16 keys at a time, compared with one at a time", "one at a time");
    get_many("`get_many_with`, uniform", Target::Faster(1.6), &db, &uniform);
    get_many("`get_many_with`, misses", Target::Speed, &db, &absent);
}

fn open(store: &Path, checksums: bool) -> Bitcask {
    let db = Bitcask::open(store, options().verify_reads(checksums)).unwrap();
    warm(&db);
    db
}

fn get_into(name: &str, target: Target, db: &Bitcask, raw: &Raw, keys: &[Key]) {
    let mut buffer = Vec::with_capacity(VALUE_SIZE);
    let ours = |key: &Key| {
        black_box(db.get_into(key, &mut buffer).unwrap());
    };
    measure(name, target, raw, keys, ours);
}

fn get_with(name: &str, db: &Bitcask, raw: &Raw, keys: &[Key]) {
    let ours = |key: &Key| {
        black_box(db.get_with(key, |value| value.first().copied()).unwrap());
    };
    measure(name, Target::None, raw, keys, ours);
}

fn get(name: &str, db: &Bitcask, raw: &Raw, keys: &[Key]) {
    let ours = |key: &Key| {
        black_box(db.get(key).unwrap());
    };
    measure(name, Target::None, raw, keys, ours);
}

/// Compares `get_many` with one `get` at a time, both of the store.
fn get_many(name: &str, target: Target, db: &Bitcask, keys: &[Key]) {
    let ops = keys.len() / SLICES;
    let part = |slice: usize| &keys[slice * ops..(slice + 1) * ops];
    let first = |value: &[u8]| value.first().copied();
    let together = |slice| {
        timed(|| {
            for keys in part(slice).chunks(MANY) {
                let read = |_, value: Option<&[u8]>| {
                    black_box(value.and_then(first));
                };
                db.get_many_with(keys, read).unwrap();
            }
        })
    };
    let alone = |slice| {
        timed(|| {
            for key in part(slice) {
                black_box(db.get_with(key, first).unwrap());
            }
        })
    };
    compare(name, target, (SLICES, ops), together, alone);
}

/// Gets each key once on both sides. The limit always copies the value into a buffer.
fn measure(name: &str, target: Target, raw: &Raw, keys: &[Key], mut ours: impl FnMut(&Key)) {
    let ops = keys.len() / SLICES;
    let part = |slice: usize| &keys[slice * ops..(slice + 1) * ops];
    let mut buffer = Vec::with_capacity(VALUE_SIZE);
    let ours = |slice| timed(|| part(slice).iter().for_each(&mut ours));
    let limit = |slice| {
        timed(|| {
            for key in part(slice) {
                black_box(raw.get_into(key, &mut buffer));
            }
        })
    };
    compare(name, target, (SLICES, ops), ours, limit);
}
