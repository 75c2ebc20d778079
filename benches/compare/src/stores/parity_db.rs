//! Parity-db with a hash index, which has no order, and without syncs of its log and its tables.
//!
//! A commit returns before it is on the disk whatever the settings, so there are no durable rows.
//! Bulk writes are faster in batches. To finish what it does in the background, it is closed and
//! opened again.

use std::path::{Path, PathBuf};

use parity_db::{Db, Options};

use super::{Setup, Store, View};
use crate::keys::{Key, Values};

const COLUMN: u8 = 0;

pub(super) struct ParityDb {
    db: Db,
    path: PathBuf,
}

impl ParityDb {
    fn at(path: PathBuf) -> Self {
        let mut options = Options::with_columns(&path, 1);
        (options.sync_wal, options.sync_data, options.stats) = (false, false, false);
        Self { db: Db::open_or_create(&options).unwrap(), path }
    }

    fn commit<'a>(&self, changes: impl Iterator<Item = (&'a Key, Option<Vec<u8>>)>) {
        self.db.commit(changes.map(|(key, value)| (COLUMN, key, value))).unwrap();
    }
}

impl Store for ParityDb {
    const BATCHED: bool = true;
    const DURABLE: bool = false;

    type View<'a> = &'a Db;

    fn open(path: &Path, _: &Setup) -> Self {
        Self::at(path.to_path_buf())
    }

    fn put(&self, key: &Key, value: &[u8]) {
        self.commit([(key, Some(value.to_vec()))].into_iter());
    }

    fn put_batch(&self, keys: &[Key], version: u64, values: &mut Values) {
        self.commit(keys.iter().map(|key| (key, Some(values.of(key, version).to_vec()))));
    }

    fn delete(&self, key: &Key) {
        self.commit([(key, None)].into_iter());
    }

    fn delete_batch(&self, keys: &[Key]) {
        self.commit(keys.iter().map(|key| (key, None)));
    }

    fn view(&self) -> &Db {
        &self.db
    }

    fn scan_all(&self, mut read: impl FnMut(Option<&[u8]>, &[u8]) -> bool) {
        self.db.iter_column_while(COLUMN, |state| read(None, &state.value)).unwrap();
    }

    /// There is no such call.
    fn sync(&self) {}

    fn settle(self) -> Self {
        let Self { db, path } = self;
        drop(db);
        Self::at(path)
    }
}

impl View for &Db {
    fn get(&self, key: &Key, read: impl FnOnce(&[u8])) -> bool {
        Db::get(self, COLUMN, key).unwrap().map(|value| read(&value)).is_some()
    }
}
