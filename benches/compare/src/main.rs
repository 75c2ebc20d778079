//! Ordered reads and snapshots, compared with LMDB, redb and fjall in one run.
//!
//! `cargo run --release --manifest-path benches/compare/Cargo.toml -- [KEYS] [DIRECTORY]`. The
//! default is ten million keys of 16 bytes with values of 100, loaded in random order. Each figure
//! is the median of five rounds; in each round the stores take turns.

#![expect(clippy::unwrap_used, reason = "a bench whose setup fails has failed")]

mod stores;

use std::time::Instant;

use stores::Store;

const ROUNDS: usize = 5;
const VALUE_SIZE: usize = 100;
/// Number of keys that share the first 12 bytes.
const GROUP_LEN: u64 = 100;
/// Number of pairs in a scan. A longer scan would show nothing more.
const SCAN_LEN: usize = 2_000_000;
const PREFIXES: u64 = 2_000;
const SNAPSHOTS: u64 = 10_000;

/// A permutation of all numbers (the finalizer of Appleby's MurmurHash3), so that keys that are
/// adjacent in order were not written consecutively.
fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    number = (number ^ (number >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ (number >> 33)
}

fn key(group: u64, member: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mixed(group).to_be_bytes());
    key[8..12].copy_from_slice(b"/key");
    key[12..].copy_from_slice(&u32::try_from(member).unwrap().to_be_bytes());
    key
}

fn keys(count: u64) -> Vec<[u8; 16]> {
    let mut order: Vec<u64> = (0..count).collect();
    order.sort_unstable_by_key(|number| mixed(number ^ 0x5555_5555));
    order.into_iter().map(|number| key(number / GROUP_LEN, number % GROUP_LEN)).collect()
}

/// A measurement, in nanoseconds per counted item.
struct Row {
    name: &'static str,
    run: fn(&dyn Store, groups: u64, round: u64) -> u64,
}

const ROWS: [Row; 5] = [
    Row { name: "ordered scan, a pair", run: |store, _, _| store.scan(SCAN_LEN) as u64 },
    Row { name: "reverse scan, a pair", run: |store, _, _| store.scan_back(SCAN_LEN) as u64 },
    Row {
        name: "ordered scan of keys, a key",
        run: |store, _, _| store.scan_keys(SCAN_LEN) as u64,
    },
    Row {
        name: "prefix scan of 100 keys, a scan",
        run: |store, groups, round| {
            for number in 0..PREFIXES {
                let group = mixed(number ^ round << 40) % groups;
                let found = store.prefix(&key(group, 0)[..12]);
                assert_eq!(found as u64, GROUP_LEN);
            }
            PREFIXES
        },
    },
    Row {
        name: "snapshot with one get, a snapshot",
        run: |store, groups, round| {
            for number in 0..SNAPSHOTS {
                store.snapshot(&key(mixed(number ^ round << 40) % groups, number % GROUP_LEN));
            }
            SNAPSHOTS
        },
    },
];

#[expect(clippy::cast_precision_loss, reason = "printed figures do not need 53 bits")]
fn main() {
    let mut arguments = std::env::args().skip(1);
    let count: u64 =
        arguments.next().map_or(10_000_000, |count| count.replace('_', "").parse().unwrap());
    let directory = match arguments.next() {
        Some(directory) => tempfile::tempdir_in(directory),
        None => tempfile::tempdir(),
    };
    let directory = directory.unwrap();
    let count = count / GROUP_LEN * GROUP_LEN;
    let (keys, value) = (keys(count), vec![7; VALUE_SIZE]);
    let mut stores = stores::all(directory.path());
    println!("{count} keys");
    for store in &mut stores {
        let started = Instant::now();
        store.load(&keys, &value);
        let loaded = started.elapsed().as_secs_f64();
        store.settle();
        let settled = started.elapsed().as_secs_f64() - loaded;
        // Bitcask sorts its keys at the first ordered read.
        let started = Instant::now();
        store.prefix(&key(0, 0)[..12]);
        let first = started.elapsed().as_secs_f64();
        println!(
            "{}: loaded in {loaded:.1} s, settled in {settled:.1} s, first scan {first:.3} s",
            store.name()
        );
    }
    drop(keys);
    // Waits for indexes that bitcask writes in the background.
    std::thread::sleep(std::time::Duration::from_secs(count / 1_000_000 + 2));

    println!(
        "\n| ns | {} |",
        stores.iter().map(|store| store.name()).collect::<Vec<_>>().join(" | ")
    );
    println!("| --- |{}", " ---: |".repeat(stores.len()));
    for row in ROWS {
        let mut times = vec![Vec::new(); stores.len()];
        for round in 0..ROUNDS {
            for (store, times) in stores.iter().zip(&mut times) {
                let started = Instant::now();
                let len = (row.run)(store.as_ref(), count / GROUP_LEN, round as u64);
                times.push(started.elapsed().as_nanos() as f64 / len as f64);
            }
        }
        let medians = times.iter_mut().map(|times| {
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        });
        let cells: Vec<String> = medians.map(|median| format!("{median:.0}")).collect();
        println!("| {} | {} |", row.name, cells.join(" | "));
    }
}
