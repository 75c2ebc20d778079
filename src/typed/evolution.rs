//! Changing the type of stored values over time.
//!
//! What a store holds outlives the type that wrote it. Either of these recipes keeps old values
//! readable. Decide on one before the first value is stored.
//!
//! # JSON, with defaults
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
//! # An enum of versions
//!
//! With postcard, a value is its fields without their names, so a field that is added, removed or
//! moved changes what old bytes mean. The number of an enum's variant comes first, and tells them
//! apart. Store an enum from the first version on, even while it has one variant. `from` and `into`
//! keep it out of the rest of the program:
//!
//! ```
//! use bitcask::typed::Typed;
//! use bitcask::{Bitcask, Options, WriteOptions};
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
//! // Optional: stores everything in the newest form, a thousand values at a time. Without
//! // `keep_ttl`, the keys would get the store's default TTL.
//! let keep = WriteOptions::new().keep_ttl(true);
//! let mut batch = bitcask::Batch::new();
//! for pair in USERS.iter(&db) {
//!     let (id, user) = pair?;
//!     USERS.put_in_opt(&mut batch, &id, &user, keep)?;
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
//! Such a pass overwrites what other threads change meanwhile, and brings back a key that has
//! expired or was deleted meanwhile. Run it before they start. Or use a
//! [transaction](crate::Bitcask::transaction) for each key, which reads the value and puts it with
//! `keep_ttl`. [`Typed::update`] does that too, but gives the key the store's
//! [`default_ttl`](crate::Options::default_ttl).
//!
//! # A new collection
//!
//! If neither recipe was followed from the start, or the type of the keys changes, give the new
//! form a new prefix: read each pair with the old description, put it with the new one, then call
//! [`Typed::delete_range`] with `..` on the old one. The new key has no TTL to keep: pass the
//! time that [`Reader::expiry`](crate::Reader::expiry) returns for the old one to
//! [`WriteOptions::expires_at`](crate::WriteOptions::expires_at).

#[cfg(doc)]
use super::Typed;
