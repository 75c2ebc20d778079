//! One function for a store in this process and for one that a server serves.
//!
//! The example starts a server in its own process. Usually that is another one:
//! `bitcask server start`.

use std::sync::Arc;

use bitcask::client::Client;
use bitcask::server::{Server, ServerOptions};
use bitcask::{Batch, Bitcask, Options, WriteStore};

/// Moves an order to those that are paid. Returns how many there are then.
fn pay<S: WriteStore>(store: &S, order: &str) -> Result<usize, S::Error> {
    if let Some(details) = store.get(format!("open/{order}"))? {
        let mut batch = Batch::new();
        batch.delete(format!("open/{order}")).put(format!("paid/{order}"), details);
        store.write(&batch)?;
    }
    store.prefix_keys("paid/").try_fold(0, |count, key| key.map(|_| count + 1))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let db = Arc::new(Bitcask::open(dir.path(), Options::default())?);
    db.put("open/7", "3 apples")?;
    db.put("open/8", "1 pear")?;

    // In this process.
    assert_eq!(pay(&*db, "7")?, 1);

    // Through a server. Port 0 is any that is free.
    let server = Server::bind(Arc::clone(&db), ServerOptions::new().address("127.0.0.1", 0))?;
    let (url, stop) = (server.url(), server.stop_handle());
    let running = std::thread::spawn(move || server.run());
    let client = Client::at(&url)?;
    assert_eq!(pay(&client, "8")?, 2);
    println!("{url} has {} keys", client.stats()?.keys);

    // Both see the same store.
    for pair in client.prefix("paid/") {
        let (key, value) = pair?;
        assert_eq!(db.get(&key)?.as_ref(), Some(&value));
        println!("{key:?} = {value:?}");
    }

    // Two writers, one of them here: the version shows that the other one was faster.
    let (_, version) = client.get_versioned("paid/7")?.ok_or("it was paid")?;
    db.put("paid/7", "4 apples")?;
    let swapped = client.compare_and_swap_versioned("paid/7", Some(version), Some(b"none"))?;
    let lost = swapped.err().ok_or("the store has changed meanwhile")?;
    assert_eq!(lost.current.as_deref(), Some(&b"4 apples"[..]));

    stop.stop();
    running.join().map_err(|_| "the server has panicked")??;
    Ok(())
}
