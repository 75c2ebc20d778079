//! Keeps a copy of a store up to date, and continues where it stopped after a restart.
//!
//! `cargo run --example changes`

use std::collections::BTreeMap;
use std::error::Error;

use bitcask::{Bitcask, MergeOptions, Operation, Options, Position};

type Outcome<T> = Result<T, Box<dyn Error>>;
type Copy = BTreeMap<Vec<u8>, Vec<u8>>;

/// Brings a copy up to date. Returns the position that the copy has reached; the caller stores it
/// with the copy.
fn follow(db: &Bitcask, copy: &mut Copy, since: Position) -> Outcome<Position> {
    let mut changes = match db.changes(since) {
        Err(error) if error.needs_resync() => {
            println!("resync: {error}");
            let snapshot = db.snapshot();
            copy.clear();
            for pair in &snapshot {
                let (key, value) = pair?;
                copy.insert(key.to_vec(), value.to_vec());
            }
            db.changes(snapshot.position())?
        }
        changes => changes?,
    };
    while let Some(change) = changes.try_recv()? {
        match change.operation {
            Operation::Put { value, .. } => drop(copy.insert(change.key.to_vec(), value.to_vec())),
            _ => drop(copy.remove(&*change.key)),
        }
    }
    Ok(changes.resume_position())
}

fn main() -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let db = Bitcask::open(dir.path(), Options::default())?;
    let mut copy = Copy::new();
    db.put("a", "1")?;
    db.put("b", "2")?;
    let position = follow(&db, &mut copy, Position::START)?.to_string();
    println!("after two changes, the position is {position}");
    assert_eq!(copy.len(), 2);
    db.close()?;

    let db = Bitcask::open(dir.path(), Options::default())?;
    db.delete("a")?;
    let position = follow(&db, &mut copy, position.parse()?)?;
    assert_eq!(copy.keys().collect::<Vec<_>>(), [b"b"]);
    db.put("c", "3")?;
    db.merge_opt(MergeOptions::new().force(true))?; // Drops the delete from the log: resync.
    let position = follow(&db, &mut copy, position)?;
    assert_eq!((copy.len(), position), (2, db.position()));
    println!("after a resync the copy has {} keys", copy.len());
    Ok(db.close()?)
}
