//! What typed collections read from and write to.

use std::iter::Map;
use std::sync::Arc;

use super::bounds::EncodedBounds;
use crate::error::Result;
use crate::options::WriteOptions;
use crate::store::{
    Batch, Bitcask, Range, RangeKeys, ReadOnly, Reader, Snapshot, Transaction, TransactionRange,
};
use crate::value::Value;

/// What a collection is read from: a store, a [`Snapshot`] or a [`Transaction`], or an [`Arc`] of
/// one.
///
/// A transaction notes what is read, as with its own methods, and shows what it has written.
///
/// This trait is sealed: no other type can implement it.
pub trait TypedSource: sealed::ReadPairs {}

/// What the changes of a collection are collected in: a [`Batch`] or a [`Transaction`].
///
/// This trait is sealed: no other type can implement it.
pub trait TypedSink: sealed::AddChanges {}

impl<S: sealed::ReadPairs + ?Sized> TypedSource for S {}
impl<S: sealed::AddChanges + ?Sized> TypedSink for S {}

pub(super) mod sealed {
    use super::{EncodedBounds, Result, Value, WriteOptions};

    /// Pairs of bytes. Code outside this crate cannot name this trait.
    pub trait ReadPairs {
        /// The pairs of a range, in order.
        type Pairs<'a>: DoubleEndedIterator<Item = Result<(Value, Value)>>
        where
            Self: 'a;
        /// The keys of a range, in order.
        type Keys<'a>: DoubleEndedIterator<Item = Result<Value>>
        where
            Self: 'a;

        fn read<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>>;
        fn has(&self, key: &[u8]) -> Result<bool>;
        fn read_many(&self, keys: &[Vec<u8>], read: impl FnMut(usize, &[u8])) -> Result<()>;
        fn pairs(&self, bounds: EncodedBounds) -> Self::Pairs<'_>;
        fn keys_of(&self, bounds: EncodedBounds) -> Self::Keys<'_>;
    }

    /// Pending changes of bytes. Code outside this crate cannot name this trait.
    pub trait AddChanges {
        fn add_put(&mut self, key: Vec<u8>, value: Vec<u8>, options: WriteOptions);
        fn add_delete(&mut self, key: Vec<u8>);
    }
}

/// Stores and snapshots, whose methods have the same names.
macro_rules! of_store {
    ($($store:ty),+) => {$(
        impl sealed::ReadPairs for $store {
            type Pairs<'a> = Range;
            type Keys<'a> = RangeKeys;

            fn read<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
                self.get_with(key, read)
            }

            fn has(&self, key: &[u8]) -> Result<bool> {
                self.contains_key(key)
            }

            fn read_many(
                &self,
                keys: &[Vec<u8>],
                mut read: impl FnMut(usize, &[u8]),
            ) -> Result<()> {
                self.get_many_with(keys, |at, value| {
                    if let Some(value) = value {
                        read(at, value);
                    }
                })
            }

            fn pairs(&self, bounds: EncodedBounds) -> Range {
                self.range(bounds)
            }

            fn keys_of(&self, bounds: EncodedBounds) -> RangeKeys {
                self.range_keys(bounds)
            }
        }
    )+};
}

of_store!(Reader, Bitcask, ReadOnly, Snapshot);

impl sealed::ReadPairs for Transaction {
    type Pairs<'a> = TransactionRange<'a>;
    type Keys<'a> = Map<TransactionRange<'a>, fn(Result<(Value, Value)>) -> Result<Value>>;

    fn read<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        Ok(self.get(key)?.map(|value| read(&value)))
    }

    fn has(&self, key: &[u8]) -> Result<bool> {
        self.contains_key(key)
    }

    fn read_many(&self, keys: &[Vec<u8>], mut read: impl FnMut(usize, &[u8])) -> Result<()> {
        for (at, key) in keys.iter().enumerate() {
            if let Some(value) = self.get(key)? {
                read(at, &value);
            }
        }
        Ok(())
    }

    fn pairs(&self, bounds: EncodedBounds) -> TransactionRange<'_> {
        self.range(bounds)
    }

    fn keys_of(&self, bounds: EncodedBounds) -> Self::Keys<'_> {
        self.range(bounds).map(|pair| Ok(pair?.0))
    }
}

impl<S: sealed::ReadPairs> sealed::ReadPairs for Arc<S> {
    type Pairs<'a>
        = S::Pairs<'a>
    where
        Self: 'a;
    type Keys<'a>
        = S::Keys<'a>
    where
        Self: 'a;

    fn read<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        (**self).read(key, read)
    }

    fn has(&self, key: &[u8]) -> Result<bool> {
        (**self).has(key)
    }

    fn read_many(&self, keys: &[Vec<u8>], read: impl FnMut(usize, &[u8])) -> Result<()> {
        (**self).read_many(keys, read)
    }

    fn pairs(&self, bounds: EncodedBounds) -> Self::Pairs<'_> {
        (**self).pairs(bounds)
    }

    fn keys_of(&self, bounds: EncodedBounds) -> Self::Keys<'_> {
        (**self).keys_of(bounds)
    }
}

impl sealed::AddChanges for Batch {
    fn add_put(&mut self, key: Vec<u8>, value: Vec<u8>, options: WriteOptions) {
        self.put_opt(key, value, options);
    }

    fn add_delete(&mut self, key: Vec<u8>) {
        self.delete(key);
    }
}

impl sealed::AddChanges for Transaction {
    fn add_put(&mut self, key: Vec<u8>, value: Vec<u8>, options: WriteOptions) {
        self.put_opt(key, value, options);
    }

    fn add_delete(&mut self, key: Vec<u8>) {
        self.delete(key);
    }
}
