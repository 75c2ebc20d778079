//! Memory per key: during a load, after it, and when the store is opened again.
//!
//! `cargo run --release --example memory [KEYS...]`. The default is 1,000,000 and 10,000,000 keys,
//! which needs 5 GB of disk space. The stores are created in temporary directories, so set `TMPDIR`
//! to a place with enough room.
//!
//! The figures count anonymous memory, which the kernel cannot reclaim: `Anonymous` of
//! `/proc/self/smaps_rollup`, minus the process's figure from before the store was opened. The
//! pages of the log are file-backed and not counted. Each row is measured in separate processes,
//! and each key is generated just before its put, so the figures contain nothing else. Fails if a
//! key takes far more memory than it should.

#![expect(clippy::cast_precision_loss, reason = "printed figures do not need 53 bits")]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use bitcask::{Bitcask, Options};

/// Sizes of keys, in bytes. Memory per key should not depend on them.
const KEY_SIZES: [usize; 2] = [16, 200];
const VALUE: [u8; 16] = [0xa5; 16];
/// Number of times that memory is sampled during a load.
const SAMPLES: u64 = 100;
/// Limits per key and per store, in bytes; exceeding them is a bug. Most of the store's share is
/// the hint of a full segment of small entries, which is built in memory when the segment is
/// sealed.
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

/// Prints a row for each combination of number and size of keys.
fn table(counts: &[u64]) -> Outcome<()> {
    if anonymous().is_err() {
        println!("skipped: this example reads Linux's memory figures");
        return Ok(());
    }
    println!("Anonymous memory in bytes per key:\n");
    println!("| keys | key size | mean | worst | worst, second half | loaded | opened again |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for count in counts {
        for size in KEY_SIZES {
            let directory = tempfile::tempdir()?;
            let path = directory.path().join("store");
            let path = path.to_str().ok_or("the temporary directory's name is not UTF-8")?;
            let (count, size) = (count.to_string(), size.to_string());
            let loaded = child(&["load", &count, &size, path])?;
            let opened = child(&["open", &count, path])?;
            println!("| {count} | {size} | {loaded} | {opened} |");
        }
    }
    Ok(())
}

/// Runs this program again, and returns its output.
fn child(arguments: &[&str]) -> Outcome<String> {
    let output = Command::new(std::env::current_exe()?).args(arguments).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Loads keys. Prints the memory per key: its mean over the load, its maximum, its maximum in the
/// second half, and its value at the end. At first, the store's fixed cost exceeds that of the
/// keys. The second half doubles the number of keys, and within a doubling every table grows once.
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
    println!("| {:.1}", samples.last().ok_or("there are no keys to measure")?);
    Ok(())
}

/// Opens a store, and prints the memory per key once the keydir is complete.
fn open(count: u64, path: &Path) -> Outcome<()> {
    let before = anonymous()?;
    let db = Bitcask::open(path, Options::default())?;
    assert_eq!(db.len()?, count);
    println!("{:.1}", cost(before, count)?);
    Ok(db.close()?)
}

/// Returns the current memory per key, in bytes.
fn cost(before: u64, keys: u64) -> Outcome<f64> {
    let size = anonymous()?.saturating_sub(before);
    let most = STORE_COST_MAX + KEY_COST_MAX * keys;
    assert!(size <= most, "{keys} keys take {size} bytes; the limit is {most}");
    Ok(size as f64 / keys as f64)
}

/// Returns the anonymous memory of this process, in bytes.
fn anonymous() -> Outcome<u64> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).ok_or("no such line")?;
    Ok(kib.trim().parse::<u64>()? << 10)
}
