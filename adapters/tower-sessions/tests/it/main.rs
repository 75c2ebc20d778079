//! The adapter against a real store, and in a service.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

mod concurrency;
mod contract;
mod middleware;
mod threads;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitcask::{Bitcask, Options};
use serde_json::json;
use time::OffsetDateTime;
use tower_sessions_bitcask::BitcaskSessions;
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::{Id, Record};

fn open(path: &Path) -> Arc<Bitcask> {
    Arc::new(Bitcask::open(path, Options::default()).unwrap())
}

/// Closes a store that no session store uses any more.
fn close(db: Arc<Bitcask>) {
    Arc::into_inner(db).unwrap().close().unwrap();
}

/// Makes a session that expires in an hour, with a number in it.
fn record(id: i128, number: u64) -> Record {
    let data = HashMap::from([("number".to_owned(), json!(number))]);
    let expiry_date = OffsetDateTime::now_utc() + Duration::from_secs(3600);
    Record { id: Id(id), data, expiry_date }
}

/// Stores a session that is not there yet.
async fn created(sessions: &BitcaskSessions, mut record: Record) -> Record {
    sessions.create(&mut record).await.unwrap();
    record
}

/// Runs a test with a session store in a new directory, for both ways of loading.
async fn with_sessions<F: Future<Output = ()>>(test: impl Fn(BitcaskSessions) -> F) {
    for reads_block in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        test(BitcaskSessions::new(open(dir.path())).reads_block(reads_block)).await;
    }
}
