//! The limit of what the design can do on a machine: a populated mapping and a bare hash table.
//!
//! - An entry has the same size and layout as in the store, and its checksum covers the same bytes.
//!   The table has slots of 16 bytes in buckets of a cache line, found by the same hash.
//! - Everything else that makes a store is left out: locks, segments, growth, limits, errors and
//!   recovery. There is one thread.

#![expect(unsafe_code, reason = "storing through a mapping requires mapping a file")]

use std::fs::File;
use std::path::Path;

use fs2::FileExt as _;
use memmap2::{Advice, MmapMut, MmapOptions};

use super::keys::Key;

const HEADER_SIZE: usize = 20;
const KEY_SIZE: usize = size_of::<Key>();
const TOMBSTONE: u16 = 1;
/// Size of a step in which pages are populated during the run, in bytes, as in the store.
const POPULATE_SIZE: usize = 256 << 10;

/// When the mapping's pages are populated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Populate {
    /// All pages, before anything is timed.
    Before,
    /// Step by step like the store, as a part of the measured time.
    AsItGoes,
}

/// The parameters of a raw limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) keys: usize,
    /// Number of entries for which the log has room.
    pub(crate) entries: usize,
    pub(crate) value_size: usize,
    pub(crate) populate: Populate,
    pub(crate) checksums: bool,
}

impl Shape {
    /// Room for this many keys, each put once; populated beforehand, with checksums.
    pub(crate) fn new(keys: usize, value_size: usize) -> Self {
        let populate = Populate::Before;
        Self { keys, entries: keys, value_size, populate, checksums: true }
    }
}

/// A log of entries in one mapping, and a table that names the newest entry of each key.
pub(crate) struct Raw {
    table: Table,
    map: MmapMut,
    file: File,
    end: usize,
    populated: usize,
    checksums: bool,
}

impl Raw {
    pub(crate) fn new(directory: &Path, shape: Shape) -> Self {
        let size = shape.entries.max(1) * entry_size(shape.value_size);
        let size = size.next_multiple_of(POPULATE_SIZE);
        let file = tempfile::tempfile_in(directory).unwrap();
        file.allocate(size as u64).unwrap();
        // SAFETY: the file has no name, so no other process changes or truncates it while it is
        // mapped.
        let map = unsafe { MmapOptions::new().len(size).map_mut(&file) }.unwrap();
        map.advise(Advice::Random).unwrap();
        let table = Table::new(shape.keys);
        let mut raw = Self { table, map, file, end: 0, populated: 0, checksums: shape.checksums };
        if shape.populate == Populate::Before {
            raw.populate(size);
        }
        raw
    }

    /// A limit that holds keys, each with the same value.
    pub(crate) fn loaded(directory: &Path, shape: Shape, keys: &[Key], value: &[u8]) -> Self {
        let mut raw = Self::new(directory, shape);
        for key in keys {
            raw.put(key, value);
        }
        raw
    }

    pub(crate) fn set_checksums(&mut self, yes: bool) {
        self.checksums = yes;
    }

    pub(crate) fn put(&mut self, key: &Key, value: &[u8]) {
        let (fingerprint, offset) = (fingerprint(key), self.end);
        self.append(key, value, 0);
        let found = self.table.find(fingerprint, |offset| self.is_of(key, offset));
        self.table.set(found.unwrap_or_else(|free| free), fingerprint, offset as u64);
    }

    pub(crate) fn delete(&mut self, key: &Key) -> bool {
        let found = self.table.find(fingerprint(key), |offset| self.is_of(key, offset));
        if let Ok(at) = found {
            self.append(key, &[], TOMBSTONE);
            self.table.set(at, REMOVED, 0);
        }
        found.is_ok()
    }

    pub(crate) fn get_into(&self, key: &Key, buffer: &mut Vec<u8>) -> bool {
        buffer.clear();
        let found = self.table.find(fingerprint(key), |offset| self.is_of(key, offset));
        let Ok(at) = found else { return false };
        let offset = self.table.offset(at) as usize;
        let (entry, value_size) = self.entry(offset);
        if self.checksums {
            let stored = u32::from_be_bytes(*entry.first_chunk().unwrap());
            assert_eq!(checksum(&entry[..HEADER_SIZE], &entry[HEADER_SIZE..]), stored);
        }
        buffer.extend_from_slice(&entry[entry.len() - value_size..]);
        true
    }

    /// Calls a closure with each key and value of the log, from its start.
    pub(crate) fn scan(&self, mut read: impl FnMut(&[u8], &[u8])) {
        let mut offset = 0;
        while offset < self.end {
            let (entry, value_size) = self.entry(offset);
            if self.checksums {
                let stored = u32::from_be_bytes(*entry.first_chunk().unwrap());
                assert_eq!(checksum(&entry[..HEADER_SIZE], &entry[HEADER_SIZE..]), stored);
            }
            let (key, value) = entry[HEADER_SIZE..].split_at(KEY_SIZE);
            read(key, value);
            offset += entry_size(value_size);
        }
    }

    /// Appends an entry that no slot names.
    pub(crate) fn append(&mut self, key: &Key, value: &[u8], flags: u16) {
        let (start, size) = (self.end, HEADER_SIZE + KEY_SIZE + value.len());
        self.end += entry_size(value.len());
        if self.end > self.populated {
            self.populate(self.end.max(self.populated + POPULATE_SIZE));
        }
        let mut header = [0; HEADER_SIZE];
        header[4..6].copy_from_slice(&(KEY_SIZE as u16).to_be_bytes());
        header[6..8].copy_from_slice(&flags.to_be_bytes());
        header[8..12].copy_from_slice(&(value.len() as u32).to_be_bytes());
        header[12..20].copy_from_slice(&(start as u64).to_be_bytes());
        if self.checksums {
            let mut sum = crc32fast::Hasher::new();
            sum.update(key);
            sum.update(value);
            sum.update(&header[4..]);
            header[..4].copy_from_slice(&sum.finalize().to_be_bytes());
        }
        let entry = &mut self.map[start..start + size];
        entry[..HEADER_SIZE].copy_from_slice(&header);
        entry[HEADER_SIZE..HEADER_SIZE + KEY_SIZE].copy_from_slice(key);
        entry[HEADER_SIZE + KEY_SIZE..].copy_from_slice(value);
    }

    pub(crate) fn sync(&self) {
        self.file.sync_data().unwrap();
    }

    fn populate(&mut self, until: usize) {
        let until = until.min(self.map.len());
        let size = until - self.populated;
        self.map.advise_range(Advice::PopulateWrite, self.populated, size).unwrap();
        self.populated = until;
    }

    /// Returns an entry without its padding, and the size of its value.
    fn entry(&self, offset: usize) -> (&[u8], usize) {
        let bytes = &self.map[offset..];
        let value_size = u32::from_be_bytes(*bytes[8..].first_chunk().unwrap()) as usize;
        (&bytes[..HEADER_SIZE + KEY_SIZE + value_size], value_size)
    }

    fn is_of(&self, key: &Key, offset: u64) -> bool {
        let start = offset as usize + HEADER_SIZE;
        words(key) == words(&self.map[start..start + KEY_SIZE])
    }
}

/// Returns the size of an entry with its padding.
pub(crate) fn entry_size(value_size: usize) -> usize {
    (HEADER_SIZE + KEY_SIZE + value_size).next_multiple_of(8)
}

/// Computed in the store's order: key and value before the place is known, then the header.
fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(body);
    sum.update(&header[4..]);
    sum.finalize()
}

/// Compares a key as two words. A 16-byte load of bytes just stored as two words cannot be served
/// by store forwarding; the stall would distort the figure.
fn words(key: &[u8]) -> [u64; 2] {
    let word = |at: usize| u64::from_be_bytes(*key[at..].first_chunk().unwrap());
    [word(0), word(8)]
}

fn fingerprint(key: &Key) -> u64 {
    let hash = xxhash_rust::xxh3::xxh3_128_with_seed(key, 42);
    (hash as u64).max(REMOVED + 1)
}

const EMPTY: u64 = 0;
const REMOVED: u64 = 1;
const BUCKET_LEN: usize = 4;
const BUCKET_SIZE: usize = 64;
const SLOT_SIZE: usize = BUCKET_SIZE / BUCKET_LEN;

/// A table of fixed size with linear probing: slots of a fingerprint and an offset, in buckets of a
/// cache line, in huge pages where the kernel has them.
struct Table {
    map: MmapMut,
    bucket_count: usize,
}

impl Table {
    /// A table that is three quarters full with all keys, which is the average load of the store's
    /// tables. All of it has been touched.
    fn new(keys: usize) -> Self {
        let bucket_count = (keys * 4).div_ceil(3 * BUCKET_LEN) + 1;
        let mut map = MmapMut::map_anon(bucket_count * BUCKET_SIZE).unwrap();
        // This is only advice, and the kernel may not support it.
        let _ = map.advise(Advice::HugePage);
        map.fill(0);
        Self { map, bucket_count }
    }

    /// Returns the place of a key's slot, or of the slot that ends its chain.
    fn find(&self, fingerprint: u64, is_it: impl Fn(u64) -> bool) -> Result<usize, usize> {
        let bucket = ((fingerprint >> 32) * self.bucket_count as u64) >> 32;
        let mut at = bucket as usize * BUCKET_SIZE;
        loop {
            let found = self.word(at);
            if found == fingerprint && is_it(self.offset(at)) {
                return Ok(at);
            }
            if found == EMPTY {
                return Err(at);
            }
            at += SLOT_SIZE;
            if at == self.map.len() {
                at = 0;
            }
        }
    }

    fn offset(&self, at: usize) -> u64 {
        self.word(at + 8)
    }

    fn set(&mut self, at: usize, fingerprint: u64, offset: u64) {
        self.map[at..at + 8].copy_from_slice(&fingerprint.to_be_bytes());
        self.map[at + 8..at + SLOT_SIZE].copy_from_slice(&offset.to_be_bytes());
    }

    fn word(&self, at: usize) -> u64 {
        u64::from_be_bytes(*self.map[at..].first_chunk().unwrap())
    }
}
