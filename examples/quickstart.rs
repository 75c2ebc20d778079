//! Opens a store, writes and reads, closes it, opens it again, and reads everything back.
//!
//! `cargo run --example quickstart`

use std::error::Error;

use bitcask::{Bitcask, Options, ReadOnly};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    // A store occupies a directory. Opening creates it.
    let path = dir.path().join("store");

    let db = Bitcask::open(&path, Options::default())?;
    // Keys and values are bytes: strings, arrays, vectors, or any other type that derefs to a byte
    // slice.
    db.put("answer", b"42")?;
    db.put("greeting", "hello")?;
    db.put([0xff, 0x00], vec![1, 2, 3])?;
    assert_eq!(db.get("answer")?.as_deref(), Some(&b"42"[..]));
    println!("answer   = {:?}", db.get("answer")?);

    // Reading an absent key is not an error.
    assert_eq!(db.get("question")?, None);
    println!("question = {:?}", db.get("question")?);

    // A second put replaces the first. `delete` returns whether the key was present.
    db.put("greeting", "good morning")?;
    assert!(db.delete("answer")?);
    assert!(!db.delete("answer")?);
    // `close` makes everything durable and returns any error. Dropping the store would hide the
    // error.
    db.close()?;

    let db = Bitcask::open(&path, Options::default().create_if_missing(false))?;
    assert!(db.recovery().is_clean());
    assert_eq!(db.len()?, 2);
    println!("after reopening, {} keys:", db.len()?);
    for pair in &db {
        let (key, value) = pair?;
        println!("  {key:?} = {value:?}");
    }

    // Other processes may read while the writer has the store open. They see the store as of their
    // open or their last refresh. A store opened read-only has no methods that write.
    let reader = ReadOnly::open(&path, Options::default())?;
    db.put("greeting", "good evening")?;
    assert_eq!(reader.get("greeting")?.ok_or("the key is missing")?, "good morning");
    assert!(reader.refresh()?);
    assert_eq!(reader.get("greeting")?.ok_or("the key is missing")?, "good evening");

    // A second writer is refused, and the error says who holds the lock.
    let refused = Bitcask::open(&path, Options::default()).err().ok_or("there are two writers")?;
    assert!(refused.is_locked());
    println!("a second writer is refused: {refused}");
    Ok(db.close()?)
}
