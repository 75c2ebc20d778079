//! When the keys expire that were put while a follower was there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

/// Maximum number of keys whose expiry is remembered.
const KEYS_MAX: usize = 1 << 20;

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
}

impl ExpiringKeys {
    /// Remembers when a key expires, unless there are too many keys. The key must not be there.
    pub(super) fn remember(&mut self, key: &[u8], expires_at: SystemTime) {
        if self.times.len() < KEYS_MAX {
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
