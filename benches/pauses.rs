//! Durations of single calls: percentiles and maxima of many puts and gets.
//!
//! ```sh
//! cargo bench --bench pauses                               # 2M puts and as many gets
//! cargo bench --bench pauses -- 20000000                   # another number
//! cargo bench --bench pauses -- 20000000 1000000           # of this many keys, over and over
//! cargo bench --bench pauses -- 20000000 1000000 /a/place  # in a directory of your choice
//! ```
//!
//! - Each put is of the next key, and each get of a random earlier one. The keys have 16 bytes and
//!   are made beforehand; the values have 100. New keys make the keydir grow, others do not.
//! - Each call is timed by two readings of `Instant`, about 25 ns apart, which are part of every
//!   figure.
//! - For a long call, the output lists what else has happened since the last sample of the store
//!   and the thread, which is at most `LOOK_EVERY` calls earlier. This hints at the cause but
//!   proves nothing.
//! - A second line counts the same calls without the time for which other threads had the
//!   processors, which is the machine's doing. That time is subtracted only from long calls.
//! - *nothing* is a fixed calculation that takes about as long as a call, timed between the calls.
//!   Its figures show the effect of the machine, too.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails loudly")]
#![expect(clippy::cast_precision_loss, reason = "printed figures do not need 53 bits")]

#[expect(dead_code, reason = "each bench uses a part of the module")]
mod support;

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use bitcask::{Bitcask, Options};

use support::histogram::{Histogram, nothing};

/// Minimum duration of a call that is examined.
const LONG: Duration = Duration::from_micros(200);
const LOOK_EVERY: u64 = 4096;
const WORST_SHOWN: usize = 16;
const VALUE: [u8; 100] = [7; 100];

/// The observable state of the store and of this thread, outside of a call.
#[derive(Default, Clone, Copy)]
struct Look {
    segments: u64,
    syncs: u64,
    sealed: u64,
    keydir_size: u64,
    files_size: u64,
    /// Number of times that this thread waited, and that it was preempted.
    waits: u64,
    preemptions: u64,
    /// Time that this thread was ready to run while another one ran, in nanoseconds.
    run_delay: u64,
    faults: u64,
}

impl Look {
    fn around(db: &Bitcask) -> Self {
        let stats = db.stats();
        let files = std::fs::read_dir(db.path()).unwrap().filter_map(|entry| {
            let entry = entry.ok().filter(|entry| is_log(&entry.path()))?;
            Some(entry.metadata().ok()?.len())
        });
        let read = |name| std::fs::read_to_string(name).unwrap_or_default();
        let thread = read("/proc/thread-self/status");
        let switches = |name: &str| {
            let line = thread.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
        };
        let word = |text: &str, at| {
            text.split_whitespace().nth(at).and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        Self {
            segments: stats.segments,
            syncs: stats.syncs,
            sealed: stats.sealed_segments,
            keydir_size: stats.keydir_size,
            files_size: files.sum(),
            waits: switches("voluntary_ctxt_switches:"),
            preemptions: switches("nonvoluntary_ctxt_switches:"),
            run_delay: word(&read("/proc/thread-self/schedstat"), 1),
            faults: word(&read("/proc/thread-self/stat"), 9),
        }
    }
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

/// A long call, with the states before and after it.
struct Long {
    call: &'static str,
    number: u64,
    took: Duration,
    /// Duration without the time that the thread waited for a processor.
    running: Duration,
    before: Look,
    after: Look,
}

impl fmt::Display for Long {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, number, took, running, before, after } = self;
        let [took, running] = [took, running].map(|time| time.as_secs_f64() * 1e3);
        write!(f, "{running:>8.3} of {took:>8.3} ms  {call} {number}:")?;
        let mut tell = |what, is_so| if is_so { write!(f, " {what},") } else { Ok(()) };
        tell("rotation", after.segments > before.segments)?;
        tell("file grown or created", after.files_size > before.files_size)?;
        tell("segment sealed", after.sealed > before.sealed)?;
        tell("sync ended", after.syncs > before.syncs)?;
        tell("keydir grown", after.keydir_size != before.keydir_size)?;
        let (waits, preemptions) =
            (after.waits - before.waits, after.preemptions - before.preemptions);
        let faults = after.faults - before.faults;
        write!(f, " {waits} waits, {preemptions} preemptions, {faults} faults")
    }
}

struct Run {
    db: Bitcask,
    /// For each kind of call, the durations in total and without waits for a processor.
    puts: [Histogram; 2],
    gets: [Histogram; 2],
    nothings: [Histogram; 2],
    worst: Vec<Long>,
    last: Look,
}

impl Run {
    fn record(&mut self, call: &'static str, number: u64, took: Duration) {
        let mut running = took;
        if took >= LONG || call == "put" && number.is_multiple_of(LOOK_EVERY) {
            let after = Look::around(&self.db);
            let before = std::mem::replace(&mut self.last, after);
            if took >= LONG {
                let waited = Duration::from_nanos(after.run_delay - before.run_delay);
                running = took.saturating_sub(waited);
                self.worst.push(Long { call, number, took, running, before, after });
            }
        }
        let [all, on_processor] = match call {
            "put" => &mut self.puts,
            "get" => &mut self.gets,
            _ => &mut self.nothings,
        };
        all.add(took);
        on_processor.add(running);
    }

    fn report(&mut self) {
        println!("microseconds             p50        p99      p99.9     p99.99        max");
        let [puts, gets, nothings] = [&self.puts, &self.gets, &self.nothings];
        let rows = [
            ("put", &puts[0]),
            ("put, on a processor", &puts[1]),
            ("get", &gets[0]),
            ("get, on a processor", &gets[1]),
            ("nothing", &nothings[0]),
            ("nothing, likewise", &nothings[1]),
        ];
        for (name, histogram) in rows {
            print!("{name:<19}");
            for part in [0.5, 0.99, 0.999, 0.9999, 1.0] {
                print!(" {:>10.3}", histogram.percentile(part) as f64 / 1e3);
            }
            println!();
        }
        println!("{} calls took {LONG:?} or longer; the longest:", self.worst.len());
        self.worst.sort_by_key(|long| std::cmp::Reverse(long.running));
        self.worst.iter().take(WORST_SHOWN).for_each(|long| println!("{long}"));
    }
}

/// A pseudo-random permutation of all numbers (`SplitMix64`).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let count: u64 = arguments.first().map_or(2_000_000, |count| count.parse().unwrap());
    let key_count: u64 = arguments.get(1).map_or(count, |count| count.parse().unwrap());
    let dir = match arguments.get(2) {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let dir = dir.unwrap();
    let keys: Vec<[u8; 16]> =
        (0..key_count).map(|number| u128::from(mixed(number)).to_be_bytes()).collect();
    let db = Bitcask::open(dir.path(), Options::default()).unwrap();
    let last = Look::around(&db);
    let [puts, gets, nothings] = [(); 3].map(|()| [(); 2].map(|()| Histogram::new()));
    let mut run = Run { db, puts, gets, nothings, worst: Vec::new(), last };
    let key_at = |number: u64| &keys[usize::try_from(number).unwrap()];
    let started = Instant::now();
    for number in 0..count {
        let key = key_at(number % key_count);
        let start = Instant::now();
        run.db.put(key, VALUE).unwrap();
        run.record("put", number, start.elapsed());

        let random = mixed(!number) % (number + 1).min(key_count);
        let key = key_at(random);
        let start = Instant::now();
        let size = run.db.get_with(key, <[u8]>::len).unwrap();
        run.record("get", number, start.elapsed());
        assert_eq!(size, Some(VALUE.len()));

        let start = Instant::now();
        nothing(number);
        run.record("nothing", number, start.elapsed());
    }
    println!("{count} puts and {count} gets of {key_count} keys in {:.2?}", started.elapsed());
    run.report();
    run.db.close().unwrap();
}
