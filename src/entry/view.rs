//! An entry whose bytes are in memory, read in place.
//!
//! - Finding an entry decodes only what says where its parts lie. Methods decode the rest, which a
//!   get of an ordinary value does not need.

use std::borrow::Cow;
use std::ops::Range;

use super::{
    BodySum, CHECKSUM, EXPIRY_SIZE, Fields, Flags, HEADER_SIZE, Header, Invalid, KEY_SIZE,
    MARK_SIZE, RAW_SIZE_SIZE, Salt, TIMESTAMP, padded,
};
use crate::clock::{Now, TIME_MAX};
use crate::codec::Codec;

/// The fields of a header that say where the parts of an entry lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) flags: Flags,
    pub(crate) key_size: u16,
    /// The value's size on disk.
    pub(crate) value_size: u32,
}

impl Layout {
    /// Decodes the layout of a put without optional fields, which nearly all entries are, also in a
    /// batch. Returns `None` for all others, and for what is not an entry.
    #[expect(clippy::inline_always, reason = "every get decodes an entry, from a few places")]
    #[inline(always)]
    pub(crate) fn plain(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes.get(KEY_SIZE..HEADER_SIZE)?);
        let key_size = u16::from_be_bytes(fields.take().ok()?);
        let flags = Flags(u16::from_be_bytes(fields.take().ok()?));
        let value_size = u32::from_be_bytes(fields.take().ok()?);
        let timestamp = u64::from_be_bytes(fields.take().ok()?);
        let is_plain = flags.add_no_field() && (1..TIME_MAX).contains(&timestamp);
        is_plain.then_some(Self { flags, key_size, value_size })
    }

    /// Decodes any layout; like [`Header::decode`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Self>, Invalid> {
        Ok(Header::decode(bytes)?.map(|header| header.layout()))
    }

    /// Returns the size of the header in bytes.
    #[inline]
    pub(crate) fn header_size(self) -> usize {
        if self.flags.0 == 0 {
            return HEADER_SIZE;
        }
        let expiry = if self.flags.has(Flags::EXPIRES) { EXPIRY_SIZE } else { 0 };
        let mark = if self.flags.has(Flags::MARK) { MARK_SIZE } else { 0 };
        let raw_size = if self.flags.codec() == 0 { 0 } else { RAW_SIZE_SIZE };
        HEADER_SIZE + expiry + mark + raw_size
    }

    /// Returns the size of the whole entry in bytes, including padding.
    #[inline]
    pub(crate) fn entry_size(self) -> u64 {
        padded(self.header_size() as u64 + u64::from(self.key_size) + u64::from(self.value_size))
    }
}

/// A whole entry in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) layout: Layout,
    bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Creates an entry whose layout was already decoded from the front of its bytes.
    #[inline]
    pub(crate) fn new(layout: Layout, bytes: &'a [u8]) -> Self {
        Self { layout, bytes }
    }

    /// Decodes the entry at the start of `bytes` without checking its checksum.
    #[cfg(any(test, bitcask_fuzzing))]
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Option<Self>, Invalid> {
        let Some(layout) = Layout::decode(bytes)? else { return Ok(None) };
        let size = usize::try_from(layout.entry_size()).map_err(|_| Invalid::Short)?;
        let bytes = bytes.get(..size).ok_or(Invalid::Short)?;
        Ok(Some(Self { layout, bytes }))
    }

    /// Decodes the whole header.
    pub(crate) fn header(&self) -> Result<Header, Invalid> {
        Header::decode(self.bytes)?.ok_or(Invalid::Short)
    }

    /// Returns where in the entry's bytes the key lies.
    #[inline]
    pub(crate) fn key_range(&self) -> Range<usize> {
        let start = self.layout.header_size();
        start..start + usize::from(self.layout.key_size)
    }

    #[inline]
    pub(crate) fn key(&self) -> &'a [u8] {
        self.bytes.get(self.key_range()).unwrap_or_default()
    }

    /// Returns where in the entry's bytes the value lies.
    #[inline]
    pub(crate) fn value_range(&self) -> Range<usize> {
        let start = self.key_range().end;
        start..start + self.layout.value_size as usize
    }

    /// Returns the value as it is stored.
    #[inline]
    pub(crate) fn value(&self) -> &'a [u8] {
        self.bytes.get(self.value_range()).unwrap_or_default()
    }

    /// Returns the value as it was put: decompressed if it is compressed, otherwise without a copy.
    #[inline]
    pub(crate) fn raw_value(&self) -> Result<Cow<'a, [u8]>, Invalid> {
        if self.layout.flags.codec() == 0 {
            return Ok(Cow::Borrowed(self.value()));
        }
        self.decompressed().map(Cow::Owned)
    }

    #[cold]
    fn decompressed(&self) -> Result<Vec<u8>, Invalid> {
        let number = self.layout.flags.codec();
        let codec = Codec::from_number(number).ok_or(Invalid::UnknownCodec(number))?;
        codec.decompress(self.value(), self.raw_size()).map_err(Invalid::Value)
    }

    /// Returns the size of the value as it was put, in bytes.
    #[inline]
    pub(crate) fn raw_size(&self) -> u32 {
        if self.layout.flags.codec() == 0 {
            return self.layout.value_size;
        }
        let start = self.layout.header_size() - RAW_SIZE_SIZE;
        self.field(start).map_or(0, u32::from_be_bytes)
    }

    /// Returns the timestamp in microseconds since the epoch.
    #[inline]
    pub(crate) fn timestamp(&self) -> u64 {
        self.field(TIMESTAMP).map_or(0, u64::from_be_bytes)
    }

    /// Returns the time from which on the key is absent, in microseconds since the epoch.
    #[inline]
    pub(crate) fn expiry(&self) -> Option<u64> {
        if !self.layout.flags.has(Flags::EXPIRES) {
            return None;
        }
        self.field(HEADER_SIZE).map(u64::from_be_bytes)
    }

    pub(crate) fn is_expired(&self, now: &Now) -> bool {
        self.expiry().is_some_and(|expiry| now.is_over(self.timestamp(), expiry))
    }

    /// Checks that header, key and value are what was written at this place, and that this build
    /// understands all of it.
    #[inline]
    pub(crate) fn check(&self, salt: Salt) -> Result<(), Invalid> {
        // Key and value are adjacent.
        let body = self.layout.header_size()..self.value_range().end;
        let body = self.bytes.get(body).unwrap_or_default();
        let header = self.bytes.get(..self.layout.header_size()).ok_or(Invalid::Short)?;
        let checksum = self.field(CHECKSUM).map_or(0, u32::from_be_bytes);
        if BodySum::of_adjacent(body).finish(header, salt) != checksum {
            return Err(Invalid::Checksum);
        }
        self.layout.flags.understood()
    }

    fn field<const N: usize>(&self, start: usize) -> Option<[u8; N]> {
        self.bytes.get(start..)?.first_chunk().copied()
    }
}
