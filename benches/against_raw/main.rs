//! The store, compared with the limit of what its design can do on this machine: the source of
//! `docs/benchmarks.md`.
//!
//! `cargo bench --bench against_raw [-- TOPIC...]`, with the topics `put`, `get`, `threads`,
//! `durable` and `scan`; all of them by default. Set `BITCASK_BENCH_KEYS=10_000_000` for more keys.

#![expect(clippy::unwrap_used, reason = "a bench whose setup fails has failed")]
#![expect(clippy::indexing_slicing, reason = "an out-of-bounds index fails the bench")]

mod durable;
mod get;
mod put;
mod scan;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each bench uses a part of the module")]
mod support;
mod threads;

fn main() {
    let topics: [(&str, fn()); 5] = [
        ("put", put::run),
        ("get", get::run),
        ("threads", threads::run),
        ("durable", durable::run),
        ("scan", scan::run),
    ];
    let wanted: Vec<_> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let unknown = wanted.iter().find(|name| topics.iter().all(|(topic, _)| topic != name));
    if let Some(name) = unknown {
        eprintln!("`{name}` is not one of the topics {:?}", topics.map(|(topic, _)| topic));
        std::process::exit(2);
    }
    println!("{} keys", support::key_count());
    for (topic, run) in topics {
        if wanted.is_empty() || wanted.iter().any(|name| name == topic) {
            run();
        }
    }
}
