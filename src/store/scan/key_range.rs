//! Key ranges, as callers write them.

use std::ops::{self, Bound};

use crate::segment::index::Bounds;

/// A range of keys: `..`, `"a".."b"`, `key..`, a pair of [`Bound`]s, and so on, or a reference to
/// one of these. A range that ends before it starts is empty.
///
/// This trait is sealed: no other type can implement it, so methods can be added later.
///
/// ```
/// use std::ops::Bound;
/// use bitcask::{Bitcask, Options};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Bitcask::open(dir.path(), Options::default())?;
/// for key in ["a", "b", "c"] {
///     db.put(key, "")?;
/// }
/// let range = "a".."c";
/// assert_eq!(db.range(&range).count(), 2);
/// assert_eq!(db.delete_range(&range)?, 2);
/// assert_eq!(db.range(..).count(), 1);
/// assert_eq!(db.range((Bound::Excluded("c"), Bound::Unbounded)).count(), 0);
/// # db.close()
/// # }
/// ```
pub trait KeyRange: sealed::HasEnds {
    /// Returns both ends.
    fn into_bounds(self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>)
    where
        Self: Sized,
    {
        self.ends()
    }
}

impl<R: sealed::HasEnds + ?Sized> KeyRange for R {}

/// Both ends, in the representation of the standard library.
type BoundPair = (Bound<Vec<u8>>, Bound<Vec<u8>>);

mod sealed {
    /// A type with two ends. Code outside this crate cannot name this trait.
    pub trait HasEnds {
        fn ends(&self) -> super::BoundPair;
    }
}

fn own<K: AsRef<[u8]>>(bound: Bound<&K>) -> Bound<Vec<u8>> {
    bound.map(|key| key.as_ref().to_vec())
}

impl<R: sealed::HasEnds + ?Sized> sealed::HasEnds for &R {
    fn ends(&self) -> BoundPair {
        (**self).ends()
    }
}

impl sealed::HasEnds for ops::RangeFull {
    fn ends(&self) -> BoundPair {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

impl<K: AsRef<[u8]>> sealed::HasEnds for (Bound<K>, Bound<K>) {
    fn ends(&self) -> BoundPair {
        (own(self.0.as_ref()), own(self.1.as_ref()))
    }
}

impl<K: AsRef<[u8]>> sealed::HasEnds for ops::Range<K> {
    fn ends(&self) -> BoundPair {
        (own(Bound::Included(&self.start)), own(Bound::Excluded(&self.end)))
    }
}

impl<K: AsRef<[u8]>> sealed::HasEnds for ops::RangeInclusive<K> {
    fn ends(&self) -> BoundPair {
        (own(Bound::Included(self.start())), own(Bound::Included(self.end())))
    }
}

impl<K: AsRef<[u8]>> sealed::HasEnds for ops::RangeFrom<K> {
    fn ends(&self) -> BoundPair {
        (own(Bound::Included(&self.start)), Bound::Unbounded)
    }
}

impl<K: AsRef<[u8]>> sealed::HasEnds for ops::RangeTo<K> {
    fn ends(&self) -> BoundPair {
        (Bound::Unbounded, own(Bound::Excluded(&self.end)))
    }
}

impl<K: AsRef<[u8]>> sealed::HasEnds for ops::RangeToInclusive<K> {
    fn ends(&self) -> BoundPair {
        (Bound::Unbounded, own(Bound::Included(&self.end)))
    }
}

/// Returns the range of all keys with a prefix.
pub(crate) fn prefix_bounds(prefix: &[u8]) -> Bounds {
    // The first key after the range: the prefix up to its last byte below 0xff, with that byte
    // incremented.
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
