//! Loads, overwrites and deletes, compared with the raw append.
//!
//! Each row starts with a new store and a new limit, so both grow alike.

use std::time::Duration;

use bitcask::{Bitcask, Options};

use crate::support::keys::{self, Key};
use crate::support::raw::{Populate, Raw, Shape};
use crate::support::report::{Target, compare, head};
use crate::support::{VALUE_SIZE, directory, key_count_of, loaded, options, timed, value};

const SLICES: usize = 20;

pub(crate) fn run() {
    head("Put: one thread, without sync", "raw");
    for value_size in [16, VALUE_SIZE, 4096] {
        let count = key_count_of(value_size);
        let (ordered, shuffled) = (keys::ordered(count), keys::shuffled(count, 1));
        let (target, shape) = (Target::AtMost(1.3), Shape::new(count, value_size));
        let name = |what: &str| format!("{what}, {value_size} B");
        load(&name("load in key order"), target, options(), &ordered, shape);
        load(&name("load in random order"), target, options(), &shuffled, shape);
        let populating = Shape { populate: Populate::AsItGoes, ..shape };
        let row = name("load, raw populates as it goes");
        load(&row, target, options(), &shuffled, populating);
        if value_size == VALUE_SIZE {
            let unchecked = Shape { checksums: false, ..shape };
            let row = name("load, raw without checksums");
            load(&row, Target::AtMost(1.67), options(), &shuffled, unchecked);
            let policy = name("load with `Interval(1 s)`");
            load(&policy, Target::None, Options::new(), &shuffled, shape);
        }
        overwrite(&name("overwrite"), &shuffled, shape);
        delete(&name("delete"), &shuffled, shape);
    }
}

fn load(name: &str, target: Target, options: Options, keys: &[Key], shape: Shape) {
    let (directory, value) = (directory(), value(shape.value_size));
    let db = Bitcask::open(directory.path().join("store"), options).unwrap();
    let mut raw = Raw::new(directory.path(), shape);
    let (ours, limit) =
        (|key: &Key| db.put(key, &value).unwrap(), |key: &Key| raw.put(key, &value));
    measure(name, target, keys, ours, limit);
}

fn overwrite(name: &str, keys: &[Key], shape: Shape) {
    let (directory, value) = (directory(), value(shape.value_size));
    let shape = Shape { entries: shape.keys * 2, ..shape };
    let db = loaded(&directory.path().join("store"), options(), keys, &value);
    let mut raw = Raw::loaded(directory.path(), shape, keys, &value);
    let again = keys::shuffled(keys.len(), 2);
    let (ours, limit) =
        (|key: &Key| db.put(key, &value).unwrap(), |key: &Key| raw.put(key, &value));
    measure(name, Target::None, &again, ours, limit);
}

fn delete(name: &str, keys: &[Key], shape: Shape) {
    let (directory, value) = (directory(), value(shape.value_size));
    let shape = Shape { entries: shape.keys * 2, ..shape };
    let db = loaded(&directory.path().join("store"), options(), keys, &value);
    let mut raw = Raw::loaded(directory.path(), shape, keys, &value);
    let again = keys::shuffled(keys.len(), 3);
    let ours = |key: &Key| assert!(db.delete(key).unwrap());
    measure(name, Target::None, &again, ours, |key| assert!(raw.delete(key)));
}

/// Handles each key once on both sides.
fn measure(
    name: &str,
    target: Target,
    keys: &[Key],
    mut ours: impl FnMut(&Key),
    mut limit: impl FnMut(&Key),
) {
    let ops = keys.len() / SLICES;
    let part = |slice: usize| &keys[slice * ops..(slice + 1) * ops];
    let ours = |slice| -> Duration { timed(|| part(slice).iter().for_each(&mut ours)) };
    let limit = |slice| -> Duration { timed(|| part(slice).iter().for_each(&mut limit)) };
    compare(name, target, (SLICES, ops), ours, limit);
}
