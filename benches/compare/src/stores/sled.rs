//! Sled in its mode of high throughput, without its periodic flush, so that nothing waits for the
//! disk. A durable put is followed by `flush`, which concurrent writers share. On Linux sled calls
//! `sync_file_range`, which does not empty the cache of the drive.

use std::path::Path;

use sled::{Batch, Db, IVec, Mode};

use super::{Ordered, Read, Setup, Store, View};
use crate::keys::{Key, Values};

pub(super) struct Sled {
    db: Db,
    durable: bool,
}

impl Sled {
    fn flush_if_durable(&self) {
        if self.durable {
            self.sync();
        }
    }
}

fn pass(pairs: impl Iterator<Item = sled::Result<(IVec, IVec)>>, read: Read<'_>) {
    super::pass(pairs.map(Result::unwrap), read);
}

impl Store for Sled {
    const BATCHED: bool = false;

    type View<'a> = &'a Db;

    fn open(path: &Path, setup: &Setup) -> Self {
        let config = sled::Config::new().path(path).mode(Mode::HighThroughput);
        let config = config.cache_capacity(setup.cache_size).flush_every_ms(None);
        Self { db: config.open().unwrap(), durable: setup.durable }
    }

    fn put(&self, key: &Key, value: &[u8]) {
        self.db.insert(key, value).unwrap();
        self.flush_if_durable();
    }

    fn put_batch(&self, keys: &[Key], version: u64, values: &mut Values) {
        let mut batch = Batch::default();
        for key in keys {
            batch.insert(key, values.of(key, version));
        }
        self.db.apply_batch(batch).unwrap();
        self.flush_if_durable();
    }

    fn delete(&self, key: &Key) {
        self.db.remove(key).unwrap();
        self.flush_if_durable();
    }

    fn view(&self) -> &Db {
        &self.db
    }

    fn scan_all(&self, mut read: impl FnMut(Option<&[u8]>, &[u8]) -> bool) {
        pass(self.db.iter(), &mut |key, value| read(Some(key), value));
    }

    fn sync(&self) {
        self.db.flush().unwrap();
    }

    fn ordered(&self) -> Option<&dyn Ordered> {
        Some(self)
    }
}

impl View for &Db {
    fn get(&self, key: &Key, read: impl FnOnce(&[u8])) -> bool {
        sled::Tree::get(self, key).unwrap().map(|value| read(&value)).is_some()
    }
}

impl Ordered for Sled {
    fn scan(&self, from: &[u8], read: Read<'_>) {
        pass(self.db.range(from..), read);
    }

    fn scan_back(&self, read: Read<'_>) {
        pass(self.db.iter().rev(), read);
    }

    fn scan_keys(&self, read: Read<'_>) {
        super::pass(self.db.iter().keys().map(|key| (key.unwrap(), [])), read);
    }

    fn prefix(&self, prefix: &[u8], read: Read<'_>) {
        pass(self.db.scan_prefix(prefix), read);
    }

    /// Sled has no snapshots, so this is only the get.
    fn snapshot(&self, key: &Key, read: &mut dyn FnMut(&[u8])) {
        self.view().get(key, read);
    }
}
