//! Commands in a transaction of the store, and what they cause when it has committed.

use std::collections::BTreeSet;

use super::database::Database;
use super::encoding::encode_key;
use super::keyspace::{Deeds, Keyspace};
use super::refusal::{Answer, Refusal};
use crate::options::TransactionOptions;

/// Runs a closure in a transaction of the store. The outer error is that of the transaction.
pub(super) fn in_transaction<T>(
    database: &Database,
    mut run: impl FnMut(&mut Keyspace<'_>) -> Answer<T>,
) -> Answer<(Answer<T>, Deeds)> {
    let options = TransactionOptions::new().durable(false);
    let mut noted: BTreeSet<Vec<u8>> = BTreeSet::new();
    let result = database.store.transaction_opt(options, |tx| {
        // The notes of an attempt that has failed.
        for key in std::mem::take(&mut noted) {
            database.ledger.take(&key);
        }
        let mut space = Keyspace::within(database, tx);
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
                    // The log has no deletion of a key that did not exist.
                    if tx.contains_key(&stored)? || tx.snapshot().contains_key(&stored)? {
                        database.ledger.note(&key);
                        noted.insert(key);
                    }
                }
                Ok((Ok(result), deeds))
            }
        }
    });
    if result.is_err() {
        for key in &noted {
            database.ledger.take(key);
        }
    }
    let (result, deeds) = result?;
    if deeds.has_flushed {
        database.forget_hashes()?;
    }
    if deeds.has_hashed {
        database.set_has_hashes(true);
    }
    Ok((result, deeds))
}
