//! Backs up a store while another thread writes to it, verifies the backup, and restores it.
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
    // Small segments, so that the store has sealed ones to link.
    let options = Options::new().segment_size(64 << 10);
    let db = Bitcask::open(&store, options.clone())?;
    (0..10_000_u64).try_for_each(|key| db.put(key.to_be_bytes(), "before"))?;

    // Writers continue while the backup is made.
    let report = thread::scope(|scope| {
        let writer = scope
            .spawn(|| (0..10_000_u64).try_for_each(|key| db.put(key.to_be_bytes(), "meanwhile")));
        let report = db.backup(&backup);
        writer.join().map_err(|_| "the writer has panicked")??;
        Outcome::Ok(report?)
    })?;
    let copied = report.segments - report.linked;
    println!("{} segments: {} linked, {copied} copied", report.segments, report.linked);

    // `backup` does not read the segments that it links. `verify_with` reads everything, here in
    // the backup.
    let copy = Bitcask::open(&backup, options.clone())?;
    let verified = copy.verify_with(|progress| {
        println!("{} of {} bytes", progress.size_done, progress.size_total);
        ControlFlow::Continue(())
    })?;
    verified.damage.iter().for_each(|damage| println!("{damage}"));
    assert!(verified.is_clean());
    // Each key has its value from before the backup or the one written during it.
    assert_eq!((copy.len()?, verified.live_entries), (10_000, 10_000));
    copy.close()?;

    // To restore, open the backup where it is, or move it to the store's place.
    db.clear()?;
    db.close()?;
    std::fs::remove_dir_all(&store)?;
    std::fs::rename(&backup, &store)?;
    let db = Bitcask::open(&store, options)?;
    println!("restored: {} keys", db.len()?);
    assert_eq!(db.len()?, 10_000);
    Ok(db.close()?)
}
