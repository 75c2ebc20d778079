//! The stores, each in its fastest fair configuration: no sync, and caches large enough for all
//! data.

use std::hint::black_box;
use std::path::Path;

/// The operations that the comparison needs. A pass returns the number of pairs that it has seen.
pub(crate) trait Store {
    fn name(&self) -> &'static str;
    /// Writes pairs in batches, without waiting for the disk.
    fn load(&mut self, keys: &[[u8; 16]], value: &[u8]);
    /// Waits until background work caused by the writes is done.
    fn settle(&mut self);
    fn scan(&self, len: usize) -> usize;
    fn scan_back(&self, len: usize) -> usize;
    fn scan_keys(&self, len: usize) -> usize;
    fn prefix(&self, prefix: &[u8]) -> usize;
    /// Takes a view of the store, reads a key in it, and drops it.
    fn snapshot(&self, key: &[u8]);
}

const BATCH_LEN: usize = 1000;
const CACHE_SIZE: usize = 4 << 30;

pub(crate) fn all(directory: &Path) -> Vec<Box<dyn Store>> {
    vec![
        Box::new(Ours::new(directory)),
        Box::new(Lmdb::new(directory)),
        Box::new(Redb::new(directory)),
        Box::new(Fjall::new(directory)),
    ]
}

/// Consumes the items of a pass, and counts them.
fn seen<T>(items: impl Iterator<Item = T>) -> usize {
    items.fold(0, |len, item| {
        black_box(item);
        len + 1
    })
}

struct Ours(bitcask::Bitcask);

impl Ours {
    fn new(directory: &Path) -> Self {
        let options = bitcask::Options::new().sync_policy(bitcask::SyncPolicy::Never);
        Self(bitcask::Bitcask::open(directory.join("bitcask"), options).unwrap())
    }
}

fn count<T>(items: impl Iterator<Item = bitcask::Result<T>>, len: usize) -> usize {
    seen(items.take(len).map(Result::unwrap))
}

impl Store for Ours {
    fn name(&self) -> &'static str {
        "bitcask"
    }

    fn load(&mut self, keys: &[[u8; 16]], value: &[u8]) {
        // Like a typical program: puts to this store need no batches.
        keys.iter().for_each(|key| self.0.put(key, value).unwrap());
    }

    fn settle(&mut self) {
        self.0.sync().unwrap();
    }

    fn scan(&self, len: usize) -> usize {
        count(self.0.range(..), len)
    }

    fn scan_back(&self, len: usize) -> usize {
        count(self.0.range(..).rev(), len)
    }

    fn scan_keys(&self, len: usize) -> usize {
        count(self.0.range_keys(..), len)
    }

    fn prefix(&self, prefix: &[u8]) -> usize {
        count(self.0.prefix(prefix), usize::MAX)
    }

    fn snapshot(&self, key: &[u8]) {
        black_box(self.0.snapshot().get(key).unwrap());
    }
}

struct Lmdb {
    env: heed::Env,
    pairs: heed::Database<heed::types::Bytes, heed::types::Bytes>,
}

impl Lmdb {
    fn new(directory: &Path) -> Self {
        let path = directory.join("lmdb");
        #[expect(clippy::disallowed_methods, reason = "LMDB does not create its directory")]
        std::fs::create_dir_all(&path).unwrap();
        let mut options = heed::EnvOpenOptions::new();
        options.map_size(64 << 30);
        // SAFETY: no other process uses the directory, and losing data in a power cut does not
        // matter here.
        let env = unsafe {
            options.flags(heed::EnvFlags::NO_SYNC | heed::EnvFlags::NO_READ_AHEAD);
            options.open(path).unwrap()
        };
        let mut transaction = env.write_txn().unwrap();
        let pairs = env.create_database(&mut transaction, None).unwrap();
        transaction.commit().unwrap();
        Self { env, pairs }
    }
}

impl Store for Lmdb {
    fn name(&self) -> &'static str {
        "LMDB"
    }

    fn load(&mut self, keys: &[[u8; 16]], value: &[u8]) {
        for batch in keys.chunks(BATCH_LEN) {
            let mut transaction = self.env.write_txn().unwrap();
            for key in batch {
                self.pairs.put(&mut transaction, key, value).unwrap();
            }
            transaction.commit().unwrap();
        }
    }

    fn settle(&mut self) {
        self.env.force_sync().unwrap();
    }

    fn scan(&self, len: usize) -> usize {
        let transaction = self.env.read_txn().unwrap();
        let pairs = self.pairs.iter(&transaction).unwrap();
        seen(pairs.take(len).map(Result::unwrap))
    }

    fn scan_back(&self, len: usize) -> usize {
        let transaction = self.env.read_txn().unwrap();
        let pairs = self.pairs.rev_iter(&transaction).unwrap();
        seen(pairs.take(len).map(Result::unwrap))
    }

    fn scan_keys(&self, len: usize) -> usize {
        let transaction = self.env.read_txn().unwrap();
        let keys = self.pairs.remap_data_type::<heed::types::DecodeIgnore>();
        let keys = keys.iter(&transaction).unwrap();
        seen(keys.take(len).map(|pair| pair.unwrap().0))
    }

    fn prefix(&self, prefix: &[u8]) -> usize {
        let transaction = self.env.read_txn().unwrap();
        let pairs = self.pairs.prefix_iter(&transaction, prefix).unwrap();
        seen(pairs.map(Result::unwrap))
    }

    fn snapshot(&self, key: &[u8]) {
        let transaction = self.env.read_txn().unwrap();
        black_box(self.pairs.get(&transaction, key).unwrap());
    }
}

struct Redb(redb::Database);

const PAIRS: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("pairs");

impl Redb {
    fn new(directory: &Path) -> Self {
        let mut builder = redb::Database::builder();
        Self(builder.set_cache_size(CACHE_SIZE).create(directory.join("redb")).unwrap())
    }

    fn table(&self) -> redb::ReadOnlyTable<&'static [u8], &'static [u8]> {
        use redb::ReadableDatabase;
        self.0.begin_read().unwrap().open_table(PAIRS).unwrap()
    }
}

type Lent<'a> = redb::AccessGuard<'a, &'static [u8]>;

fn sizes(pair: Result<(Lent<'_>, Lent<'_>), redb::StorageError>) -> (usize, usize) {
    let (key, value) = pair.unwrap();
    (key.value().len(), value.value().len())
}

impl Store for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn load(&mut self, keys: &[[u8; 16]], value: &[u8]) {
        for batch in keys.chunks(BATCH_LEN) {
            let mut transaction = self.0.begin_write().unwrap();
            transaction.set_durability(redb::Durability::None).unwrap();
            {
                let mut table = transaction.open_table(PAIRS).unwrap();
                for key in batch {
                    table.insert(key.as_slice(), value).unwrap();
                }
            }
            transaction.commit().unwrap();
        }
    }

    fn settle(&mut self) {
        self.0.begin_write().unwrap().commit().unwrap();
    }

    fn scan(&self, len: usize) -> usize {
        seen(self.table().range::<&[u8]>(..).unwrap().take(len).map(sizes))
    }

    fn scan_back(&self, len: usize) -> usize {
        seen(self.table().range::<&[u8]>(..).unwrap().rev().take(len).map(sizes))
    }

    fn scan_keys(&self, len: usize) -> usize {
        let pairs = self.table().range::<&[u8]>(..).unwrap();
        seen(pairs.take(len).map(|pair| pair.unwrap().0.value().len()))
    }

    fn prefix(&self, prefix: &[u8]) -> usize {
        let mut end = prefix.to_vec();
        *end.last_mut().unwrap() += 1;
        seen(self.table().range::<&[u8]>(prefix..end.as_slice()).unwrap().map(sizes))
    }

    fn snapshot(&self, key: &[u8]) {
        black_box(self.table().get(key).unwrap().map(|value| value.value().len()));
    }
}

struct Fjall {
    database: fjall::Database,
    pairs: fjall::Keyspace,
}

impl Fjall {
    fn new(directory: &Path) -> Self {
        let database = fjall::Database::builder(directory.join("fjall"))
            .cache_size(CACHE_SIZE as u64)
            .open()
            .unwrap();
        let pairs = database.keyspace("pairs", fjall::KeyspaceCreateOptions::default).unwrap();
        Self { database, pairs }
    }
}

impl Store for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn load(&mut self, keys: &[[u8; 16]], value: &[u8]) {
        for batch in keys.chunks(BATCH_LEN) {
            let mut writes = self.database.batch();
            for key in batch {
                writes.insert(&self.pairs, key, value);
            }
            writes.commit().unwrap();
        }
    }

    fn settle(&mut self) {
        self.pairs.rotate_memtable_and_wait().unwrap();
        self.pairs.major_compact().unwrap();
    }

    fn scan(&self, len: usize) -> usize {
        seen(self.pairs.iter().take(len).map(|pair| pair.into_inner().unwrap()))
    }

    fn scan_back(&self, len: usize) -> usize {
        seen(self.pairs.iter().rev().take(len).map(|pair| pair.into_inner().unwrap()))
    }

    fn scan_keys(&self, len: usize) -> usize {
        seen(self.pairs.iter().take(len).map(|pair| pair.key().unwrap()))
    }

    fn prefix(&self, prefix: &[u8]) -> usize {
        seen(self.pairs.prefix(prefix).map(|pair| pair.into_inner().unwrap()))
    }

    fn snapshot(&self, key: &[u8]) {
        use fjall::Readable;
        black_box(self.database.snapshot().get(&self.pairs, key).unwrap());
    }
}
