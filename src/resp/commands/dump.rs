//! `DUMP` and `RESTORE`: values as bytes that only this server understands.
//!
//! A payload is a kind, the contents, a version and a checksum. The contents of a hash are the
//! names and values of its fields, each behind its size.

use std::time::Duration;

use bytes::Bytes;

use super::expiry::has_option;
use super::hashes::check_field;
use super::rename::KeyCopy;
use super::{arg, integer, is, rest};
use crate::resp::encoding::encode_string;
use crate::resp::events::EventClass;
use crate::resp::holding::Holding;
use crate::resp::keyspace::{Keyspace, Lifespan, STRING_SIZE_MAX, check_key};
use crate::resp::refusal::{Answer, TOO_LONG, refused, syntax, text};
use crate::resp::reply::{OK, Reply};
use crate::value::Value;

/// Version of the payload.
const VERSION: u8 = 1;
const STRING: u8 = b's';
const HASH: u8 = b'h';
/// Size of the size of a name or a value.
const PART_SIZE: usize = 4;
/// Size of the checksum.
const CHECKSUM_SIZE: usize = 8;
const INVALID: &str = "ERR DUMP payload version or checksum are wrong";

fn push(part: &[u8], payload: &mut Vec<u8>) {
    // No part is larger than 4 GiB: nor is a value.
    payload.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
    payload.extend_from_slice(part);
}

fn take<'a>(payload: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (size, rest) = payload.split_first_chunk()?;
    let (part, rest) = rest.split_at_checked(u32::from_be_bytes(*size).try_into().ok()?)?;
    *payload = rest;
    Some(part)
}

/// Returns the size of the contents of a payload.
fn size_of_payload(copy: &KeyCopy) -> usize {
    match copy {
        KeyCopy::String(value) => value.len(),
        KeyCopy::Hash(fields) => {
            let sizes = fields.iter().map(|(name, value)| 2 * PART_SIZE + name.len() + value.len());
            sizes.fold(0, usize::saturating_add)
        }
    }
}

/// Returns a payload, unless it is larger than any string.
fn checked_payload(copy: KeyCopy) -> Answer<Vec<u8>> {
    if size_of_payload(&copy) > STRING_SIZE_MAX { refused(TOO_LONG) } else { Ok(encode(copy)) }
}

fn encode(copy: KeyCopy) -> Vec<u8> {
    let mut payload = Vec::new();
    match copy {
        KeyCopy::String(value) => {
            payload.push(STRING);
            if let Holding::String(string) = Holding::new(value) {
                payload.extend_from_slice(&string);
            }
        }
        KeyCopy::Hash(fields) => {
            payload.push(HASH);
            for (name, value) in fields {
                push(&name, &mut payload);
                push(&value, &mut payload);
            }
        }
    }
    payload.push(VERSION);
    let checksum = xxhash_rust::xxh3::xxh3_64(&payload);
    payload.extend_from_slice(&checksum.to_be_bytes());
    payload
}

fn decode(payload: &[u8]) -> Option<KeyCopy> {
    let (body, checksum) = payload.split_last_chunk::<CHECKSUM_SIZE>()?;
    if u64::from_be_bytes(*checksum) != xxhash_rust::xxh3::xxh3_64(body) {
        return None;
    }
    let (&VERSION, body) = body.split_last()? else { return None };
    let (kind, mut body) = body.split_first()?;
    match *kind {
        STRING => Some(KeyCopy::String(Value::from(encode_string(body).into_owned()))),
        HASH => {
            let mut fields = Vec::new();
            while !body.is_empty() {
                let name = take(&mut body)?.to_vec();
                // A restore has to fail before it removes what was there.
                check_field(&name).ok()?;
                fields.push((name, Value::from(take(&mut body)?.to_vec())));
            }
            (!fields.is_empty()).then_some(KeyCopy::Hash(fields))
        }
        _ => None,
    }
}

pub(in crate::resp) fn dump(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    space.atomically_on(&[arg(args, 1)], |space| {
        let copy = KeyCopy::read(space, arg(args, 1))?;
        let payload = copy.map(checked_payload).transpose()?;
        // As a value, the payload is sent from where it lies.
        Ok(Reply::maybe(payload.map(|payload| Reply::Stored(Value::from(payload)))))
    })
}

pub(in crate::resp) fn restore(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let (key, options) = (arg(args, 1), rest(args, 4));
    let mut unread = options;
    while let [option, after @ ..] = unread {
        unread = match after {
            _ if is(option, "REPLACE") || is(option, "ABSTTL") => after,
            [value, after @ ..] if is(option, "IDLETIME") || is(option, "FREQ") => {
                if integer(value)? < 0 {
                    return refused("ERR Invalid IDLETIME value, must be >= 0");
                }
                after
            }
            _ => return syntax(),
        };
    }
    check_key(key)?;
    let (replace, at) = (has_option(options, "REPLACE"), has_option(options, "ABSTTL"));
    space.atomically_on(&[key], |space| {
        if space.exists(key)? && !replace {
            return refused("BUSYKEY Target key name already exists.");
        }
        let ms = integer(arg(args, 2))?;
        let Ok(left) = u64::try_from(ms) else {
            return refused("ERR Invalid TTL value, must be >= 0");
        };
        let life = match left {
            0 => Lifespan::OfStore,
            _ if at => Lifespan::Until(ms),
            _ => Lifespan::For(Duration::from_millis(left)),
        };
        let copy = decode(arg(args, 3)).ok_or(text(INVALID))?;
        space.remove(key)?;
        copy.write(space, key, life)?;
        space.event(EventClass::Generic, "restore", key);
        Ok(OK)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_field_can_have_is_refused() {
        let with_name = |size: usize| {
            let value = Value::from(b"1".to_vec());
            encode(KeyCopy::Hash(vec![(vec![b'f'; size], value)]))
        };
        assert!(decode(&with_name(65_000)).is_some());
        assert!(decode(&with_name(65_530)).is_none());
    }

    #[test]
    fn a_payload_is_no_larger_than_a_string() {
        let value = Value::from(vec![0; 64 << 20]);
        let hash = |count| KeyCopy::Hash(vec![(b"name".to_vec(), value.clone()); count]);
        assert!(checked_payload(hash(1)).is_ok());
        assert!(checked_payload(hash(8)).is_err());
    }

    #[test]
    fn a_payload_is_checked() {
        let fields = vec![(b"a".to_vec(), Value::from(b"1".to_vec()))];
        for copy in [KeyCopy::Hash(fields), KeyCopy::String(Value::from(b"text".to_vec()))] {
            let payload = encode(copy);
            let again = encode(decode(&payload).unwrap());
            assert_eq!(payload, again);
            for at in 0..payload.len() {
                let mut damaged = payload.clone();
                damaged[at] ^= 1;
                assert!(decode(&damaged).is_none(), "byte {at}");
                assert!(decode(&payload[..at]).is_none());
            }
        }
    }
}
