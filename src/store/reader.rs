//! The read operations of an open store, whatever its role.
//!
//! - [`Bitcask`] and [`ReadOnly`] dereference to [`Reader`]. Each adds the operations of its role.
//! - The methods are in the rooms that they belong to: `point`, `scan`, `snapshot`, `changes`,
//!   `admin`, and `stats`.

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use super::{Bitcask, Inner, ReadOnly, Role};
use crate::options::Options;
use crate::recovery::RecoveryReport;

/// The read operations of an open store: values, scans, snapshots, changes and statistics.
///
/// Both [`Bitcask`], a store that is open for writing, and [`ReadOnly`] dereference to this type,
/// so its methods can be called on either. A function that only reads takes a `&Reader` and accepts
/// both:
///
/// ```
/// use bitcask::{Bitcask, Options, ReadOnly, Reader};
///
/// fn greeting(db: &Reader) -> bitcask::Result<Option<String>> {
///     db.get_with("greeting", |value| String::from_utf8_lossy(value).into_owned())
/// }
///
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Bitcask::open(dir.path(), Options::default())?;
/// db.put("greeting", "hello")?;
/// assert_eq!(greeting(&db)?.as_deref(), Some("hello"));
///
/// let reader = ReadOnly::open(dir.path(), Options::default())?;
/// assert_eq!(greeting(&reader)?.as_deref(), Some("hello"));
/// # reader.close()?;
/// # db.close()
/// # }
/// ```
///
/// A `Reader` exists only as part of an open store. A [`Snapshot`](crate::Snapshot), the followers
/// of [`changes`](Self::changes) and a [`Value`](crate::Value) may outlive the store.
pub struct Reader {
    pub(super) inner: Arc<Inner>,
}

impl Reader {
    /// Returns what opening the store found and did.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.inner.report
    }

    /// Returns the options with which the store was opened. A policy that was changed since is not
    /// in them.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::new().value_size_limit(1000))?;
    /// assert_eq!(db.options().get_value_size_limit(), 1000);
    /// # db.close()
    /// # }
    /// ```
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Returns the time of the store's clock, in microseconds since the epoch.
    #[cfg(feature = "resp")]
    pub(crate) fn now(&self) -> u64 {
        self.inner.clock.now()
    }

    /// Returns the store's directory, as an absolute path.
    pub fn path(&self) -> &Path {
        self.inner.dir.path()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.inner.role {
            Role::Writer(_) => "Bitcask",
            Role::Follower(_) => "ReadOnly",
        };
        f.debug_struct(name).field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Deref for Bitcask {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

impl fmt::Debug for Bitcask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reader.fmt(f)
    }
}

impl Deref for ReadOnly {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

impl fmt::Debug for ReadOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reader.fmt(f)
    }
}
