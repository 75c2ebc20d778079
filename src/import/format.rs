//! What the driver needs to know about a format, and what a decoder finds.

use std::ops::{ControlFlow, Range};

use super::source::{SourceEntry, SourceFile};
use crate::error::{Error, Result};

/// Maximum size in bytes of what a search after damage takes for a record. Records that follow one
/// another are read whatever their size.
pub(super) const SEARCH_SIZE_MAX: u64 = 1 << 20;

/// Largest key that a store accepts, in bytes.
pub(super) const KEY_SIZE_MAX: u64 = 65_535;

/// The reason why a record with a larger key is skipped.
pub(super) const KEY_TOO_LARGE: &str = "the key has more than 65,535 bytes";

/// The reason for a record that is cut off by the end of its file, as a crash leaves it.
pub(super) const CUT_OFF: &str = "the file ends within the record";

/// A record of the other store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Where the next record begins.
    pub(super) end: u64,
    pub(super) key: Vec<u8>,
    /// Where the value lies, or `None` for a delete.
    pub(super) value: Option<Range<u64>>,
    /// When the record was written, in the format's own unit, if that decides which record of a
    /// key is the newest. Otherwise 0. Among records of the same time, the last one counts.
    pub(super) time: u64,
    /// When the key expires, in seconds since the epoch.
    pub(super) expires: Option<u64>,
}

/// Why there is no record at an offset.
#[derive(Debug)]
pub(super) enum Reject {
    /// The disk failed.
    Failed(Error),
    /// The bytes are not a record.
    Invalid(&'static str),
    /// They are a record, but a store can't hold its key.
    Unusable { end: u64, reason: &'static str },
}

impl From<crate::error::Error> for Reject {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The result of decoding something.
pub(super) type Decoded<T> = std::result::Result<T, Reject>;

/// How a record was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// It follows the record before it.
    Next,
    /// It was found in a search after damage, which needs more evidence.
    Search,
}

impl Reach {
    /// Returns an error if a search has to pass over a record of this size.
    pub(super) fn check_size(self, size: u64) -> Decoded<()> {
        if self == Self::Search && size > SEARCH_SIZE_MAX {
            return Err(Reject::Invalid("too large to be found after damage"));
        }
        Ok(())
    }
}

/// The format of another store.
pub(super) trait SourceFormat {
    /// Returns what a file with records is called, for messages.
    fn file_name(&self) -> &'static str;

    /// Returns the number in a file's name, by which files are ordered, or `None` if the file has
    /// no records.
    fn file_number(&self, name: &str) -> Option<u64>;

    /// Returns the offset of a file's first record.
    fn first_offset(&self) -> u64 {
        0
    }

    /// Returns whether the permissions of a file say that its content has been moved elsewhere.
    fn is_leftover(&self, _mode: u32) -> bool {
        false
    }

    /// Looks at a file before anything is read, in the order of the files, until it breaks. Returns
    /// an error if this is another format.
    fn examine(&mut self, _entry: &SourceEntry, _file: &mut SourceFile) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Break(()))
    }

    /// Reads the record at an offset.
    fn record(&self, file: &mut SourceFile, offset: u64, reach: Reach) -> Decoded<Record>;

    /// Returns where the record at an offset would end if only its content were damaged, not its
    /// header, or `None` if the format can't tell.
    fn claimed_end(&self, _file: &mut SourceFile, _offset: u64) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Returns whether the record at an offset is whole if it ends here, so that only the sizes in
    /// its header are damaged. Asked only if there is a [`claimed_end`](Self::claimed_end).
    fn ends_at(&self, _file: &mut SourceFile, _offset: u64, _end: u64) -> Result<bool> {
        Ok(false)
    }

    /// Reads a value. Returns `None` if the file has become shorter.
    fn value(&self, file: &mut SourceFile, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        file.read(range)
    }
}

/// Returns the end of a part of a record, or an error if the file ends before it.
pub(super) fn end_of(file: &SourceFile, start: u64, size: u64) -> Decoded<u64> {
    match start.checked_add(size) {
        Some(end) if end <= file.size() => Ok(end),
        _ => Err(Reject::Invalid(CUT_OFF)),
    }
}

/// Returns the number between two parts of a name, if there is nothing else.
pub(super) fn number_in(name: &str, prefix: &str, suffix: &str) -> Option<u64> {
    let number = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|_| is_number)
}

/// Returns what was decoded, or `None` if the bytes are no record.
pub(super) fn found<T>(decoded: Decoded<T>) -> Result<Option<T>> {
    match decoded {
        Ok(found) => Ok(Some(found)),
        Err(Reject::Failed(error)) => Err(error),
        Err(_) => Ok(None),
    }
}
