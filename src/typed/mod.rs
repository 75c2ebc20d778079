//! Typed keys and values: the feature `serde`.
//!
//! A [`Typed<K, V>`](Typed) describes a collection: what its keys and values are, how they become
//! bytes, and with which prefix its keys begin. It is a constant, not a handle. Its methods take
//! the store, the snapshot, the transaction or the batch that they work on, so one transaction can
//! change several collections.
//!
//! ```
//! use bitcask::typed::Typed;
//! use bitcask::{Bitcask, Options};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Order {
//!     item: String,
//!     cents: u64,
//! }
//!
//! /// The orders of each customer, by number.
//! const ORDERS: Typed<(String, u32), Order> = Typed::new("order/");
//!
//! # fn main() -> bitcask::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! let db = Bitcask::open(dir.path(), Options::default())?;
//! for (number, cents) in [(9, 250), (10, 999)] {
//!     ORDERS.put(&db, &("ann", number), &Order { item: "book".into(), cents })?;
//! }
//! assert_eq!(ORDERS.get(&db, &("ann", 9))?.unwrap().cents, 250);
//!
//! // In the order of the keys' type: 9 comes before 10.
//! let anns = ORDERS.prefix(&db, &("ann",)).collect::<bitcask::Result<Vec<_>>>()?;
//! assert_eq!(anns[1].0, ("ann".to_owned(), 10));
//! assert_eq!(ORDERS.range(&db, ("ann", 10)..).count(), 1);
//! # db.close()
//! # }
//! ```
//!
//! # Keys
//!
//! Keys are encoded so that the order of their bytes is the order of their type:
//!
//! | type | bytes |
//! | --- | --- |
//! | `u8` to `u128`, `usize` | big-endian; `usize` takes 8 bytes |
//! | `i8` to `i128`, `isize` | the same, with the sign bit inverted |
//! | `bool` | 0 or 1 |
//! | `[u8; N]` | as they are |
//! | `String`, `Vec<u8>`, as the whole key or its last field | as they are |
//! | `String`, `Vec<u8>`, in any other field | each `00` as `00 ff`, then `00 00` |
//! | `()` | none |
//! | tuples of up to six fields | the fields, one after the other |
//!
//! A lookup need not own its strings: `&str` stands for `String`, `&[u8]` for `Vec<u8>`, and
//! `("ann", 9)` for `(String, u32)`. Strings compare by their bytes, as they do in Rust. Floats are
//! not keys, since they have no total order. A type of your own becomes a key by [`EncodeKey`] and
//! [`DecodeKey`].
//!
//! The encoding of a `String` key is the string, so a collection can describe keys that were put as
//! strings before, or that other programs read.
//!
//! # Prefixes
//!
//! Each collection in a store needs its own prefix, and no prefix may begin with another one:
//! `"user/"` and `"order/"`, not `"user"` and `"user/"`. A collection with the prefix `""` is the
//! whole store. A prefix that is known only at run time is better the first field of the key.
//!
//! # Values
//!
//! [`Typed::new`] encodes values with [postcard](https://postcard.jamesmunns.com), which is compact
//! and specified. [`Typed::json`] encodes them as JSON, which describes itself. A value that does
//! not decode, or a key within the prefix that is none of the type, is an
//! [`Undecodable`](crate::Error::Undecodable) error with the key's bytes. It is never skipped, and
//! never taken for absent.
//!
//! Decoding follows the type. For a type that contains itself, such as a tree, it follows the bytes
//! as deep as they go; JSON stops at 128 levels. So do not let strangers choose the bytes of a
//! recursive type that postcard decodes.
//!
//! # Changing a type over time
//!
//! What a store holds outlives the type that wrote it. Either of these recipes keeps old values
//! readable. Decide on one before the first value is stored.
//!
//! ## JSON, with defaults
//!
//! A JSON object names its fields. A new field needs a default, and a renamed one an alias; a field
//! that was removed is ignored.
//!
//! ```
//! use bitcask::typed::{Json, Typed};
//! use bitcask::{Bitcask, Options};
//! use serde::{Deserialize, Serialize};
//!
//! mod v1 {
//!     #[derive(serde::Serialize, serde::Deserialize)]
//!     pub struct User {
//!         pub name: String,
//!         pub fax: String,
//!     }
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! struct User {
//!     #[serde(alias = "name")]
//!     full_name: String,
//!     #[serde(default)]
//!     admin: bool,
//! }
//!
//! # fn main() -> bitcask::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! let db = Bitcask::open(dir.path(), Options::default())?;
//! const BEFORE: Typed<u32, v1::User, Json> = Typed::json("user/");
//! BEFORE.put(&db, &7, &v1::User { name: "Ann".into(), fax: "none".into() })?;
//!
//! const USERS: Typed<u32, User, Json> = Typed::json("user/");
//! let ann = USERS.get(&db, &7)?.unwrap();
//! assert!(ann.full_name == "Ann" && !ann.admin);
//! # db.close()
//! # }
//! ```
//!
//! ## An enum of versions
//!
//! With postcard, a value is its fields without their names, so a field that is added, removed or
//! moved changes what old bytes mean. The number of an enum's variant comes first, and tells them
//! apart. Store an enum from the first version on, even while it has one variant. `from` and `into`
//! keep it out of the rest of the program:
//!
//! ```
//! use bitcask::typed::Typed;
//! use bitcask::{Bitcask, Options};
//! use serde::{Deserialize, Serialize};
//!
//! /// What is stored. Add variants at the end, and never change or remove one.
//! #[derive(Serialize, Deserialize)]
//! enum StoredUser {
//!     V1 { name: String },
//!     V2 { name: String, admin: bool },
//! }
//!
//! /// What the program works with.
//! #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
//! #[serde(from = "StoredUser", into = "StoredUser")]
//! struct User {
//!     name: String,
//!     admin: bool,
//! }
//!
//! impl From<StoredUser> for User {
//!     fn from(stored: StoredUser) -> Self {
//!         match stored {
//!             StoredUser::V1 { name } => Self { name, admin: false },
//!             StoredUser::V2 { name, admin } => Self { name, admin },
//!         }
//!     }
//! }
//!
//! impl From<User> for StoredUser {
//!     fn from(User { name, admin }: User) -> Self {
//!         Self::V2 { name, admin }
//!     }
//! }
//!
//! # fn main() -> bitcask::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! let db = Bitcask::open(dir.path(), Options::default())?;
//! // Stored by the first version of the program.
//! const BEFORE: Typed<u32, StoredUser> = Typed::new("user/");
//! BEFORE.put(&db, &7, &StoredUser::V1 { name: "Ann".into() })?;
//!
//! const USERS: Typed<u32, User> = Typed::new("user/");
//! assert_eq!(USERS.get(&db, &7)?, Some(User { name: "Ann".into(), admin: false }));
//!
//! // Optional: stores everything in the newest form, a thousand values at a time.
//! let mut batch = bitcask::Batch::new();
//! for pair in USERS.iter(&db) {
//!     let (id, user) = pair?;
//!     USERS.put_in(&mut batch, &id, &user)?;
//!     if batch.len() == 1000 {
//!         db.write(&batch)?;
//!         batch.clear();
//!     }
//! }
//! db.write(&batch)?;
//! # db.close()
//! # }
//! ```
//!
//! Such a pass overwrites what other threads change meanwhile. Run it before they start, or use
//! [`Typed::update`] for each key.
//!
//! ## A new collection
//!
//! If neither recipe was followed from the start, or the type of the keys changes, give the new
//! form a new prefix: read each pair with the old description, put it with the new one, then call
//! [`Typed::delete_range`] with `..` on the old one.

mod bounds;
mod fields;
mod key;
mod range;
mod read;
mod target;
mod tuple;
mod value;
mod write;

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use bounds::TypedBounds;
pub use key::{DecodeKey, EncodeKey, EncodePrefix};
pub use range::{TypedKeys, TypedRange};
pub use target::{TypedSink, TypedSource};
pub use value::{Json, Postcard, ValueCodec};

use crate::error::{Error, Result};
use crate::store::prefix_bounds;
use bounds::EncodedBounds;

/// A collection of keys of type `K` with values of type `V`, in a store.
///
/// A description that costs nothing: copy it, or make it a constant. See the
/// [module](crate::typed) for how keys and values are encoded, and how their types can change.
///
/// Reading works on anything that holds pairs ([`TypedSource`]): a [`Bitcask`](crate::Bitcask), a
/// [`ReadOnly`](crate::ReadOnly), a [`Reader`](crate::Reader), a [`Snapshot`](crate::Snapshot) or a
/// [`Transaction`](crate::Transaction). Writing works on a `Bitcask`, or, with the methods whose
/// names contain `_in`, on a [`Batch`](crate::Batch) or a `Transaction` ([`TypedSink`]).
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
    prefix: &'static str,
    /// Only names types, so it can be shared and sent whatever they are.
    types: PhantomData<Types<K, V, C>>,
}

/// Names types without holding values of them.
type Types<K, V, C> = fn() -> (K, V, C);

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
    fn encode<Q>(&self, key: &Q, value: &V) -> Result<(Vec<u8>, Vec<u8>)>
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
    fn bounds(&self, bounds: &impl TypedBounds<K>) -> EncodedBounds {
        bounds.encoded(self.prefix.as_bytes())
    }

    /// Returns the ends of the keys that begin with some fields.
    fn bounds_of<P: EncodePrefix<K> + ?Sized>(&self, fields: &P) -> EncodedBounds {
        let mut prefix = self.prefix.as_bytes().to_vec();
        fields.encode_prefix(&mut prefix);
        let bounds = prefix_bounds(&prefix);
        (bounds.start, bounds.end)
    }
}
