//! Keys that expire.
//!
//! `cargo run --example ttl`

use std::error::Error;
use std::thread::sleep;
use std::time::Duration;

use bitcask::{Batch, Bitcask, Options, WriteOptions};

const SHORT: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let db = Bitcask::open(dir.path(), Options::default())?;

    let short = WriteOptions::new().ttl(SHORT);
    db.put_opt("session", "token", short)?;
    db.put_opt("renewed", "token", short)?;
    db.put_opt("kept", "token", short)?;
    db.write(Batch::new().put("user", "ann").put_opt("visit", "now", short))?;
    println!("now:          {}", alive(&db)?);
    assert!(db.contains_key("session")?);

    // Every put sets a new time to live; a put without one removes it.
    db.put_opt("renewed", "token", WriteOptions::new().ttl(HOUR))?;
    db.put("kept", "token")?;

    sleep(SHORT + Duration::from_millis(100));
    println!("1.1 s later:  {}", alive(&db)?);
    assert_eq!(alive(&db)?, "kept renewed user");
    // Readers treat an expired key as absent,
    assert_eq!(db.get("session")?, None);
    // and so do writes that depend on the key's presence.
    assert!(db.put_if_absent("session", "another")?);
    assert!(!db.delete("visit")?);
    // `len` counts an expired key until a write removes it, as the delete has just done.
    assert_eq!(db.len()?, 4);
    db.close()?;

    // The log stores expiry times, so they survive a restart.
    let db = Bitcask::open(dir.path(), Options::default())?;
    println!("after reopen: {}", alive(&db)?);
    assert_eq!(alive(&db)?, "kept renewed session user");
    Ok(db.close()?)
}

/// Lists the keys that are present, in sorted order.
fn alive(db: &Bitcask) -> Result<String, Box<dyn Error>> {
    let mut keys = db
        .keys_unordered()
        .map(|key| Ok(String::from_utf8(key?.into())?))
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    keys.sort();
    Ok(keys.join(" "))
}
