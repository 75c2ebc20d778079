//! `HSCAN` and `HRANDFIELD`.
//!
//! Fields are scanned in the order of a hash of their names, and the cursor is a place in that
//! order. So a scan needs no state in the server, and returns every field that is there throughout.

use bytes::Bytes;

use super::hashes::all_fields;
use super::keys::index;
use super::scan::{ScanOptions, page};
use super::{arg, integer, is, rest};
use crate::resp::keyspace::Keyspace;
use crate::resp::refusal::{Answer, refused, syntax};
use crate::resp::reply::Reply;
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
    let mut fields = all_fields(space, arg(args, 1))?;
    let mut next = 0;
    // A hash that has become small in the middle of a scan is scanned to its end as it was begun.
    if fields.len() > SMALL || options.cursor != 0 {
        fields.retain(|(name, _)| place(name) >= options.cursor);
        fields.sort_unstable_by_key(|(name, _)| place(name));
        if let Some((name, _)) = fields.get(options.count) {
            next = place(name);
            fields.retain(|(name, _)| place(name) < next);
        }
    }
    let mut items = Vec::new();
    for (name, value) in fields {
        if options.is_match(&name) {
            items.push(Reply::Stored(name));
            if !options.without_values {
                items.push(Reply::Stored(value));
            }
        }
    }
    Ok(page(next, items))
}

pub(in crate::resp) fn hrandfield(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let (count, with_values) = match rest(args, 2) {
        [] => (None, false),
        [count] => (Some(integer(count)?), false),
        [count, option] if is(option, "WITHVALUES") => (Some(integer(count)?), true),
        _ => return syntax(),
    };
    let mut fields = all_fields(space, arg(args, 1))?;
    let Some(count) = count else {
        let at = index(fields.len());
        return Ok(Reply::maybe(fields.get(at).map(|(name, _)| Reply::Stored(name.clone()))));
    };
    let wanted = count.unsigned_abs();
    if with_values && wanted > i64::MAX.unsigned_abs() / 2 {
        return refused("ERR value is out of range");
    }
    if count < 0 && (wanted > REPEATED_MAX || with_values && wanted > REPEATED_MAX / 2) {
        return refused("ERR value is out of range");
    }
    if fields.is_empty() {
        return Ok(Reply::Array(Vec::new()));
    }
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    let chosen: Vec<(Value, Value)> = if count < 0 {
        (0..wanted).filter_map(|_| fields.get(index(fields.len())).cloned()).collect()
    } else {
        for at in 0..wanted.min(fields.len()) {
            let other = at + index(fields.len() - at);
            fields.swap(at, other);
        }
        fields.truncate(wanted);
        fields
    };
    let mut items = Vec::new();
    for (name, value) in chosen {
        items.push(Reply::Stored(name));
        if with_values {
            items.push(Reply::Stored(value));
        }
    }
    Ok(if with_values { Reply::Pairs(items) } else { Reply::Array(items) })
}
