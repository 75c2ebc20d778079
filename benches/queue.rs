//! Queues and stacks in an ordered store: what an item costs when many have been taken before.
//!
//! ```sh
//! cargo bench --bench queue                                     # a million items of each kind
//! BITCASK_BENCH_KEYS=100_000 cargo bench --bench queue -- stack # fewer, of kinds with a name
//! ```
//!
//! - An item is a put, a look at the front (or the back), and a delete, in a store with a backlog of
//!   live items that stays as it is. Each kind has a store of its own.
//! - Times are those for which this thread had a processor, as the kernel counts them: what others do on
//!   the machine counts less so.
//! - A column is a mean over as many items as a twentieth of all; the first, those around the middle, and
//!   the last. The target: at the end at most twice as much as at the beginning.

#![expect(clippy::unwrap_used, reason = "a benchmark fails loudly")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::sync::LazyLock;
use std::time::Instant;

use bitcask::Bitcask;

const VALUE: [u8; 100] = [7; 100];

/// The most that an item may cost at the end, in terms of the first ones.
const RATIO_MAX: f64 = 2.0;

fn key(at: usize) -> [u8; 8] {
    (at as u64).to_be_bytes()
}

/// Returns for how many microseconds this thread has run; where the kernel does not tell, how many have
/// passed.
fn time_run() -> f64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = counted.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanos.map_or_else(|| BEGAN.elapsed().as_secs_f64() * 1e6, |nanos| nanos / 1e3)
}

/// Puts an item at the tail, and takes the first one.
fn queue(db: &Bitcask, at: usize) {
    db.put(key(at), VALUE).unwrap();
    let (first, _) = db.first().unwrap().unwrap();
    db.delete(first).unwrap();
}

/// The same by a transaction, as the documentation has it.
fn transaction(db: &Bitcask, at: usize) {
    db.put([b"job/", &key(at)[..]].concat(), VALUE).unwrap();
    let job = db.transaction(|tx| {
        let Some((key, job)) = tx.prefix("job/").next().transpose()? else { return Ok(None) };
        tx.delete(&key);
        Ok(Some(job))
    });
    assert!(job.unwrap().is_some());
}

/// One of a hundred queues in one store.
fn prefix(db: &Bitcask, at: usize) {
    let name = format!("queue {:02}/", at % 100);
    db.put([name.as_bytes(), &key(at)].concat(), VALUE).unwrap();
    let (first, _) = db.prefix(&name).next().unwrap().unwrap();
    db.delete(first).unwrap();
}

/// Puts an item at the end, and takes it again; three of four are below it and stay for a while.
fn stack(db: &Bitcask, at: usize) {
    let at = at % 1000;
    db.put(key(at), VALUE).unwrap();
    if at % 4 == 3 {
        for _ in 0..4 {
            let (last, _) = db.last().unwrap().unwrap();
            db.delete(last).unwrap();
        }
    }
}

/// Goes on behind the last item, as one does who remembers how far he has come.
fn cursor(db: &Bitcask, at: usize) {
    db.put(key(at), VALUE).unwrap();
    let behind = key(at.saturating_sub(10));
    let (next, _) = db.range(behind..).next().unwrap().unwrap();
    db.delete(next).unwrap();
}

/// A kind: its name, how many items wait beside those that are measured, and what is done for one.
type Kind = (&'static str, usize, fn(&Bitcask, usize));

fn row(name: &str, backlog: usize, count: usize, item: fn(&Bitcask, usize)) {
    let dir = support::directory();
    let db = Bitcask::open(dir.path(), support::options()).unwrap();
    (0..backlog).for_each(|at| db.put(key(at), VALUE).unwrap());
    let window = (count / 20).max(1);
    let mut means = Vec::new();
    for start in (0..count).step_by(window) {
        let began = time_run();
        (start..start + window).for_each(|at| item(&db, backlog + at));
        means.push((time_run() - began) / window as f64);
    }
    let at = |at: usize| means.get(at).copied().unwrap_or_default();
    let (first, middle, last) = (at(0), at(means.len() / 2), at(means.len() - 1));
    let worst = means.iter().copied().fold(0.0, f64::max);
    let ratio = last / first;
    let is_met = if ratio <= RATIO_MAX { "yes" } else { "no" };
    println!(
        "| {name} | {first:.1} | {middle:.1} | {last:.1} | {worst:.1} | {ratio:.2}x | {is_met} |"
    );
    db.close().unwrap();
}

fn main() {
    let count = support::key_count();
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    println!("\n### An item of a queue, in microseconds; {count} items\n");
    println!("| kind | first | middle | last | worst | last to first | at most {RATIO_MAX} |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | --- |");
    let kinds: [Kind; 6] = [
        ("queue", 0, queue),
        ("queue with a backlog", count / 10, queue),
        ("queue by transactions", 0, transaction),
        ("a hundred queues by prefix", 0, prefix),
        ("stack", 0, stack),
        ("queue from a remembered place", 0, cursor),
    ];
    for (name, backlog, item) in kinds {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            row(name, backlog, count, item);
        }
    }
}
