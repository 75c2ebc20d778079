//! Queues and stacks in an ordered store: the cost of an item after many others have been taken.
//!
//! ```sh
//! cargo bench --bench queue                                     # a million items of each kind
//! BITCASK_BENCH_KEYS=100_000 cargo bench --bench queue -- stack # fewer, of the named kinds
//! ```
//!
//! - For each item there is a put, a look at the front (or the back), and a delete, in a store with
//!   a constant backlog of live items. Each kind has a separate store.
//! - Times are processor times of this thread, as the kernel counts them, so other activity on the
//!   machine matters less.
//! - Each column is a mean over a twentieth of all items: the first ones, those around the middle,
//!   and the last ones. The target: items at the end cost at most twice as much as at the
//!   beginning.

#![expect(clippy::unwrap_used, reason = "a benchmark fails loudly")]
#![expect(clippy::cast_precision_loss, reason = "printed figures do not need 53 bits")]

#[expect(dead_code, reason = "each bench uses a part of the module")]
mod support;

use std::sync::LazyLock;
use std::time::Instant;

use bitcask::Bitcask;

const VALUE: [u8; 100] = [7; 100];

/// Maximum cost of an item at the end, as a multiple of the cost at the beginning.
const RATIO_MAX: f64 = 2.0;

fn key(at: usize) -> [u8; 8] {
    (at as u64).to_be_bytes()
}

/// Returns this thread's processor time in microseconds or, where the kernel does not provide it,
/// the elapsed time.
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

/// The same in a transaction, as in the documentation.
fn transaction(db: &Bitcask, at: usize) {
    db.put([b"job/", &key(at)[..]].concat(), VALUE).unwrap();
    let job = db.transaction(|tx| {
        let Some((key, job)) = tx.prefix("job/").next().transpose()? else { return Ok(None) };
        tx.delete(&key);
        Ok(Some(job))
    });
    assert!(job.unwrap().is_some());
}

/// Uses one of a hundred queues in one store.
fn prefix(db: &Bitcask, at: usize) {
    let name = format!("queue {:02}/", at % 100);
    db.put([name.as_bytes(), &key(at)].concat(), VALUE).unwrap();
    let (first, _) = db.prefix(&name).next().unwrap().unwrap();
    db.delete(first).unwrap();
}

/// Puts an item at the end, and takes it again. Three out of four are put below it and stay for a
/// while.
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

/// Continues after the last item, like a consumer that remembers its place.
fn cursor(db: &Bitcask, at: usize) {
    db.put(key(at), VALUE).unwrap();
    let behind = key(at.saturating_sub(10));
    let (next, _) = db.range(behind..).next().unwrap().unwrap();
    db.delete(next).unwrap();
}

/// A kind: its name, the number of items in the backlog, and the operation for one item.
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
