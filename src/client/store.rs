//! The traits of stores, for a remote one.

use std::time::Duration;

use super::{Client, ClientError, ClientResult, RemoteKeys, RemotePairs};
use crate::options::WriteOptions;
use crate::store::{Batch, CompareAndSwapError, KeyRange, ReadStore, Ttl, Version, WriteStore};
use crate::value::Value;

impl ReadStore for Client {
    type Error = ClientError;
    type Pairs = RemotePairs;
    type Keys = RemoteKeys;

    fn get(&self, key: impl AsRef<[u8]>) -> ClientResult<Option<Value>> {
        Client::get(self, key)
    }

    fn get_versioned(&self, key: impl AsRef<[u8]>) -> ClientResult<Option<(Value, Version)>> {
        Client::get_versioned(self, key)
    }

    fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> ClientResult<Vec<Option<Value>>> {
        Client::get_many(self, keys)
    }

    fn contains_key(&self, key: impl AsRef<[u8]>) -> ClientResult<bool> {
        Client::contains_key(self, key)
    }

    fn ttl(&self, key: impl AsRef<[u8]>) -> ClientResult<Option<Ttl>> {
        Client::ttl(self, key)
    }

    fn range(&self, bounds: impl KeyRange) -> RemotePairs {
        Client::range(self, bounds)
    }

    fn range_keys(&self, bounds: impl KeyRange) -> RemoteKeys {
        Client::range_keys(self, bounds)
    }

    fn prefix(&self, prefix: impl AsRef<[u8]>) -> RemotePairs {
        Client::prefix(self, prefix)
    }

    fn prefix_keys(&self, prefix: impl AsRef<[u8]>) -> RemoteKeys {
        Client::prefix_keys(self, prefix)
    }
}

impl WriteStore for Client {
    fn put_opt(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> ClientResult<()> {
        Client::put_opt(self, key, value, options)
    }

    fn delete_opt(&self, key: impl AsRef<[u8]>, options: WriteOptions) -> ClientResult<bool> {
        Client::delete_opt(self, key, options)
    }

    fn write_opt(&self, batch: &Batch, options: WriteOptions) -> ClientResult<()> {
        Client::write_opt(self, batch, options)
    }

    fn put_if_absent_opt(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> ClientResult<bool> {
        Client::put_if_absent_opt(self, key, value, options)
    }

    fn compare_and_swap_opt(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        options: WriteOptions,
    ) -> ClientResult<Result<(), CompareAndSwapError>> {
        Client::compare_and_swap_opt(self, key, expected, new, options)
    }

    fn compare_and_swap_versioned_opt(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<Version>,
        new: Option<&[u8]>,
        options: WriteOptions,
    ) -> ClientResult<Result<(), CompareAndSwapError>> {
        Client::compare_and_swap_versioned_opt(self, key, expected, new, options)
    }

    fn expire(&self, key: impl AsRef<[u8]>, ttl: Duration) -> ClientResult<bool> {
        Client::expire(self, key, ttl)
    }

    fn persist(&self, key: impl AsRef<[u8]>) -> ClientResult<bool> {
        Client::persist(self, key)
    }
}
