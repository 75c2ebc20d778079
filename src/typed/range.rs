//! Typed keys and values in order.

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use super::key::DecodeKey;
use super::value::ValueCodec;
use super::{Postcard, Typed};
use crate::error::Result;
use crate::store::{Range, RangeKeys};
use crate::value::Value;

/// Typed keys and values in order, from [`Typed::range`] and similar methods. It can be read from
/// both ends.
///
/// `I` is the iterator over bytes: a [`Range`] of a store or a snapshot, or a
/// [`TransactionRange`](crate::TransactionRange). A pair that does not decode is an error, after
/// which the next pair follows.
#[must_use = "an iterator reads nothing before its first step"]
pub struct TypedRange<K, V, C = Postcard, I = Range> {
    typed: Typed<K, V, C>,
    pairs: I,
}

/// Typed keys in order, from [`Typed::keys`] and similar methods. It can be read from both ends.
///
/// `I` is the iterator over bytes: the [`RangeKeys`] of a store or a snapshot, or that of a
/// transaction. A key that does not decode is an error, after which the next key follows.
#[must_use = "an iterator reads nothing before its first step"]
pub struct TypedKeys<K, I = RangeKeys> {
    typed: Typed<K, ()>,
    keys: I,
}

impl<K, V, C, I> TypedRange<K, V, C, I> {
    pub(super) fn new(typed: Typed<K, V, C>, pairs: I) -> Self {
        Self { typed, pairs }
    }
}

impl<K, I> TypedKeys<K, I> {
    pub(super) fn new(prefix: &'static str, keys: I) -> Self {
        Self { typed: Typed { prefix, types: PhantomData }, keys }
    }
}

impl<K: DecodeKey, V: DeserializeOwned, C: ValueCodec, I> TypedRange<K, V, C, I> {
    fn decode(&self, pair: Result<(Value, Value)>) -> Result<(K, V)> {
        let (key, value) = pair?;
        Ok((self.typed.decode_key(&key)?, self.typed.decode_value(&key, &value)?))
    }
}

impl<K, V, C, I> Iterator for TypedRange<K, V, C, I>
where
    K: DecodeKey,
    V: DeserializeOwned,
    C: ValueCodec,
    I: Iterator<Item = Result<(Value, Value)>>,
{
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.pairs.next().map(|pair| self.decode(pair))
    }
}

impl<K, V, C, I> DoubleEndedIterator for TypedRange<K, V, C, I>
where
    K: DecodeKey,
    V: DeserializeOwned,
    C: ValueCodec,
    I: DoubleEndedIterator<Item = Result<(Value, Value)>>,
{
    fn next_back(&mut self) -> Option<Self::Item> {
        self.pairs.next_back().map(|pair| self.decode(pair))
    }
}

impl<K: DecodeKey, I: Iterator<Item = Result<Value>>> Iterator for TypedKeys<K, I> {
    type Item = Result<K>;

    fn next(&mut self) -> Option<Self::Item> {
        self.keys.next().map(|key| self.typed.decode_key(&key?))
    }
}

impl<K: DecodeKey, I: DoubleEndedIterator<Item = Result<Value>>> DoubleEndedIterator
    for TypedKeys<K, I>
{
    fn next_back(&mut self) -> Option<Self::Item> {
        self.keys.next_back().map(|key| self.typed.decode_key(&key?))
    }
}

impl<K, V, C, I> FusedIterator for TypedRange<K, V, C, I>
where
    Self: Iterator,
    I: FusedIterator,
{
}

impl<K, I> FusedIterator for TypedKeys<K, I>
where
    Self: Iterator,
    I: FusedIterator,
{
}

impl<K, V, C, I> fmt::Debug for TypedRange<K, V, C, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedRange").field("typed", &self.typed).finish_non_exhaustive()
    }
}

impl<K, I> fmt::Debug for TypedKeys<K, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedKeys").field("typed", &self.typed).finish_non_exhaustive()
    }
}
