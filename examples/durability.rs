//! What each sync policy promises and costs, and what remains after `kill -9`.
//!
//! `cargo run --release --example durability`

use std::error::Error;
use std::io::{Read, stdin};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bitcask::{Bitcask, Options, SyncPolicy, WriteOptions};

type Outcome<T> = Result<T, Box<dyn Error>>;

const PUTS: u64 = 50;

fn main() -> Outcome<()> {
    if let Some(path) = std::env::args_os().nth(1) {
        // The child process: writes, reports that it has, and waits to be killed.
        let db = Bitcask::open(path, Options::new().sync_policy(SyncPolicy::Never))?;
        (0..PUTS).try_for_each(|key| db.put(key.to_be_bytes(), "value"))?;
        println!("written"); // A whole line, so it is flushed.
        stdin().read_exact(&mut [0])?;
        return Ok(());
    }
    println!("policy                      a put   syncs    a power loss takes");
    let (own, second) = (WriteOptions::new(), SyncPolicy::Interval(Duration::from_secs(1)));
    let (never, always, kernel) = (SyncPolicy::Never, SyncPolicy::Always, "what was not written");
    assert_eq!(measure("Never", never, own, kernel)?, 0);
    measure("Interval(1 s)", second, own, "the last second, and a sync's time")?;
    assert_eq!(measure("Always", always, own, "nothing")?, PUTS);
    assert_eq!(measure("Never, durable(true)", never, own.durable(true), "nothing")?, PUTS);
    assert_eq!(measure("Always, durable(false)", always, own.durable(false), kernel)?, 0);

    // Killing the process loses no put that has returned, under any policy.
    let dir = tempfile::tempdir()?;
    let mut writer = Command::new(std::env::current_exe()?);
    writer.arg(dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = writer.spawn()?;
    child.stdout.as_mut().ok_or("no pipe")?.read_exact(&mut [0])?;
    child.kill()?;
    child.wait()?;
    let db = Bitcask::open(dir.path(), Options::default())?;
    println!("killed after {PUTS} puts under Never: {} keys recovered", db.len()?);
    assert_eq!((db.len()?, db.recovery().recovered_entries), (PUTS, PUTS));
    Ok(db.close()?)
}

/// Runs the puts, prints their mean time, and returns the number of syncs meanwhile.
fn measure(name: &str, policy: SyncPolicy, own: WriteOptions, lost: &str) -> Outcome<u64> {
    let dir = tempfile::tempdir()?;
    let db = Bitcask::open(dir.path(), Options::new().sync_policy(policy))?;
    db.put("first", "creates the first segment")?;
    let (start, before) = (Instant::now(), db.stats().syncs);
    (0..PUTS).try_for_each(|key| db.put_opt(key.to_be_bytes(), "value", own))?;
    let (took, syncs) = (start.elapsed(), db.stats().syncs - before);
    println!("{name:24}{:>6} us{syncs:>8}    {lost}", took.as_micros() / u128::from(PUTS));
    db.sync()?; // Under any policy, a power loss now loses nothing.
    db.close().map(|()| syncs).map_err(Into::into)
}
