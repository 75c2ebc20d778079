//! Small hashes: a header under the key, and a stored key for each field.
//!
//! - Each change of a hash is one transaction, and writes the header again, so that one key tells
//!   whether a hash has changed.
//! - A field expires when the hash does.

use bytes::Bytes;

use super::expiry::life_of;
use super::{arg, integer, pairs, rest};
use crate::resp::encoding::{FIELD_PREFIX_SIZE, HASHES_MARK, HashHeader};
use crate::resp::events::EventClass;
use crate::resp::keyspace::{Keyspace, Lifespan, check_key};
use crate::resp::refusal::{Answer, NOT_A_FLOAT, OVERFLOW, refused, text};
use crate::resp::reply::{OK, Reply};
use crate::resp::reply_memory::ReplyMemory;
use crate::value::Value;
use crate::wire::parse_integer;

/// Begins a hash that has no fields yet, within a transaction.
pub(super) fn begin_hash(space: &mut Keyspace<'_>) -> Answer<HashHeader> {
    if !space.has_stored(HASHES_MARK)? {
        space.put_stored(HASHES_MARK, b"", Lifespan::Endless)?;
    }
    space.note_hashes();
    Ok(HashHeader { id: space.draw(), count: 0 })
}

/// Puts fields, and counts the new ones. Returns how many are new.
pub(super) fn put_fields<'a>(
    space: &mut Keyspace<'_>,
    header: &mut HashHeader,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    life: Lifespan,
) -> Answer<i64> {
    let mut added = 0;
    for (name, value) in fields {
        let key = header.field(name);
        check_key(&key)?;
        if !space.has_stored(&key)? {
            header.count += 1;
            added += 1;
        }
        space.put_stored(&key, value, life)?;
    }
    Ok(added)
}

/// A hash that is being changed.
struct OpenHash {
    header: HashHeader,
    /// That of the fields.
    life: Lifespan,
}

/// Returns a hash, and begins one if the key does not exist.
fn open(space: &mut Keyspace<'_>, key: &[u8]) -> Answer<OpenHash> {
    check_key(key)?;
    match space.hash(key)? {
        Some(header) => {
            space.note_hashes();
            Ok(OpenHash { header, life: life_of(space, key)? })
        }
        None => Ok(OpenHash { header: begin_hash(space)?, life: Lifespan::OfStore }),
    }
}

/// Writes the header after a change.
fn close(space: &mut Keyspace<'_>, key: &[u8], hash: &OpenHash) -> Answer<()> {
    space.put(key, &hash.header.encode(), Lifespan::Kept)
}

/// Sets one field to what a closure makes of it.
fn modify(
    space: &mut Keyspace<'_>,
    args: &[Bytes],
    event: &'static str,
    mut change: impl FnMut(Option<&[u8]>) -> Answer<Vec<u8>>,
) -> Answer<Vec<u8>> {
    let (key, field) = (arg(args, 1), arg(args, 2));
    check_field(field)?;
    space.atomically(|space| {
        // The new value first: a failure has to come before the first write.
        let old = match space.hash(key)? {
            Some(header) => space.stored(&header.field(field))?,
            None => None,
        };
        let new = change(old.as_deref())?;
        let mut hash = open(space, key)?;
        let fields = std::iter::once((&**field, &*new));
        put_fields(space, &mut hash.header, fields, hash.life)?;
        close(space, key, &hash)?;
        space.event(EventClass::Hash, event, key);
        Ok(new)
    })
}

/// Refuses names of fields that the store cannot hold.
pub(super) fn check_field(field: &[u8]) -> Answer<()> {
    check_key(&HashHeader { id: 0, count: 0 }.field(field))
}

fn set_fields(space: &mut Keyspace<'_>, name: &str, args: &[Bytes]) -> Answer<i64> {
    let (key, fields) = (arg(args, 1), pairs(name, rest(args, 2))?);
    for (field, _) in &fields {
        check_field(field)?;
    }
    space.atomically(|space| {
        let mut hash = open(space, key)?;
        let fields = fields.iter().map(|(field, value)| (&***field, &***value));
        let added = put_fields(space, &mut hash.header, fields, hash.life)?;
        close(space, key, &hash)?;
        space.event(EventClass::Hash, "hset", key);
        Ok(added)
    })
}

pub(in crate::resp) fn hset(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    Ok(Reply::Integer(set_fields(space, "hset", args)?))
}

pub(in crate::resp) fn hmset(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    set_fields(space, "hmset", args)?;
    Ok(OK)
}

pub(in crate::resp) fn hsetnx(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let field = arg(args, 2);
    check_field(field)?;
    space.atomically(|space| {
        let header = space.hash(arg(args, 1))?;
        let exists = match header {
            Some(header) => space.has_stored(&header.field(field))?,
            None => false,
        };
        if !exists {
            set_fields(space, "hsetnx", args)?;
        }
        Ok(Reply::bool(!exists))
    })
}

pub(in crate::resp) fn hincrby(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let by = integer(arg(args, 3))?;
    let mut sum = 0;
    modify(space, args, "hincrby", |old| {
        let old = old.map_or(Some(0), parse_integer);
        let old = old.ok_or(text("ERR hash value is not an integer"))?;
        sum = old.checked_add(by).ok_or(text(OVERFLOW))?;
        Ok(sum.to_string().into_bytes())
    })?;
    Ok(Reply::Integer(sum))
}

pub(in crate::resp) fn hincrbyfloat(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let by = arg(args, 3);
    match crate::resp::numbers::parse_float(by) {
        Some(by) if by.is_finite() => {}
        Some(_) => return refused("ERR value is NaN or Infinity"),
        None => return refused(NOT_A_FLOAT),
    }
    let new = modify(space, args, "hincrbyfloat", |old| {
        let old = old.unwrap_or(b"0");
        if crate::resp::numbers::parse_float(old).is_none() {
            return refused("ERR hash value is not a float");
        }
        Ok(super::counters::sum(old, by)?.into_bytes())
    })?;
    Ok(Reply::bulk(new))
}

pub(in crate::resp) fn hdel(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let key = arg(args, 1);
    space.atomically(|space| {
        let Some(mut header) = space.hash(key)? else { return Ok(Reply::Integer(0)) };
        let mut removed = 0;
        for field in rest(args, 2) {
            let field = header.field(field);
            if space.has_stored(&field)? {
                space.remove_stored(&field);
                header.count = header.count.saturating_sub(1);
                removed += 1;
            }
        }
        if removed > 0 {
            space.event(EventClass::Hash, "hdel", key);
            if header.count == 0 {
                space.remove_within(key)?;
                space.event(EventClass::Generic, "del", key);
            } else {
                space.put(key, &header.encode(), Lifespan::Kept)?;
            }
        }
        Ok(Reply::Integer(removed))
    })
}

/// How often a field that is absent is looked for before that is done in a transaction.
const LOOKS_MAX: usize = 3;

/// Returns the value of a field.
fn field(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer<Option<Value>> {
    let (key, name) = (arg(args, 1), arg(args, 2));
    let Some(header) = space.hash(key)? else { return Ok(None) };
    let value = space.stored(&header.field(name))?;
    if value.is_some() || space.tx.is_some() {
        return Ok(value);
    }
    // The hash may be replaced at this moment, and the old field is gone before the new header is
    // there, or the header is there before the field. Such a change is over once the header is
    // settled, and each change of a field gives the header another version.
    let mut settled = space.settled_hash(key)?;
    for _ in 0..LOOKS_MAX {
        let Some((header, version)) = settled else { return Ok(None) };
        let value = space.stored(&header.field(name))?;
        if value.is_some() {
            return Ok(value);
        }
        settled = space.settled_hash(key)?;
        if settled.is_some_and(|(_, again)| again == version) {
            return Ok(None);
        }
    }
    space.atomically(|space| field(space, args))
}

pub(in crate::resp) fn hget(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    Ok(Reply::maybe(field(space, args)?.map(Reply::Stored)))
}

pub(in crate::resp) fn hexists(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    Ok(Reply::bool(field(space, args)?.is_some()))
}

pub(in crate::resp) fn hstrlen(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    Ok(Reply::count(field(space, args)?.map_or(0, |value| value.len())))
}

pub(in crate::resp) fn hlen(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    Ok(Reply::count(space.hash(arg(args, 1))?.map_or(0, |header| header.count)))
}

pub(in crate::resp) fn hmget(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    space.atomically(|space| {
        let header = space.hash(arg(args, 1))?;
        let (mut values, mut memory) = (Vec::new(), ReplyMemory::default());
        for field in rest(args, 2) {
            let value = match header {
                Some(header) => space.stored(&header.field(field))?,
                None => None,
            };
            let value = Reply::maybe(value.map(Reply::Stored));
            memory.add(&value)?;
            values.push(value);
        }
        Ok(Reply::Array(values))
    })
}

/// Returns the name in the key of a field.
fn name_of(key: Value) -> Value {
    let size = key.len();
    key.part(FIELD_PREFIX_SIZE..size)
}

/// Returns the names of all fields of a hash, within a transaction.
pub(super) fn field_names(space: &Keyspace<'_>, header: HashHeader) -> Answer<Vec<Value>> {
    Ok(space.field_keys(header)?.into_iter().map(name_of).collect())
}

/// Returns the names and values of all fields of a hash.
fn all_fields(space: &mut Keyspace<'_>, key: &[u8]) -> Answer<Vec<(Value, Value)>> {
    space.atomically_on(&[key], |space| {
        let Some(header) = space.hash(key)? else { return Ok(Vec::new()) };
        let (mut fields, mut memory) = (Vec::new(), ReplyMemory::default());
        for field in space.fields(header) {
            let (key, value) = field?;
            memory.add(&Reply::Stored(value.clone()))?;
            fields.push((name_of(key), value));
        }
        Ok(fields)
    })
}

pub(in crate::resp) fn hgetall(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let fields = all_fields(space, arg(args, 1))?.into_iter();
    let pair = |(name, value): (Value, Value)| (Reply::Stored(name), Reply::Stored(value));
    Ok(Reply::Map(fields.map(pair).collect()))
}

pub(in crate::resp) fn hkeys(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let key = arg(args, 1);
    space.atomically_on(&[key], |space| {
        let Some(header) = space.hash(key)? else { return Ok(Reply::Array(Vec::new())) };
        let names = field_names(space, header)?.into_iter();
        Ok(Reply::Array(names.map(Reply::Stored).collect()))
    })
}

pub(in crate::resp) fn hvals(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let fields = all_fields(space, arg(args, 1))?.into_iter();
    Ok(Reply::Array(fields.map(|(_, value)| Reply::Stored(value)).collect()))
}
