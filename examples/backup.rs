//! A backup of a store that is being written to, checked, and put in the store's place.
//!
//! `cargo run --example backup`

use std::error::Error;
use std::ops::ControlFlow;
use std::thread;

use bitcask::{Bitcask, Options};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let (store, backup) = (dir.path().join("store"), dir.path().join("backup"));
    // Small segments, so that some are full and sealed.
    let options = Options::new().segment_size(64 << 10);
    let db = Bitcask::open(&store, options.clone())?;
    (0..10_000_u64).try_for_each(|key| db.put(key.to_be_bytes(), "before"))?;

    // Writers go on while the backup is made.
    let report = thread::scope(|scope| {
        let writer = scope
            .spawn(|| (0..10_000_u64).try_for_each(|key| db.put(key.to_be_bytes(), "meanwhile")));
        let report = db.backup(&backup);
        writer.join().map_err(|_| "the writer has panicked")??;
        Outcome::Ok(report?)
    })?;
    let copied = report.segments - report.linked;
    println!("{} segments: {} linked, {copied} copied", report.segments, report.linked);

    // What is linked was not read: this reads everything, here in the backup.
    let copy = Bitcask::open(&backup, options.clone())?;
    let verified = copy.verify_with(|progress| {
        println!("{} of {} bytes", progress.size_done, progress.size_total);
        ControlFlow::Continue(())
    })?;
    verified.damage.iter().for_each(|damage| println!("{damage}"));
    assert!(verified.is_clean());
    // Each key as it was before, or as it was written meanwhile.
    assert_eq!((copy.len()?, verified.live_entries), (10_000, 10_000));
    copy.close()?;

    // To restore is to open it, or to have it in the store's place.
    db.clear()?;
    db.close()?;
    std::fs::remove_dir_all(&store)?;
    std::fs::rename(&backup, &store)?;
    let db = Bitcask::open(&store, options)?;
    println!("restored: {} keys", db.len()?);
    assert_eq!(db.len()?, 10_000);
    Ok(db.close()?)
}
