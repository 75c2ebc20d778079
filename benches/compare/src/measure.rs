//! How much of something happened in how much time, and what it took of memory and disk.

use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Amount of work between two looks at the clock.
const STEP: u64 = 16;
/// How long files have to stay as they are, and for how long at most that is waited for.
const QUIET: Duration = Duration::from_secs(1);
const QUIET_LIMIT: Duration = Duration::from_mins(2);

/// Performs an act for each item until the time is up. Returns the acts per second.
pub(crate) fn rate<T>(
    items: impl IntoIterator<Item = T>,
    limit: Duration,
    mut act: impl FnMut(T),
) -> f64 {
    let (count, took) = counted(items, limit, |item| {
        act(item);
        1
    });
    count as f64 / took.as_secs_f64()
}

/// The same, but each act returns how much it did. Returns the sum and the time.
pub(crate) fn counted<T>(
    items: impl IntoIterator<Item = T>,
    limit: Duration,
    mut act: impl FnMut(T) -> u64,
) -> (u64, Duration) {
    let (started, mut sum, mut next) = (Instant::now(), 0, STEP);
    for item in items {
        sum += act(item);
        if sum >= next {
            if started.elapsed() >= limit {
                break;
            }
            next = sum + STEP;
        }
    }
    (sum, started.elapsed())
}

/// Runs a closure in several threads, passing each its number. It returns how much it did. Returns
/// the sum per second.
pub(crate) fn rate_in_threads(threads: u64, act: impl Fn(u64) -> u64 + Sync) -> f64 {
    let (ready, go) = (Barrier::new(threads as usize + 1), Barrier::new(threads as usize + 1));
    let (mut started, act, sum) = (Instant::now(), &act, AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..threads {
            let (ready, go, sum) = (&ready, &go, &sum);
            scope.spawn(move || {
                ready.wait();
                go.wait();
                sum.fetch_add(act(number), Ordering::Relaxed);
            });
        }
        ready.wait();
        started = Instant::now();
        go.wait();
    });
    sum.into_inner() as f64 / started.elapsed().as_secs_f64()
}

pub(crate) fn seconds(act: impl FnOnce()) -> f64 {
    let started = Instant::now();
    act();
    started.elapsed().as_secs_f64()
}

/// The resident memory of this process in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) anonymous: u64,
    /// Pages of mapped files, which the kernel can drop.
    pub(crate) file: u64,
}

impl Memory {
    pub(crate) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
        };
        Self { anonymous: of("RssAnon:"), file: of("RssFile:") + of("RssShmem:") }
    }

    pub(crate) fn since(self, base: Self) -> Self {
        let anonymous = self.anonymous.saturating_sub(base.anonymous);
        Self { anonymous, file: self.file.saturating_sub(base.file) }
    }
}

/// Returns the disk space that the files below a directory take, in bytes.
pub(crate) fn disk_size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(path) else {
        return std::fs::metadata(path).map_or(0, |file| file.blocks() * 512);
    };
    entries.filter_map(Result::ok).map(|entry| disk_size(&entry.path())).sum()
}

/// Waits until the files below a directory no longer change in size. Background work goes on for a
/// while after the last write.
pub(crate) fn wait_until_quiet(path: &Path) {
    let started = Instant::now();
    let (mut size, mut since) = (disk_size(path), Instant::now());
    while since.elapsed() < QUIET && started.elapsed() < QUIET_LIMIT {
        std::thread::sleep(Duration::from_millis(50));
        let now = disk_size(path);
        if now != size {
            (size, since) = (now, Instant::now());
        }
    }
}
