//! The speed of copying live bytes, compared with a plain copy of as many bytes on the same disk.
//!
//! - A fixed number of keys stays live. The dead entries are overwritten ones, each of a random
//!   live key, and every segment has the same share of them. With 4 KiB values, there are a
//!   sixteenth of the keys.
//! - The store is closed and reopened first, so that everything is sealed and durable, and its
//!   keydir is filled. Then everything is merged; at the end, the store is durable.
//! - All data read is in the page cache, on both sides.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use bitcask::{Bitcask, MergeOptions, MergePolicy, Options};

use crate::support::{self, keys};
use crate::{median, met};

/// The size of a segment, in bytes.
const PIECE: usize = 128 << 20;

/// Target, in live megabytes per second: 0.7 times the prototype's figure.
fn target(value_size: usize) -> f64 {
    if value_size > 1000 { 1222.0 } else { 442.0 }
}

pub(crate) fn run(keys: usize) {
    println!("\n### Merge throughput, MB/s of live data\n");
    println!(
        "| values | dead | merge | best | `cp` | ratio | `cp`, `fsync` | ratio | target | met |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |");
    for (value_size, keys) in [(100, keys), (4096, keys.div_ceil(16))] {
        for dead_percent in [10, 50, 90] {
            row(value_size, keys, dead_percent);
        }
    }
}

/// The figures of one turn, in megabytes per second.
struct Turn {
    merge: f64,
    copy: f64,
    durable_copy: f64,
}

fn row(value_size: usize, keys: usize, dead_percent: u64) {
    let turns = if support::is_bench() { 3 } else { 1 };
    let turns: Vec<Turn> = (0..turns).map(|at| turn(value_size, keys, dead_percent, at)).collect();
    let all = |figure: fn(&Turn) -> f64| median(turns.iter().map(figure));
    let (merge, target) = (all(|turn| turn.merge), target(value_size));
    let best = turns.iter().map(|turn| turn.merge).fold(0.0, f64::max);
    print!("| {value_size} B | {dead_percent} % | {merge:.0} | {best:.0} ");
    let ratio = all(|turn| turn.merge / turn.copy);
    print!("| {:.0} | {ratio:.2}x ", all(|turn| turn.copy));
    let ratio = all(|turn| turn.merge / turn.durable_copy);
    print!("| {:.0} | {ratio:.2}x ", all(|turn| turn.durable_copy));
    println!("| >= {target:.0} | {} |", met(merge >= target));
}

fn turn(value_size: usize, keys: usize, dead_percent: u64, at: u64) -> Turn {
    let directory = support::directory();
    let store = directory.path().join("store");
    load(&store, value_size, keys, dead_percent, at);
    let db = Bitcask::open(&store, options()).unwrap();
    assert_eq!(db.len().unwrap(), keys as u64);
    let live_size = db.stats().live_size;
    let source = directory.path().join("source");
    write_pieces(&source, live_size);
    let rate = |time: Duration| live_size as f64 / 1e6 / time.as_secs_f64();
    let merge = || {
        rate(support::timed(|| {
            let report = db.merge_opt(MergeOptions::new().force(true)).unwrap();
            assert_eq!(report.live_entries, keys as u64);
        }))
    };
    let copies = || {
        let target = directory.path().join("target");
        let copy = rate(support::timed(|| copy(&source, &target, false)));
        // Data of the removed copy that is not on disk yet is never written.
        fs::remove_dir_all(&target).unwrap();
        let durable_copy = rate(support::timed(|| self::copy(&source, &target, true)));
        (copy, durable_copy)
    };
    let (merge, (copy, durable_copy)) = if at.is_multiple_of(2) {
        let merge = merge();
        (merge, copies())
    } else {
        let copies = copies();
        (merge(), copies)
    };
    Turn { merge, copy, durable_copy }
}

fn options() -> Options {
    support::options().merge_policy(MergePolicy::Manual)
}

fn load(store: &Path, value_size: usize, keys: usize, dead_percent: u64, seed: u64) {
    let db = Bitcask::open(store, options()).unwrap();
    let (order, value) = (keys::shuffled(keys, seed + 1), support::value(value_size));
    let mut random = keys::Random::new(seed + 2);
    let mut last_puts = 0;
    while let Some(rest) = order.get(last_puts..).filter(|rest| !rest.is_empty()) {
        // A key's earlier puts are dead from its next put on.
        let is_dead = random.below(100) < dead_percent;
        let at = if is_dead { random.below(rest.len() as u64) } else { 0 };
        last_puts += usize::from(!is_dead);
        db.put(rest[usize::try_from(at).unwrap()], &value).unwrap();
    }
    db.close().unwrap();
}

/// Writes files with this total size.
fn write_pieces(dir: &Path, size: u64) {
    fs::create_dir(dir).unwrap();
    let piece = support::value(PIECE);
    let mut left = usize::try_from(size).unwrap();
    for number in 0.. {
        let bytes = &piece[..left.min(PIECE)];
        let mut file = File::create(dir.join(format!("{number:04}"))).unwrap();
        file.write_all(bytes).unwrap();
        file.sync_all().unwrap();
        left -= bytes.len();
        if left == 0 {
            return;
        }
    }
}

fn copy(source: &Path, target: &Path, durable: bool) {
    fs::create_dir(target).unwrap();
    for piece in fs::read_dir(source).unwrap() {
        let piece = piece.unwrap();
        let copy = target.join(piece.file_name());
        fs::copy(piece.path(), &copy).unwrap();
        if durable {
            File::open(&copy).unwrap().sync_all().unwrap();
        }
    }
    if durable {
        File::open(target).unwrap().sync_all().unwrap();
    }
}
