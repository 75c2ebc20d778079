//! Candystore, without its own checkpoints, so that nothing waits for the disk. A durable put is
//! followed by `flush`. Its index is created with room for all keys. It has neither order nor
//! transactions. In rows with dead data it may compact at the rate at which bitcask merges by
//! default.

use std::path::Path;

use candystore::{CandyStore, Config};

use super::{Setup, Store, View};
use crate::keys::{Key, Values};

const BYTES_PER_SECOND: usize = 64 << 20;

pub(super) struct Candystore {
    store: CandyStore,
    durable: bool,
}

impl Candystore {
    fn flush_if_durable(&self) {
        if self.durable {
            self.sync();
        }
    }
}

impl Store for Candystore {
    const BATCHED: bool = false;

    type View<'a> = &'a CandyStore;

    fn open(path: &Path, setup: &Setup) -> Self {
        let mut config = Config {
            initial_capacity: usize::try_from(setup.keys).unwrap(),
            checkpoint_interval: None,
            checkpoint_delta_bytes: None,
            ..Config::default()
        };
        if setup.merging {
            config.compaction_throughput_bytes_per_sec = BYTES_PER_SECOND;
        }
        Self { store: CandyStore::open(path, config).unwrap(), durable: setup.durable }
    }

    fn put(&self, key: &Key, value: &[u8]) {
        self.store.set(key, value).unwrap();
        self.flush_if_durable();
    }

    fn put_batch(&self, keys: &[Key], version: u64, values: &mut Values) {
        for key in keys {
            self.store.set(key, values.of(key, version)).unwrap();
        }
        self.flush_if_durable();
    }

    fn delete(&self, key: &Key) {
        self.store.remove(key).unwrap();
        self.flush_if_durable();
    }

    fn view(&self) -> &CandyStore {
        &self.store
    }

    fn scan_all(&self, mut read: impl FnMut(Option<&[u8]>, &[u8]) -> bool) {
        for pair in self.store.iter_items() {
            let (key, value) = pair.unwrap();
            if !read(Some(&key), &value) {
                break;
            }
        }
    }

    fn sync(&self) {
        self.store.flush().unwrap();
    }
}

impl View for &CandyStore {
    fn get(&self, key: &Key, read: impl FnOnce(&[u8])) -> bool {
        CandyStore::get(self, key).unwrap().map(|value| read(&value)).is_some()
    }
}
