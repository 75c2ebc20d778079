//! Changing typed collections.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Typed;
use super::bounds::TypedBounds;
use super::key::{EncodeKey, EncodePrefix};
use super::target::TypedSink;
use super::value::ValueCodec;
use crate::error::Result;
use crate::options::WriteOptions;
use crate::store::Bitcask;

impl<K, V, C: ValueCodec> Typed<K, V, C> {
    /// Stores a value under a key, replacing any existing value, whether or not that decodes.
    ///
    /// # Errors
    ///
    /// [`Unencodable`](crate::Error::Unencodable) if the encoding cannot express the value, and the
    /// errors of [`Bitcask::put`].
    #[doc(alias = "insert")]
    #[doc(alias = "set")]
    pub fn put<Q>(&self, store: &Bitcask, key: &Q, value: &V) -> Result<()>
    where
        Q: EncodeKey<K> + ?Sized,
        V: Serialize,
    {
        self.put_opt(store, key, value, WriteOptions::new())
    }

    /// Stores a value under a key, with options: a time to live, and whether to wait for
    /// durability.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use bitcask::typed::Typed;
    /// # use bitcask::{Bitcask, Options, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// const SESSIONS: Typed<u128, String> = Typed::new("session/");
    /// let hour = WriteOptions::new().ttl(Duration::from_secs(3600));
    /// SESSIONS.put_opt(&db, &1, &"ann".to_owned(), hour)?;
    /// # db.close()
    /// # }
    /// ```
    pub fn put_opt<Q>(
        &self,
        store: &Bitcask,
        key: &Q,
        value: &V,
        options: WriteOptions,
    ) -> Result<()>
    where
        Q: EncodeKey<K> + ?Sized,
        V: Serialize,
    {
        let (key, value) = self.encode(key, value)?;
        store.put_opt(key, value, options)
    }

    /// Stores a value under a key if the key is absent or expired. Returns whether it did.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn put_if_absent<Q>(&self, store: &Bitcask, key: &Q, value: &V) -> Result<bool>
    where
        Q: EncodeKey<K> + ?Sized,
        V: Serialize,
    {
        let (key, value) = self.encode(key, value)?;
        store.put_if_absent(key, value)
    }

    /// Removes a key. Returns whether it existed, whatever its value was.
    ///
    /// # Errors
    ///
    /// As [`Bitcask::delete`].
    #[doc(alias = "remove")]
    pub fn delete<Q>(&self, store: &Bitcask, key: &Q) -> Result<bool>
    where
        Q: EncodeKey<K> + ?Sized,
    {
        store.delete(self.encode_key(key))
    }

    /// Removes all keys in a range, and returns their number. `..` removes the whole collection,
    /// with keys that do not decode, and nothing else.
    ///
    /// # Errors
    ///
    /// As [`Bitcask::delete_range`].
    pub fn delete_range(&self, store: &Bitcask, bounds: impl TypedBounds<K>) -> Result<u64> {
        store.delete_range(self.bounds(&bounds))
    }

    /// Removes all keys that begin with some fields, and returns their number; see
    /// [`prefix`](Self::prefix).
    ///
    /// # Errors
    ///
    /// As [`Bitcask::delete_range`].
    pub fn delete_prefix<P>(&self, store: &Bitcask, fields: &P) -> Result<u64>
    where
        P: EncodePrefix<K> + ?Sized,
    {
        store.delete_range(self.bounds_of(fields))
    }

    /// Adds a put to a batch or a transaction.
    ///
    /// # Errors
    ///
    /// [`Unencodable`](crate::Error::Unencodable) if the encoding cannot express the value.
    ///
    /// ```
    /// # use bitcask::typed::Typed;
    /// # use bitcask::{Batch, Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// const NAMES: Typed<u32, String> = Typed::new("name/");
    /// const IDS: Typed<String, u32> = Typed::new("id/");
    /// let mut batch = Batch::new();
    /// NAMES.put_in(&mut batch, &7, &"ann".to_owned())?;
    /// IDS.put_in(&mut batch, "ann", &7)?;
    /// db.write(&batch)?;
    /// # db.close()
    /// # }
    /// ```
    pub fn put_in<Q>(&self, sink: &mut impl TypedSink, key: &Q, value: &V) -> Result<()>
    where
        Q: EncodeKey<K> + ?Sized,
        V: Serialize,
    {
        self.put_in_opt(sink, key, value, WriteOptions::new())
    }

    /// Adds a put with options to a batch or a transaction; see
    /// [`Batch::put_opt`](crate::Batch::put_opt) and
    /// [`Transaction::put_opt`](crate::Transaction::put_opt).
    ///
    /// # Errors
    ///
    /// As [`put_in`](Self::put_in).
    pub fn put_in_opt<Q>(
        &self,
        sink: &mut impl TypedSink,
        key: &Q,
        value: &V,
        options: WriteOptions,
    ) -> Result<()>
    where
        Q: EncodeKey<K> + ?Sized,
        V: Serialize,
    {
        let (key, value) = self.encode(key, value)?;
        sink.add_put(key, value, options);
        Ok(())
    }

    /// Adds a delete to a batch or a transaction. The key does not have to exist.
    pub fn delete_in<Q>(&self, sink: &mut impl TypedSink, key: &Q)
    where
        Q: EncodeKey<K> + ?Sized,
    {
        sink.add_delete(self.encode_key(key));
    }

    /// Replaces a key's value with the result of a closure, and returns what was stored. The
    /// closure gets `None` if the key is absent, and removes the key by returning `None`.
    ///
    /// A [`transaction`](Bitcask::transaction) of one key, so the closure runs again if the key has
    /// changed meanwhile. The key gets the store's [`default_ttl`](crate::Options::default_ttl).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get) and [`put`](Self::put), and [`Conflict`](crate::Error::Conflict) after
    /// a hundred attempts. The closure does not run for a value that does not decode.
    ///
    /// ```
    /// # use bitcask::typed::Typed;
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// const HITS: Typed<String, u64> = Typed::new("hits/");
    /// let next = |hits: Option<u64>| Some(hits.unwrap_or(0) + 1);
    /// HITS.update(&db, "/index", next)?;
    /// assert_eq!(HITS.update(&db, "/index", next)?, Some(2));
    /// # db.close()
    /// # }
    /// ```
    pub fn update<Q>(
        &self,
        store: &Bitcask,
        key: &Q,
        mut change: impl FnMut(Option<V>) -> Option<V>,
    ) -> Result<Option<V>>
    where
        Q: EncodeKey<K> + ?Sized,
        V: Serialize + DeserializeOwned,
    {
        store.transaction(|tx| {
            let new = change(self.get(tx, key)?);
            match &new {
                Some(value) => self.put_in(tx, key, value)?,
                None => self.delete_in(tx, key),
            }
            Ok(new)
        })
    }

    /// Sets a key's value to `new` if it currently equals `expected`. On either side, `None` stands
    /// for an absent key. If the value is another one, changes nothing, and the inner error is that
    /// value.
    ///
    /// Compares values, not their bytes, so a value that an older version of the program has stored
    /// equals what it decodes to. A [`transaction`](Bitcask::transaction) of one key. The key gets
    /// the store's [`default_ttl`](crate::Options::default_ttl).
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    ///
    /// ```
    /// # use bitcask::typed::Typed;
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// const OWNERS: Typed<u32, String> = Typed::new("owner/");
    /// let [ann, bob] = ["ann", "bob"].map(str::to_owned);
    /// assert_eq!(OWNERS.compare_and_swap(&db, &1, None, Some(&ann))?, Ok(()));
    /// assert_eq!(OWNERS.compare_and_swap(&db, &1, Some(&bob), None)?, Err(Some(ann)));
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "cas")]
    pub fn compare_and_swap<Q>(
        &self,
        store: &Bitcask,
        key: &Q,
        expected: Option<&V>,
        new: Option<&V>,
    ) -> Result<Result<(), Option<V>>>
    where
        Q: EncodeKey<K> + ?Sized,
        V: Serialize + DeserializeOwned + PartialEq,
    {
        store.transaction(|tx| {
            let current = self.get(tx, key)?;
            if current.as_ref() != expected {
                return Ok(Err(current));
            }
            match new {
                Some(value) => self.put_in(tx, key, value)?,
                None => self.delete_in(tx, key),
            }
            Ok(Ok(()))
        })
    }
}
