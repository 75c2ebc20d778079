//! Keys, whatever they hold.

use bytes::Bytes;

use super::{arg, encoded, help, is, rest};
use crate::resp::chance::random;
use crate::resp::encoding::{FIELD_PREFIX_SIZE, decode_key};
use crate::resp::events::EventClass;
use crate::resp::holding::Holding;
use crate::resp::keyspace::Keyspace;
use crate::resp::refusal::{Answer, NOT_AN_INTEGER, refused, syntax};
use crate::resp::reply::{OK, Reply};
use crate::store::Bitcask;
use crate::value::Value;

/// Up to which sizes Redis uses its smaller encodings.
const EMBEDDED_MAX: usize = 44;
const PACKED_MAX: u64 = 512;
const PACKED_SIZE_MAX: usize = 64;
/// Number of keys up to which `DBSIZE` and `INFO` count those that have not expired.
pub(super) const COUNTED_MAX: u64 = 1_000_000;

pub(in crate::resp) fn del(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let keys = rest(args, 1);
    if let [key] = keys {
        let is_removed = remove(space, key)?;
        return Ok(Reply::bool(is_removed));
    }
    space.atomically(|space| {
        let mut count = 0;
        for key in keys {
            count += i64::from(remove(space, key)?);
        }
        Ok(Reply::Integer(count))
    })
}

fn remove(space: &mut Keyspace<'_>, key: &Bytes) -> Answer<bool> {
    let is_removed = space.remove(key)?;
    if is_removed {
        space.event(EventClass::Generic, "del", key);
    }
    Ok(is_removed)
}

pub(in crate::resp) fn exists(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let mut count = 0;
    match rest(args, 1) {
        // A snapshot, so that no half of a batch is seen.
        keys @ [_, _, ..] if space.tx.is_none() => {
            let snapshot = space.database.store.snapshot();
            for key in keys {
                count += i64::from(snapshot.contains_key(encoded(key))?);
            }
        }
        keys => {
            for key in keys {
                count += i64::from(space.exists(key)?);
            }
        }
    }
    Ok(Reply::Integer(count))
}

pub(in crate::resp) fn type_of(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let holding = space.get(arg(args, 1))?;
    Ok(Reply::Simple(holding.map_or("none", |holding| holding.type_name())))
}

/// Calls a closure with each key of a database that has a prefix, as they are at one moment.
pub(super) fn each_key(
    space: &Keyspace<'_>,
    prefix: &[u8],
    mut run: impl FnMut(&[u8]) -> Answer<()>,
) -> Answer<()> {
    let mut run = |stored_key: &[u8]| {
        decode_key(stored_key).filter(|key| key.starts_with(prefix)).map_or(Ok(()), &mut run)
    };
    match &space.tx {
        Some(tx) => tx.prefix(encoded(prefix)).try_for_each(|pair| run(&pair?.0)),
        None => space.database.store.prefix_keys(encoded(prefix)).try_for_each(|key| run(&key?)),
    }
}

pub(in crate::resp) fn dbsize(space: &mut Keyspace<'_>, _args: &[Bytes]) -> Answer {
    if space.tx.is_some() {
        let mut count = 0_u64;
        each_key(space, b"", |_| {
            count += 1;
            Ok(())
        })?;
        return Ok(Reply::count(count));
    }
    let database = space.database;
    if !database.has_hashes() {
        let count = database.store.len()?;
        if count > COUNTED_MAX {
            return Ok(Reply::count(count));
        }
    }
    Ok(Reply::count(database.key_count()?))
}

pub(in crate::resp) fn randomkey(space: &mut Keyspace<'_>, _args: &[Bytes]) -> Answer {
    if space.tx.is_none()
        && let Some(key) = random_key(&space.database.store)?
    {
        return Ok(Reply::bulk(key));
    }
    // Few keys or none. Each of them is the last one chosen with the same probability.
    let (mut count, mut chosen) = (0, None);
    each_key(space, b"", |key| {
        count += 1;
        if random().is_multiple_of(count) {
            chosen = Some(Reply::bulk(key));
        }
        Ok(())
    })?;
    Ok(Reply::maybe(chosen))
}

/// Number of entries that a random key is chosen from. A single one would not do: the next key after
/// a random place is more often one with a wide gap before it.
const SAMPLE: usize = 64;

/// Chooses one of the keys that follow a random place. Returns `None` if there are none: those entries
/// may be fields of hashes, or keys that have expired.
fn random_key(store: &Bitcask) -> Answer<Option<Vec<u8>>> {
    for _ in 0..4 {
        let is_small = store.len()? <= SAMPLE as u64;
        let (mut next, mut has_wrapped) = (Some(if is_small { 0 } else { random() }), is_small);
        let mut sample = Vec::new();
        while let Some(cursor) = next
            && sample.len() < SAMPLE
        {
            let (keys, after) = store.scan_from(cursor, SAMPLE - sample.len())?;
            sample.extend(keys);
            next = after;
            if next.is_none() && !has_wrapped {
                (next, has_wrapped) = (Some(0), true);
            }
        }
        let keys: Vec<_> = sample.iter().filter_map(|key| decode_key(key)).collect();
        if !keys.is_empty() {
            return Ok(Some(keys[index(keys.len())].to_vec()));
        }
    }
    Ok(None)
}

/// Returns a random index below a length.
pub(in crate::resp) fn index(len: usize) -> usize {
    usize::try_from(random()).unwrap_or(0).checked_rem(len).unwrap_or(0)
}

pub(in crate::resp) fn flushdb(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    check_flush(args)?;
    flush(space)?;
    Ok(OK)
}

pub(in crate::resp) fn flushall(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    check_flush(args)?;
    // Databases that cannot be opened are found before anything is removed.
    let others = space.database.others()?;
    flush(space)?;
    if space.tx.is_some() {
        space.deeds.has_flushed_all = true;
    } else {
        for other in others {
            other.clear()?;
        }
    }
    Ok(OK)
}

/// Checks the options of `FLUSHDB` and `FLUSHALL`.
fn check_flush(args: &[Bytes]) -> Answer<()> {
    match rest(args, 1) {
        [] => Ok(()),
        [option] if is(option, "SYNC") || is(option, "ASYNC") => Ok(()),
        _ => syntax(),
    }
}

/// Removes all keys of a database.
fn flush(space: &mut Keyspace<'_>) -> Answer<()> {
    (space.deeds.has_written, space.deeds.has_flushed) = (true, true);
    if space.tx.is_none() {
        return Ok(space.database.clear()?);
    }
    space.flush_within();
    Ok(())
}

pub(in crate::resp) fn object(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let (subcommand, key) = (arg(args, 1), arg(args, 2));
    let Some(holding) = space.get(key)? else {
        // Redis has answered with an error before version 7.
        return Ok(Reply::Null);
    };
    Ok(match subcommand.to_ascii_lowercase().as_slice() {
        b"encoding" => Reply::Text(encoding(space, &holding)?),
        b"refcount" => Reply::Integer(1),
        b"idletime" => Reply::Integer(0),
        _ => {
            return refused(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. \
                 Please note that when switching between policies at runtime LRU and LFU data \
                 will take some time to adjust.",
            );
        }
    })
}

/// Returns how Redis would store a value.
fn encoding(space: &mut Keyspace<'_>, holding: &Holding) -> Answer<&'static str> {
    let header = match holding {
        Holding::String(string) if crate::wire::parse_integer(string).is_some() => {
            return Ok("int");
        }
        Holding::String(string) if string.len() <= EMBEDDED_MAX => return Ok("embstr"),
        Holding::String(_) => return Ok("raw"),
        Holding::Hash(header) => *header,
    };
    space.atomically(|space| {
        let is_large = |(key, value): &(Value, Value)| {
            key.len() > FIELD_PREFIX_SIZE + PACKED_SIZE_MAX || value.len() > PACKED_SIZE_MAX
        };
        let is_packed = header.count <= PACKED_MAX && !space.fields(header)?.iter().any(is_large);
        Ok(if is_packed { "listpack" } else { "hashtable" })
    })
}

pub(in crate::resp) fn object_help(_space: &mut Keyspace<'_>, _args: &[Bytes]) -> Answer {
    let lines = [
        "ENCODING <key>",
        "    Return the encoding that Redis would use for the value of <key>.",
        "FREQ <key>",
        "    Not available: no access frequency is kept.",
        "IDLETIME <key>",
        "    Return 0: no access time is kept.",
        "REFCOUNT <key>",
        "    Return 1: no value is shared.",
    ];
    Ok(help("OBJECT", &lines))
}

pub(in crate::resp) fn memory_usage(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    match rest(args, 3) {
        [] => {}
        [option, samples] if is(option, "SAMPLES") => {
            super::integer(samples)?;
        }
        _ => return syntax(),
    }
    let key = arg(args, 2);
    let key_size = key.len();
    space.atomically(|space| {
        let Some(holding) = space.get(key)? else { return Ok(Reply::Null) };
        // The keydir has about 24 bytes for each key in the store.
        let size = match holding {
            Holding::String(string) => key_size + string.len() + 24,
            Holding::Hash(header) => {
                let fields = space.fields(header)?;
                let sizes = fields.iter().map(|(key, value)| key.len() + value.len() + 24);
                key_size + 24 + sizes.sum::<usize>()
            }
        };
        Ok(Reply::count(size))
    })
}

/// Parses the number of a database.
pub(in crate::resp) fn database_number(text: &[u8]) -> Answer<usize> {
    let Some(number) = crate::wire::parse_integer(text) else {
        return refused(NOT_AN_INTEGER);
    };
    match usize::try_from(number) {
        Ok(number) => Ok(number),
        Err(_) => refused("ERR DB index is out of range"),
    }
}
