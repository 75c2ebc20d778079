//! The fields of hashes, as commands see them.
//!
//! - A hash may have any number of fields, and their values may have to be decompressed. So the
//!   names are read without the values where they are enough, and the values one after the other.
//! - A command on all of a large hash takes long, and must not hold up other clients.

use tokio::runtime::{Handle, RuntimeFlavor};

use super::encoding::{HASH_HEADER_SIZE, HashHeader, encode_key};
use super::holding::Holding;
use super::keyspace::{Keyspace, check_key};
use super::refusal::Answer;
use crate::error::Error;
use crate::value::Value;

/// Number of fields from which on a hash is large.
const LARGE: u64 = 500;

/// Runs what takes long. If that is on a thread that serves clients, the others are served by
/// another one meanwhile.
pub(super) fn at_length<T>(call: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    // Nodes of a cluster run commands on other threads, too, and in simulations.
    if matches!(flavor, Ok(RuntimeFlavor::MultiThread)) {
        return tokio::task::block_in_place(call);
    }
    call()
}

impl Keyspace<'_> {
    /// Does what [`atomically`](Self::atomically) does, for a part of a command that works on all
    /// that these keys hold.
    pub(super) fn atomically_on<T>(
        &mut self,
        keys: &[&[u8]],
        run: impl FnMut(&mut Keyspace<'_>) -> Answer<T>,
    ) -> Answer<T> {
        if self.tx.is_none() && self.database.has_hashes() {
            for key in keys {
                if self.is_large_hash(key)? {
                    return at_length(|| self.atomically(run));
                }
            }
        }
        self.atomically(run)
    }

    fn is_large_hash(&self, key: &[u8]) -> Answer<bool> {
        if check_key(key).is_err() {
            return Ok(false);
        }
        // Any other string may be large, and is not read.
        let size = self.database.store.value_len(encode_key(key))?;
        if size != Some(HASH_HEADER_SIZE as u64) {
            return Ok(false);
        }
        Ok(matches!(self.get(key)?, Some(Holding::Hash(header)) if header.count >= LARGE))
    }

    /// Returns the stored keys of all fields of a hash, within a transaction.
    pub(super) fn field_keys(&self, header: HashHeader) -> Answer<Vec<Value>> {
        let Some(tx) = &self.tx else { return Ok(Vec::new()) };
        Ok(tx.prefix_keys(header.prefix()).collect::<Result<_, Error>>()?)
    }

    /// Returns the stored keys and the values of all fields of a hash, within a transaction. Each
    /// value is read when its turn comes.
    pub(super) fn fields(
        &self,
        header: HashHeader,
    ) -> impl Iterator<Item = Answer<(Value, Value)>> {
        let fields = self.tx.iter().flat_map(move |tx| tx.prefix(header.prefix()));
        fields.map(|field| Ok(field?))
    }

    /// Removes the fields of a hash, within a transaction.
    pub(super) fn remove_fields(&mut self, header: HashHeader) -> Answer<()> {
        for key in self.field_keys(header)? {
            self.remove_stored(&key);
        }
        Ok(())
    }
}
