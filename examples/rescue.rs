//! A store with a damaged segment and no manifest: what is wrong with it, and what can be saved.
//!
//! `cargo run --example rescue`

use std::error::Error;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use bitcask::{Bitcask, Options, repair};

/// Flips a bit in the middle of the first segment, and loses the manifest.
fn break_it(store: &Path) -> std::io::Result<()> {
    let segment = store.join("0000000001.log");
    let mut bytes = fs::read(&segment)?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    fs::write(&segment, bytes)?;
    fs::remove_file(store.join("MANIFEST"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let (store, rescued) = (dir.path().join("store"), dir.path().join("rescued"));
    let db = Bitcask::open(&store, Options::new().segment_size(64 << 10))?;
    (0..5_000_u64).try_for_each(|key| db.put(key.to_be_bytes(), "a value that matters"))?;
    db.close()?;
    break_it(&store)?;

    // It is refused rather than taken for an empty one, and nothing is changed.
    let refused = Bitcask::open(&store, Options::default());
    assert!(refused.is_err_and(|error| error.is_corruption()));

    // This only reads.
    let diagnosis = repair::verify(&store)?;
    println!("{diagnosis}");
    assert!(!diagnosis.is_clean());

    // So does this, of what is broken; what still checks goes to a store of its own.
    let report = repair::salvage(&store, &rescued, |progress| {
        println!("{} of {} bytes", progress.size_done, progress.size_total);
        ControlFlow::Continue(())
    })?;
    println!("{report}");

    let db = Bitcask::open(&rescued, Options::default())?;
    println!("rescued: {} keys", db.len()?);
    // All but the one that was damaged.
    assert_eq!(db.len()?, 4_999);
    assert!(db.recovery().is_clean() && db.verify()?.is_clean());
    Ok(db.close()?)
}
