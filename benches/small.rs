//! The cost of small stores: memory, threads, descriptors, mappings and disk space per store, as
//! the mean of a hundred stores. Then the cost of three hundred idle stores, with their own threads
//! and with shared ones.
//!
//! `cargo bench --bench small`. A busy machine affects only the processor time of idle stores,
//! since no other figure is a time. Linux only: the figures come from `/proc`.

#![expect(clippy::unwrap_used, reason = "a bench whose setup fails has failed")]

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use bitcask::{Background, Bitcask, Options};

/// Number of stores that are open at the same time.
const STORES: u64 = 100;
/// Number of idle stores that are open at the same time.
const IDLE_STORES: u64 = 300;
/// Number of keys in each of them.
const IDLE_KEYS: u64 = 600;
/// Time after which a store is at rest, and time for which it is then watched.
const REST: Duration = Duration::from_secs(20);
/// Name of the environment variable with the number of keys per store, for a child process.
const KEYS: &str = "BITCASK_BENCH_KEYS";
/// Name of the environment variable with the number of shared threads, for a child process with
/// idle stores. 0 means that each store has its own.
const SHARED: &str = "BITCASK_BENCH_SHARED";
/// Size of each value, in bytes.
const VALUE_SIZE: usize = 50;

/// The resources that the process uses.
#[derive(Debug, Clone, Copy)]
struct Usage {
    /// Anonymous memory, in bytes.
    memory: u64,
    threads: u64,
    descriptors: u64,
    mappings: u64,
}

impl Usage {
    fn now() -> Self {
        // Work that background threads still have to do for stores that were just opened or written
        // is part of the cost.
        thread::sleep(Duration::from_secs(2));
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        Self {
            memory: field("RssAnon:") << 10,
            threads: field("Threads:"),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count() as u64,
            mappings: fs::read_to_string("/proc/self/maps").unwrap().lines().count() as u64,
        }
    }
}

/// Returns the disk space that the files of a directory take, in bytes.
fn disk_space(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
}

fn print(what: &str, keys: u64, before: Usage, disk: u64) {
    let now = Usage::now();
    let each = |now: u64, before: u64| now.saturating_sub(before).div_ceil(STORES);
    println!(
        "| {what}, {keys} keys | {} KiB | {} | {} | {} | {} KiB |",
        each(now.memory, before.memory) >> 10,
        each(now.threads, before.threads),
        each(now.descriptors, before.descriptors),
        each(now.mappings, before.mappings),
        disk >> 10
    );
}

fn measure(keys: u64) {
    let home = tempfile::tempdir().unwrap();
    let path = |number: u64| home.path().join(number.to_string());
    let open = || -> Vec<Bitcask> {
        (0..STORES).map(|number| Bitcask::open(path(number), Options::default()).unwrap()).collect()
    };
    let before = Usage::now();
    let stores = open();
    for db in &stores {
        for key in 0..keys {
            db.put(key.to_be_bytes(), [7; VALUE_SIZE]).unwrap();
        }
    }
    print("open since its creation", keys, before, disk_space(&path(0)));
    for db in stores {
        db.close().unwrap();
    }
    // Memory that the allocator keeps from closed stores is available to whatever the process does
    // next.
    println!("| closed, {keys} keys | - | 0 | 0 | 0 | {} KiB |", disk_space(&path(0)) >> 10);
    let before = Usage::now();
    let stores = open();
    print("reopened", keys, before, disk_space(&path(0)));
    drop(stores);
}

/// Returns the processor time that this process has used, in nanoseconds, and how often its threads
/// have gone to sleep.
fn activity() -> (u64, u64) {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let of_task = |task: &Path| {
        let times = fs::read_to_string(task.join("schedstat")).unwrap();
        let status = fs::read_to_string(task.join("status")).unwrap();
        let sleeps = status.lines().find(|line| line.starts_with("voluntary_ctxt")).unwrap();
        let number = |text: &str, at| text.split_whitespace().nth(at).unwrap().parse::<u64>();
        (number(&times, 0).unwrap(), number(sleeps, 1).unwrap())
    };
    let each = tasks.map(|task| of_task(&task.unwrap().path()));
    each.fold((0, 0), |(time, sleeps), (more_time, more)| (time + more_time, sleeps + more))
}

/// Measures stores that do nothing, with shared threads or without.
fn measure_idle(shared: usize) {
    let home = tempfile::tempdir().unwrap();
    let before = Usage::now();
    let (mut options, mut what) = (Options::default(), "four threads for each".to_owned());
    if shared > 0 {
        options = options.background(&Background::new(shared).unwrap());
        what = format!("`Background::new({shared})`");
    }
    let open = |number: u64| options.clone().open(home.path().join(number.to_string())).unwrap();
    let stores: Vec<Bitcask> = (0..IDLE_STORES).map(open).collect();
    for db in &stores {
        for key in 0..IDLE_KEYS {
            db.put(key.to_be_bytes(), [7; VALUE_SIZE]).unwrap();
        }
    }
    thread::sleep(REST);
    let (time, sleeps) = activity();
    thread::sleep(REST);
    let (later, sleeps_later) = activity();
    let now = Usage::now();
    println!(
        "| {what} | {} | {} MiB | {} | {} us | {} |",
        now.threads - before.threads,
        (now.memory - before.memory) >> 20,
        now.descriptors - before.descriptors,
        (later - time) / 1_000 / REST.as_secs(),
        (sleeps_later - sleeps) / REST.as_secs()
    );
    drop(stores);
}

/// Measures each number of keys in a separate process, because memory that the allocator kept from
/// one measurement would be missing in the next.
fn main() {
    if let Ok(keys) = env::var(KEYS) {
        return measure(keys.parse().unwrap());
    }
    if let Ok(shared) = env::var(SHARED) {
        return measure_idle(shared.parse().unwrap());
    }
    println!("| one store | memory | threads | descriptors | mappings | disk |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for keys in [0, 600, 5_000] {
        let mut child = Command::new(env::current_exe().unwrap());
        assert!(child.env(KEYS, keys.to_string()).status().unwrap().success());
    }
    println!();
    println!("| {IDLE_STORES} idle stores | threads | memory | descriptors | CPU/s | wakes/s |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for shared in [0, 1, 2, 4] {
        let mut child = Command::new(env::current_exe().unwrap());
        assert!(child.env(SHARED, shared.to_string()).status().unwrap().success());
    }
}
