//! What a collection is, and how its keys and values become bytes.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bounds::{EncodedBounds, TypedBounds};
use super::key::{DecodeKey, EncodeKey, EncodePrefix};
use super::value::{Json, Postcard, ValueCodec};
use crate::error::{Error, Result};
use crate::store::prefix_bounds;

/// A collection of keys of type `K` with values of type `V`, in a store.
///
/// A description that costs nothing: copy it, or make it a constant. See the
/// [module](crate::typed) for how keys and values are encoded, and how their types can change.
///
/// Reading works on anything that holds pairs, a [`TypedSource`](super::TypedSource): a
/// [`Bitcask`](crate::Bitcask), a [`ReadOnly`](crate::ReadOnly), a [`Reader`](crate::Reader), a
/// [`Snapshot`](crate::Snapshot) or a [`Transaction`](crate::Transaction). Writing works on a
/// `Bitcask`, or, with the methods whose names contain `_in`, on a
/// [`TypedSink`](super::TypedSink): a [`Batch`](crate::Batch) or a `Transaction`.
///
/// ```
/// use bitcask::typed::Typed;
/// use bitcask::{Bitcask, Options};
///
/// const STOCK: Typed<String, u32> = Typed::new("stock/");
/// const SOLD: Typed<(String, u64), u32> = Typed::new("sold/");
///
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Bitcask::open(dir.path(), Options::default())?;
/// STOCK.put(&db, "book", &3)?;
/// // Both collections change, or neither does.
/// let sold = db.transaction(|tx| {
///     let Some(left) = STOCK.get(tx, "book")?.and_then(|stock| stock.checked_sub(1)) else {
///         return Ok(false);
///     };
///     STOCK.put_in(tx, "book", &left)?;
///     SOLD.put_in(tx, &("book", 1_700_000_000), &1)?;
///     Ok(true)
/// })?;
/// assert!(sold);
/// assert_eq!(STOCK.get(&db, "book")?, Some(2));
/// # db.close()
/// # }
/// ```
pub struct Typed<K, V, C = Postcard> {
    pub(super) prefix: &'static str,
    /// Only names types, so it can be shared and sent whatever they are.
    pub(super) types: PhantomData<Types<K, V, C>>,
}

/// Names types without holding values of them.
pub(super) type Types<K, V, C> = fn() -> (K, V, C);

impl<K, V, C> Clone for Typed<K, V, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V, C> Copy for Typed<K, V, C> {}

impl<K, V, C> fmt::Debug for Typed<K, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed")
            .field("prefix", &self.prefix)
            .field("key", &type_name::<K>())
            .field("value", &type_name::<V>())
            .field("codec", &type_name::<C>())
            .finish()
    }
}

impl<K, V> Typed<K, V, Postcard> {
    /// Describes a collection whose keys begin with a prefix, and whose values are encoded with
    /// [`Postcard`].
    pub const fn new(prefix: &'static str) -> Self {
        Self { prefix, types: PhantomData }
    }
}

impl<K, V> Typed<K, V, Json> {
    /// Describes a collection whose keys begin with a prefix, and whose values are encoded as
    /// [`Json`].
    ///
    /// ```
    /// use bitcask::typed::{Json, Typed};
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// const LIMITS: Typed<String, (u8, u8), Json> = Typed::json("limit/");
    /// LIMITS.put(&db, "door", &(1, 3))?;
    /// assert_eq!(db.get("limit/door")?.unwrap(), "[1,3]");
    /// # db.close()
    /// # }
    /// ```
    pub const fn json(prefix: &'static str) -> Self {
        Self { prefix, types: PhantomData }
    }
}

impl<K, V, C> Typed<K, V, C> {
    /// Returns the prefix of the collection's keys, for example for
    /// [`watch_prefix`](crate::Reader::watch_prefix).
    pub const fn key_prefix(&self) -> &'static str {
        self.prefix
    }

    /// Returns the bytes of a key, with the prefix: for all calls of the store that have no typed
    /// form.
    ///
    /// ```
    /// # use bitcask::typed::Typed;
    /// # use bitcask::{Bitcask, Options, Ttl};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// const SEEN: Typed<(bool, u16), ()> = Typed::new("seen/");
    /// assert_eq!(SEEN.encode_key(&(true, 258)), b"seen/\x01\x01\x02");
    /// SEEN.put(&db, &(true, 258), &())?;
    /// assert_eq!(db.ttl(SEEN.encode_key(&(true, 258)))?, Some(Ttl::Never));
    /// # db.close()
    /// # }
    /// ```
    pub fn encode_key<Q: EncodeKey<K> + ?Sized>(&self, key: &Q) -> Vec<u8> {
        let mut bytes = self.prefix.as_bytes().to_vec();
        key.encode_last(&mut bytes);
        bytes
    }

    /// Returns the key that bytes encode, for example those of a [`Change`](crate::Change).
    ///
    /// # Errors
    ///
    /// [`Undecodable`](Error::Undecodable) if the bytes are no key of this collection.
    pub fn decode_key(&self, bytes: &[u8]) -> Result<K>
    where
        K: DecodeKey,
    {
        let key = bytes.strip_prefix(self.prefix.as_bytes()).and_then(K::decode_last);
        key.ok_or_else(|| {
            let (prefix, expected) = (self.prefix, type_name::<K>());
            let reason = format!("the key is not `{prefix}` and then a {expected}");
            Error::Undecodable { key: bytes.to_vec(), reason }
        })
    }

    /// Returns the value that bytes encode. The key is for the error.
    ///
    /// # Errors
    ///
    /// [`Undecodable`](Error::Undecodable) if the bytes are no value of this type.
    ///
    /// ```
    /// # use bitcask::typed::Typed;
    /// # use bitcask::{Bitcask, Operation, Options, Position};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// const AGES: Typed<String, u8> = Typed::new("age/");
    /// AGES.put(&db, "ann", &41)?;
    /// let mut changes = db.changes(Position::START)?.prefix(AGES.key_prefix());
    /// let change = changes.try_recv()?.expect("one change was made");
    /// let Operation::Put { value, .. } = change.operation else { panic!("it was a put") };
    /// assert_eq!(AGES.decode_key(&change.key)?, "ann");
    /// assert_eq!(AGES.decode_value(&change.key, &value)?, 41);
    /// # db.close()
    /// # }
    /// ```
    pub fn decode_value(&self, key: &[u8], bytes: &[u8]) -> Result<V>
    where
        V: DeserializeOwned,
        C: ValueCodec,
    {
        C::decode(bytes).map_err(|reason| {
            let reason = format!("the value is not a {}: {reason}", type_name::<V>());
            Error::Undecodable { key: key.to_vec(), reason }
        })
    }

    /// Returns the bytes of a key and of its value.
    pub(super) fn encode<Q>(&self, key: &Q, value: &V) -> Result<(Vec<u8>, Vec<u8>)>
    where
        Q: EncodeKey<K> + ?Sized,
        V: Serialize,
        C: ValueCodec,
    {
        let key = self.encode_key(key);
        match C::encode(value) {
            Ok(value) => Ok((key, value)),
            Err(reason) => Err(Error::Unencodable { key, reason }),
        }
    }

    /// Returns the ends of a range of keys, within the collection.
    pub(super) fn bounds(&self, bounds: &impl TypedBounds<K>) -> EncodedBounds {
        bounds.encoded(self.prefix.as_bytes())
    }

    /// Returns the ends of the keys that begin with some fields.
    pub(super) fn bounds_of<P: EncodePrefix<K> + ?Sized>(&self, fields: &P) -> EncodedBounds {
        let mut prefix = self.prefix.as_bytes().to_vec();
        fields.encode_prefix(&mut prefix);
        let bounds = prefix_bounds(&prefix);
        (bounds.start, bounds.end)
    }
}
