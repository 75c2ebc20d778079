//! Moves money between accounts: a batch is applied as a whole or not at all.
//!
//! `cargo run --example batch`

use std::error::Error;

use bitcask::{Batch, Bitcask, Options, SyncPolicy, WriteOptions};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn balance(db: &Bitcask, account: &str) -> Outcome<u64> {
    let Some(value) = db.get(account)? else { return Ok(0) };
    Ok(u64::from_be_bytes(value.as_ref().try_into()?))
}

/// Moves an amount. A batch reads nothing, so a program with concurrent transfers needs a lock.
fn transfer(db: &Bitcask, from: &str, to: &str, amount: u64) -> Outcome<()> {
    let left = balance(db, from)?.checked_sub(amount).ok_or("not enough money")?;
    let mut batch = Batch::new();
    batch
        .put(from, left.to_be_bytes())
        .put(to, (balance(db, to)? + amount).to_be_bytes())
        .put(format!("transfer/{from}/{to}"), amount.to_be_bytes())
        .delete(format!("order/{from}/{to}"));
    Ok(db.write(&batch)?)
}

fn main() -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let db = Bitcask::open(dir.path(), Options::new().sync_policy(SyncPolicy::Never))?;
    db.put("alice", 100_u64.to_be_bytes())?;
    db.put("order/alice/bob", "30, please")?;
    transfer(&db, "alice", "bob", 30)?;
    let (alice, bob) = (balance(&db, "alice")?, balance(&db, "bob")?);
    println!("alice has {alice}, bob has {bob}");
    assert_eq!((alice, bob), (70, 30));
    assert!(!db.contains_key("order/alice/bob")?);

    // If one change of a batch is invalid, none of them is made.
    let appends = db.stats().appends;
    let result = db.write(Batch::new().put("alice", [0; 8]).put(vec![0; 70_000], "large key"));
    let Err(refused) = result else { return Err("the key was not too large".into()) };
    println!("refused: {refused}");
    assert_eq!((balance(&db, "alice")?, db.stats().appends), (70, appends));

    // However long a batch is, making it durable takes one sync.
    let syncs = db.stats().syncs;
    let many = (0..10_000).map(|id| (format!("id/{id}"), "new")).collect::<Batch>();
    db.write_opt(&many, WriteOptions::new().durable(true))?;
    assert_eq!(db.stats().syncs - syncs, 1);
    println!("10,000 puts were made durable by one sync");
    db.close()?;

    let db = Bitcask::open(dir.path(), Options::default())?;
    println!("after reopening: {} keys, alice has {}", db.len()?, balance(&db, "alice")?);
    assert_eq!(balance(&db, "alice")? + balance(&db, "bob")?, 100);
    Ok(db.close()?)
}
