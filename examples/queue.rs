//! A queue that several workers share. A job that a worker has taken when the program dies is done
//! after the restart.
//!
//! `cargo run --example queue`

use std::error::Error;
use std::thread;

use bitcask::{Bitcask, Options, Result, Value};

const JOBS: usize = 300;

/// Returns the key of a job under another prefix: `ready/` or `taken/`.
fn moved(key: &[u8], prefix: &str) -> Vec<u8> {
    [prefix.as_bytes(), key.get(prefix.len()..).unwrap_or_default()].concat()
}

/// Puts a job behind those with lower numbers: big-endian numbers are in the order of their bytes.
fn push(db: &Bitcask, number: usize) -> Result<()> {
    db.put([&b"ready/"[..], &number.to_be_bytes()].concat(), format!("job {number}"))
}

/// Takes the first job. It stays in the store, below `taken/`, until it is finished.
fn take(db: &Bitcask) -> Result<Option<(Vec<u8>, Value)>> {
    db.transaction(|tx| {
        // If another worker takes the same job first, this closure runs again.
        let Some((key, job)) = tx.prefix("ready/").next().transpose()? else { return Ok(None) };
        let taken = moved(&key, "taken/");
        tx.delete(&key);
        tx.put(&taken, &job);
        Ok(Some((taken, job)))
    })
}

/// Puts back what was taken and not finished. Returns how many jobs that were.
fn recover(db: &Bitcask) -> Result<usize> {
    db.transaction(|tx| {
        let taken = tx.prefix("taken/").collect::<Result<Vec<_>>>()?;
        for (key, job) in &taken {
            tx.delete(key);
            tx.put(moved(key, "ready/"), job);
        }
        Ok(taken.len())
    })
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let db = Bitcask::open(dir.path(), Options::default())?;
    (0..JOBS).try_for_each(|number| push(&db, number))?;
    let (_, first) = take(&db)?.ok_or("there are jobs")?;
    let (_, second) = take(&db)?.ok_or("there are jobs")?;
    assert_eq!((&*first, &*second), (&b"job 0"[..], &b"job 1"[..]));
    db.close()?; // Here the program dies, with two jobs taken.

    let db = Bitcask::open(dir.path(), Options::default())?;
    assert_eq!(recover(&db)?, 2);
    let worker = || -> Result<Vec<Value>> {
        let mut done = Vec::new();
        while let Some((taken, job)) = take(&db)? {
            done.push(job);
            db.delete(taken)?; // Finished.
        }
        Ok(done)
    };
    let mut done = thread::scope(|scope| {
        let mut done = Vec::new();
        for worker in [(); 3].map(|()| scope.spawn(worker)) {
            done.extend(worker.join().map_err(|_| "a worker has panicked")??);
        }
        Ok::<_, Box<dyn Error>>(done)
    })?;
    println!("{} jobs were done by three workers", done.len());
    done.sort();
    assert!(done.len() == JOBS && done.is_sorted_by(|job, next| job < next), "each was done once");
    assert!(db.is_empty()?);
    Ok(db.close()?)
}
