//! Strings that are numbers.

use bytes::Bytes;

use super::{arg, integer};
use crate::resp::events::EventClass;
use crate::resp::keyspace::Keyspace;
use crate::resp::numbers::{add_decimals, parse_float};
use crate::resp::refusal::{Answer, NOT_A_FLOAT, NOT_AN_INTEGER, OVERFLOW, refused, text};
use crate::resp::reply::Reply;
use crate::wire::parse_integer;

fn add(space: &mut Keyspace<'_>, key: &Bytes, by: i64) -> Answer {
    let mut sum = 0;
    space.modify(key, |old| {
        let old = old.map_or(Some(0), parse_integer).ok_or(text(NOT_AN_INTEGER))?;
        sum = old.checked_add(by).ok_or(text(OVERFLOW))?;
        Ok(sum.to_string().into_bytes())
    })?;
    // Redis has no other name for a decrement.
    space.event(EventClass::String, "incrby", key);
    Ok(Reply::Integer(sum))
}

pub(in crate::resp) fn incr(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    add(space, arg(args, 1), 1)
}

pub(in crate::resp) fn decr(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    add(space, arg(args, 1), -1)
}

pub(in crate::resp) fn incrby(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    add(space, arg(args, 1), integer(arg(args, 2))?)
}

pub(in crate::resp) fn decrby(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let Some(by) = integer(arg(args, 2))?.checked_neg() else {
        return refused("ERR decrement would overflow");
    };
    add(space, arg(args, 1), by)
}

pub(in crate::resp) fn incrbyfloat(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let (key, by) = (arg(args, 1), arg(args, 2));
    if parse_float(by).is_none() {
        space.string(key)?;
        return refused(NOT_A_FLOAT);
    }
    let new = space.modify(key, |old| Ok(sum(old.unwrap_or(b"0"), by)?.into_bytes()))?;
    space.event(EventClass::String, "incrbyfloat", key);
    Ok(Reply::bulk(new))
}

/// Adds two decimal numbers that clients have sent or stored.
pub(super) fn sum(old: &[u8], by: &[u8]) -> Answer<String> {
    if parse_float(old).is_none() || parse_float(by).is_none() {
        return refused(NOT_A_FLOAT);
    }
    add_decimals(old, by).ok_or(text("ERR increment would produce NaN or Infinity"))
}
