//! Absolute times of puts while followers wait for other keys, without sync.
//!
//! `cargo bench --bench follow`. Each follower waits in a separate thread for a prefix that no put
//! matches. The relevant figure is how much longer a put takes with 500 followers than with none.

#![expect(clippy::unwrap_used, reason = "a bench whose setup fails has failed")]

#[expect(dead_code, reason = "each bench uses a part of the module")]
mod support;

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bitcask::Bitcask;
use criterion::{Criterion, Throughput};

use support::{directory, options, value};

/// Number of puts in an iteration.
const OPS: u32 = 1000;

fn main() {
    let mut criterion = support::criterion();
    let mut group = criterion.benchmark_group("follow/put");
    group.throughput(Throughput::Elements(OPS.into()));
    for followers in [0, 1, 500] {
        let directory = directory();
        let db = Arc::new(Bitcask::open(directory.path().join("store"), options()).unwrap());
        let watching: Vec<_> = (0..followers).map(|number| watch(&db, number)).collect();
        let value = value(100);
        group.bench_function(format!("beside_{followers}"), |bencher| {
            bencher.iter(|| {
                for number in 0..OPS {
                    db.put(format!("unwatched/{number}"), &value).unwrap();
                }
            });
        });
        let db = Arc::into_inner(db).unwrap();
        db.close().unwrap();
        for watching in watching {
            watching.join().unwrap();
        }
    }
    group.finish();
    Criterion::final_summary(&criterion);
}

/// Follows a prefix until the store is closed.
fn watch(db: &Arc<Bitcask>, number: u32) -> JoinHandle<()> {
    let mut changes = db.watch_prefix(format!("watched/{number}/")).unwrap();
    thread::spawn(move || assert!(changes.recv().unwrap().is_none()))
}
