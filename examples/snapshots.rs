//! Lists keys in order, page by page, while the store changes.
//!
//! `cargo run --example snapshots`

use std::error::Error;

use bitcask::{Bitcask, Options, Result, Snapshot};

/// Returns one page of keys, which begins after the last key of the previous page.
fn page(snapshot: &Snapshot, previous: Option<&[u8]>) -> Result<Vec<Vec<u8>>> {
    let mut keys = snapshot.prefix_keys("user/");
    if let Some(key) = previous {
        keys = keys.after(key);
    }
    keys.take(4).map(|key| key.map(|key| key.to_vec())).collect()
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let db = Bitcask::open(dir.path(), Options::default())?;
    for number in 0..10 {
        db.put(format!("user/{number:02}"), format!("name {number}"))?;
    }
    db.put("group/staff", "user/01 user/02")?;

    let snapshot = db.snapshot();
    let mut pages = vec![page(&snapshot, None)?];
    // Whatever is written between two pages, both show the state at one moment.
    assert_eq!(db.delete_prefix("user/")?, 10);
    db.put("user/00a", "new")?;
    while let Some(last) = pages.last().and_then(|keys| keys.last()) {
        let next = page(&snapshot, Some(last))?;
        pages.push(next);
    }
    let lengths: Vec<_> = pages.iter().map(Vec::len).collect();
    println!("pages of {lengths:?} keys");
    assert_eq!(lengths, [4, 4, 2, 0]);
    assert_eq!(snapshot.get("user/07")?.as_deref(), Some(&b"name 7"[..]));
    assert_eq!(db.get("user/07")?, None);

    // In reverse order, from the store as it is now.
    let newest_first = db.range_keys(..).rev().collect::<Result<Vec<_>>>()?;
    assert_eq!(newest_first.first().ok_or("the store is not empty")?, "user/00a");
    let (first, _) = db.first()?.ok_or("the store is not empty")?;
    println!("the first of {} keys is {:?}", newest_first.len(), String::from_utf8_lossy(&first));
    assert_eq!(first, "group/staff");
    assert_eq!(db.stats().snapshots, 1);
    drop(snapshot);
    Ok(db.close()?)
}
