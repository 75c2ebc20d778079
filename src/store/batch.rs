//! Several changes that happen together or not at all.

use std::collections::HashMap;
use std::time::Duration;

/// Puts and deletes that [`Bitcask::write`](crate::Bitcask::write) makes together or not at all.
///
/// The last change of a key counts. A batch's entries have to fit in one segment of at most
/// 512 MiB.
///
/// ```
/// use bitcask::{Batch, Bitcask, Options};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Bitcask::open(dir.path(), Options::default())?;
/// db.put("b", "0")?;
/// db.write(Batch::new().put("a", "1").delete("b"))?;
///
/// let mut batch = Batch::new();
/// for number in 0..100_u32 {
///     batch = batch.put(number.to_be_bytes(), "x");
/// }
/// db.write(batch)?;
/// assert_eq!(db.len(), 101);
/// # db.close()
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a batch does nothing before it is written"]
pub struct Batch {
    changes: Vec<Change>,
}

/// One change of a key.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) key: Vec<u8>,
    /// Nothing for a delete.
    pub(super) value: Option<Vec<u8>>,
    pub(super) ttl: Option<Duration>,
}

impl Batch {
    /// A batch without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put.
    pub fn put(self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.change(key.as_ref(), Some(value.as_ref().to_vec()), None)
    }

    /// Adds a put of a key that lives for `ttl` from the moment that the batch is written.
    pub fn put_with_ttl(
        self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Self {
        self.change(key.as_ref(), Some(value.as_ref().to_vec()), Some(ttl))
    }

    /// Adds a delete; the key need not exist.
    pub fn delete(self, key: impl AsRef<[u8]>) -> Self {
        self.change(key.as_ref(), None, None)
    }

    /// Returns the number of changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Returns whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn change(mut self, key: &[u8], value: Option<Vec<u8>>, ttl: Option<Duration>) -> Self {
        self.changes.push(Change { key: key.to_vec(), value, ttl });
        self
    }

    /// Returns the changes, of each key only the last.
    pub(super) fn into_changes(self) -> Vec<Change> {
        let mut last = HashMap::with_capacity(self.changes.len());
        for (at, change) in self.changes.iter().enumerate() {
            last.insert(change.key.as_slice(), at);
        }
        if last.len() == self.changes.len() {
            return self.changes;
        }
        let mut kept: Vec<usize> = last.into_values().collect();
        kept.sort_unstable();
        let mut changes: Vec<Option<Change>> = self.changes.into_iter().map(Some).collect();
        kept.into_iter().filter_map(|at| changes.get_mut(at)?.take()).collect()
    }
}
