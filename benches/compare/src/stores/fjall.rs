//! Fjall. Each write goes to the operating system at once, so that it survives the end of the
//! process (the default); a durable one is followed by `SyncData`. Bulk writes are faster in
//! batches. After a load, it is compacted, which makes its reads fastest.

use std::path::Path;

use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use super::{Ordered, Read, Setup, Store, View};
use crate::keys::{Key, Values};

/// Size of a memtable in bytes, which is the default. Little memory allows less: several of them
/// wait to be written while the next one fills.
const MEMTABLE_SIZE: u64 = 64 << 20;

pub(super) struct Fjall {
    database: Database,
    pairs: Keyspace,
    durable: bool,
}

impl Fjall {
    fn persist(&self) {
        if self.durable {
            self.database.persist(PersistMode::SyncData).unwrap();
        }
    }
}

fn pass(pairs: impl Iterator<Item = fjall::Guard>, read: Read<'_>) {
    super::pass(pairs.map(|pair| pair.into_inner().unwrap()), read);
}

impl Store for Fjall {
    const BATCHED: bool = true;

    type View<'a> = &'a Keyspace;

    fn open(path: &Path, setup: &Setup) -> Self {
        let builder = Database::builder(path).cache_size(setup.cache_size);
        let database = builder.journal_compression(CompressionType::None).open().unwrap();
        let memtable_size = MEMTABLE_SIZE.min(setup.cache_size / 8);
        let options = || {
            let options = KeyspaceCreateOptions::default().max_memtable_size(memtable_size);
            options.data_block_compression_policy(CompressionPolicy::disabled())
        };
        let pairs = database.keyspace("pairs", options).unwrap();
        Self { database, pairs, durable: setup.durable }
    }

    fn put(&self, key: &Key, value: &[u8]) {
        self.pairs.insert(key, value).unwrap();
        self.persist();
    }

    fn put_batch(&self, keys: &[Key], version: u64, values: &mut Values) {
        let mode = self.durable.then_some(PersistMode::SyncData);
        let mut batch = self.database.batch().durability(mode);
        for key in keys {
            batch.insert(&self.pairs, key, values.of(key, version));
        }
        batch.commit().unwrap();
    }

    fn delete(&self, key: &Key) {
        self.pairs.remove(key).unwrap();
        self.persist();
    }

    fn delete_batch(&self, keys: &[Key]) {
        let mut batch = self.database.batch();
        for key in keys {
            batch.remove(&self.pairs, key);
        }
        batch.commit().unwrap();
    }

    fn view(&self) -> &Keyspace {
        &self.pairs
    }

    fn scan_all(&self, mut read: impl FnMut(Option<&[u8]>, &[u8]) -> bool) {
        pass(self.pairs.iter(), &mut |key, value| read(Some(key), value));
    }

    fn sync(&self) {
        self.database.persist(PersistMode::SyncAll).unwrap();
    }

    fn settle(self) -> Self {
        self.pairs.rotate_memtable_and_wait().unwrap();
        self.merge();
        self.sync();
        self
    }

    fn merge(&self) -> bool {
        self.pairs.major_compact().unwrap();
        true
    }

    fn ordered(&self) -> Option<&dyn Ordered> {
        Some(self)
    }
}

impl View for &Keyspace {
    fn get(&self, key: &Key, read: impl FnOnce(&[u8])) -> bool {
        Keyspace::get(self, key).unwrap().map(|value| read(&value)).is_some()
    }
}

impl Ordered for Fjall {
    fn scan(&self, from: &[u8], read: Read<'_>) {
        pass(self.pairs.range(from..), read);
    }

    fn scan_back(&self, read: Read<'_>) {
        pass(self.pairs.iter().rev(), read);
    }

    fn scan_keys(&self, read: Read<'_>) {
        super::pass(self.pairs.iter().map(|pair| (pair.key().unwrap(), [])), read);
    }

    fn prefix(&self, prefix: &[u8], read: Read<'_>) {
        pass(self.pairs.prefix(prefix), read);
    }

    fn snapshot(&self, key: &Key, read: &mut dyn FnMut(&[u8])) {
        if let Some(value) = self.database.snapshot().get(&self.pairs, key).unwrap() {
            read(&value);
        }
    }
}
