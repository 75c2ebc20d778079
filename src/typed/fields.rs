//! Keys of one field: integers, booleans, strings and bytes.
//!
//! - Integers are big-endian. The sign bit of signed ones is inverted, so that negative numbers
//!   come first.
//! - A string that other fields follow ends with `00 00`, and each `00` within it becomes `00 ff`.
//!   A shorter string thus comes before a longer one that begins with it, whatever follows.
//! - These bytes are stored in keys: never change them.

use super::key::{DecodeKey, EncodeKey, EncodePrefix};

/// Ends a string that other fields follow.
const END: [u8; 2] = [0, 0];
/// Follows a zero byte within such a string. Above the second byte of `END`.
const ZERO: u8 = 0xff;

macro_rules! integers {
    ($($unsigned:ty, $signed:ty);+) => {$(
        impl EncodeKey for $unsigned {
            fn encode(&self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_be_bytes());
            }
        }

        impl DecodeKey for $unsigned {
            fn decode(bytes: &mut &[u8]) -> Option<Self> {
                let (number, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(Self::from_be_bytes(*number))
            }
        }

        impl EncodeKey for $signed {
            fn encode(&self, bytes: &mut Vec<u8>) {
                (*self ^ Self::MIN).cast_unsigned().encode(bytes);
            }
        }

        impl DecodeKey for $signed {
            fn decode(bytes: &mut &[u8]) -> Option<Self> {
                Some(<$unsigned>::decode(bytes)?.cast_signed() ^ Self::MIN)
            }
        }
    )+};
}

integers!(u8, i8; u16, i16; u32, i32; u64, i64; u128, i128; usize, isize);

impl EncodeKey for bool {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(*self));
    }
}

impl DecodeKey for bool {
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        match u8::decode(bytes)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl EncodeKey<Vec<u8>> for [u8] {
    fn encode(&self, bytes: &mut Vec<u8>) {
        for part in self.split_inclusive(|byte| *byte == 0) {
            bytes.extend_from_slice(part);
            if part.ends_with(&[0]) {
                bytes.push(ZERO);
            }
        }
        bytes.extend_from_slice(&END);
    }

    fn encode_last(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self);
    }
}

impl EncodePrefix<Vec<u8>> for [u8] {
    fn encode_prefix(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self);
    }
}

impl DecodeKey for Vec<u8> {
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let mut key = Self::new();
        loop {
            let zero = bytes.iter().position(|byte| *byte == 0)?;
            let (part, rest) = bytes.split_at_checked(zero)?;
            key.extend_from_slice(part);
            let (mark, rest) = rest.split_first_chunk()?;
            *bytes = rest;
            match *mark {
                END => return Some(key),
                [0, ZERO] => key.push(0),
                _ => return None,
            }
        }
    }

    fn decode_last(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

impl DecodeKey for String {
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Self::from_utf8(Vec::decode(bytes)?).ok()
    }

    fn decode_last(bytes: &[u8]) -> Option<Self> {
        Some(std::str::from_utf8(bytes).ok()?.to_owned())
    }
}

/// Types that are encoded like the bytes that they lend, after their generics in parentheses.
macro_rules! like_bytes {
    ($(($($generics:tt)*) $of:ty, $key:ty);+) => {$(
        impl<$($generics)*> EncodeKey<$key> for $of {
            fn encode(&self, bytes: &mut Vec<u8>) {
                AsRef::<[u8]>::as_ref(self).encode(bytes);
            }

            fn encode_last(&self, bytes: &mut Vec<u8>) {
                AsRef::<[u8]>::as_ref(self).encode_last(bytes);
            }
        }

        impl<$($generics)*> EncodePrefix<$key> for $of {
            fn encode_prefix(&self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(self.as_ref());
            }
        }
    )+};
}

like_bytes!(() Vec<u8>, Vec<u8>; (const N: usize) [u8; N], Vec<u8>; () str, String; () String, String);

impl<const N: usize> EncodeKey for [u8; N] {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self);
    }
}

impl<const N: usize> DecodeKey for [u8; N] {
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(*key)
    }
}
