//! Redb with `Durability::None` where nobody waits for the disk. Such commits are lost if the
//! process ends before a durable one; redb has no setting between the two. A commit copies the path
//! of each changed page, so bulk writes are faster in batches.

use std::path::Path;

use redb::{
    AccessGuard, Database, Durability, ReadOnlyTable, ReadableDatabase, StorageError, Table,
    TableDefinition,
};

use super::{Ordered, Read, Setup, Store, View};
use crate::keys::{Key, Values};

type Slice = &'static [u8];
type Guard = AccessGuard<'static, Slice>;

const PAIRS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("pairs");

pub(super) struct Redb {
    database: Database,
    durable: bool,
}

impl Redb {
    fn write(&self, act: impl FnOnce(&mut Table<'_, Slice, Slice>)) {
        let mut transaction = self.database.begin_write().unwrap();
        if !self.durable {
            transaction.set_durability(Durability::None).unwrap();
        }
        act(&mut transaction.open_table(PAIRS).unwrap());
        transaction.commit().unwrap();
    }
}

/// Calls a closure with the pairs that a range lends, until it returns `false`.
fn pass(pairs: impl Iterator<Item = Result<(Guard, Guard), StorageError>>, read: Read<'_>) {
    for pair in pairs {
        let (key, value) = pair.unwrap();
        if !read(key.value(), value.value()) {
            break;
        }
    }
}

impl Store for Redb {
    const BATCHED: bool = true;

    type View<'a> = ReadOnlyTable<Slice, Slice>;

    fn open(path: &Path, setup: &Setup) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let mut builder = Database::builder();
        builder.set_cache_size(usize::try_from(setup.cache_size).unwrap());
        let database = builder.create(path.join("redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(PAIRS).unwrap();
        transaction.commit().unwrap();
        Self { database, durable: setup.durable }
    }

    fn put(&self, key: &Key, value: &[u8]) {
        self.write(|table| {
            table.insert(key.as_slice(), value).unwrap();
        });
    }

    fn put_batch(&self, keys: &[Key], version: u64, values: &mut Values) {
        self.write(|table| {
            for key in keys {
                table.insert(key.as_slice(), values.of(key, version)).unwrap();
            }
        });
    }

    fn delete(&self, key: &Key) {
        self.delete_batch(&[*key]);
    }

    fn delete_batch(&self, keys: &[Key]) {
        self.write(|table| {
            for key in keys {
                table.remove(key.as_slice()).unwrap();
            }
        });
    }

    fn view(&self) -> Self::View<'_> {
        self.database.begin_read().unwrap().open_table(PAIRS).unwrap()
    }

    fn scan_all(&self, mut read: impl FnMut(Option<&[u8]>, &[u8]) -> bool) {
        let pairs = self.view().range::<&[u8]>(..).unwrap();
        pass(pairs, &mut |key, value| read(Some(key), value));
    }

    fn sync(&self) {
        self.database.begin_write().unwrap().commit().unwrap();
    }

    fn ordered(&self) -> Option<&dyn Ordered> {
        Some(self)
    }
}

impl View for ReadOnlyTable<Slice, Slice> {
    fn get(&self, key: &Key, read: impl FnOnce(&[u8])) -> bool {
        let value = ReadOnlyTable::get(self, key.as_slice()).unwrap();
        value.map(|value| read(value.value())).is_some()
    }
}

impl Ordered for Redb {
    fn scan(&self, from: &[u8], read: Read<'_>) {
        pass(self.view().range(from..).unwrap(), read);
    }

    fn scan_back(&self, read: Read<'_>) {
        pass(self.view().range::<&[u8]>(..).unwrap().rev(), read);
    }

    fn scan_keys(&self, read: Read<'_>) {
        for pair in self.view().range::<&[u8]>(..).unwrap() {
            if !read(pair.unwrap().0.value(), &[]) {
                break;
            }
        }
    }

    fn prefix(&self, prefix: &[u8], read: Read<'_>) {
        let pairs = self.view().range(prefix..).unwrap();
        pass(pairs, &mut |key, value| key.starts_with(prefix) && read(key, value));
    }

    fn snapshot(&self, key: &Key, read: &mut dyn FnMut(&[u8])) {
        View::get(&self.view(), key, read);
    }
}
