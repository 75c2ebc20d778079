//! One entry as it lies on disk: a put, a delete, or a note of the log itself.
//!
//! - Pure: bytes in, bytes out. Nothing else in the crate knows where a field lies.
//! - There is one encoding, one decoding and one checksum.
//! - Bytes are not trusted. A header with contradictory flags is refused, and an entry's bytes mean
//!   nothing before [`Header::check`] has passed.
//! - This module does not know segments, only the [`Salt`] that ties an entry to its place.
//!
//! The byte table is in `docs/format.md`; a test compares it with this module.

mod flags;
mod view;

use std::sync::LazyLock;

use crate::clock::{Now, TIME_MAX};
use crate::codec::Codec;

pub(crate) use flags::Flags;
pub(crate) use view::{Entry, Layout};

/// Alignment of entries, in bytes. It saves three bits in every stored place.
pub(crate) const ALIGNMENT: u64 = 8;

// Offsets in the fixed part of a header. Fields are big-endian, in the order of `docs/format.md`.
const CHECKSUM: usize = 0;
const KEY_SIZE: usize = CHECKSUM + 4;
const FLAGS: usize = KEY_SIZE + 2;
const VALUE_SIZE: usize = FLAGS + 2;
const TIMESTAMP: usize = VALUE_SIZE + 4;
/// Size in bytes of a header without optional fields, and so the smallest size of an entry.
pub(crate) const HEADER_SIZE: usize = TIMESTAMP + 8;

const EXPIRY_SIZE: usize = 8;
const MARK_SIZE: usize = 8;
const RAW_SIZE_SIZE: usize = 4;
/// Size in bytes of a header with all optional fields.
pub(crate) const HEADER_SIZE_MAX: usize = HEADER_SIZE + EXPIRY_SIZE + MARK_SIZE + RAW_SIZE_SIZE;

/// Largest size in bytes of an end entry: header, mark, the next segment's id.
pub(crate) const END_SIZE_MAX: u64 = padded((HEADER_SIZE + MARK_SIZE + 4) as u64);

const _: () = assert!(HEADER_SIZE == 20 && HEADER_SIZE_MAX == 40 && END_SIZE_MAX == 32);

/// Rounds a size up to where the next entry may start.
pub(crate) const fn padded(size: u64) -> u64 {
    size.next_multiple_of(ALIGNMENT)
}

/// A durable mark: when it was written, everything in the log below this place was durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) segment: u32,
    /// In bytes; a multiple of [`ALIGNMENT`].
    pub(crate) offset: u64,
}

/// Ties an entry to its place, so that the checksum of a stale or misdirected block does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Salt(u32);

impl Salt {
    /// Mixes segment id and offset: the high half of a product with the golden ratio's bits (Knuth,
    /// The Art of Computer Programming, volume 3, section 6.4).
    pub(crate) const fn new(segment: u32, offset: u64) -> Self {
        let place = ((segment as u64) << 32) ^ (offset / ALIGNMENT);
        Self((place.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32)
    }
}

/// The running checksum of an entry's key and value, computed before its place is known.
#[derive(Debug, Clone)]
pub(crate) struct BodySum(crc32fast::Hasher);

/// The initial checksum state. It is cloned, as creating one queries the processor's features.
static EMPTY: LazyLock<crc32fast::Hasher> = LazyLock::new(crc32fast::Hasher::new);

impl Default for BodySum {
    #[inline]
    fn default() -> Self {
        Self(EMPTY.clone())
    }
}

impl BodySum {
    pub(crate) fn of(key: &[u8], value: &[u8]) -> Self {
        let mut sum = Self::default();
        sum.update(key);
        sum.update(value);
        sum
    }

    /// Sums a key and the value that follows it.
    #[inline]
    fn of_adjacent(key_and_value: &[u8]) -> Self {
        let mut sum = Self::default();
        sum.update(key_and_value);
        sum
    }

    #[inline]
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds the header after its checksum field, and the salt.
    #[inline]
    fn finish(mut self, header: &[u8], salt: Salt) -> u32 {
        self.0.update(header.get(KEY_SIZE..).unwrap_or_default());
        self.0.finalize() ^ salt.0
    }
}

/// Why bytes are not a valid entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// There are fewer bytes than the header requires.
    Short,
    /// The checksum does not match.
    Checksum,
    /// The flags contradict each other or the sizes.
    Flags,
    /// The time is zero or beyond the end of time.
    Timestamp,
    /// The entry has flags that this version does not know.
    UnknownFlags(u16),
    /// The checksum matches, but this build does not include the entry's codec.
    UnknownCodec(u8),
    /// The stored value is not a valid output of its codec for the stated size.
    Value(&'static str),
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short => f.write_str("the entry reaches beyond the end"),
            Self::Checksum => f.write_str("the entry's checksum does not match"),
            Self::Flags => f.write_str("the entry's flags contradict each other"),
            Self::Timestamp => f.write_str("the entry's timestamp is out of range"),
            Self::UnknownFlags(flags) => write!(f, "the entry has unknown flags {flags:#06x}"),
            Self::UnknownCodec(codec) => write!(f, "the entry has unknown codec {codec}"),
            Self::Value(reason) => f.write_str(reason),
        }
    }
}

/// An entry's header: everything except key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    checksum: u32,
    pub(crate) flags: Flags,
    pub(crate) key_size: u16,
    /// The value's size on disk.
    pub(crate) value_size: u32,
    /// Microseconds since the epoch, strictly rising through the log.
    pub(crate) timestamp: u64,
    /// Microseconds since the epoch, from which time on the key is absent.
    pub(crate) expiry: Option<u64>,
    pub(crate) mark: Option<Mark>,
    /// The value's size before compression.
    pub(crate) raw_size: Option<u32>,
}

impl Header {
    /// Creates a header without optional fields. The timestamp is set when the entry is appended.
    pub(crate) fn new(flags: Flags, key_size: u16, value_size: u32) -> Self {
        let (checksum, timestamp) = (0, 0);
        let (expiry, mark, raw_size) = (None, None, None);
        Self { checksum, flags, key_size, value_size, timestamp, expiry, mark, raw_size }
    }

    pub(crate) fn with_expiry(mut self, expiry: Option<u64>) -> Self {
        self.flags = self.flags.without(Flags::EXPIRES).with_if(expiry.is_some(), Flags::EXPIRES);
        self.expiry = expiry;
        self
    }

    /// Changes the header to that of a value compressed to `stored_size` bytes.
    pub(crate) fn with_codec(mut self, codec: Codec, stored_size: u32) -> Self {
        self.flags = self.flags.with_codec(codec.number());
        self.raw_size = Some(self.value_size);
        self.value_size = stored_size;
        self
    }

    pub(crate) fn with_mark(mut self, mark: Option<Mark>) -> Self {
        self.flags = self.flags.with_if(mark.is_some(), Flags::MARK);
        self.mark = mark;
        self
    }

    /// Returns the header for a copy elsewhere, without the fields about the surrounding log.
    pub(crate) fn for_copy(self, collides: bool) -> Self {
        let flags = self.flags.without_the_log().with_if(collides, Flags::COLLIDES);
        Self { flags, mark: None, ..self }
    }

    /// Returns where the parts of the entry lie.
    pub(crate) fn layout(&self) -> Layout {
        let Self { flags, key_size, value_size, .. } = *self;
        Layout { flags, key_size, value_size }
    }

    /// Returns the size of the header in bytes.
    pub(crate) fn size(&self) -> usize {
        self.layout().header_size()
    }

    /// Returns the size of the whole entry in bytes, including padding.
    pub(crate) fn entry_size(&self) -> u64 {
        self.layout().entry_size()
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.flags.has(Flags::TOMBSTONE)
    }

    pub(crate) fn is_put_or_delete(&self) -> bool {
        self.flags.are_of_a_put_or_delete()
    }

    pub(crate) fn is_expired(&self, now: &Now) -> bool {
        self.expiry.is_some_and(|expiry| now.is_over(self.timestamp, expiry))
    }

    /// Encodes the header for its place.
    pub(crate) fn encode(&self, body: BodySum, salt: Salt) -> EncodedHeader {
        let mut encoded = EncodedHeader { bytes: [0; HEADER_SIZE_MAX], size: CHECKSUM + 4 };
        encoded.push(self.key_size.to_be_bytes());
        encoded.push(self.flags.0.to_be_bytes());
        encoded.push(self.value_size.to_be_bytes());
        encoded.push(self.timestamp.to_be_bytes());
        if let Some(expiry) = self.expiry {
            encoded.push(expiry.to_be_bytes());
        }
        if let Some(mark) = self.mark {
            let units = u32::try_from(mark.offset / ALIGNMENT).unwrap_or(u32::MAX);
            encoded.push(mark.segment.to_be_bytes());
            encoded.push(units.to_be_bytes());
        }
        if let Some(raw_size) = self.raw_size {
            encoded.push(raw_size.to_be_bytes());
        }
        let checksum = body.finish(encoded.as_slice(), salt);
        encoded.bytes[..KEY_SIZE].copy_from_slice(&checksum.to_be_bytes());
        encoded
    }

    /// Decodes the header at the start of `bytes`. Returns `None` if the fixed part is all zeros,
    /// since no entry was written there yet. Ignores bytes after the header.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Self>, Invalid> {
        let (fixed, optional) = bytes.split_first_chunk::<HEADER_SIZE>().ok_or(Invalid::Short)?;
        let mut fields = Fields(fixed);
        let checksum = u32::from_be_bytes(fields.take()?);
        let key_size = u16::from_be_bytes(fields.take()?);
        let flags = Flags(u16::from_be_bytes(fields.take()?));
        let value_size = u32::from_be_bytes(fields.take()?);
        let timestamp = u64::from_be_bytes(fields.take()?);
        if checksum == 0 && key_size == 0 && flags.0 == 0 && value_size == 0 && timestamp == 0 {
            return Ok(None);
        }
        if timestamp == 0 || timestamp >= TIME_MAX {
            return Err(Invalid::Timestamp);
        }
        let mut header = Self { checksum, timestamp, ..Self::new(flags, key_size, value_size) };
        if flags.0 == 0 {
            // A plain put, the common case.
            return Ok(Some(header));
        }
        let mut fields = Fields(optional);
        if flags.has(Flags::EXPIRES) {
            header.expiry = Some(u64::from_be_bytes(fields.take()?));
        }
        if flags.has(Flags::MARK) {
            let segment = u32::from_be_bytes(fields.take()?);
            let offset = u64::from(u32::from_be_bytes(fields.take()?)) * ALIGNMENT;
            header.mark = Some(Mark { segment, offset });
        }
        if flags.codec() != 0 {
            header.raw_size = Some(u32::from_be_bytes(fields.take()?));
        }
        if header.flags_agree() { Ok(Some(header)) } else { Err(Invalid::Flags) }
    }

    /// Returns whether the flags agree with each other and with the sizes.
    fn flags_agree(&self) -> bool {
        let flags = self.flags;
        let notes = u8::from(flags.has(Flags::END)) + u8::from(flags.has(Flags::MARK_ONLY));
        let note_is_valid = notes == 0
            || notes == 1
                && !flags.any(Flags::OF_A_KEY)
                && self.key_size == 0
                && self.value_size == if flags.has(Flags::END) { 4 } else { 0 }
                && (flags.has(Flags::END) || flags.has(Flags::MARK));
        let tombstone_is_valid = !flags.has(Flags::TOMBSTONE)
            || self.value_size == 0 && !flags.any(Flags::EXPIRES.with(Flags::CODEC));
        note_is_valid && tombstone_is_valid
    }

    /// Checks that header, key and value are what was written at this place, and that this build
    /// understands all of it. `header` is the encoded header as it was read.
    pub(crate) fn check(&self, header: &[u8], body: BodySum, salt: Salt) -> Result<(), Invalid> {
        let header = header.get(..self.size()).ok_or(Invalid::Short)?;
        if body.finish(header, salt) != self.checksum {
            return Err(Invalid::Checksum);
        }
        self.flags.understood()
    }
}

/// The bytes of a header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncodedHeader {
    bytes: [u8; HEADER_SIZE_MAX],
    size: usize,
}

impl EncodedHeader {
    fn push<const N: usize>(&mut self, field: [u8; N]) {
        let free = self.bytes.get_mut(self.size..).and_then(|free| free.first_chunk_mut());
        if let Some(free) = free {
            *free = field;
        }
        self.size += N;
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.size).unwrap_or_default()
    }
}

/// Takes fixed-size fields off the front of a slice.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Invalid> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Invalid::Short)?;
        self.0 = rest;
        Ok(*field)
    }
}

#[cfg(test)]
mod tests;
