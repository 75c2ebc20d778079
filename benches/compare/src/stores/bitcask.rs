//! Bitcask with the checksums of its reads on, which is the default, and off.
//!
//! Puts need no batches. Merges run with their default limits. Where dead data is part of a row, it
//! is looked for ten times a second rather than every three minutes, as the rows take seconds.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use bitcask::{AutoMerge, Batch, Bitcask, MergeOptions, MergePolicy, Options, SyncPolicy};

use super::{Ordered, Read, Setup, Store, View};
use crate::keys::{Key, Values};

/// A store that checks the checksum of each value that it reads, or does not.
pub(super) struct Checking<const CHECKS: bool>(Bitcask);

pub(super) type Checked = Checking<true>;
pub(super) type Unchecked = Checking<false>;

impl<const CHECKS: bool> Store for Checking<CHECKS> {
    const BATCHED: bool = false;

    type View<'a> = &'a Bitcask;

    fn open(path: &Path, setup: &Setup) -> Self {
        let sync = if setup.durable { SyncPolicy::Always } else { SyncPolicy::Never };
        let mut merging = AutoMerge::new();
        if setup.merging {
            merging = merging.check_interval(Duration::from_millis(100));
        }
        let options = Options::new().sync_policy(sync).verify_reads(CHECKS);
        Self(options.merge_policy(MergePolicy::Auto(merging)).open(path).unwrap())
    }

    fn put(&self, key: &Key, value: &[u8]) {
        self.0.put(key, value).unwrap();
    }

    fn put_batch(&self, keys: &[Key], version: u64, values: &mut Values) {
        let mut batch = Batch::new();
        for key in keys {
            batch.put(key, values.of(key, version));
        }
        self.0.write(&batch).unwrap();
    }

    fn delete(&self, key: &Key) {
        self.0.delete(key).unwrap();
    }

    fn view(&self) -> &Bitcask {
        &self.0
    }

    fn scan_all(&self, mut read: impl FnMut(Option<&[u8]>, &[u8]) -> bool) {
        let read = |key: &[u8], value: &[u8]| {
            if read(Some(key), value) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let _ = self.0.iter_unordered_with(read).unwrap();
    }

    fn sync(&self) {
        self.0.sync().unwrap();
    }

    fn merge(&self) -> bool {
        self.0.merge_opt(MergeOptions::new().force(true)).unwrap();
        true
    }

    fn bring_into_order(&self) {
        self.0.merge_opt(MergeOptions::new().force(true).ordered(true)).unwrap();
    }

    fn len(&self) -> Option<u64> {
        Some(self.0.len().unwrap())
    }

    fn ordered(&self) -> Option<&dyn Ordered> {
        Some(&self.0)
    }
}

impl View for &Bitcask {
    fn get(&self, key: &Key, read: impl FnOnce(&[u8])) -> bool {
        self.get_with(key, read).unwrap().is_some()
    }

    fn get_many(&self, keys: &[Key], mut read: impl FnMut(usize, &[u8])) {
        let mut read_found = |at, value: Option<&[u8]>| {
            if let Some(value) = value {
                read(at, value);
            }
        };
        self.get_many_with(keys, &mut read_found).unwrap();
    }
}

impl Ordered for Bitcask {
    fn scan(&self, from: &[u8], read: Read<'_>) {
        super::pass(self.range(from..).map(Result::unwrap), read);
    }

    fn scan_back(&self, read: Read<'_>) {
        super::pass(self.range(..).rev().map(Result::unwrap), read);
    }

    fn scan_keys(&self, read: Read<'_>) {
        super::pass(self.range_keys(..).map(|key| (key.unwrap(), [])), read);
    }

    fn prefix(&self, prefix: &[u8], read: Read<'_>) {
        super::pass((**self).prefix(prefix).map(Result::unwrap), read);
    }

    fn snapshot(&self, key: &Key, read: &mut dyn FnMut(&[u8])) {
        (**self).snapshot().get_with(key, read).unwrap();
    }
}
