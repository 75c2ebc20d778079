//! A pass over all keys and values, compared with a walk through the raw log, which is in order and
//! has no dead entries.

use std::hint::black_box;

use bitcask::Bitcask;

use crate::support::keys;
use crate::support::raw::{Raw, Shape};
use crate::support::report::{Target, compare, head};
use crate::support::{VALUE_SIZE, directory, key_count, loaded, options, timed, value, warm};

const SLICES: usize = 5;

pub(crate) fn run() {
    let (directory, count) = (directory(), key_count());
    let store = directory.path().join("store");
    let (loading, value) = (keys::shuffled(count, 1), value(VALUE_SIZE));
    loaded(&store, options(), &loading, &value).close().unwrap();
    let mut raw = Raw::loaded(directory.path(), Shape::new(count, VALUE_SIZE), &loading, &value);

    head("Scan: one thread, values of 100 B", "raw");
    for checksums in [false, true] {
        let db = Bitcask::open(&store, options().verify_reads(checksums)).unwrap();
        warm(&db);
        raw.set_checksums(checksums);
        let name = if checksums { "`iter`" } else { "`iter`, no checksums" };
        let ours = |_| timed(|| assert_eq!(iterate(&db), count));
        let limit = |_| timed(|| raw.scan(read));
        compare(name, Target::None, (SLICES, count), ours, limit);
        db.close().unwrap();
    }
}

fn iterate(db: &Bitcask) -> usize {
    let mut count = 0;
    for pair in db.iter_unordered() {
        let (key, value) = pair.unwrap();
        read(&key, &value);
        count += 1;
    }
    count
}

fn read(key: &[u8], value: &[u8]) {
    black_box((key, value));
}
