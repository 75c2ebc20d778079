//! Strings: reading them, and writing several or parts of them.

use std::ops::Range;

use bytes::Bytes;

use super::{arg, integer, pairs, rest};
use crate::resp::events::EventClass;
use crate::resp::holding::{Holding, StoredString};
use crate::resp::keyspace::{Keyspace, Lifespan, STRING_SIZE_MAX, check_key, check_size};
use crate::resp::refusal::{Answer, TOO_LONG, refused};
use crate::resp::reply::{OK, Reply};
use crate::resp::reply_memory::ReplyMemory;

pub(in crate::resp) fn get(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let string = space.string(arg(args, 1))?;
    Ok(Reply::maybe(string.map(StoredString::into_reply)))
}

pub(in crate::resp) fn getdel(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let key = arg(args, 1);
    space.atomically(|space| {
        let Some(string) = space.string(key)? else { return Ok(Reply::Null) };
        space.remove(key)?;
        space.event(EventClass::Generic, "del", key);
        Ok(string.into_reply())
    })
}

pub(in crate::resp) fn getset(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let (key, value) = (arg(args, 1), arg(args, 2));
    check_key(key)?;
    space.atomically(|space| {
        let old = space.string(key)?;
        space.put_string(key, value, Lifespan::OfStore)?;
        space.event(EventClass::String, "set", key);
        Ok(Reply::maybe(old.map(StoredString::into_reply)))
    })
}

pub(in crate::resp) fn mget(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let one = |holding: Option<Holding>| match holding {
        Some(Holding::String(string)) => string.into_reply(),
        _ => Reply::Null,
    };
    // A snapshot, so that no half of a batch is seen.
    let snapshot = if space.tx.is_some() { None } else { Some(space.database.store.snapshot()) };
    let (mut values, mut memory) = (Vec::new(), ReplyMemory::default());
    for key in rest(args, 1) {
        let value = one(match &snapshot {
            Some(snapshot) => snapshot.get(super::encoded(key))?.map(Holding::new),
            None => space.get(key)?,
        });
        memory.add(&value)?;
        values.push(value);
    }
    Ok(Reply::Array(values))
}

pub(in crate::resp) fn mset(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    put_all(space, &pairs("mset", rest(args, 1))?, false)?;
    Ok(OK)
}

pub(in crate::resp) fn msetnx(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let is_put = put_all(space, &pairs("msetnx", rest(args, 1))?, true)?;
    Ok(Reply::bool(is_put))
}

/// Puts several strings, all or none. With `only_new`, none if one of the keys exists.
fn put_all(space: &mut Keyspace<'_>, pairs: &[(&Bytes, &Bytes)], only_new: bool) -> Answer<bool> {
    for (key, value) in pairs {
        check_key(key)?;
        check_size(value.len())?;
    }
    let keys: Vec<&[u8]> = pairs.iter().map(|(key, _)| &***key).collect();
    space.atomically_on(&keys, |space| {
        if only_new {
            for (key, _) in pairs {
                if space.exists(key)? {
                    return Ok(false);
                }
            }
        }
        for (key, value) in pairs {
            space.put_string(key, value, Lifespan::OfStore)?;
            space.event(EventClass::String, "set", key);
        }
        Ok(true)
    })
}

pub(in crate::resp) fn strlen(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let string = space.string(arg(args, 1))?;
    Ok(Reply::count(string.map_or(0, |string| string.len())))
}

/// Returns the part of a string of `size` bytes between two indices, both included. Negative ones
/// count from the end.
fn part(size: usize, start: i64, end: i64) -> Range<usize> {
    let len = i64::try_from(size).unwrap_or(i64::MAX);
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let absolute = |index: i64| if index < 0 { index.saturating_add(len).max(0) } else { index };
    let (start, end) = (absolute(start), absolute(end).min(len - 1));
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) if start <= end => start..end + 1,
        _ => 0..0,
    }
}

pub(in crate::resp) fn getrange(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let (start, end) = (integer(arg(args, 2))?, integer(arg(args, 3))?);
    let Some(string) = space.string(arg(args, 1))? else { return Ok(Reply::Text("")) };
    let part = part(string.len(), start, end);
    Ok(string.into_part(part))
}

pub(in crate::resp) fn setrange(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let (key, offset, value) = (arg(args, 1), integer(arg(args, 2))?, arg(args, 3));
    let Ok(offset) = usize::try_from(offset) else {
        return refused("ERR offset is out of range");
    };
    if value.is_empty() {
        let string = space.string(key)?;
        return Ok(Reply::count(string.map_or(0, |string| string.len())));
    }
    let end = offset.saturating_add(value.len());
    if end > STRING_SIZE_MAX {
        // Even a key that holds something else is looked at first.
        space.string(key)?;
        return refused(TOO_LONG);
    }
    let new = space.modify(key, |old| {
        let mut new = old.unwrap_or_default().to_vec();
        if new.len() < end {
            new.resize(end, 0);
        }
        if let Some(part) = new.get_mut(offset..end) {
            part.copy_from_slice(value);
        }
        Ok(new)
    })?;
    space.event(EventClass::String, "setrange", key);
    Ok(Reply::count(new.len()))
}

pub(in crate::resp) fn append(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let (key, value) = (arg(args, 1), arg(args, 2));
    let new = space.modify(key, |old| {
        let old = old.unwrap_or_default();
        check_size(old.len().saturating_add(value.len()))?;
        Ok([old, &**value].concat())
    })?;
    space.event(EventClass::String, "append", key);
    Ok(Reply::count(new.len()))
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn parts_are_those_of_redis() {
        let whole = b"Hello World";
        let cases: [(i64, i64, &[u8]); 9] = [
            (0, 3, b"Hell"),
            (0, -1, whole),
            (-4, -1, b"orld"),
            (5, 3, b""),
            (5, 5000, b" World"),
            (-5000, 10000, whole),
            (-1, -4, b""),
            (100, 200, b""),
            (0, -100, b"H"),
        ];
        for (start, end, expected) in cases {
            assert_eq!(&whole[part(whole.len(), start, end)], expected, "{start} {end}");
        }
        assert_eq!(part(0, 0, -1), 0..0);
    }
}
