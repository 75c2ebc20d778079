//! A range in a transaction: its snapshot overlaid with its own writes.

use std::cell::RefCell;
use std::collections::btree_map;
use std::fmt;
use std::iter::FusedIterator;

use super::reads::Reads;
use super::{Snapshot, Transaction, Write, Writes};
use crate::error::Result;
use crate::segment::index::{Bounds, Direction};
use crate::store::scan::ordered::Ordered;
use crate::value::Value;

/// Keys and values in order, from [`Transaction::range`](super::Transaction::range) or
/// [`Transaction::prefix`](super::Transaction::prefix).
#[must_use = "iterators are lazy and read nothing until they are advanced"]
pub struct TransactionRange<'a> {
    pairs: Ends<StoredPairs>,
    writes: Ends<btree_map::Range<'a, Vec<u8>, Write>>,
    reads: &'a RefCell<Reads>,
    /// Its number in `reads`.
    span: usize,
}

impl fmt::Debug for TransactionRange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionRange").finish_non_exhaustive()
    }
}

/// The keys and values of a snapshot.
struct StoredPairs {
    ordered: Ordered,
    /// Whether all values are empty, and not read.
    without_values: bool,
}

impl StoredPairs {
    fn step(&mut self, direction: Direction) -> Option<Result<(Value, Value)>> {
        if self.without_values {
            let hit = self.ordered.step(direction).transpose()?;
            return Some(hit.map(|hit| (self.ordered.key(hit), Value::from(Vec::new()))));
        }
        Some(self.ordered.next_ahead(direction)?.and_then(|hit| self.ordered.pair(hit)))
    }
}

impl Iterator for StoredPairs {
    type Item = Result<(Value, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(Direction::Forward)
    }
}

impl DoubleEndedIterator for StoredPairs {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(Direction::Backward)
    }
}

/// A double-ended iterator that can be peeked at both ends.
struct Ends<I: DoubleEndedIterator> {
    items: I,
    front: Option<I::Item>,
    back: Option<I::Item>,
}

impl<I: DoubleEndedIterator> Ends<I> {
    fn new(items: I) -> Self {
        Self { items, front: None, back: None }
    }

    /// Returns the slot that holds the next item from an end, if there is a next item.
    fn at(&mut self, direction: Direction) -> &mut Option<I::Item> {
        let Self { items, front, back } = self;
        let (this, other) = match direction {
            Direction::Forward => (front, back),
            Direction::Backward => (back, front),
        };
        if this.is_none() {
            let next = match direction {
                Direction::Forward => items.next(),
                Direction::Backward => items.next_back(),
            };
            // The other end may already have peeked at the last item.
            *this = next.or_else(|| other.take());
        }
        this
    }
}

impl<'a> TransactionRange<'a> {
    /// `stored` is the part of the bounds in which the snapshot counts.
    pub(super) fn new(
        snapshot: &Snapshot,
        writes: &'a Writes,
        reads: &'a RefCell<Reads>,
        bounds: &Bounds,
        stored: Bounds,
    ) -> Self {
        let span = reads.borrow_mut().begin_span(stored.clone());
        // `BTreeMap::range` panics if a range ends before it starts.
        let written = if bounds.is_empty() {
            writes.range(Vec::new()..Vec::new())
        } else {
            writes.range((bounds.start.clone(), bounds.end.clone()))
        };
        let ordered = Ordered::new(&snapshot.view, stored);
        let pairs = StoredPairs { ordered, without_values: false };
        let (pairs, writes) = (Ends::new(pairs), Ends::new(written));
        Self { pairs, writes, reads, span }
    }

    fn step(&mut self, direction: Direction) -> Option<Result<(Value, Value)>> {
        loop {
            let pair = self.pairs.at(direction);
            let write = self.writes.at(direction);
            let order = match (&pair, &write) {
                (Some(Err(_)), _) => return pair.take(),
                (Some(Ok((key, _))), Some((written, _))) => {
                    let order = (**key).cmp(written.as_slice());
                    if direction == Direction::Forward { order } else { order.reverse() }
                }
                (Some(Ok(_)), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => {
                    self.reads.borrow_mut().note_span(self.span, direction, None);
                    return None;
                }
            };
            let next = if order.is_lt() {
                pair.take()
            } else {
                if order.is_eq() {
                    // The transaction's own write replaces it.
                    *pair = None;
                }
                write.take().and_then(|(key, write)| {
                    let value = write.value.clone()?;
                    Some(Ok((Value::from(key.clone()), value)))
                })
            };
            let first_expiry = self.pairs.items.ordered.first_expiry;
            self.reads.borrow_mut().note_expiry(first_expiry);
            let Some(next) = next else { continue };
            if let Ok((key, _)) = &next {
                self.reads.borrow_mut().note_span(self.span, direction, Some(key));
            }
            return Some(next);
        }
    }
}

impl Transaction {
    /// Returns an iterator over all keys with a prefix, in order, that reads no values.
    #[cfg_attr(
        not(feature = "resp"),
        expect(dead_code, reason = "only the Redis port needs keys alone")
    )]
    pub(crate) fn prefix_keys(
        &self,
        prefix: impl AsRef<[u8]>,
    ) -> impl Iterator<Item = Result<Value>> {
        let mut range = self.prefix(prefix);
        range.pairs.items.without_values = true;
        range.map(|pair| Ok(pair?.0))
    }
}

impl Iterator for TransactionRange<'_> {
    type Item = Result<(Value, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(Direction::Forward)
    }
}

impl FusedIterator for TransactionRange<'_> {}

impl DoubleEndedIterator for TransactionRange<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(Direction::Backward)
    }
}
