//! Several threads move money between accounts, and the total stays the same.
//!
//! `cargo run --example transactions`

use std::error::Error;
use std::thread;

use bitcask::{Bitcask, Options, Result};

fn balance(bytes: &[u8]) -> i64 {
    bytes.try_into().map_or(0, i64::from_be_bytes)
}

/// Moves an amount if the account has it. The closure may run several times, so it only reads,
/// computes and writes.
fn transfer(db: &Bitcask, from: &str, to: &str, amount: i64) -> Result<bool> {
    db.transaction(|tx| {
        let source = tx.get(from)?.map_or(0, |bytes| balance(&bytes));
        let target = tx.get(to)?.map_or(0, |bytes| balance(&bytes));
        if source < amount {
            return Ok(false);
        }
        tx.put(from, (source - amount).to_be_bytes());
        tx.put(to, (target + amount).to_be_bytes());
        Ok(true)
    })
}

fn total(db: &Bitcask) -> Result<i64> {
    // `prefix` reads a snapshot, so it never sees half of a transfer.
    db.prefix("account/").map(|pair| pair.map(|(_, value)| balance(&value))).sum()
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let db = Bitcask::open(dir.path(), Options::default())?;
    let (ann, bob, cid) = ("account/ann", "account/bob", "account/cid");
    for account in [ann, bob, cid] {
        db.put(account, 100_i64.to_be_bytes())?;
    }
    thread::scope(|scope| {
        for (from, to) in [(ann, bob), (bob, cid), (cid, ann), (bob, ann)] {
            let db = &db;
            scope.spawn(move || -> Result<()> {
                for amount in 1..50 {
                    transfer(db, from, to, amount)?;
                }
                Ok(())
            });
        }
        (0..10).try_for_each(|_| total(&db).map(|sum| assert_eq!(sum, 300)))
    })?;
    println!("there are still {} in all accounts", total(&db)?);
    assert_eq!(total(&db)?, 300);
    Ok(db.close()?)
}
