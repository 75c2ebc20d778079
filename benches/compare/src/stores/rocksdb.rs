//! `RocksDB` with large write buffers, and a filter for whole keys, which suits point look-ups.
//!
//! Its log is written without a sync unless the row is durable. Bulk writes are faster in batches.
//! After a load, it is compacted, which makes its reads fastest.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Direction, IteratorMode, Options, WriteBatch,
    WriteOptions,
};

use super::{Ordered, Read, Setup, Store, View};
use crate::keys::{Key, Values};

/// Size of a write buffer in bytes.
const BUFFER_SIZE: u64 = 128 << 20;
/// Bits of the filter for each key: about one in a hundred misses reads a block.
const FILTER_BITS: f64 = 10.0;

pub(super) struct RocksDb {
    db: DB,
    writes: WriteOptions,
}

fn pass(pairs: rocksdb::DBIterator<'_>, read: Read<'_>) {
    super::pass(pairs.map(Result::unwrap), read);
}

impl Store for RocksDb {
    const BATCHED: bool = true;

    type View<'a> = &'a DB;

    fn open(path: &Path, setup: &Setup) -> Self {
        let mut blocks = BlockBasedOptions::default();
        let cache_size = usize::try_from(setup.cache_size).unwrap();
        blocks.set_block_cache(&Cache::new_lru_cache(cache_size));
        blocks.set_bloom_filter(FILTER_BITS, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(DBCompressionType::None);
        let buffer_size = BUFFER_SIZE.min(setup.cache_size / 8);
        options.set_write_buffer_size(usize::try_from(buffer_size).unwrap());
        options.increase_parallelism(2);
        let mut writes = WriteOptions::default();
        writes.set_sync(setup.durable);
        Self { db: DB::open(&options, path).unwrap(), writes }
    }

    fn put(&self, key: &Key, value: &[u8]) {
        self.db.put_opt(key, value, &self.writes).unwrap();
    }

    fn put_batch(&self, keys: &[Key], version: u64, values: &mut Values) {
        let mut batch = WriteBatch::default();
        for key in keys {
            batch.put(key, values.of(key, version));
        }
        self.db.write_opt(batch, &self.writes).unwrap();
    }

    fn delete(&self, key: &Key) {
        self.db.delete_opt(key, &self.writes).unwrap();
    }

    fn delete_batch(&self, keys: &[Key]) {
        let mut batch = WriteBatch::default();
        for key in keys {
            batch.delete(key);
        }
        self.db.write_opt(batch, &self.writes).unwrap();
    }

    fn view(&self) -> &DB {
        &self.db
    }

    fn scan_all(&self, mut read: impl FnMut(Option<&[u8]>, &[u8]) -> bool) {
        pass(self.db.iterator(IteratorMode::Start), &mut |key, value| read(Some(key), value));
    }

    fn sync(&self) {
        self.db.flush_wal(true).unwrap();
    }

    fn settle(self) -> Self {
        self.db.flush().unwrap();
        self.merge();
        self
    }

    fn merge(&self) -> bool {
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
        true
    }

    fn ordered(&self) -> Option<&dyn Ordered> {
        Some(self)
    }
}

impl View for &DB {
    fn get(&self, key: &Key, read: impl FnOnce(&[u8])) -> bool {
        self.get_pinned(key).unwrap().map(|value| read(&value)).is_some()
    }

    fn get_many(&self, keys: &[Key], mut read: impl FnMut(usize, &[u8])) {
        for (at, value) in self.multi_get(keys).into_iter().enumerate() {
            if let Some(value) = value.unwrap() {
                read(at, &value);
            }
        }
    }
}

impl Ordered for RocksDb {
    fn scan(&self, from: &[u8], read: Read<'_>) {
        pass(self.db.iterator(IteratorMode::From(from, Direction::Forward)), read);
    }

    fn scan_back(&self, read: Read<'_>) {
        pass(self.db.iterator(IteratorMode::End), read);
    }

    /// `RocksDB` reads the blocks with the values anyway.
    fn scan_keys(&self, read: Read<'_>) {
        let mut keys = self.db.raw_iterator();
        keys.seek_to_first();
        while let Some(key) = keys.key() {
            if !read(key, &[]) {
                break;
            }
            keys.next();
        }
    }

    fn prefix(&self, prefix: &[u8], read: Read<'_>) {
        let pairs = self.db.iterator(IteratorMode::From(prefix, Direction::Forward));
        let pairs = pairs.map(Result::unwrap).take_while(|(key, _)| key.starts_with(prefix));
        super::pass(pairs, read);
    }

    fn snapshot(&self, key: &Key, read: &mut dyn FnMut(&[u8])) {
        if let Some(value) = self.db.snapshot().get(key).unwrap() {
            read(&value);
        }
    }
}
