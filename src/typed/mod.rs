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
//! What a store holds outlives the type that wrote it: [`evolution`] has recipes.

mod bounds;
mod collection;
pub mod evolution;
mod fields;
mod finite;
mod key;
mod range;
mod read;
mod target;
mod tuple;
mod value;
mod write;

pub use bounds::TypedBounds;
pub use collection::Typed;
pub use key::{DecodeKey, EncodeKey, EncodePrefix};
pub use range::{TypedKeys, TypedRange};
pub use target::{TypedSink, TypedSource};
pub use value::{Json, Postcard, ValueCodec};
