//! Ranges of typed keys, as callers write them.

use std::ops::{self, Bound};

use super::key::EncodeKey;
use crate::store::prefix_bounds;

/// Both ends of a range of encoded keys.
pub(super) type EncodedBounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// A range of keys of type `K`: `..`, `a..b`, `a..=b`, a pair of [`Bound`]s, and so on, or a
/// reference to one of these. A range that ends before it starts is empty.
///
/// This trait is sealed: no other type can implement it.
///
/// ```
/// use std::ops::Bound;
/// use bitcask::typed::Typed;
/// # use bitcask::{Bitcask, Options};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = Bitcask::open(dir.path(), Options::default())?;
/// const TEMPERATURES: Typed<i32, String> = Typed::new("temperature/");
/// for degrees in -2..=2 {
///     TEMPERATURES.put(&db, &degrees, &String::new())?;
/// }
/// assert_eq!(TEMPERATURES.range(&db, -1..1).count(), 2);
/// assert_eq!(TEMPERATURES.range(&db, ..=-1).count(), 2);
/// // The next page, after the last key of this one.
/// let after = (Bound::Excluded(1), Bound::Unbounded);
/// assert_eq!(TEMPERATURES.range_keys(&db, after).next().unwrap()?, 2);
/// # db.close()
/// # }
/// ```
pub trait TypedBounds<K>: sealed::EncodedEnds<K> {}

impl<K, R: sealed::EncodedEnds<K> + ?Sized> TypedBounds<K> for R {}

mod sealed {
    /// A type with two ends. Code outside this crate cannot name this trait.
    pub trait EncodedEnds<K> {
        /// Returns both ends, as keys with this prefix.
        fn encoded(&self, prefix: &[u8]) -> super::EncodedBounds;
    }
}

/// Encodes both ends. An open end is that of the keys with this prefix.
fn encode<K, Q: EncodeKey<K>>(prefix: &[u8], start: Bound<&Q>, end: Bound<&Q>) -> EncodedBounds {
    let encode = |key: &Q| {
        let mut bytes = prefix.to_vec();
        key.encode_last(&mut bytes);
        bytes
    };
    let all = prefix_bounds(prefix);
    let or = |bound: Bound<Vec<u8>>, open| if bound == Bound::Unbounded { open } else { bound };
    (or(start.map(encode), all.start), or(end.map(encode), all.end))
}

impl<K, R: sealed::EncodedEnds<K> + ?Sized> sealed::EncodedEnds<K> for &R {
    fn encoded(&self, prefix: &[u8]) -> EncodedBounds {
        (**self).encoded(prefix)
    }
}

impl<K> sealed::EncodedEnds<K> for ops::RangeFull {
    fn encoded(&self, prefix: &[u8]) -> EncodedBounds {
        let all = prefix_bounds(prefix);
        (all.start, all.end)
    }
}

/// Ranges that name the type of their ends.
macro_rules! ranges {
    ($($range:ty),+) => {$(
        impl<K, Q: EncodeKey<K>> sealed::EncodedEnds<K> for $range {
            fn encoded(&self, prefix: &[u8]) -> EncodedBounds {
                use ops::RangeBounds;

                encode(prefix, self.start_bound(), self.end_bound())
            }
        }
    )+};
}

ranges!(
    (Bound<Q>, Bound<Q>),
    ops::Range<Q>,
    ops::RangeInclusive<Q>,
    ops::RangeFrom<Q>,
    ops::RangeTo<Q>,
    ops::RangeToInclusive<Q>
);
