//! What the race asks of a store, and the list of the stores. Each has a file that explains its
//! configuration.
//!
//! The rules are the same for all:
//!
//! - Unless a row is about durability, nobody waits for the disk. A write still survives the end of
//!   the process if the store has a setting for that which does not sync.
//! - Caches are large enough for all data (`Setup::cache_size`), and nothing is compressed.
//! - Bulk writes come in batches of `BATCH_LEN` where that is faster (`Store::BATCHED`).
//! - Gets lend the value where the store can lend, and read through one view of the store for as
//!   long as nothing writes (`Store::view`).

mod bitcask;
mod candystore;
mod fjall;
mod lmdb;
mod parity_db;
mod raw;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod sled;

use std::path::Path;

use crate::keys::{Key, Values};

pub(crate) const BATCH_LEN: usize = 1000;

/// What a group of rows needs of the stores.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// Number of keys that the store will hold, for those that can prepare for it.
    pub(crate) keys: u64,
    /// Maximum size of the store's own cache in bytes.
    pub(crate) cache_size: u64,
    /// Whether each put and batch is on the disk when it returns.
    pub(crate) durable: bool,
    /// Whether the store frees the space of dead data at once, rather than when it is idle.
    pub(crate) merging: bool,
}

/// A store. Writers and readers in other threads use it at the same time.
pub(crate) trait Store: Sized + Sync {
    /// Whether bulk writes are faster in batches.
    const BATCHED: bool;
    /// Whether a put can be on the disk when it returns.
    const DURABLE: bool = true;

    type View<'a>: View
    where
        Self: 'a;

    /// Opens the store in a directory, which it creates if it is missing.
    fn open(path: &Path, setup: &Setup) -> Self;
    fn put(&self, key: &Key, value: &[u8]);
    /// Puts all keys, or none. Stores without transactions put one by one, and sync once.
    fn put_batch(&self, keys: &[Key], version: u64, values: &mut Values);
    fn delete(&self, key: &Key);
    /// Deletes all keys, in a batch if `BATCHED`.
    fn delete_batch(&self, keys: &[Key]) {
        for key in keys {
            self.delete(key);
        }
    }
    /// Returns what reads in this thread go through.
    fn view(&self) -> Self::View<'_>;
    /// Calls a closure with each key and value in any order, until it returns `false`. A store that
    /// does not know the keys passes `None`.
    fn scan_all(&self, read: impl FnMut(Option<&[u8]>, &[u8]) -> bool);
    /// Returns once everything is on the disk.
    fn sync(&self);
    /// Finishes the background work that writes have caused, as far as the store can be asked to.
    fn settle(self) -> Self {
        self.sync();
        self
    }
    /// Frees the space of dead data. Returns whether the store has a call for that.
    fn merge(&self) -> bool {
        false
    }
    /// Stores all pairs in the order of their keys, if the store does not do so anyway.
    fn bring_into_order(&self) {}
    /// Returns the number of keys once the store knows all of them, if it can.
    fn len(&self) -> Option<u64> {
        None
    }
    fn ordered(&self) -> Option<&dyn Ordered> {
        None
    }
}

/// A view for one thread. Views of stores without transactions see everything at once.
pub(crate) trait View {
    /// Calls a closure with the value of a key. Returns whether the key exists.
    fn get(&self, key: &Key, read: impl FnOnce(&[u8])) -> bool;
    /// Calls a closure with the place and the value of each key that exists.
    fn get_many(&self, keys: &[Key], mut read: impl FnMut(usize, &[u8])) {
        for (at, key) in keys.iter().enumerate() {
            self.get(key, |value| read(at, value));
        }
    }
}

/// A pass over a store calls this with each key and value. The pass ends when it returns `false`.
pub(crate) type Read<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

/// What only a store that sorts its keys can do.
pub(crate) trait Ordered {
    /// Passes over the keys from one on.
    fn scan(&self, from: &[u8], read: Read<'_>);
    fn scan_back(&self, read: Read<'_>);
    /// Passes over the keys, with empty values.
    fn scan_keys(&self, read: Read<'_>);
    fn prefix(&self, prefix: &[u8], read: Read<'_>);
    /// Takes a snapshot, reads a key in it, and drops it.
    fn snapshot(&self, key: &Key, read: &mut dyn FnMut(&[u8]));
}

/// Passes pairs on until one is refused.
fn pass<K: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: impl Iterator<Item = (K, V)>, read: Read<'_>) {
    for (key, value) in pairs {
        if !read(key.as_ref(), value.as_ref()) {
            break;
        }
    }
}

/// Something that is done with one of the stores.
pub(crate) trait Job {
    fn run<S: Store>(self);
}

pub(crate) const NAMES: &[&str] = &[
    "bitcask",
    "bitcask-unchecked",
    "lmdb",
    "redb",
    "fjall",
    "sled",
    "parity-db",
    "candystore",
    #[cfg(feature = "rocksdb")]
    "rocksdb",
    LIMIT,
];

/// What is no store, but the limit of what one like bitcask can do.
pub(crate) const LIMIT: &str = "raw";

/// Returns whether a store is another one than bitcask.
pub(crate) fn is_peer(name: &str) -> bool {
    !name.starts_with("bitcask") && name != LIMIT
}

/// Runs a job with the store of a name.
pub(crate) fn run(name: &str, job: impl Job) {
    match name {
        "bitcask" => job.run::<bitcask::Checked>(),
        "bitcask-unchecked" => job.run::<bitcask::Unchecked>(),
        "lmdb" => job.run::<lmdb::Lmdb>(),
        "redb" => job.run::<redb::Redb>(),
        "fjall" => job.run::<fjall::Fjall>(),
        "sled" => job.run::<sled::Sled>(),
        "parity-db" => job.run::<parity_db::ParityDb>(),
        "candystore" => job.run::<candystore::Candystore>(),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => job.run::<rocksdb::RocksDb>(),
        LIMIT => job.run::<raw::Raw>(),
        _ => panic!("there is no store {name}"),
    }
}

/// Returns the versions of all stores, from the lock file of this build.
pub(crate) fn versions() -> Vec<(&'static str, &'static str)> {
    let lock = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock"));
    let packages = lock.split("[[package]]").filter_map(|package| {
        let of = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim_matches('"'))
        };
        Some((of("name = ")?, of("version = ")?))
    });
    let is_store = |name: &str| NAMES.contains(&name) || name == "heed";
    packages.filter(|(name, _)| is_store(name)).collect()
}
