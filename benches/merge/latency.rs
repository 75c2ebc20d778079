//! Durations of gets and puts while a merge runs, compared with the same without a merge.
//!
//! - One thread reads and one overwrites random keys as fast as possible, and each call is timed
//!   individually. A third thread meanwhile merges everything, again and again.
//! - Three phases take turns: without a merge, with one, and with one limited to 64 MiB per second,
//!   reads and writes together. Each round starts with another phase.
//! - Percentiles are over all rounds. A ratio is the median of the ratios of the rounds.
//! - *nothing* is a fixed calculation between the calls. If it takes longer, the machine is the
//!   cause: it then has three busy threads, and a fourth one that seals.

use std::array;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bitcask::{Bitcask, MergeOptions, MergePolicy, Options};

use crate::support::histogram::{Histogram, nothing};
use crate::support::{self, VALUE_SIZE, keys};
use crate::{median, met};

const LIMIT: u64 = 64 << 20;
const CALLS: [&str; 3] = ["get", "put", "nothing"];
const PHASES: [&str; 3] = ["none", "no limit", "64 MiB/s"];
const PARTS: [f64; 3] = [0.5, 0.99, 0.999];
/// Limit for the 99th percentile, as a multiple of the one without a merge.
const TARGET: f64 = 1.3;

/// The figures of one phase.
struct Figures {
    calls: [Histogram; CALLS.len()],
    took: Duration,
    copied_size: u64,
}

impl Figures {
    fn new() -> Self {
        let calls = array::from_fn(|_| Histogram::new());
        Self { calls, took: Duration::ZERO, copied_size: 0 }
    }

    fn extend(&mut self, other: &Self) {
        for (call, more) in self.calls.iter_mut().zip(&other.calls) {
            call.extend(more);
        }
        self.took += other.took;
        self.copied_size += other.copied_size;
    }
}

pub(crate) fn run(keys: usize) {
    let (rounds, calls) = if support::is_bench() { (7, 1_000_000) } else { (1, 1000) };
    let directory = support::directory();
    let options = Options::new().merge_policy(MergePolicy::Manual);
    let loading = keys::shuffled(keys, 1);
    let value = support::value(VALUE_SIZE);
    let db = support::loaded(&directory.path().join("store"), options, &loading, &value);
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    support::warm(&db);
    let mut measured: Vec<[Figures; PHASES.len()]> = Vec::new();
    for round in 0..rounds {
        let mut figures = array::from_fn(|_| Figures::new());
        for step in 0..PHASES.len() {
            let at = (round + step) % PHASES.len();
            figures[at] = phase(&db, at, keys, calls, (round * PHASES.len() + step) as u64);
        }
        measured.push(figures);
    }
    report(&measured, rounds * calls);
    db.close().unwrap();
}

fn phase(db: &Bitcask, at: usize, keys: usize, calls: usize, seed: u64) -> Figures {
    let (done, started) = (AtomicBool::new(false), Instant::now());
    let mut figures = thread::scope(|scope| {
        let merger = scope.spawn(|| if at > 0 { merge_until(db, at, &done) } else { 0 });
        let reader = scope.spawn(|| {
            timed_calls(keys, calls, seed, |key| {
                assert_eq!(db.get_with(key, <[u8]>::len).unwrap(), Some(VALUE_SIZE));
            })
        });
        let value = support::value(VALUE_SIZE);
        let writer = scope
            .spawn(move || timed_calls(keys, calls, !seed, |key| db.put(key, &value).unwrap()));
        let mut figures = Figures::new();
        let calls = [reader.join().unwrap(), writer.join().unwrap()];
        figures.took = started.elapsed();
        for (call, (times, nothings)) in calls.into_iter().enumerate() {
            figures.calls[call].extend(&times);
            figures.calls[2].extend(&nothings);
        }
        done.store(true, Ordering::Release);
        figures.copied_size = merger.join().unwrap();
        figures
    });
    figures.took = figures.took.max(Duration::from_nanos(1));
    figures
}

/// Merges everything again and again. Returns the number of copied bytes.
fn merge_until(db: &Bitcask, at: usize, done: &AtomicBool) -> u64 {
    let (limit, mut copied_size) = ((at == 2).then_some(LIMIT), 0);
    while !done.load(Ordering::Acquire) {
        let mut last = 0;
        let options = MergeOptions::new().force(true).bytes_per_second(limit);
        let options = options.progress(|progress| {
            last = progress.copied_size;
            let is_done = done.load(Ordering::Acquire);
            if is_done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        db.merge_opt(options).unwrap();
        copied_size += last;
    }
    copied_size
}

/// Makes calls with random keys. Returns the duration of each call, and of each *nothing* between
/// them.
fn timed_calls(
    keys: usize,
    calls: usize,
    seed: u64,
    mut call: impl FnMut(&keys::Key),
) -> (Histogram, Histogram) {
    let (mut times, mut nothings) = (Histogram::new(), Histogram::new());
    let mut random = keys::Random::new(seed);
    for number in 0..calls as u64 {
        let key = keys::key(random.below(keys as u64));
        let start = Instant::now();
        call(&key);
        times.add(start.elapsed());
        let start = Instant::now();
        nothing(number);
        nothings.add(start.elapsed());
    }
    (times, nothings)
}

fn report(measured: &[[Figures; PHASES.len()]], calls: usize) {
    println!("\n### Latency during a merge: {calls} gets and puts per row, microseconds\n");
    println!("| call | merge | p50 | p99 | p99.9 | ratio p50 | p99 | p99.9 | p99 target | met |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |");
    let all: [Figures; PHASES.len()] = array::from_fn(|phase| {
        let mut sum = Figures::new();
        for round in measured {
            sum.extend(&round[phase]);
        }
        sum
    });
    for (call, name) in CALLS.iter().enumerate() {
        for (phase, merge) in PHASES.iter().enumerate() {
            print!("| {name} | {merge} ");
            for part in PARTS {
                print!("| {:.2} ", all[phase].calls[call].percentile(part) as f64 / 1e3);
            }
            let ratios = PARTS.map(|part| {
                let of = |figures: &Figures| figures.calls[call].percentile(part).max(1) as f64;
                median(measured.iter().map(|round| of(&round[phase]) / of(&round[0])))
            });
            if phase == 0 {
                println!("| - | - | - | - | - |");
                continue;
            }
            for ratio in &ratios {
                print!("| {ratio:.2}x ");
            }
            match *name {
                "nothing" => println!("| - | - |"),
                _ => println!("| <= {TARGET} | {} |", met(ratios[1] <= TARGET)),
            }
        }
    }
    println!("\n| merge | calls of both threads per second | ratio | copied, MB/s |");
    println!("| --- | ---: | ---: | ---: |");
    for (phase, merge) in PHASES.iter().enumerate() {
        let seconds = |figures: &Figures| figures.took.as_secs_f64();
        let speed = 2.0 * calls as f64 / seconds(&all[phase]);
        let ratio =
            median(measured.iter().map(|round| seconds(&round[0]) / seconds(&round[phase])));
        let copied = all[phase].copied_size as f64 / 1e6 / seconds(&all[phase]);
        println!("| {merge} | {speed:.0} | {ratio:.2}x | {copied:.0} |");
    }
}
