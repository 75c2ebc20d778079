//! An entry before it is appended.

use std::borrow::Cow;

use crate::codec::Compressor;
use crate::entry::{BodySum, Flags, Header};
use crate::key_hash::KeyHash;
use crate::segment::read::pick::LiveEntry;

/// An entry that lacks only its place, its timestamp and its mark.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) header: Header,
    pub(super) key: &'a [u8],
    /// The value as it is stored. Owned if it was compressed for this entry.
    pub(super) value: Cow<'a, [u8]>,
    pub(super) body: BodySum,
    /// The key's hash, if the writer has computed it already.
    pub(crate) hash: Option<KeyHash>,
    /// Whether it takes over the expiry of the entry that it replaces.
    pub(crate) keeps_expiry: bool,
}

impl<'a> Draft<'a> {
    /// Drafts a put. The caller has checked the sizes against the limits of the format.
    pub(crate) fn put(key: &'a [u8], value: &'a [u8], expiry: Option<u64>) -> Self {
        Self::new(Flags::default(), key, value).with_expiry(expiry)
    }

    /// Drafts a put whose value is compressed if that makes the entry smaller.
    #[inline(never)]
    pub(crate) fn put_compressed(
        key: &'a [u8],
        value: &'a [u8],
        expiry: Option<u64>,
        compressor: Compressor,
    ) -> Self {
        let plain = header(Flags::default(), key, value).with_expiry(expiry);
        let compressed = compressor.compress(value).and_then(|stored| {
            let header = plain.with_codec(compressor.codec, u32::try_from(stored.len()).ok()?);
            (header.entry_size() < plain.entry_size()).then_some((header, stored))
        });
        let Some((header, stored)) = compressed else { return Self::put(key, value, expiry) };
        let body = BodySum::of(key, &stored);
        Self { header, key, value: Cow::Owned(stored), body, hash: None, keeps_expiry: false }
    }

    /// Returns the size of a put's entry in bytes, if nothing is compressed and the entry carries
    /// no mark.
    pub(crate) fn put_size(key: &[u8], value: &[u8], expires: bool) -> u64 {
        header(Flags::default(), key, value).with_expiry(expires.then_some(0)).entry_size()
    }

    pub(crate) fn tombstone(key: &'a [u8]) -> Self {
        Self::new(Flags::TOMBSTONE, key, &[])
    }

    /// Drafts a copy of an entry, with the same stored value and the checksum that was computed
    /// when it was read.
    pub(crate) fn copy(picked: &LiveEntry<'a>, collides: bool) -> Self {
        let LiveEntry { key, value, ref body, .. } = *picked;
        let (header, value) = (picked.header.for_copy(collides), Cow::Borrowed(value));
        Self { header, key, value, body: body.clone(), hash: None, keeps_expiry: false }
    }

    /// Drafts a put of a value that is already in the store, with another expiry. `value` is the
    /// value as it is stored.
    pub(crate) fn again(
        stored: &Header,
        key: &'a [u8],
        value: &'a [u8],
        expiry: Option<u64>,
    ) -> Self {
        let header = stored.for_copy(false).with_expiry(expiry);
        let (value, body) = (Cow::Borrowed(value), BodySum::of(key, value));
        Self { header, key, value, body, hash: None, keeps_expiry: false }
    }

    /// Drafts an entry that only carries a mark.
    pub(crate) fn mark_only() -> Self {
        Self::new(Flags::MARK_ONLY, &[], &[])
    }

    /// Drafts the end of a segment. The value is the encoded id of the next segment.
    pub(super) fn end(next: &'a [u8; 4]) -> Self {
        Self::new(Flags::END, &[], next)
    }

    fn new(flags: Flags, key: &'a [u8], value: &'a [u8]) -> Self {
        let (header, body) = (header(flags, key, value), BodySum::of(key, value));
        Self { header, key, value: Cow::Borrowed(value), body, hash: None, keeps_expiry: false }
    }

    fn with_expiry(mut self, expiry: Option<u64>) -> Self {
        self.header = self.header.with_expiry(expiry);
        self
    }

    /// Adds the hash that the caller has computed.
    pub(crate) fn with_hash(mut self, hash: KeyHash) -> Self {
        self.hash = Some(hash);
        self
    }

    pub(crate) fn key(&self) -> &'a [u8] {
        self.key
    }
}

fn header(flags: Flags, key: &[u8], value: &[u8]) -> Header {
    let key_size = u16::try_from(key.len()).unwrap_or(u16::MAX);
    let value_size = u32::try_from(value.len()).unwrap_or(u32::MAX);
    Header::new(flags, key_size, value_size)
}
