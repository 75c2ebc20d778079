//! Diagnoses a store with a damaged segment and no manifest, and salvages what is intact.
//!
//! `cargo run --example rescue`

use std::error::Error;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use bitcask::{Bitcask, Options, repair};

/// Flips a bit in the middle of the first segment, and deletes the manifest.
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

    // Opening fails rather than create an empty store in its place, and changes nothing.
    let refused = Bitcask::open(&store, Options::default());
    assert!(refused.is_err_and(|error| error.is_corruption()));

    // Diagnosis only reads.
    let diagnosis = repair::verify(&store)?;
    println!("{diagnosis}");
    assert!(!diagnosis.is_clean());

    // Salvage only reads the broken store. It copies the newest intact value of each key to a new
    // store.
    let report = repair::salvage(&store, &rescued, |progress| {
        println!("{} of {} bytes", progress.size_done, progress.size_total);
        ControlFlow::Continue(())
    })?;
    println!("{report}");

    let db = Bitcask::open(&rescued, Options::default())?;
    println!("rescued: {} keys", db.len()?);
    // Every key except the damaged one.
    assert_eq!(db.len()?, 4_999);
    assert!(db.recovery().is_clean() && db.verify()?.is_clean());
    Ok(db.close()?)
}
