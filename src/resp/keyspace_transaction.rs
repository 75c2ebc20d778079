//! Commands in a transaction of the store, and what they cause when it has committed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::database::Database;
use super::encoding::encode_key;
use super::keyspace::{Deeds, Keyspace};
use super::ledger::{FlushTicket, Ledger, NoteTicket};
use super::refusal::{Answer, Refusal};
use crate::error::Error;
use crate::options::TransactionOptions;
use crate::store::ClearNote;

/// Time after which a transaction is not tried again. Those that read a whole database take long,
/// and any write of others makes them run again.
const ATTEMPTS_TIME_MAX: Duration = Duration::from_secs(10);

/// That a commit was about to delete all keys, as the ledger knows it.
pub(super) type NotedFlush = Arc<Mutex<Option<FlushTicket>>>;

/// Runs a closure in a transaction of the store. The outer error is that of the transaction.
pub(super) fn in_transaction<T>(
    database: &Database,
    run: impl FnMut(&mut Keyspace<'_>) -> Answer<T>,
) -> Answer<(Answer<T>, Deeds)> {
    in_transaction_within(database, ATTEMPTS_TIME_MAX, run)
}

/// Does the same, and makes no further attempt after some time.
fn in_transaction_within<T>(
    database: &Database,
    time: Duration,
    mut run: impl FnMut(&mut Keyspace<'_>) -> Answer<T>,
) -> Answer<(Answer<T>, Deeds)> {
    let options = TransactionOptions::new().durable(false);
    let (begun, mut attempts) = (Instant::now(), 0);
    let mut noted: Vec<(Vec<u8>, NoteTicket)> = Vec::new();
    let flushed = NotedFlush::default();
    let result = database.store.transaction_opt(options, |tx| {
        forget(&database.ledger, &mut noted, &flushed);
        if attempts > 0 && begun.elapsed() >= time {
            return Err(Error::Conflict { attempts });
        }
        attempts += 1;
        let mut space = Keyspace::within(database, tx);
        space.flushed = Some(Arc::clone(&flushed));
        let result = run(&mut space);
        let Keyspace { deeds, noted: keys, .. } = space;
        match result {
            Err(Refusal::Store(error)) => Err(error),
            Err(refusal) => {
                tx.rollback();
                Ok((Err(refusal), Deeds::default()))
            }
            Ok(result) => {
                for key in keys {
                    let stored = encode_key(&key);
                    // The log has no deletion of a key without an entry, but of one that has
                    // expired. A flush notes its own.
                    let is_deleted = || database.store.has_entry(&stored);
                    if tx.contains_key(&stored)? || (!deeds.has_flushed && is_deleted()?) {
                        let ticket = database.ledger.note(&key);
                        noted.push((key, ticket));
                    }
                }
                Ok((Ok(result), deeds))
            }
        }
    });
    if result.is_err() {
        forget(&database.ledger, &mut noted, &flushed);
    }
    let (result, deeds) = result?;
    if deeds.has_flushed {
        database.forget_hashes();
    }
    if deeds.has_hashed {
        database.set_has_hashes(true);
    }
    Ok((result, deeds))
}

/// Removes the notes of an attempt that has failed.
fn forget(ledger: &Ledger, noted: &mut Vec<(Vec<u8>, NoteTicket)>, flushed: &NotedFlush) {
    for (key, ticket) in std::mem::take(noted) {
        ledger.forget(&key, ticket);
    }
    if let Some(ticket) = flushed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        ledger.forget_flush(ticket);
    }
}

impl Keyspace<'_> {
    /// Removes all keys, within a transaction. They are not read: others may go on writing, and
    /// what they write until the commit is removed too.
    pub(super) fn flush_within(&mut self) {
        let ledger = &self.database.ledger;
        let note = self.flushed.clone().filter(|_| self.is_followed).map(|flushed| {
            let ledger = Arc::clone(ledger);
            let note: ClearNote = Box::new(move |before| {
                let ticket = ledger.note_flush(before);
                *flushed.lock().unwrap_or_else(PoisonError::into_inner) = Some(ticket);
            });
            note
        });
        if let Some(tx) = &mut self.tx {
            tx.clear_noting(note);
            self.put_size = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::commands::keys::flushdb;
    use super::super::keyspace::Lifespan;
    use super::super::session_tests::state;
    use super::*;

    #[test]
    fn a_transaction_is_not_tried_for_ever() {
        let (_dir, state) = state();
        let database = state.databases.get(0).unwrap();
        let mut count = 0;
        let mut run = |space: &mut Keyspace<'_>| {
            count += 1;
            let _ = space.exists(b"k")?;
            database.store.put("k", count.to_string())?;
            space.put(b"other", b"1", Lifespan::Endless)
        };
        let refused = in_transaction_within(&database, Duration::ZERO, &mut run).unwrap_err();
        assert!(matches!(refused, Refusal::Store(Error::Conflict { attempts: 1 })), "{refused:?}");
        let refused = in_transaction_within(&database, Duration::MAX, &mut run).unwrap_err();
        assert!(matches!(refused, Refusal::Store(Error::Conflict { attempts: 100 })));
        assert_eq!((count, database.store.len().unwrap()), (101, 1));
    }
    #[test]
    fn what_others_write_does_not_hinder_a_flush() {
        let (_dir, state) = state();
        let database = state.databases.get(0).unwrap();
        let mut count = 0;
        let (result, deeds) = in_transaction(&database, |space| {
            count += 1;
            flushdb(space, &[Bytes::from_static(b"FLUSHDB")])?;
            database.store.put("theirs", count.to_string())?;
            space.put(b"mine", b"1", Lifespan::Endless)
        })
        .unwrap();
        result.unwrap();
        assert!(count == 1 && deeds.has_flushed);
        assert!(!database.store.contains_key("theirs").unwrap());
        assert!(database.store.contains_key("mine").unwrap());
    }
}
