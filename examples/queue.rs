//! A queue that several workers share. A job that a worker has taken when the program dies is done
//! after the restart.
//!
//! `cargo run --example queue`

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Mutex;
use std::thread;

use bitcask::{Bitcask, Options, Result, Value};

const JOBS: u64 = 300;

/// Returns the key of a job under another prefix: `ready/` or `taken/`.
fn moved(key: &[u8], prefix: &str) -> Vec<u8> {
    [prefix.as_bytes(), &key[prefix.len()..]].concat()
}

fn push(db: &Bitcask, number: u64, job: &str) -> Result<()> {
    db.put([&b"ready/"[..], &number.to_be_bytes()].concat(), job)
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
    (0..JOBS).try_for_each(|number| push(&db, number, &format!("job {number}")))?;
    let (_, first) = take(&db)?.ok_or("there are jobs")?;
    let (_, second) = take(&db)?.ok_or("there are jobs")?;
    assert_eq!((&*first, &*second), (&b"job 0"[..], &b"job 1"[..]));
    db.close()?; // Here the program dies, with two jobs taken.

    let db = Bitcask::open(dir.path(), Options::default())?;
    assert_eq!(recover(&db)?, 2);
    let done = Mutex::new(BTreeMap::new());
    let worker = |name: u8| -> Result<()> {
        while let Some((taken, job)) = take(&db)? {
            done.lock().unwrap().entry(job.to_vec()).or_insert_with(Vec::new).push(name);
            db.delete(taken)?; // Finished.
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers = [1, 2, 3].map(|name| scope.spawn(move || worker(name)));
        workers.into_iter().try_for_each(|worker| worker.join().unwrap())
    })?;
    let done = done.into_inner()?;
    println!("{} jobs were done by three workers", done.len());
    assert_eq!(done.len() as u64, JOBS);
    assert!(done.values().all(|workers| workers.len() == 1), "each job was done once");
    assert!(db.is_empty()?);
    Ok(db.close()?)
}
