//! LMDB through heed.
//!
//! Without sync it writes through the mapping (`WRITE_MAP`), its fastest mode. Durable commits use
//! the default mode, in which LMDB writes and syncs the file. Readahead would only disturb random
//! reads. A commit copies the path of each changed page, so bulk writes are faster in batches.

use std::ops::Bound;
use std::path::Path;

use heed::types::{Bytes, DecodeIgnore};
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn, RwTxn, WithTls};

use super::{Ordered, Read, Setup, Store, View};
use crate::keys::{Key, Values};

/// Limit of the file's size. Only address space is reserved for it.
const MAP_SIZE: usize = 128 << 30;

pub(super) struct Lmdb {
    env: Env,
    pairs: Database<Bytes, Bytes>,
}

impl Lmdb {
    fn write(&self, act: impl FnOnce(&mut RwTxn<'_>)) {
        let mut transaction = self.env.write_txn().unwrap();
        act(&mut transaction);
        transaction.commit().unwrap();
    }

    fn reader(&self) -> RoTxn<'_, WithTls> {
        self.env.read_txn().unwrap()
    }
}

impl Store for Lmdb {
    const BATCHED: bool = true;

    type View<'a> = (RoTxn<'a, WithTls>, Database<Bytes, Bytes>);

    fn open(path: &Path, setup: &Setup) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_SIZE);
        let mut flags = EnvFlags::NO_READ_AHEAD | EnvFlags::NO_MEM_INIT;
        if !setup.durable {
            flags |= EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP | EnvFlags::MAP_ASYNC;
        }
        // SAFETY: no other process uses the directory at the same time, this one opens it once, and
        // losing data in a power cut does not matter here.
        let env = unsafe {
            options.flags(flags);
            options.open(path).unwrap()
        };
        let mut transaction = env.write_txn().unwrap();
        let pairs = env.create_database(&mut transaction, None).unwrap();
        transaction.commit().unwrap();
        Self { env, pairs }
    }

    fn put(&self, key: &Key, value: &[u8]) {
        self.write(|transaction| self.pairs.put(transaction, key, value).unwrap());
    }

    fn put_batch(&self, keys: &[Key], version: u64, values: &mut Values) {
        self.write(|transaction| {
            for key in keys {
                self.pairs.put(transaction, key, values.of(key, version)).unwrap();
            }
        });
    }

    fn delete(&self, key: &Key) {
        self.write(|transaction| {
            self.pairs.delete(transaction, key).unwrap();
        });
    }

    fn delete_batch(&self, keys: &[Key]) {
        self.write(|transaction| {
            for key in keys {
                self.pairs.delete(transaction, key).unwrap();
            }
        });
    }

    fn view(&self) -> Self::View<'_> {
        (self.reader(), self.pairs)
    }

    fn scan_all(&self, mut read: impl FnMut(Option<&[u8]>, &[u8]) -> bool) {
        let transaction = self.reader();
        for pair in self.pairs.iter(&transaction).unwrap() {
            let (key, value) = pair.unwrap();
            if !read(Some(key), value) {
                break;
            }
        }
    }

    fn sync(&self) {
        self.env.force_sync().unwrap();
    }

    fn ordered(&self) -> Option<&dyn Ordered> {
        Some(self)
    }
}

impl View for (RoTxn<'_, WithTls>, Database<Bytes, Bytes>) {
    fn get(&self, key: &Key, read: impl FnOnce(&[u8])) -> bool {
        self.1.get(&self.0, key).unwrap().map(read).is_some()
    }
}

impl Ordered for Lmdb {
    fn scan(&self, from: &[u8], read: Read<'_>) {
        let transaction = self.reader();
        let bounds = (Bound::Included(from), Bound::Unbounded);
        let pairs = self.pairs.range(&transaction, &bounds).unwrap();
        super::pass(pairs.map(Result::unwrap), read);
    }

    fn scan_back(&self, read: Read<'_>) {
        let transaction = self.reader();
        super::pass(self.pairs.rev_iter(&transaction).unwrap().map(Result::unwrap), read);
    }

    fn scan_keys(&self, read: Read<'_>) {
        let transaction = self.reader();
        let keys = self.pairs.remap_data_type::<DecodeIgnore>();
        let keys = keys.iter(&transaction).unwrap();
        super::pass(keys.map(|pair| (pair.unwrap().0, [])), read);
    }

    fn prefix(&self, prefix: &[u8], read: Read<'_>) {
        let transaction = self.reader();
        let pairs = self.pairs.prefix_iter(&transaction, prefix).unwrap();
        super::pass(pairs.map(Result::unwrap), read);
    }

    fn snapshot(&self, key: &Key, read: &mut dyn FnMut(&[u8])) {
        self.view().get(key, read);
    }
}
