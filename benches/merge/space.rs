//! Disk space of a store that is overwritten three times and merges automatically, and what the
//! merging costs its writer.
//!
//! - The policy is the default, except that it checks every 100 ms instead of every 3 minutes,
//!   because the whole run takes seconds. Everything else is the default, too: segments of 128 MiB,
//!   and a sync every second.
//! - The size is the disk space that the directory's files take, whether preallocated or written,
//!   sampled every 20 ms. It does not include removed files that are still mapped.
//! - A store is at rest once its directory has not changed for two seconds and it needs no merge.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bitcask::{AutoMerge, Bitcask, MergePolicy, Options};

use crate::support::{self, VALUE_SIZE, keys};
use crate::{median, met};

const CHECK_INTERVAL: Duration = Duration::from_millis(100);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
const OVERWRITES: u64 = 3;
/// Limit for the size at rest, as a multiple of the size of live keys and values.
const TARGET: f64 = 1.6;

/// The figures of one store.
#[derive(Debug, Default)]
struct Figures {
    /// Time of all overwrites.
    took: Duration,
    /// Sizes on disk: the largest one, and the one at rest.
    peak: u64,
    rest: u64,
    closed: u64,
    merges: u64,
}

pub(crate) fn run(keys: usize) {
    let rounds = if support::is_bench() { 3 } else { 1 };
    let mut measured: Vec<[Figures; 2]> = Vec::new();
    for round in 0..rounds {
        let mut figures = [Figures::default(), Figures::default()];
        for step in 0..2 {
            let at = (round + step) % 2;
            figures[at] = measure(keys, at == 1);
        }
        measured.push(figures);
    }
    let payload = (keys * (size_of::<keys::Key>() + VALUE_SIZE)) as f64;
    let ways = ["off", "on"];
    println!("\n### Space: everything overwritten {OVERWRITES} times, values of {VALUE_SIZE} B\n");
    println!(
        "| merging | overwrites per second | ratio | merges | peak, MiB | of live keys + values \
              | at rest, MiB | of live keys + values | target | met | closed, MiB |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- | ---: |");
    for (way, name) in ways.iter().enumerate() {
        let all =
            |figure: fn(&Figures) -> f64| median(measured.iter().map(|round| figure(&round[way])));
        let time = all(|figures| figures.took.as_secs_f64());
        let ratio = median(
            measured
                .iter()
                .map(|[off, on]| off.took.as_secs_f64() / [off, on][way].took.as_secs_f64()),
        );
        print!("| {name} | {:.0} | {ratio:.2}x ", (keys as u64 * OVERWRITES) as f64 / time);
        print!("| {:.0} ", all(|figures| figures.merges as f64));
        let [peak, rest, closed] = [
            all(|figures| figures.peak as f64),
            all(|figures| figures.rest as f64),
            all(|figures| figures.closed as f64),
        ];
        let mib = |size: f64| size / 1024.0 / 1024.0;
        print!(
            "| {:.0} | {:.2}x | {:.0} | {:.2}x ",
            mib(peak),
            peak / payload,
            mib(rest),
            rest / payload
        );
        match way {
            0 => print!("| - | - "),
            _ => print!("| <= {TARGET} | {} ", met(rest / payload <= TARGET)),
        }
        println!("| {:.0} |", mib(closed));
    }
}

fn measure(keys: usize, merging: bool) -> Figures {
    let directory = support::directory();
    let store = directory.path().join("store");
    let merges = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&merges);
    let auto = AutoMerge::new().check_interval(CHECK_INTERVAL).on_finish(move |result| {
        result.as_ref().unwrap();
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let policy = if merging { MergePolicy::Auto(auto) } else { MergePolicy::Manual };
    let value = support::value(VALUE_SIZE);
    let loading = keys::shuffled(keys, 1);
    let db = support::loaded(&store, Options::new().merge_policy(policy), &loading, &value);
    drop(loading);
    let (done, mut took) = (AtomicBool::new(false), Duration::ZERO);
    let (peak, rest) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Acquire) {
                peak = peak.max(size(&store));
                thread::sleep(LOOK_INTERVAL);
            }
            peak
        });
        for round in 0..OVERWRITES {
            let order = keys::shuffled(keys, round + 2);
            took += support::timed(|| order.iter().for_each(|key| db.put(key, &value).unwrap()));
        }
        wait_for_rest(&db, &store);
        done.store(true, Ordering::Release);
        (watcher.join().unwrap(), size(&store))
    });
    assert_eq!(db.len().unwrap(), keys as u64);
    db.close().unwrap();
    let merges = merges.load(Ordering::Relaxed);
    Figures { took, peak, rest, closed: size(&store), merges }
}

/// Returns the disk space that each file of a directory takes.
fn files(dir: &Path) -> BTreeMap<OsString, u64> {
    let size = |entry: fs::DirEntry| {
        // The file may have been removed since it was listed.
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some((entry.file_name(), metadata.blocks() * 512))
    };
    fs::read_dir(dir).unwrap().filter_map(|entry| size(entry.ok()?)).collect()
}

pub(crate) fn size(dir: &Path) -> u64 {
    files(dir).values().sum()
}

fn wait_for_rest(db: &Bitcask, store: &Path) {
    let looks = if support::is_bench() { 20 } else { 3 };
    let (mut quiet, mut last) = (0, files(store));
    while quiet < looks {
        thread::sleep(CHECK_INTERVAL);
        let now = files(store);
        let is_quiet = now == last && db.needs_merge().is_empty();
        quiet = if is_quiet { quiet + 1 } else { 0 };
        last = now;
    }
}
