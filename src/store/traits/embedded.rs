//! The traits of stores, for the stores of this process.

use std::time::Duration;

use super::{ReadStore, WriteStore};
use crate::error::{Error, Result};
use crate::options::WriteOptions;
use crate::store::{
    Batch, Bitcask, CompareAndSwapError, KeyRange, Range, RangeKeys, ReadOnly, Reader, Snapshot,
    Ttl, Version,
};
use crate::value::Value;

/// Implements [`ReadStore`] with the methods of a type, which may be the one that it dereferences
/// to.
macro_rules! read_store {
    ($store:ty, $methods:ident) => {
        impl ReadStore for $store {
            type Error = Error;
            type Pairs = Range;
            type Keys = RangeKeys;

            fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
                $methods::get(self, key)
            }

            fn get_versioned(&self, key: impl AsRef<[u8]>) -> Result<Option<(Value, Version)>> {
                $methods::get_versioned(self, key)
            }

            fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
                $methods::get_many(self, keys)
            }

            fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
                $methods::contains_key(self, key)
            }

            fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Ttl>> {
                $methods::ttl(self, key)
            }

            fn range(&self, bounds: impl KeyRange) -> Range {
                $methods::range(self, bounds)
            }

            fn range_keys(&self, bounds: impl KeyRange) -> RangeKeys {
                $methods::range_keys(self, bounds)
            }

            fn prefix(&self, prefix: impl AsRef<[u8]>) -> Range {
                $methods::prefix(self, prefix)
            }

            fn prefix_keys(&self, prefix: impl AsRef<[u8]>) -> RangeKeys {
                $methods::prefix_keys(self, prefix)
            }
        }
    };
}

read_store!(Reader, Reader);
read_store!(Bitcask, Reader);
read_store!(ReadOnly, Reader);
read_store!(Snapshot, Snapshot);

impl WriteStore for Bitcask {
    fn put_opt(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<()> {
        Bitcask::put_opt(self, key, value, options)
    }

    fn delete_opt(&self, key: impl AsRef<[u8]>, options: WriteOptions) -> Result<bool> {
        Bitcask::delete_opt(self, key, options)
    }

    fn write_opt(&self, batch: &Batch, options: WriteOptions) -> Result<()> {
        Bitcask::write_opt(self, batch, options)
    }

    fn put_if_absent_opt(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<bool> {
        Bitcask::put_if_absent_opt(self, key, value, options)
    }

    fn compare_and_swap_opt(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        options: WriteOptions,
    ) -> Result<Result<(), CompareAndSwapError>> {
        Bitcask::compare_and_swap_opt(self, key, expected, new, options)
    }

    fn compare_and_swap_versioned_opt(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<Version>,
        new: Option<&[u8]>,
        options: WriteOptions,
    ) -> Result<Result<(), CompareAndSwapError>> {
        Bitcask::compare_and_swap_versioned_opt(self, key, expected, new, options)
    }

    fn expire(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool> {
        Bitcask::expire(self, key, ttl)
    }

    fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Bitcask::persist(self, key)
    }
}
