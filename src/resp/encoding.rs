//! How keys and values of Redis lie in a store.
//!
//! - A string lies under its key, byte by byte. So other programs that open the store, and the
//!   server's other protocols, see the same keys and values.
//! - The byte 0 at the start of a stored key is reserved. A key that starts with it is stored with
//!   one more of them in front.
//! - A value that starts with [`TAG`] is not a plain string. The next byte is its [`kind`]. A
//!   string that happens to start with the tag is stored behind a tag of its own.
//! - The value of a hash's key is a header: an id, and the number of fields. The fields lie under
//!   keys of their own, which begin with that id. So a `put` of the key alone replaces the whole
//!   hash at once, and a rename moves the header alone.
//! - Every change of a hash writes the header too. Whoever watches or follows a hash looks at one
//!   key.

use std::borrow::Cow;

/// Begins each value that is not a plain string. Stored on disk: never change.
const TAG: &[u8; 8] = b"\0bitcask";

/// Kinds of values. Stored on disk: never renumber.
mod kind {
    pub(super) const STRING: u8 = b's';
    pub(super) const HASH: u8 = b'h';
}

/// Begins the stored keys that belong to no key of Redis.
const RESERVED: u8 = 0;
/// Follows the reserved byte in the key of a field of a hash. Stored on disk: never change.
const FIELD: u8 = b'h';

/// Says that the store has, or has had, hashes. Its value is empty.
pub(super) const HASHES_MARK: &[u8] = &[RESERVED, b'm'];
/// Size of a field's key without the name of the field.
pub(super) const FIELD_PREFIX_SIZE: usize = 10;
/// Begins the keys of all fields of all hashes.
pub(super) const FIELDS_PREFIX: &[u8] = &[RESERVED, FIELD];

/// Size of the value of a hash's key.
pub(super) const HASH_HEADER_SIZE: usize = TAG.len() + 1 + 8 + 8;

/// What the value of a hash's key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HashHeader {
    /// Begins the keys of the fields. No two hashes have the same.
    pub(super) id: u64,
    /// Number of fields.
    pub(super) count: u64,
}

impl HashHeader {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut value = Vec::with_capacity(HASH_HEADER_SIZE);
        value.extend_from_slice(TAG);
        value.push(kind::HASH);
        value.extend_from_slice(&self.id.to_be_bytes());
        value.extend_from_slice(&self.count.to_be_bytes());
        value
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (id, count) = bytes.split_first_chunk()?;
        let count = count.try_into().ok()?;
        Some(Self { id: u64::from_be_bytes(*id), count: u64::from_be_bytes(count) })
    }

    /// Returns the beginning of the keys of all fields.
    pub(super) fn prefix(self) -> Vec<u8> {
        self.field("".as_bytes())
    }

    /// Returns the key of a field.
    pub(super) fn field(self, name: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(FIELD_PREFIX_SIZE + name.len());
        key.extend_from_slice(FIELDS_PREFIX);
        key.extend_from_slice(&self.id.to_be_bytes());
        key.extend_from_slice(name);
        key
    }
}

/// What a stored value is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StoredContent<'a> {
    /// A string, and how many bytes of the stored value come before it.
    String(&'a [u8], usize),
    Hash(HashHeader),
}

/// Decodes a stored value. A value with a tag that means nothing is a string: somebody else has
/// written it.
pub(super) fn decode_value(value: &[u8]) -> StoredContent<'_> {
    let tagged = value.strip_prefix(TAG).and_then(<[u8]>::split_first);
    match tagged {
        Some((&kind::STRING, string)) => StoredContent::String(string, TAG.len() + 1),
        Some((&kind::HASH, header)) => match HashHeader::decode(header) {
            Some(header) => StoredContent::Hash(header),
            None => StoredContent::String(value, 0),
        },
        _ => StoredContent::String(value, 0),
    }
}

/// Encodes a string as a stored value.
pub(super) fn encode_string(string: &[u8]) -> Cow<'_, [u8]> {
    if string.starts_with(TAG) {
        return Cow::Owned([&TAG[..], &[kind::STRING], string].concat());
    }
    Cow::Borrowed(string)
}

/// Encodes a key of Redis as a stored key.
pub(super) fn encode_key(key: &[u8]) -> Cow<'_, [u8]> {
    if key.first() == Some(&RESERVED) {
        return Cow::Owned([&[RESERVED][..], key].concat());
    }
    Cow::Borrowed(key)
}

/// Decodes a stored key. Returns `None` for one that is not a key of Redis.
pub(crate) fn decode_key(key: &[u8]) -> Option<&[u8]> {
    match key {
        [RESERVED, rest @ ..] => rest.first().filter(|byte| **byte == RESERVED).map(|_| rest),
        _ => Some(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_strings_are_stored_as_they_are() {
        for text in [&b""[..], b"a", b"\xff\0", b"key with \r\n"] {
            assert_eq!(&*encode_key(text), text);
            assert_eq!(&*encode_string(text), text);
        }
    }

    #[test]
    fn what_is_reserved_is_escaped() {
        for text in [&b"\0"[..], b"\0\0", b"\0h12345678field", b"\0m", b"\0bitcask", b"a", b""] {
            let stored = encode_key(text);
            assert_eq!(decode_key(&stored), Some(text));
            let header = HashHeader { id: 0, count: 1 };
            for taken in [HASHES_MARK, &header.prefix(), &header.field(b"x")] {
                assert_ne!(&*stored, taken);
            }
        }
        let header = HashHeader { id: 7, count: 3 };
        let strings = [&b""[..], b"x", b"\0bitcask", b"\0bitcasks", &header.encode()];
        for string in strings {
            let stored = encode_string(string);
            assert!(
                matches!(decode_value(&stored), StoredContent::String(found, _) if found == string)
            );
        }
        assert_eq!(decode_value(&header.encode()), StoredContent::Hash(header));
        assert_eq!(header.encode().len(), HASH_HEADER_SIZE);
        assert_eq!(decode_key(&header.field(b"f")), None);
        assert_eq!(decode_key(HASHES_MARK), None);
    }
}
