//! Writes of strings, which depend on what their keys hold.

use bytes::Bytes;

use super::encoding::{encode_key, encode_string};
use super::events::EventClass;
use super::holding::Holding;
use super::keyspace::{Keyspace, Lifespan, check_key, check_size};
use super::refusal::{Answer, Refusal};
use crate::error::Error;
use crate::store::Version;

/// Maximum number of attempts to change one key.
const ATTEMPTS: u32 = 100;

impl Keyspace<'_> {
    /// Puts a string, whatever the key held.
    pub(super) fn put_string(&mut self, key: &[u8], string: &[u8], life: Lifespan) -> Answer<()> {
        let value = encode_string(string);
        if !self.database.has_hashes() {
            return self.put(key, &value, life);
        }
        check_key(key)?;
        // A hash that another client begins behind the look must not lose its header alone.
        let attempts = if self.tx.is_some() { 0 } else { ATTEMPTS };
        for _ in 0..attempts {
            let stored = self.database.store.get_versioned(encode_key(key))?;
            let (held, version) = stored.unzip();
            if matches!(held.map(Holding::new), Some(Holding::Hash(_))) {
                break;
            }
            if self.swap(key, version, &value, life)? {
                return Ok(());
            }
        }
        self.atomically_on(&[key], |space| {
            if let Some(Holding::Hash(header)) = space.get(key)? {
                space.remove_fields(header)?;
            }
            space.put(key, &value, life)
        })
    }

    /// Replaces a string by what a closure makes of it, and keeps its time to live. The closure
    /// gets `None` if the key does not exist, and may run several times. Returns the new string.
    pub(super) fn modify(
        &mut self,
        key: &[u8],
        mut change: impl FnMut(Option<&[u8]>) -> Answer<Vec<u8>>,
    ) -> Answer<Vec<u8>> {
        check_key(key)?;
        if self.tx.is_some() {
            let new = change(self.string(key)?.as_deref())?;
            check_size(new.len())?;
            self.put(key, &encode_string(&new), Lifespan::Kept)?;
            return Ok(new);
        }
        for _ in 0..ATTEMPTS {
            let (old, version) = self.database.store.get_versioned(encode_key(key))?.unzip();
            let old = old.map(|old| Holding::new(old).string()).transpose()?;
            let new = change(old.as_deref())?;
            check_size(new.len())?;
            if self.swap(key, version, &encode_string(&new), Lifespan::Kept)? {
                return Ok(new);
            }
        }
        Err(Refusal::Store(Error::Conflict { attempts: ATTEMPTS }))
    }

    /// Puts what a key holds, as it is stored, if the key still has a version. Returns whether it
    /// had.
    fn swap(
        &mut self,
        key: &[u8],
        version: Option<Version>,
        value: &[u8],
        life: Lifespan,
    ) -> Answer<bool> {
        let (stored_key, value, options) = (encode_key(key), Some(value), life.options());
        let is_made = self.noted(key, |space| {
            let store = &space.database.store;
            let swapped =
                store.compare_and_swap_versioned_opt(stored_key, version, value, options)?;
            Ok(swapped.is_ok())
        })?;
        if is_made && version.is_none() {
            self.event(EventClass::New, "new", &Bytes::copy_from_slice(key));
        }
        Ok(is_made)
    }
}
