//! Changes of one key, applied if its value or version is the expected one.

use std::error::Error as StdError;
use std::fmt;

use super::conditional::{Condition, Expected};
use super::version::Version;
use crate::error::Result;
use crate::options::WriteOptions;
use crate::store::{Bitcask, Inner};
use crate::value::Value;

/// The state of the key when it was not what [`Bitcask::compare_and_swap`] or
/// [`Bitcask::compare_and_swap_versioned`] expected. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompareAndSwapError {
    /// The value of the key, or `None` if the key is absent or expired.
    pub current: Option<Value>,
    /// The version of the key, or `None` if the key is absent or expired.
    pub version: Option<Version>,
}

impl fmt::Display for CompareAndSwapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.current {
            Some(_) => "the key does not have the expected value or version; nothing was changed",
            None => "the key is unexpectedly absent; nothing was changed",
        })
    }
}

impl StdError for CompareAndSwapError {}

impl Bitcask {
    /// Sets a key's value to `new` if it is currently `expected`. On either side, `None` stands for
    /// an absent key. The key gets the store's [`default_ttl`](crate::Options::default_ttl).
    ///
    /// The outer result reports failures of the store; the inner one reports whether the value was
    /// the expected one. Durability follows the store's [`SyncPolicy`](crate::SyncPolicy). Costs a
    /// lookup, a comparison and a put.
    ///
    /// # Errors
    ///
    /// The errors of [`put`](Self::put) and [`get`](crate::Reader::get). If the value is not the
    /// expected one, the inner result holds the value that the key had when the two were compared.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// assert!(db.compare_and_swap("state", None, Some(b"idle"))?.is_ok());
    /// assert!(db.compare_and_swap("state", Some(b"idle"), Some(b"busy"))?.is_ok());
    /// let error = db.compare_and_swap("state", Some(b"idle"), Some(b"busy"))?.unwrap_err();
    /// assert_eq!(error.current.as_deref(), Some(&b"busy"[..]));
    /// assert!(db.compare_and_swap("state", Some(b"busy"), None)?.is_ok());
    /// assert!(!db.contains_key("state")?);
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "cas")]
    #[doc(alias = "compare_exchange")]
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<Result<(), CompareAndSwapError>> {
        self.compare_and_swap_opt(key, expected, new, WriteOptions::new())
    }

    /// Sets a key's value to `new` if it is currently `expected`, with options. Otherwise like
    /// [`compare_and_swap`](Self::compare_and_swap).
    ///
    /// # Errors
    ///
    /// As [`compare_and_swap`](Self::compare_and_swap).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use bitcask::{Bitcask, Options, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// let minute = WriteOptions::new().ttl(Duration::from_secs(60));
    /// assert!(db.compare_and_swap_opt("lease", None, Some(b"a"), minute)?.is_ok());
    /// // Only the holder can renew the lease.
    /// assert!(db.compare_and_swap_opt("lease", Some(b"b"), Some(b"b"), minute)?.is_err());
    /// assert!(db.compare_and_swap_opt("lease", Some(b"a"), Some(b"a"), minute)?.is_ok());
    /// # db.close()
    /// # }
    /// ```
    pub fn compare_and_swap_opt(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        options: WriteOptions,
    ) -> Result<Result<(), CompareAndSwapError>> {
        self.inner.swap_if(key.as_ref(), Expected::Value(expected), new, options)
    }

    /// Sets a key's value to `new` if the key still has the version `expected`. On either side,
    /// `None` stands for an absent key.
    ///
    /// Does not compare values, so a value that was changed and changed back does not pass, and a
    /// large value costs nothing extra. A change of only the key's time to live also changes its
    /// version. Otherwise like [`compare_and_swap`](Self::compare_and_swap).
    ///
    /// # Errors
    ///
    /// As [`compare_and_swap`](Self::compare_and_swap).
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("page", "draft")?;
    /// let (page, version) = db.get_versioned("page")?.expect("it was just put");
    /// let edited = [&page, &b", edited"[..]].concat();
    /// assert!(db.compare_and_swap_versioned("page", Some(version), Some(&edited))?.is_ok());
    /// // Another edit of the same version must merge the two.
    /// let swapped = db.compare_and_swap_versioned("page", Some(version), Some(b"mine"))?;
    /// let error = swapped.unwrap_err();
    /// assert_eq!(error.current.unwrap(), "draft, edited");
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "cas")]
    pub fn compare_and_swap_versioned(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<Version>,
        new: Option<&[u8]>,
    ) -> Result<Result<(), CompareAndSwapError>> {
        self.compare_and_swap_versioned_opt(key, expected, new, WriteOptions::new())
    }

    /// Sets a key's value to `new` if the key still has the version `expected`, with options.
    /// Otherwise like [`compare_and_swap_versioned`](Self::compare_and_swap_versioned).
    ///
    /// # Errors
    ///
    /// As [`compare_and_swap`](Self::compare_and_swap).
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// let durable = WriteOptions::new().durable(true);
    /// assert!(db.compare_and_swap_versioned_opt("id", None, Some(b"1"), durable)?.is_ok());
    /// # db.close()
    /// # }
    /// ```
    pub fn compare_and_swap_versioned_opt(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<Version>,
        new: Option<&[u8]>,
        options: WriteOptions,
    ) -> Result<Result<(), CompareAndSwapError>> {
        let expected = Expected::Unchanged(expected.map(Version::timestamp));
        self.inner.swap_if(key.as_ref(), expected, new, options)
    }

    /// Does the same without a look at any value. Returns whether the key had the version.
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "only the server changes keys by their versions alone")
    )]
    pub(crate) fn change_version(
        &self,
        key: &[u8],
        expected: Option<Version>,
        new: Option<&[u8]>,
        options: WriteOptions,
    ) -> Result<bool> {
        let expected = Expected::Unchanged(expected.map(Version::timestamp));
        self.inner.change_if(key, expected, new, options)
    }
}

impl Inner {
    /// Changes one key if it is as expected; otherwise returns its current state. `None` as the
    /// value is a delete.
    fn swap_if(
        &self,
        key: &[u8],
        expected: Expected<'_>,
        value: Option<&[u8]>,
        options: WriteOptions,
    ) -> Result<Result<(), CompareAndSwapError>> {
        self.writer()?;
        let drafts = vec![self.draft(self.keydir.hash(key), key, value, options)?];
        let conditions = [Condition { key, expected }];
        let mut refusal = CompareAndSwapError { current: None, version: None };
        let is_made = self.change_or_refuse(
            &conditions,
            drafts,
            options,
            |_| Ok(true),
            |found| {
                refusal.current = found.map(|located| self.value(&located.stored)).transpose()?;
                refusal.version = found.map(|located| Version::of(&located.stored));
                Ok(())
            },
        )?;
        if is_made {
            return Ok(Ok(()));
        }
        self.pin().count_conflict();
        Ok(Err(refusal))
    }
}
