//! Users with two indexes, one of them unique. Several threads change users, and the indexes agree.
//!
//! `cargo run --example secondary_index --features serde`

use std::collections::BTreeSet;
use std::error::Error;
use std::thread;

use bitcask::typed::Typed;
use bitcask::{Bitcask, Options, Result, Transaction};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct User {
    email: String,
    city: String,
}

const USERS: Typed<u64, User> = Typed::new("user/");
const BY_EMAIL: Typed<String, u64> = Typed::new("user-email/");
const BY_CITY: Typed<(String, u64), ()> = Typed::new("user-city/");

/// Removes a user from the indexes.
fn unlist(tx: &mut Transaction, id: u64) -> Result<()> {
    if let Some(old) = USERS.get(tx, &id)? {
        BY_EMAIL.delete_in(tx, &old.email);
        BY_CITY.delete_in(tx, &(old.city, id));
    }
    Ok(())
}

/// Stores a user. Returns whether the email address was free.
fn save(db: &Bitcask, id: u64, user: &User) -> Result<bool> {
    db.transaction(|tx| {
        if BY_EMAIL.get(tx, &user.email)?.is_some_and(|owner| owner != id) {
            return Ok(false);
        }
        unlist(tx, id)?;
        BY_EMAIL.put_in(tx, &user.email, &id)?;
        BY_CITY.put_in(tx, &(user.city.clone(), id), &())?;
        USERS.put_in(tx, &id, user)?;
        Ok(true)
    })
}

fn remove(db: &Bitcask, id: u64) -> Result<()> {
    db.transaction(|tx| unlist(tx, id).map(|()| USERS.delete_in(tx, &id)))
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let db = Bitcask::open(dir.path(), Options::default())?;
    let user = |email: u64, city: &str| User { email: format!("{email}@a.org"), city: city.into() };
    assert!(save(&db, 1, &user(1, "Graz"))?);
    assert!(!save(&db, 2, &user(1, "Linz"))?, "the address is taken");

    // Threads move users around, and compete for ten addresses.
    let work = |first: u64| -> Result<()> {
        (0..200).try_for_each(|step| {
            let (id, city) = ((first + step) % 20, if step % 3 == 0 { "Linz" } else { "Graz" });
            save(&db, id, &user((id + step) % 10, city))?;
            if step % 5 == 0 { remove(&db, id) } else { Ok(()) }
        })
    };
    thread::scope(|scope| {
        for thread in [0, 7, 13].map(|first| scope.spawn(move || work(first))) {
            thread.join().map_err(|_| "a thread has panicked")??;
        }
        Ok::<_, Box<dyn Error>>(())
    })?;

    let users = USERS.iter(&db).collect::<Result<Vec<_>>>()?;
    let emails = BY_EMAIL.iter(&db).collect::<Result<BTreeSet<_>>>()?;
    assert_eq!(emails, users.iter().map(|(id, user)| (user.email.clone(), *id)).collect());
    let cities = BY_CITY.keys(&db).collect::<Result<BTreeSet<_>>>()?;
    assert_eq!(cities, users.iter().map(|(id, user)| (user.city.clone(), *id)).collect());
    println!("{} users, {} in Graz", users.len(), BY_CITY.prefix(&db, &("Graz",)).count());
    Ok(db.close()?)
}
