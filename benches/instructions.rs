//! Instructions that each operation takes, under callgrind, compared with the figures in
//! `benches/instructions.txt`. Unlike times, they hardly depend on the machine, busy or not.
//!
//! ```text
//! cargo bench --bench instructions                                # fails if one is 15 % higher
//! BITCASK_WRITE_INSTRUCTIONS=1 cargo bench --bench instructions   # writes the figures anew
//! ```
//!
//! - Each operation runs in two processes. Both prepare a store, and only one performs the
//!   operations. The figure is the difference, divided by their number. It includes what background
//!   threads do meanwhile.
//! - Where valgrind is missing or does not run, the bench prints that, and does not fail.

#![expect(clippy::unwrap_used, reason = "a bench whose setup fails has failed")]

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, exit};
use std::thread;
use std::time::Duration;

use bitcask::{Batch, Bitcask, MergeOptions, MergePolicy, Options, SyncPolicy};

/// Number of operations, and of keys in the store.
const COUNT: u64 = 20_000;
/// Number of keys in a batch.
const BATCH_LEN: u64 = 10;
/// Size of each value, in bytes.
const VALUE: [u8; 100] = [7; 100];
/// Percentage of the written figure that a measured one may reach.
const PERCENT_MAX: u64 = 115;

/// Name of the environment variable with the operation, for a child process.
const OPERATION: &str = "BITCASK_BENCH_OPERATION";
/// Name of the environment variable that tells a child process to prepare only, if it is set.
const PREPARE_ONLY: &str = "BITCASK_BENCH_PREPARE_ONLY";

/// What is measured: its name, how to prepare the store, and the operations.
type Operation = (&'static str, fn(PathBuf) -> Bitcask, fn(&Bitcask));

const OPERATIONS: [Operation; 7] = [
    ("get of a key", loaded, |db| {
        each(|number| assert!(black_box(db.get(key(number)).unwrap()).is_some()));
    }),
    ("get of an absent key", loaded, |db| {
        each(|number| assert!(black_box(db.get(key(COUNT + number)).unwrap()).is_none()));
    }),
    ("put of a new key", loaded, |db| each(|number| db.put(key(COUNT + number), VALUE).unwrap())),
    ("put of an existing key", loaded, |db| each(|number| db.put(key(number), VALUE).unwrap())),
    ("delete", loaded, |db| each(|number| assert!(db.delete(key(number)).unwrap()))),
    ("batched put of an existing key", loaded, |db| {
        let mut batch = Batch::new();
        each(|number| {
            batch.put(key(number), VALUE);
            if batch.len() as u64 == BATCH_LEN {
                db.write(&batch).unwrap();
                batch.clear();
            }
        });
    }),
    ("merge, for each live entry", half_dead, |db| {
        let report = db.merge_opt(MergeOptions::new().force(true)).unwrap();
        assert_eq!(report.live_entries, COUNT);
    }),
];

/// Returns a key that is the same in every run.
fn key(number: u64) -> [u8; 16] {
    // Consecutive keys differ in all bytes, as those of most programs do not.
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (u128::from(number) << 64 | u128::from(mixed)).to_be_bytes()
}

fn each(mut operation: impl FnMut(u64)) {
    (0..COUNT).for_each(&mut operation);
}

fn options() -> Options {
    Options::new().sync_policy(SyncPolicy::Never).merge_policy(MergePolicy::Manual)
}

/// Returns a store with `COUNT` keys, all of which are loaded.
fn loaded(path: PathBuf) -> Bitcask {
    let db = options().open(path).unwrap();
    each(|number| db.put(key(number), VALUE).unwrap());
    db
}

/// Returns a store with a sealed segment, half of which is dead.
fn half_dead(path: PathBuf) -> Bitcask {
    let db = loaded(path.clone());
    each(|number| db.put(key(number), VALUE).unwrap());
    db.close().unwrap();
    let db = options().open(path).unwrap();
    // A call that needs keys would load them beside the background thread, and both might load the
    // same ones. How many they are would differ from run to run. To ask takes instructions too.
    while db.stats().unfilled_shards > 0 {
        thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(db.len().unwrap(), COUNT);
    db
}

/// Runs one operation in this process, which callgrind watches.
fn run(name: &str) -> ! {
    let (_, prepare, operate) = OPERATIONS.into_iter().find(|(known, ..)| *known == name).unwrap();
    let home = tempfile::tempdir().unwrap();
    let db = prepare(home.path().join("store"));
    if env::var_os(PREPARE_ONLY).is_none() {
        operate(&db);
    }
    fs::remove_dir_all(home.path()).unwrap();
    // Closing the store is no part of any operation.
    exit(0)
}

/// Returns a command that runs a program under callgrind.
fn callgrind() -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind
}

/// Returns the number of instructions that a child process takes.
fn count(name: &str, prepare_only: bool) -> u64 {
    let mut valgrind = callgrind();
    valgrind.arg(env::current_exe().unwrap()).env(OPERATION, name);
    if prepare_only {
        valgrind.env(PREPARE_ONLY, "1");
    }
    let output = valgrind.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected :")).unwrap();
    collected.1.trim().parse().unwrap()
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt")
}

/// Returns the figures that were written last, by operation.
fn written() -> BTreeMap<String, u64> {
    let text = fs::read_to_string(file()).unwrap_or_default();
    let figure = |line: &str| {
        let (name, count) = line.rsplit_once(": ")?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    text.lines().filter_map(figure).collect()
}

fn main() -> ExitCode {
    if let Ok(name) = env::var(OPERATION) {
        run(&name);
    }
    // `cargo test --benches` omits the argument, and only checks that the bench runs.
    if !env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let has_callgrind = callgrind().arg("true").output();
    if !has_callgrind.is_ok_and(|output| output.status.success()) {
        println!("not measured: valgrind is not installed, or cannot run on this machine");
        return ExitCode::SUCCESS;
    }
    let (written, mut text, mut too_many) = (written(), String::new(), Vec::new());
    println!("| operation | instructions | before |\n| --- | ---: | ---: |");
    for (name, ..) in OPERATIONS {
        let now = count(name, false).saturating_sub(count(name, true)) / COUNT;
        let before = written.get(name).copied();
        println!("| {name} | {now} | {} |", before.map_or("-".to_owned(), |it| it.to_string()));
        writeln!(text, "{name}: {now}").unwrap();
        if before.is_some_and(|before| now * 100 > before * PERCENT_MAX) {
            too_many.push(name);
        }
    }
    if env::var_os("BITCASK_WRITE_INSTRUCTIONS").is_some() {
        fs::write(file(), text).unwrap();
    } else if !too_many.is_empty() {
        println!("\nmore than {PERCENT_MAX} % of the instructions before: {}", too_many.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
