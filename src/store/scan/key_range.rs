//! Ranges of keys as callers write them.

use std::ops::{self, Bound};

use crate::segment::index::Bounds;

/// Where a range of keys starts and ends: `..`, `"a".."b"`, `key..`, a pair of [`Bound`]s, and so
/// on. One that ends before it starts is empty.
pub trait KeyRange {
    /// Returns both ends.
    fn into_bounds(self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>);
}

fn own<K: AsRef<[u8]>>(bound: Bound<K>) -> Bound<Vec<u8>> {
    bound.map(|key| key.as_ref().to_vec())
}

impl KeyRange for ops::RangeFull {
    fn into_bounds(self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

impl<K: AsRef<[u8]>> KeyRange for (Bound<K>, Bound<K>) {
    fn into_bounds(self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        (own(self.0), own(self.1))
    }
}

impl<K: AsRef<[u8]>> KeyRange for ops::Range<K> {
    fn into_bounds(self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        (own(Bound::Included(self.start)), own(Bound::Excluded(self.end)))
    }
}

impl<K: AsRef<[u8]>> KeyRange for ops::RangeInclusive<K> {
    fn into_bounds(self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let (start, end) = self.into_inner();
        (own(Bound::Included(start)), own(Bound::Included(end)))
    }
}

impl<K: AsRef<[u8]>> KeyRange for ops::RangeFrom<K> {
    fn into_bounds(self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        (own(Bound::Included(self.start)), Bound::Unbounded)
    }
}

impl<K: AsRef<[u8]>> KeyRange for ops::RangeTo<K> {
    fn into_bounds(self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        (Bound::Unbounded, own(Bound::Excluded(self.end)))
    }
}

impl<K: AsRef<[u8]>> KeyRange for ops::RangeToInclusive<K> {
    fn into_bounds(self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        (Bound::Unbounded, own(Bound::Included(self.end)))
    }
}

/// Returns the range of all keys that begin with these bytes.
pub(crate) fn prefix_bounds(prefix: &[u8]) -> Bounds {
    // The next key that does not: the last byte that can be is raised.
    let end = prefix.iter().rposition(|byte| *byte != 0xff).and_then(|at| {
        let mut end = prefix.get(..=at)?.to_vec();
        *end.last_mut()? += 1;
        Some(end)
    });
    Bounds {
        start: Bound::Included(prefix.to_vec()),
        end: end.map_or(Bound::Unbounded, Bound::Excluded),
    }
}
