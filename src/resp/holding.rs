//! What a key holds, as it was read.

use std::ops::{Deref, Range};

use super::encoding::{HashHeader, StoredContent, decode_value};
use super::refusal::{Answer, WRONG_TYPE, refused};
use super::reply::Reply;
use crate::value::Value;

/// A string that was read.
#[derive(Debug, Clone)]
pub(super) struct StoredString {
    value: Value,
    /// Number of bytes of the value before the string.
    start: usize,
}

impl Deref for StoredString {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.value.get(self.start..).unwrap_or_default()
    }
}

impl StoredString {
    pub(super) fn into_reply(self) -> Reply {
        let len = self.len();
        self.into_part(0..len)
    }

    /// Returns a reply that lends a part of the string.
    pub(super) fn into_part(self, part: Range<usize>) -> Reply {
        let (start, end) = (part.start + self.start, part.end + self.start);
        Reply::Stored(self.value.part(start..end))
    }
}

/// What a key holds.
#[derive(Debug, Clone)]
pub(super) enum Holding {
    String(StoredString),
    Hash(HashHeader),
}

impl Holding {
    pub(super) fn new(value: Value) -> Self {
        match decode_value(&value) {
            StoredContent::String(_, start) => Self::String(StoredString { value, start }),
            StoredContent::Hash(header) => Self::Hash(header),
        }
    }

    pub(super) fn string(self) -> Answer<StoredString> {
        match self {
            Self::String(string) => Ok(string),
            Self::Hash(_) => refused(WRONG_TYPE),
        }
    }

    pub(super) fn hash(self) -> Answer<HashHeader> {
        match self {
            Self::Hash(header) => Ok(header),
            Self::String(_) => refused(WRONG_TYPE),
        }
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::Hash(_) => "hash",
        }
    }
}
