//! Eight threads increment one counter, and no increment is lost.
//!
//! `cargo run --example counter`

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bitcask::{Bitcask, Options};

const THREADS: u64 = 8;
const COUNTS: u64 = 5_000;

fn number(bytes: Option<&[u8]>) -> u64 {
    bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let db = Arc::new(Bitcask::open(dir.path(), Options::default())?);
    let calls = Arc::new(AtomicU64::new(0));

    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (db, calls) = (Arc::clone(&db), Arc::clone(&calls));
            thread::spawn(move || -> bitcask::Result<u64> {
                let mut last = 0;
                for _ in 0..COUNTS {
                    // The closure runs without a lock, and runs again if another thread changed the
                    // key first.
                    let stored = db.update("hits", |old| {
                        calls.fetch_add(1, Ordering::Relaxed);
                        Some((number(old) + 1).to_be_bytes())
                    })?;
                    let hits = number(stored.as_deref());
                    assert!(hits > last, "the stored count only grows");
                    last = hits;
                }
                Ok(last)
            })
        })
        .collect();
    for thread in threads {
        let last = thread.join().map_err(|_| "a thread panicked")??;
        println!("a thread's last count was {last}");
    }

    let total = number(db.get("hits")?.as_deref());
    let retries = calls.load(Ordering::Relaxed) - THREADS * COUNTS;
    println!("total {total}, the closure was retried {retries} times");
    assert_eq!(total, THREADS * COUNTS);
    // Every increment is an entry in the log; all except the last are dead.
    println!("{:.3} of the log is dead", db.stats().dead_ratio());
    Ok(())
}
