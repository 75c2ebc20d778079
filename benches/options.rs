//! What each option costs and buys: the same work with one option changed at a time.
//!
//! ```sh
//! cargo bench --bench options                                         # a million keys
//! BITCASK_BENCH_KEYS=100_000 cargo bench --bench options -- segment   # fewer, of some settings
//! ```
//!
//! - The settings take turns within a round, the defaults among them. A ratio is the median of the
//!   ratios to the defaults of the same round.
//! - The work: all keys are put in random order, read at random, and overwritten in another order.
//!   Rates are in calls of one thread. Writes that wait for the disk are fewer.
//! - The disk space is what the closed store takes.

#![expect(clippy::unwrap_used, reason = "a benchmark fails loudly")]
#![expect(clippy::cast_precision_loss, reason = "printed figures do not need 53 bits")]
#![expect(clippy::indexing_slicing, reason = "an out-of-bounds index fails the bench")]

#[expect(dead_code, reason = "each bench uses a part of the module")]
mod support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bitcask::{
    AppendMode, AutoMerge, Background, Bitcask, History, MergePolicy, Options, SyncPolicy,
};

use support::keys;

const ROUNDS: usize = 3;
const VALUE: [u8; support::VALUE_SIZE] = [7; support::VALUE_SIZE];
/// Share of the keys that are written where each write waits for the disk.
const DURABLE_SHARE: usize = 200;

/// A setting: its name, and the options that it consists of.
type Setting = (&'static str, fn() -> Options);

const SETTINGS: [Setting; 14] = [
    ("the defaults", Options::new),
    ("`sync_policy(Never)`", || Options::new().sync_policy(SyncPolicy::Never)),
    ("`sync_policy(Interval)` of 100 ms", || {
        Options::new().sync_policy(SyncPolicy::Interval(Duration::from_millis(100)))
    }),
    ("`sync_policy(Always)`", || Options::new().sync_policy(SyncPolicy::Always)),
    ("`verify_reads(false)`", || Options::new().verify_reads(false)),
    ("`segment_size` of 16 MiB", || Options::new().segment_size(16 << 20)),
    ("`segment_size` of 512 MiB", || Options::new().segment_size(512 << 20)),
    ("`segment_entries` of 50,000", || Options::new().segment_entries(50_000)),
    ("`append_mode(Positioned)`", || Options::new().append_mode(AppendMode::Positioned)),
    ("`merge_policy(Manual)`", || Options::new().merge_policy(MergePolicy::Manual)),
    ("`AutoMerge` with a check every 100 ms", || {
        let eager = AutoMerge::new().check_interval(Duration::from_millis(100));
        Options::new().merge_policy(MergePolicy::Auto(eager))
    }),
    ("`keep_history` of an hour", || {
        Options::new().keep_history(History::Last(Duration::from_secs(3600)))
    }),
    ("`default_ttl` of an hour", || Options::new().default_ttl(Some(Duration::from_secs(3600)))),
    ("`background` of 2 threads", || Options::new().background(&Background::new(2).unwrap())),
];

/// What one store did: calls per second, and bytes on disk per key.
struct Figures {
    put: f64,
    get: f64,
    overwrite: f64,
    disk: f64,
}

fn rate(count: usize, work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    count as f64 / began.elapsed().as_secs_f64()
}

fn disk(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| entry.metadata().unwrap().blocks() * 512).sum()
}

fn measure(options: Options) -> Figures {
    let waits = options.get_sync_policy() == SyncPolicy::Always;
    let share = if waits { DURABLE_SHARE } else { 1 };
    let count = support::key_count().div_ceil(share);
    let orders = [1, 2].map(|seed| keys::shuffled(count, seed));
    let wanted = keys::uniform(count, support::key_count(), 3);
    let dir = support::directory();
    let db = Bitcask::open(dir.path(), options).unwrap();
    let write = |keys: &[keys::Key]| keys.iter().for_each(|key| db.put(key, VALUE).unwrap());
    let put = rate(count, || write(&orders[0]));
    let get = rate(wanted.len(), || {
        for key in &wanted {
            assert!(db.get_with(key, |value| value == VALUE).unwrap().unwrap());
        }
    });
    let overwrite = rate(count, || write(&orders[1]));
    db.close().unwrap();
    Figures { put, get, overwrite, disk: disk(dir.path()) as f64 / count as f64 }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |(at, (name, _)): &(usize, &Setting)| {
        *at == 0 || wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str()))
    };
    let settings: Vec<_> =
        SETTINGS.iter().enumerate().filter(is_wanted).map(|(_, setting)| setting).collect();
    let rounds: Vec<Vec<Figures>> = (0..ROUNDS)
        .map(|_| settings.iter().map(|(_, options)| measure(options())).collect())
        .collect();
    println!("\n### Each option, relative to the defaults; {} keys\n", support::key_count());
    println!("| setting | put | get | overwrite | disk |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    let parts: [fn(&Figures) -> f64; 4] =
        [|row| row.put, |row| row.get, |row| row.overwrite, |row| row.disk];
    for (at, (name, _)) in settings.iter().enumerate() {
        let ratio = |part: fn(&Figures) -> f64| {
            let of_round = |round: &Vec<Figures>| part(&round[at]) / part(&round[0]);
            median(rounds.iter().map(of_round).collect())
        };
        let [put, get, overwrite, disk] = parts.map(ratio);
        println!("| {name} | {put:.2}x | {get:.2}x | {overwrite:.2}x | {disk:.2}x |");
    }
    let absolute =
        |part: fn(&Figures) -> f64| median(rounds.iter().map(|round| part(&round[0])).collect());
    let [put, get, overwrite, disk] = parts.map(absolute);
    println!(
        "\nThe defaults: {put:.0} puts, {get:.0} gets and {overwrite:.0} overwrites a second, \
         {disk:.0} bytes per key."
    );
}
