//! When the keys expire that were put while a follower was there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

/// Maximum number of keys whose expiry is remembered.
const KEYS_MAX: usize = 1 << 20;
/// Maximum size of these keys, in bytes. The store itself has none of them in memory.
const KEYS_SIZE_MAX: usize = 64 << 20;

/// The times of one key.
#[derive(Debug, Clone, Copy)]
struct KeyTimes {
    expires_at: SystemTime,
    /// When the follower looks: later, if the store still had the key at the first look.
    looked_at: SystemTime,
}

/// Keys that are going to expire.
#[derive(Debug, Default)]
pub(super) struct ExpiringKeys {
    times: HashMap<Arc<[u8]>, KeyTimes>,
    /// The same keys, in the order in which the follower looks.
    order: BTreeSet<(SystemTime, Arc<[u8]>)>,
    /// Size of all keys.
    size: usize,
}

impl ExpiringKeys {
    /// Remembers when a key expires, unless there are too many keys, or they are too large. The key
    /// must not be there.
    pub(super) fn remember(&mut self, key: &[u8], expires_at: SystemTime) {
        if self.times.len() < KEYS_MAX && self.size + key.len() <= KEYS_SIZE_MAX {
            self.size += key.len();
            self.insert(key.into(), KeyTimes { expires_at, looked_at: expires_at });
        }
    }

    fn insert(&mut self, key: Arc<[u8]>, times: KeyTimes) {
        self.order.insert((times.looked_at, Arc::clone(&key)));
        self.times.insert(key, times);
    }

    /// Takes a key out. Returns when it expires.
    pub(super) fn take(&mut self, key: &[u8]) -> Option<SystemTime> {
        let (key, times) = self.times.remove_entry(key)?;
        self.size = self.size.saturating_sub(key.len());
        self.order.remove(&(times.looked_at, key));
        Some(times.expires_at)
    }

    /// Looks at a key at another time.
    pub(super) fn look_again(&mut self, key: &[u8], looked_at: SystemTime) {
        if let Some((key, times)) = self.times.remove_entry(key) {
            self.order.remove(&(times.looked_at, Arc::clone(&key)));
            self.insert(key, KeyTimes { looked_at, ..times });
        }
    }

    /// Returns the key that is looked at first, and when.
    pub(super) fn first(&self) -> Option<(SystemTime, Arc<[u8]>)> {
        self.order.first().cloned()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.times.len(), self.order.len());
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn the_keys_are_bounded_by_their_size() {
        let mut keys = ExpiringKeys::default();
        let key = |number: usize| format!("{number:>65000}").into_bytes();
        let fitting = KEYS_SIZE_MAX / 65_000;
        for number in 0..fitting + 10 {
            keys.remember(&key(number), UNIX_EPOCH);
        }
        assert_eq!(keys.len(), fitting);
        keys.look_again(&key(1), SystemTime::now());
        keys.remember(b"a short key", UNIX_EPOCH);
        assert_eq!((keys.len(), keys.size), (fitting + 1, fitting * 65_000 + 11));
        for number in 0..fitting + 10 {
            assert_eq!(keys.take(&key(number)), (number < fitting).then_some(UNIX_EPOCH));
        }
        assert_eq!((keys.len(), keys.size), (1, 11));
    }
}
