//! An entry in its segment: its key, whether it is valid, and its value as it was put.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::entry::{Entry, Flags, Header, Invalid, Layout, Salt};
use crate::error::{Error, Result};
use crate::segment::Segment;
use crate::value::{Admitted, Lend, Value};

/// An entry as it is stored in a segment.
#[derive(Debug)]
pub(crate) struct StoredEntry<'a> {
    pub(crate) segment: &'a Arc<Segment>,
    pub(crate) offset: u64,
    pub(crate) layout: Layout,
    pub(crate) bytes: Cow<'a, [u8]>,
}

impl StoredEntry<'_> {
    #[inline]
    pub(crate) fn entry(&self) -> Entry<'_> {
        Entry::new(self.layout, &self.bytes)
    }

    /// Decodes the whole header.
    pub(crate) fn header(&self) -> Result<Header> {
        self.entry().header().map_err(|invalid| self.segment.invalid(self.offset, invalid))
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.layout.flags.has(Flags::TOMBSTONE)
    }

    #[inline]
    pub(crate) fn timestamp(&self) -> u64 {
        self.entry().timestamp()
    }

    #[inline]
    pub(crate) fn expiry(&self) -> Option<u64> {
        self.entry().expiry()
    }

    #[inline]
    pub(crate) fn raw_size(&self) -> u32 {
        self.entry().raw_size()
    }

    /// Returns whether the entry belongs to this key.
    #[inline]
    pub(crate) fn is_of(&self, key: &[u8]) -> Result<bool> {
        if self.entry().key() == key { Ok(true) } else { self.is_of_other() }
    }

    /// Verifies an entry that seems to belong to another key. Returns `false`.
    #[cold]
    #[inline(never)]
    fn is_of_other(&self) -> Result<bool> {
        // This is another key with the same 76 bits of hash, or the same key, damaged.
        ignore_unknown_codec(self.check())?;
        Ok(false)
    }

    /// Records that no slot names the entry any more.
    pub(crate) fn lost(&self) {
        self.segment.lost(self.layout.entry_size());
    }

    /// Checks the entry's checksum, and that this build can read its value.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        let salt = Salt::new(self.segment.id().0, self.offset);
        self.entry().check(salt).map_err(|invalid| self.segment.invalid(self.offset, invalid))
    }

    /// Checks only that this build can read the entry's value.
    #[inline]
    pub(crate) fn understood(&self) -> Result<()> {
        self.layout.flags.understood().map_err(|invalid| self.segment.invalid(self.offset, invalid))
    }

    /// Returns the value as it was put: decompressed if it is compressed, and otherwise borrowed.
    #[inline]
    pub(crate) fn raw_value(&self) -> Result<Cow<'_, [u8]>> {
        self.entry().raw_value().map_err(|invalid| self.segment.invalid(self.offset, invalid))
    }

    /// Returns the value as it was put, in a form that can be kept.
    #[inline]
    pub(crate) fn lend_raw_value(&self) -> Result<Value> {
        match self.entry().raw_value() {
            Ok(Cow::Borrowed(_)) => Ok(self.lend_value()),
            Ok(Cow::Owned(value)) => Ok(Value::from(value)),
            Err(invalid) => Err(self.segment.invalid(self.offset, invalid)),
        }
    }

    /// Does the same. If the value has to be decompressed, `admits` is asked first whether memory
    /// of this size may be taken for it.
    pub(crate) fn lend_admitted(&self, admits: &mut dyn FnMut(u64) -> bool) -> Result<Admitted> {
        let size = u64::from(self.raw_size());
        if self.layout.flags.codec() != 0 && !admits(size) {
            return Ok(Admitted::Size(size));
        }
        Ok(Admitted::Value(self.lend_raw_value()?))
    }

    /// Returns the value as it is stored, in a form that can be kept.
    #[inline]
    pub(crate) fn lend_value(&self) -> Value {
        self.lend(self.entry().value_range())
    }

    /// Lends a part of the stored entry as a value that keeps the segment readable.
    pub(crate) fn lend(&self, part: Range<usize>) -> Value {
        match &self.bytes {
            Cow::Borrowed(_) => self.segment.lend_part(self.offset, part),
            Cow::Owned(bytes) => Value::from(bytes.get(part).unwrap_or_default().to_vec()),
        }
    }
}

impl Segment {
    /// Lends the value of a mapped entry at an offset in a form that can be kept.
    #[inline]
    pub(crate) fn lend_value(self: &Arc<Self>, offset: u64, entry: Entry<'_>) -> Value {
        self.lend_part(offset, entry.value_range())
    }

    fn lend_part(self: &Arc<Self>, offset: u64, part: Range<usize>) -> Value {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let range = start.saturating_add(part.start)..start.saturating_add(part.end);
        Value::new(Arc::clone(self) as Arc<dyn Lend>, range)
    }
}

/// Accepts an entry whose value this build can't decompress, for callers that don't need the value.
/// Everything else in the entry has been checked by then.
pub(crate) fn ignore_unknown_codec(checked: Result<()>) -> Result<()> {
    match checked {
        Err(Error::UnsupportedCodec { .. }) => Ok(()),
        other => other,
    }
}

/// The error for an invalid entry in data that should be valid.
pub(crate) fn refusal(path: &Path, offset: u64, invalid: Invalid) -> Error {
    let path = path.to_path_buf();
    match invalid {
        Invalid::UnknownCodec(codec) => Error::UnsupportedCodec { path, offset, codec },
        Invalid::UnknownFlags(flags) => Error::UnsupportedFlags { path, offset, flags },
        _ => Error::Corrupt { path, offset, reason: invalid.to_string() },
    }
}
