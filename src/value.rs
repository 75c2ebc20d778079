//! A value as the store returns it: bytes, and the owner that keeps them alive.
//!
//! - Values in a mapped segment are not copied. The segment stays readable as long as any of its
//!   values is held, whatever happens to the key.
//! - This module knows nothing of segments; it only sees [`Lend`].

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Keeps bytes alive and unchanged, and lends ranges of them.
pub(crate) trait Lend: Send + Sync {
    /// Lends the bytes in `range`, or an empty slice if the range is out of bounds.
    fn lend(&self, range: Range<usize>) -> &[u8];

    /// Returns the number of bytes in memory that exist for this value alone: none in a mapped
    /// segment.
    #[cfg(feature = "resp")]
    fn in_memory(&self) -> Option<usize> {
        None
    }
}

impl Lend for Vec<u8> {
    fn lend(&self, range: Range<usize>) -> &[u8] {
        self.get(range).unwrap_or_default()
    }

    #[cfg(feature = "resp")]
    fn in_memory(&self) -> Option<usize> {
        Some(self.capacity())
    }
}

/// The bytes stored under a key, or a key itself, without a copy where possible.
///
/// A `Value` dereferences to `[u8]`. Cloning it is cheap. A value keeps its segment alive: while it
/// is held, that segment occupies disk space, even after a merge or a
/// [`clear`](crate::Bitcask::clear). To keep bytes for long, copy them with `to_vec` and drop the
/// value.
///
/// A value may outlive the store. Its bytes do not change, even if a sync has failed and the next
/// open cuts the log back to what reached the disk: in that case [`close`](crate::Bitcask::close)
/// copies the unsealed segments that still have values.
///
/// ```
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = bitcask::Bitcask::open(dir.path(), bitcask::Options::default())?;
/// db.put("answer", "42")?;
/// let value = db.get("answer")?.expect("it was put just now");
/// assert_eq!(value, b"42");
/// assert_eq!(value.len(), 2);
/// let owned: Vec<u8> = value.into();
/// assert_eq!(owned, b"42");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Value {
    owner: Arc<dyn Lend>,
    range: Range<usize>,
}

impl Value {
    pub(crate) fn new(owner: Arc<dyn Lend>, range: Range<usize>) -> Self {
        Self { owner, range }
    }

    /// Returns a part of the value, which shares its bytes.
    #[cfg(feature = "resp")]
    pub(crate) fn part(self, part: Range<usize>) -> Self {
        let Range { start, end } = self.range;
        let within = |at: usize| start.saturating_add(at).min(end);
        Self { range: within(part.start)..within(part.end), owner: self.owner }
    }

    /// Returns the address and the size of the memory that was taken for this value, if it does not
    /// lie in a segment. Values that share it have the same address.
    #[cfg(feature = "resp")]
    pub(crate) fn in_memory(&self) -> Option<(usize, usize)> {
        let size = self.owner.in_memory()?;
        Some((Arc::as_ptr(&self.owner).cast::<()>().addr(), size))
    }
}

/// A value, or its size in bytes if the caller has refused to take memory for it.
#[derive(Debug)]
pub(crate) enum Admitted {
    Value(Value),
    Size(u64),
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.owner.lend(self.range.clone())
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Value {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

impl From<Value> for Vec<u8> {
    fn from(value: Value) -> Self {
        value.to_vec()
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self::new(Arc::new(bytes), range)
    }
}

impl Eq for Value {}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

/// Comparisons with other byte types, in both directions.
macro_rules! compare {
    ($($other:ty),+ $(,)?) => {$(
        impl PartialEq<$other> for Value {
            fn eq(&self, other: &$other) -> bool {
                **self == *AsRef::<[u8]>::as_ref(other)
            }
        }

        impl PartialEq<Value> for $other {
            fn eq(&self, other: &Value) -> bool {
                *AsRef::<[u8]>::as_ref(self) == **other
            }
        }
    )+};
}

compare!([u8], &[u8], Vec<u8>, str, &str, String);

impl<const N: usize> PartialEq<[u8; N]> for Value {
    fn eq(&self, other: &[u8; N]) -> bool {
        **self == *other.as_slice()
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Value {
    fn eq(&self, other: &&[u8; N]) -> bool {
        **self == *other.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeSet, HashSet};

    #[test]
    fn a_value_compares_hashes_and_prints_like_its_bytes() {
        let value = Value::from(b"a\0b".to_vec());
        assert_eq!(value, b"a\0b");
        assert_eq!(value, *b"a\0b");
        assert_eq!(value, b"a\0b".as_slice());
        assert_eq!(value, "a\0b");
        assert_eq!(value, Vec::from(*b"a\0b"));
        assert_eq!("a\0b", value);
        let later = Value::from(b"b".to_vec());
        assert!(value < later);
        assert_eq!(format!("{value:?}"), "b\"a\\x00b\"");
        assert!(HashSet::from([value.clone()]).contains(b"a\0b".as_slice()));
        assert!(BTreeSet::from([value]).contains(b"a\0b".as_slice()));
    }

    #[test]
    fn a_value_is_a_range_of_its_owners_bytes() {
        let value = Value::new(Arc::new(b"key-value".to_vec()), 4..9);
        assert_eq!(value, "value");
        assert_eq!(Vec::from(value.clone()), b"value");
        assert_eq!(value.to_vec(), b"value");
    }
}
