//! `HSCAN` and `HRANDFIELD`.
//!
//! Fields are scanned in the order of a hash of their names, and the cursor is a place in that
//! order. So a scan needs no state in the server, and returns every field that is there throughout.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::hashes::field_names;
use super::keys::index;
use super::scan::{ScanOptions, page};
use super::{arg, integer, is, rest};
use crate::resp::encoding::HashHeader;
use crate::resp::keyspace::Keyspace;
use crate::resp::refusal::{Answer, refused, syntax};
use crate::resp::reply::Reply;
use crate::resp::reply_memory::ReplyMemory;
use crate::value::Value;

/// Number of fields up to which a scan returns all of them at once.
const SMALL: usize = 128;
/// Maximum number of fields that `HRANDFIELD` returns with repetitions.
const REPEATED_MAX: u64 = 1 << 20;

/// Returns the place of a field in the order of a scan. Place 0 is before all fields.
fn place(name: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name).max(1)
}

pub(in crate::resp) fn hscan(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let options = ScanOptions::parse(arg(args, 2), rest(args, 3), true)?;
    let key = arg(args, 1);
    space.atomically_on(&[key], |space| {
        let Some(header) = space.hash(key)? else { return Ok(page(0, Vec::new())) };
        let mut names = field_names(space, header)?;
        let mut next = 0;
        // A hash that has become small in the middle of a scan is scanned to its end as it was
        // begun.
        if names.len() > SMALL || options.cursor != 0 {
            names.retain(|name| place(name) >= options.cursor);
            names.sort_unstable_by_key(|name| place(name));
            if let Some(name) = names.get(options.count) {
                next = place(name);
                names.retain(|name| place(name) < next);
            }
        }
        let mut values = FieldValues::new(header);
        let mut items = Vec::new();
        for name in names {
            if options.is_match(&name) {
                items.push(Reply::Stored(name.clone()));
                if !options.without_values {
                    items.push(values.of(space, &name)?);
                }
            }
        }
        Ok(page(next, items))
    })
}

/// Values of fields for one reply, within a transaction.
struct FieldValues {
    header: HashHeader,
    /// Those that were read.
    read: BTreeMap<Value, Value>,
    memory: ReplyMemory,
}

impl FieldValues {
    fn new(header: HashHeader) -> Self {
        Self { header, read: BTreeMap::new(), memory: ReplyMemory::default() }
    }

    /// Returns the value of a field, which is read once.
    fn of(&mut self, space: &Keyspace<'_>, name: &Value) -> Answer {
        if let Some(value) = self.read.get(name) {
            return Ok(Reply::Stored(value.clone()));
        }
        let Some(value) = space.stored(&self.header.field(name))? else { return Ok(Reply::Null) };
        let reply = Reply::Stored(value.clone());
        self.memory.add(&reply)?;
        self.read.insert(name.clone(), value);
        Ok(reply)
    }
}

pub(in crate::resp) fn hrandfield(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let (count, with_values) = match rest(args, 2) {
        [] => (None, false),
        [count] => (Some(integer(count)?), false),
        [count, option] if is(option, "WITHVALUES") => (Some(integer(count)?), true),
        _ => return syntax(),
    };
    let wanted = count.map_or(1, i64::unsigned_abs);
    if with_values && wanted > i64::MAX.unsigned_abs() / 2 {
        return refused("ERR value is out of range");
    }
    let is_repeated = count.is_some_and(|count| count < 0);
    if is_repeated && (wanted > REPEATED_MAX || with_values && wanted > REPEATED_MAX / 2) {
        return refused("ERR value is out of range");
    }
    let (key, wanted) = (arg(args, 1), usize::try_from(wanted).unwrap_or(usize::MAX));
    space.atomically_on(&[key], |space| {
        let Some(header) = space.hash(key)? else {
            return Ok(if count.is_some() { Reply::Array(Vec::new()) } else { Reply::maybe(None) });
        };
        let names = field_names(space, header)?;
        let names = if is_repeated { repeated(&names, wanted) } else { sample(names, wanted) };
        if count.is_none() {
            return Ok(Reply::maybe(names.into_iter().next().map(Reply::Stored)));
        }
        let mut values = FieldValues::new(header);
        let mut items = Vec::new();
        for name in names {
            items.push(Reply::Stored(name.clone()));
            if with_values {
                items.push(values.of(space, &name)?);
            }
        }
        Ok(if with_values { Reply::Pairs(items) } else { Reply::Array(items) })
    })
}

/// Draws this many names, each as often as chance has it.
fn repeated(names: &[Value], wanted: usize) -> Vec<Value> {
    (0..wanted).filter_map(|_| names.get(index(names.len())).cloned()).collect()
}

/// Draws this many different names, as far as there are as many.
fn sample(mut names: Vec<Value>, wanted: usize) -> Vec<Value> {
    for at in 0..wanted.min(names.len()) {
        let other = at + index(names.len() - at);
        names.swap(at, other);
    }
    names.truncate(wanted);
    names
}
