//! Opens a store, writes, reads, closes it, and finds everything there again.
//!
//! `cargo run --example quickstart`

use std::error::Error;

use bitcask::{Bitcask, Options, ReadOnly};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    // A store is a directory of its own; opening creates it.
    let path = dir.path().join("store");

    let db = Bitcask::open(&path, Options::default())?;
    // Keys and values are bytes: strings, arrays, vectors, whatever lends a slice.
    db.put("answer", b"42")?;
    db.put("greeting", "hello")?;
    db.put([0xff, 0x00], vec![1, 2, 3])?;
    assert_eq!(db.get("answer")?.as_deref(), Some(&b"42"[..]));
    println!("answer   = {:?}", db.get("answer")?);

    // A key that is not there is no error.
    assert_eq!(db.get("question")?, None);
    println!("question = {:?}", db.get("question")?);

    // A second put replaces the first; delete says whether there was something to delete.
    db.put("greeting", "good morning")?;
    assert!(db.delete("answer")?);
    assert!(!db.delete("answer")?);
    // Close makes everything durable, and tells what went wrong; dropping the store would not.
    db.close()?;

    let db = Bitcask::open(&path, Options::default().create_if_missing(false))?;
    assert!(db.recovery().is_clean());
    assert_eq!(db.len()?, 2);
    println!("after reopening, {} keys:", db.len()?);
    for pair in &db {
        let (key, value) = pair?;
        println!("  {key:?} = {value:?}");
    }

    // Other processes may read beside the writer. They see the store as it was when they opened it, until
    // they refresh it. A store opened read-only has no methods that write.
    let reader = ReadOnly::open(&path, Options::default())?;
    db.put("greeting", "good evening")?;
    assert_eq!(reader.get("greeting")?.ok_or("the key is gone")?, "good morning");
    assert!(reader.refresh()?);
    assert_eq!(reader.get("greeting")?.ok_or("the key is gone")?, "good evening");

    // A second writer is told who has the store.
    let refused = Bitcask::open(&path, Options::default()).err().ok_or("there are two writers")?;
    assert!(refused.is_locked());
    println!("a second writer is refused: {refused}");
    Ok(db.close()?)
}
