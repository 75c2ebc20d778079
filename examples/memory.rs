//! How much memory a key takes: while it is loaded, after that, and when the store is opened again.
//!
//! `cargo run --release --example memory [KEYS...]`, by default 1,000,000 and 10,000,000, which
//! needs 5 GB of disk. The stores go into temporary directories, so set `TMPDIR` to a place with
//! room.
//!
//! Counted is anonymous memory, which the kernel can't take back: `Anonymous` of
//! `/proc/self/smaps_rollup`, less what the process had before the store was opened. The pages of
//! the log are file-backed. Each row has processes of its own, and keys are made as they are put,
//! so nothing else is in the figures. Fails if a key takes far more than it should.

#![expect(clippy::cast_precision_loss, reason = "figures for people need no 53 bits")]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use bitcask::{Bitcask, Options};

/// The sizes of keys. What they take should not depend on it.
const KEY_SIZES: [usize; 2] = [16, 200];
const VALUE: [u8; 16] = [0xa5; 16];
/// Memory is looked at so often during a load.
const SAMPLES: u64 = 100;
/// More than this for each key, and this for the store, is a bug. The store's part is mostly the
/// hint of a full segment of small entries, which is made in memory while it is sealed.
const KEY_COST_MAX: u64 = 32;
const STORE_COST_MAX: u64 = 64 << 20;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["load", keys, size, path] => load(keys.parse()?, size.parse()?, Path::new(path)),
        ["open", keys, path] => open(keys.parse()?, Path::new(path)),
        [] => table(&[1_000_000, 10_000_000]),
        keys => {
            let number = |keys: &&str| keys.replace('_', "").parse();
            table(&keys.iter().map(number).collect::<Result<Vec<u64>, _>>()?)
        }
    }
}

/// Prints a row for each number and size of keys.
fn table(counts: &[u64]) -> Outcome<()> {
    if anonymous().is_err() {
        println!("memory is counted as Linux counts it, so there is nothing to see here");
        return Ok(());
    }
    println!("Anonymous memory in bytes a key:\n");
    println!("| keys | key size | mean | worst | worst, second half | loaded | opened again |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for count in counts {
        for size in KEY_SIZES {
            let directory = tempfile::tempdir()?;
            let path = directory.path().join("store");
            let path = path.to_str().ok_or("the temporary directory has a strange name")?;
            let (count, size) = (count.to_string(), size.to_string());
            let loaded = child(&["load", &count, &size, path])?;
            let opened = child(&["open", &count, path])?;
            println!("| {count} | {size} | {loaded} | {opened} |");
        }
    }
    Ok(())
}

/// Runs this program again, and returns what it printed.
fn child(arguments: &[&str]) -> Outcome<String> {
    let output = Command::new(std::env::current_exe()?).args(arguments).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Loads keys, and prints the mean over the load, the worst moment, the worst of the second half,
/// and the end. At first the store costs more than the keys do; within a doubling every table has
/// grown once.
fn load(count: u64, size: usize, path: &Path) -> Outcome<()> {
    let mut key = vec![0; size];
    let mut samples = Vec::with_capacity(usize::try_from(SAMPLES)?);
    let step = count.div_ceil(SAMPLES).max(1);
    let before = anonymous()?;
    let db = Bitcask::open(path, Options::default())?;
    for number in 0..count {
        key.splice(..8, number.to_be_bytes());
        db.put(&key, VALUE)?;
        let done = number + 1;
        if done % step == 0 || done == count {
            samples.push(cost(before, done)?);
        }
    }
    db.close()?;
    let mean = samples.iter().sum::<f64>() / samples.len() as f64;
    let worst = |samples: &[f64]| samples.iter().copied().fold(0.0, f64::max);
    let (_, late) = samples.split_at(samples.len() / 2);
    print!("{mean:.1} | {:.1} | {:.1} ", worst(&samples), worst(late));
    println!("| {:.1}", samples.last().ok_or("no keys, no figures")?);
    Ok(())
}

/// Opens a store, and prints what a key takes when all of them are known.
fn open(count: u64, path: &Path) -> Outcome<()> {
    let before = anonymous()?;
    let db = Bitcask::open(path, Options::default())?;
    assert_eq!(db.len()?, count);
    println!("{:.1}", cost(before, count)?);
    Ok(db.close()?)
}

/// Returns the memory that each of so many keys takes now, in bytes.
fn cost(before: u64, keys: u64) -> Outcome<f64> {
    let size = anonymous()?.saturating_sub(before);
    let most = STORE_COST_MAX + KEY_COST_MAX * keys;
    assert!(size <= most, "{keys} keys take {size} bytes, which is more than {most}");
    Ok(size as f64 / keys as f64)
}

/// Returns the anonymous memory of this process, in bytes.
fn anonymous() -> Outcome<u64> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).ok_or("no such line")?;
    Ok(kib.trim().parse::<u64>()? << 10)
}
