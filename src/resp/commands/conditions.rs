//! Conditions on a value, and its digest: `SET ... IFEQ`, `DELEX` and `DIGEST`.

use bytes::Bytes;

use super::{arg, rest};
use crate::resp::events::EventClass;
use crate::resp::holding::Holding;
use crate::resp::keyspace::Keyspace;
use crate::resp::refusal::{Answer, WRONG_TYPE, refused, refused_with, syntax, wrong_arity};
use crate::resp::reply::Reply;

/// A condition on a string or on its digest.
#[derive(Debug, Clone)]
pub(super) struct ValueCondition {
    expected: Bytes,
    by_digest: bool,
    is_equal: bool,
}

/// Returns the digest of a string, in hexadecimal digits.
fn digest_of(string: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(string))
}

impl ValueCondition {
    /// Parses a condition. Returns `None` if the option is not one.
    pub(super) fn parse(option: &[u8], value: &Bytes) -> Answer<Option<Self>> {
        let (by_digest, is_equal) = match option.to_ascii_uppercase().as_slice() {
            b"IFEQ" => (false, true),
            b"IFNE" => (false, false),
            b"IFDEQ" => (true, true),
            b"IFDNE" => (true, false),
            _ => return Ok(None),
        };
        let is_digest = value.len() == 16 && value.iter().all(u8::is_ascii_hexdigit);
        if by_digest && !is_digest {
            return refused("ERR the digest must be exactly 16 hexadecimal characters");
        }
        Ok(Some(Self { expected: value.clone(), by_digest, is_equal }))
    }

    pub(super) fn holds(&self, string: &[u8]) -> bool {
        let is_same = if self.by_digest {
            self.expected.eq_ignore_ascii_case(digest_of(string).as_bytes())
        } else {
            *self.expected == *string
        };
        is_same == self.is_equal
    }

    /// Returns whether the condition holds for a key that does not exist.
    pub(super) fn holds_without_value(&self) -> bool {
        !self.is_equal
    }
}

pub(in crate::resp) fn digest(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let string = space.string(arg(args, 1))?;
    Ok(Reply::maybe(string.map(|string| Reply::bulk(digest_of(&string)))))
}

pub(in crate::resp) fn delex(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let key = arg(args, 1);
    let condition = match rest(args, 2) {
        [] => None,
        [option, value] => match ValueCondition::parse(option, value)? {
            Some(condition) => Some(condition),
            None => return syntax(),
        },
        _ => return refused_with(wrong_arity("delex")),
    };
    space.atomically_on(&[key], |space| {
        let Some(holding) = space.get(key)? else { return Ok(Reply::Integer(0)) };
        let is_met = match (&condition, &holding) {
            (None, _) => true,
            (Some(condition), Holding::String(string)) => condition.holds(string),
            (Some(_), Holding::Hash(_)) => return refused(WRONG_TYPE),
        };
        if is_met {
            space.remove(key)?;
            space.event(EventClass::Generic, "del", key);
        }
        Ok(Reply::bool(is_met))
    })
}
