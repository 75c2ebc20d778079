//! Traits of stores, for code that runs on an embedded store and on a remote one.
//!
//! - The methods have the names and the meaning of those of the embedded store.
//! - What only an embedded store can do, such as a transaction, is not here.

mod embedded;

use std::error::Error as StdError;
use std::time::Duration;

use super::{Batch, CompareAndSwapError, KeyRange, Ttl, Version};
use crate::options::WriteOptions;
use crate::value::Value;

/// A store that can be read: an embedded one, a snapshot of it, or a remote one.
///
/// [`Bitcask`](crate::Bitcask), [`ReadOnly`](crate::ReadOnly), [`Reader`](crate::Reader) and
/// [`Snapshot`](crate::Snapshot) implement it, and with the feature `client` the `Client` of a
/// server. A function that takes an `impl ReadStore` accepts all of them. What a call costs, and
/// which moment it shows, depends on the store.
///
/// ```
/// use bitcask::{Bitcask, Options, ReadStore, Value};
///
/// fn newest<S: ReadStore>(store: &S, prefix: &str) -> Result<Option<Value>, S::Error> {
///     Ok(store.prefix(prefix).next_back().transpose()?.map(|(_, value)| value))
/// }
///
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Bitcask::open(dir.path(), Options::default())?;
/// db.put("log/1", "first")?;
/// db.put("log/2", "second")?;
/// assert_eq!(newest(&db, "log/")?.unwrap(), "second");
/// assert_eq!(newest(&db.snapshot(), "log/")?.unwrap(), "second");
/// # db.close()
/// # }
/// ```
pub trait ReadStore {
    /// Why a call fails.
    type Error: StdError + Send + Sync + 'static;
    /// Keys and their values in order, from both ends.
    type Pairs: DoubleEndedIterator<Item = Result<(Value, Value), Self::Error>>;
    /// Keys in order, from both ends.
    type Keys: DoubleEndedIterator<Item = Result<Value, Self::Error>>;

    /// Returns the value of a key, or `None` if the key is absent or expired.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, Self::Error>;

    /// Returns the value of a key and its version, or `None` if the key is absent or expired.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn get_versioned(&self, key: impl AsRef<[u8]>)
    -> Result<Option<(Value, Version)>, Self::Error>;

    /// Returns the values of several keys, in the order of the keys.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>, Self::Error>;

    /// Returns whether a key exists and has not expired.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool, Self::Error>;

    /// Returns how long a key has left, or `None` if it is absent or expired.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Ttl>, Self::Error>;

    /// Returns the keys in a range and their values, in the order of the keys' bytes.
    fn range(&self, bounds: impl KeyRange) -> Self::Pairs;

    /// Returns the keys in a range, in order.
    fn range_keys(&self, bounds: impl KeyRange) -> Self::Keys;

    /// Returns the keys with a prefix and their values, in order.
    fn prefix(&self, prefix: impl AsRef<[u8]>) -> Self::Pairs;

    /// Returns the keys with a prefix, in order.
    fn prefix_keys(&self, prefix: impl AsRef<[u8]>) -> Self::Keys;

    /// Returns all keys and their values, in order.
    fn iter(&self) -> Self::Pairs {
        self.range(..)
    }

    /// Returns all keys, in order.
    fn keys(&self) -> Self::Keys {
        self.range_keys(..)
    }

    /// Returns the lowest key and its value, or `None` if there are no keys.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn first(&self) -> Result<Option<(Value, Value)>, Self::Error> {
        self.range(..).next().transpose()
    }

    /// Returns the highest key and its value, or `None` if there are no keys.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn last(&self) -> Result<Option<(Value, Value)>, Self::Error> {
        self.range(..).next_back().transpose()
    }
}

/// A store that can be written to: an embedded one, or a remote one.
///
/// [`Bitcask`](crate::Bitcask) implements it, and with the feature `client` the `Client` of a
/// server.
///
/// ```
/// use bitcask::{Bitcask, Options, WriteStore};
///
/// fn visit<S: WriteStore>(store: &S, page: &str) -> Result<u64, S::Error> {
///     loop {
///         let found = store.get_versioned(page)?;
///         let (count, version) = match &found {
///             None => (0, None),
///             Some((value, version)) => (value.len() as u64, Some(*version)),
///         };
///         let marks = "|".repeat(usize::try_from(count + 1).unwrap_or_default());
///         if store.compare_and_swap_versioned(page, version, Some(marks.as_bytes()))?.is_ok() {
///             return Ok(count + 1);
///         }
///     }
/// }
///
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Bitcask::open(dir.path(), Options::default())?;
/// visit(&db, "home")?;
/// assert_eq!(visit(&db, "home")?, 2);
/// # db.close()
/// # }
/// ```
pub trait WriteStore: ReadStore {
    /// Stores a value under a key, with options.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn put_opt(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<(), Self::Error>;

    /// Removes a key, with options. Returns whether it existed.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn delete_opt(&self, key: impl AsRef<[u8]>, options: WriteOptions)
    -> Result<bool, Self::Error>;

    /// Applies all changes of a batch, or none of them, with options for all of them.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn write_opt(&self, batch: &Batch, options: WriteOptions) -> Result<(), Self::Error>;

    /// Stores a value unless the key exists, with options. Returns whether it was stored.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn put_if_absent_opt(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<bool, Self::Error>;

    /// Sets a key's value to `new` if it is currently `expected`, with options. On either side,
    /// `None` stands for an absent key.
    ///
    /// # Errors
    ///
    /// Those of the store. If the value is not the expected one, the inner result has the present
    /// one.
    fn compare_and_swap_opt(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        options: WriteOptions,
    ) -> Result<Result<(), CompareAndSwapError>, Self::Error>;

    /// Sets a key's value to `new` if the key still has the version `expected`, with options. On
    /// either side, `None` stands for an absent key.
    ///
    /// # Errors
    ///
    /// Those of the store. If the version is not the expected one, the inner result has the present
    /// one.
    fn compare_and_swap_versioned_opt(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<Version>,
        new: Option<&[u8]>,
        options: WriteOptions,
    ) -> Result<Result<(), CompareAndSwapError>, Self::Error>;

    /// Makes a key live for this long from now on. Returns whether it existed.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn expire(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool, Self::Error>;

    /// Makes a key live until it is deleted. Returns whether it existed.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool, Self::Error>;

    /// Stores a value under a key.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Self::Error> {
        self.put_opt(key, value, WriteOptions::new())
    }

    /// Removes a key. Returns whether it existed.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Self::Error> {
        self.delete_opt(key, WriteOptions::new())
    }

    /// Applies all changes of a batch, or none of them.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn write(&self, batch: &Batch) -> Result<(), Self::Error> {
        self.write_opt(batch, WriteOptions::new())
    }

    /// Stores a value unless the key exists. Returns whether it was stored.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn put_if_absent(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<bool, Self::Error> {
        self.put_if_absent_opt(key, value, WriteOptions::new())
    }

    /// Sets a key's value to `new` if it is currently `expected`.
    ///
    /// # Errors
    ///
    /// As [`compare_and_swap_opt`](Self::compare_and_swap_opt).
    fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<Result<(), CompareAndSwapError>, Self::Error> {
        self.compare_and_swap_opt(key, expected, new, WriteOptions::new())
    }

    /// Sets a key's value to `new` if the key still has the version `expected`.
    ///
    /// # Errors
    ///
    /// As [`compare_and_swap_versioned_opt`](Self::compare_and_swap_versioned_opt).
    fn compare_and_swap_versioned(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<Version>,
        new: Option<&[u8]>,
    ) -> Result<Result<(), CompareAndSwapError>, Self::Error> {
        self.compare_and_swap_versioned_opt(key, expected, new, WriteOptions::new())
    }
}
