//! `bench`: a quick workload on a scratch store.
//!
//! It shows what a machine and a disk can do with given settings. It proves little else: other
//! programs run meanwhile, and the data fit in memory.

#[cfg(feature = "plots")]
mod plot;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bitcask::Bitcask;
use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::{self, StoppableWork};
use crate::output::{Figure, Format};
use crate::program::Program;
use crate::progress::Progress;
use crate::{open, units};

/// The scratch store is opened with the settings, so `BITCASK_SYNC=always bitcask bench` shows
/// what durable writes cost. It is removed in the end. No other store is touched.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Number of keys.
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys: u32,
    /// Size of each value.
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = value_size)]
    value_size: u64,
    /// Directory in which the scratch store is made [default: the directory for temporary files].
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Draws the latencies to this file, as SVG.
    #[cfg(feature = "plots")]
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// Largest value of the workload, in bytes.
const VALUE_SIZE_MAX: u64 = 64 << 20;

fn value_size(text: &str) -> Result<u64, String> {
    let size = units::size(text)?;
    if size <= VALUE_SIZE_MAX { Ok(size) } else { Err("at most 64MiB".into()) }
}

/// How long each call of one kind took.
#[derive(Debug)]
struct Series {
    name: &'static str,
    /// In nanoseconds, sorted.
    latencies: Vec<u64>,
    total: Duration,
}

impl Series {
    /// Returns the latency that a share of the calls did not exceed.
    fn quantile(&self, share: f64) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank among at most ten million, and from 0"
        )]
        let rank = (share * self.latencies.len() as f64).ceil() as usize;
        let last = self.latencies.len().saturating_sub(1);
        let nanos = self.latencies.get(rank.saturating_sub(1).min(last)).copied();
        Duration::from_nanos(nanos.unwrap_or(0))
    }

    fn row(&self) -> Vec<Figure> {
        let rate = self.latencies.len() as u128 * 1_000_000_000 / self.total.as_nanos().max(1);
        let rate = Figure::Rate(u64::try_from(rate).unwrap_or(u64::MAX));
        let quantiles = [0.5, 0.99, 0.999, 1.0].map(|share| Figure::Time(self.quantile(share)));
        let count = Figure::Count(self.latencies.len() as u64);
        let head = [Figure::Text(self.name.to_owned()), count, rate];
        head.into_iter().chain(quantiles).collect()
    }
}

const HEADINGS: [&str; 7] = ["operation", "count", "rate", "median", "p99", "p99.9", "max"];

pub(crate) fn run(args: &BenchArgs, program: &mut Program) -> Result<Exit, Failure> {
    let parent = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = Scratch::new(&parent)?;
    let options = program.settings()?.options()?;
    let all = {
        let _stoppable = StoppableWork::begin();
        let db = open::create_at(&scratch.0, options)?;
        let all = workload(&db, args)?;
        db.close()?;
        all
    };
    drop(scratch);
    let rows: Vec<_> = all.iter().map(Series::row).collect();
    program.printer(Format::Table)?.table(&HEADINGS, &rows)?;
    #[cfg(feature = "plots")]
    if let Some(path) = &args.plot {
        plot::draw(path, &all)?;
    }
    Ok(Exit::Done)
}

/// Runs all operations, each on all keys.
fn workload(db: &Bitcask, args: &BenchArgs) -> Result<Vec<Series>, Failure> {
    let (keys, mut value) = (args.keys, vec![0; usize::try_from(args.value_size).unwrap_or(0)]);
    for (byte, random) in value.iter_mut().zip(0_u32..) {
        // Bytes that do not compress well.
        *byte = random.wrapping_mul(2_654_435_761).to_be_bytes()[0];
    }
    let absent = |number: u32| [key(number).as_slice(), b"?"].concat();
    Ok(vec![
        measure("put", keys, |number| db.put(key(number), &value))?,
        measure("overwrite", keys, |number| db.put(key(scattered(number, keys)), &value))?,
        measure("get", keys, |number| {
            db.get_with(key(scattered(number, keys)), <[u8]>::len).map(drop)
        })?,
        measure("get absent", keys, |number| db.get_with(absent(number), <[u8]>::len).map(drop))?,
        measure("delete", keys, |number| db.delete(key(scattered(number, keys))).map(drop))?,
    ])
}

/// Returns the key of a number.
fn key(number: u32) -> [u8; 12] {
    let mut key = *b"key:00000000";
    for (digit, byte) in key.iter_mut().skip(4).rev().enumerate() {
        let power = 10_u32.pow(u32::try_from(digit).unwrap_or(0));
        *byte = b'0' + u8::try_from(number / power % 10).unwrap_or(0);
    }
    key
}

/// Returns the numbers below a count in an order that jumps about, each once.
fn scattered(number: u32, count: u32) -> u32 {
    // A prime above the largest count has no divisor in common with any count.
    const PRIME: u64 = 2_654_435_761;
    u32::try_from(u64::from(number) * PRIME % u64::from(count)).unwrap_or(0)
}

fn measure(
    name: &'static str,
    count: u32,
    mut call: impl FnMut(u32) -> bitcask::Result<()>,
) -> Result<Series, Failure> {
    let progress = Progress::counting(name, Some(u64::from(count)));
    let mut latencies = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    let started = Instant::now();
    let mut last = started;
    for number in 0..count {
        if number % 1024 == 0 {
            interrupt::check()?;
            progress.set(u64::from(number));
            last = Instant::now();
        }
        call(number)?;
        let now = Instant::now();
        latencies.push(u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX));
        last = now;
    }
    let total = started.elapsed();
    latencies.sort_unstable();
    Ok(Series { name, latencies, total })
}

/// A directory that is removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Self, Failure> {
        let path = parent.join(format!("bitcask-bench-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| Failure::file("create", &path, &error))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_is_used_once() {
        for count in [1, 7, 1000] {
            let numbers: BTreeSet<u32> = (0..count).map(|at| scattered(at, count)).collect();
            assert_eq!(numbers.len(), count as usize);
        }
        assert_eq!(&key(1_234_567), b"key:01234567");
    }

    #[test]
    fn quantiles_are_latencies_that_occurred() {
        let latencies = (1..=100).collect();
        let series = Series { name: "put", latencies, total: Duration::from_secs(1) };
        let nanos = |share| series.quantile(share).as_nanos();
        assert_eq!([nanos(0.5), nanos(0.99), nanos(0.999), nanos(1.0)], [50, 99, 100, 100]);
    }
}
