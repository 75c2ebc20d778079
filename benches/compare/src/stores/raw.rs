//! The limit of what a log in a memory map can do, and no store: pairs are copied into one mapping,
//! and a bare hash table with 8 bytes for each key names the newest. There are no checksums,
//! segments, merges, limits, syncs and recovery. It is not among the peers.

use std::fs::File;
use std::path::Path;
use std::sync::{RwLock, RwLockReadGuard};

use hashbrown::HashTable;
use memmap2::{Advice, MmapMut, MmapOptions};
use xxhash_rust::xxh3::xxh3_64;

use super::{Setup, Store, View};
use crate::keys::{Key, Values};

/// Size of the mapping in bytes. The file has no blocks until they are written.
const MAP_SIZE: usize = 64 << 30;
/// Number of bytes whose pages are populated at a time.
const POPULATE_SIZE: usize = 256 << 10;
const KEY_SIZE: usize = size_of::<Key>();
/// Size of what precedes a key: the size of its value.
const HEADER_SIZE: usize = 8;

pub(super) struct Raw(RwLock<Log>);

pub(super) struct Log {
    map: MmapMut,
    end: usize,
    populated: usize,
    /// The offset of each key's newest pair.
    table: HashTable<u64>,
    has_dead: bool,
}

impl Log {
    fn pair(&self, offset: u64) -> (&[u8], &[u8]) {
        pair(&self.map, offset)
    }

    fn append(&mut self, key: &Key, value: &[u8]) -> u64 {
        let (start, size) = (self.end, HEADER_SIZE + KEY_SIZE + value.len());
        self.end += size.next_multiple_of(8);
        if self.end > self.populated {
            let step = (self.end - self.populated).next_multiple_of(POPULATE_SIZE);
            self.map.advise_range(Advice::PopulateWrite, self.populated, step).unwrap();
            self.populated += step;
        }
        let entry = &mut self.map[start..start + size];
        entry[..HEADER_SIZE].copy_from_slice(&(value.len() as u64).to_be_bytes());
        entry[HEADER_SIZE..HEADER_SIZE + KEY_SIZE].copy_from_slice(key);
        entry[HEADER_SIZE + KEY_SIZE..].copy_from_slice(value);
        start as u64
    }

    fn put(&mut self, key: &Key, value: &[u8]) {
        let offset = self.append(key, value);
        let (map, hash) = (&self.map, xxh3_64(key));
        let is_it = |offset: &u64| pair(map, *offset).0 == key;
        match self.table.find_mut(hash, is_it) {
            Some(slot) => {
                *slot = offset;
                self.has_dead = true;
            }
            None => {
                self.table.insert_unique(hash, offset, |offset| xxh3_64(pair(map, *offset).0));
            }
        }
    }

    fn find(&self, key: &Key) -> Option<&[u8]> {
        let is_it = |offset: &u64| self.pair(*offset).0 == key;
        self.table.find(xxh3_64(key), is_it).map(|offset| self.pair(*offset).1)
    }
}

/// Returns the key and the value at an offset.
fn pair(map: &[u8], offset: u64) -> (&[u8], &[u8]) {
    let bytes = &map[offset as usize..];
    let size = u64::from_be_bytes(*bytes.first_chunk().unwrap()) as usize;
    bytes[HEADER_SIZE..HEADER_SIZE + KEY_SIZE + size].split_at(KEY_SIZE)
}

impl Store for Raw {
    const BATCHED: bool = false;
    const DURABLE: bool = false;

    type View<'a> = RwLockReadGuard<'a, Log>;

    fn open(path: &Path, _: &Setup) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).open(path.join("log")).unwrap();
        file.set_len(MAP_SIZE as u64).unwrap();
        // SAFETY: no other process knows the file, and this one neither truncates nor writes it
        // other than through the mapping.
        let map = unsafe { MmapOptions::new().map_mut(&file) }.unwrap();
        map.advise(Advice::Random).unwrap();
        let table = HashTable::new();
        Self(RwLock::new(Log { map, end: 0, populated: 0, table, has_dead: false }))
    }

    fn put(&self, key: &Key, value: &[u8]) {
        self.0.write().unwrap().put(key, value);
    }

    fn put_batch(&self, keys: &[Key], version: u64, values: &mut Values) {
        for key in keys {
            self.put(key, values.of(key, version));
        }
    }

    fn delete(&self, key: &Key) {
        let mut log = self.0.write().unwrap();
        log.append(key, &[]);
        log.has_dead = true;
        let Log { map, table, .. } = &mut *log;
        if let Ok(slot) = table.find_entry(xxh3_64(key), |offset| pair(map, *offset).0 == key) {
            slot.remove();
        }
    }

    fn view(&self) -> Self::View<'_> {
        self.0.read().unwrap()
    }

    /// Walks along the log, and looks pairs up only if some are dead.
    fn scan_all(&self, mut read: impl FnMut(Option<&[u8]>, &[u8]) -> bool) {
        let (log, mut offset) = (self.view(), 0);
        while offset < log.end {
            let (key, value) = log.pair(offset as u64);
            let is_it = |found: &u64| *found == offset as u64;
            let is_live = !log.has_dead || log.table.find(xxh3_64(key), is_it).is_some();
            if is_live && !read(Some(key), value) {
                break;
            }
            offset += (HEADER_SIZE + KEY_SIZE + value.len()).next_multiple_of(8);
        }
    }

    /// There is no such call.
    fn sync(&self) {}
}

impl View for RwLockReadGuard<'_, Log> {
    fn get(&self, key: &Key, read: impl FnOnce(&[u8])) -> bool {
        self.find(key).map(read).is_some()
    }
}
