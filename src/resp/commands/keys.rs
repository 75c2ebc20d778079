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
    let names: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
    space.atomically_on(&names, |space| {
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
    if space.tx.is_none() {
        let keys = sample(&space.database.store, random().max(1))?;
        let at = index(keys.len());
        return Ok(Reply::maybe(keys.into_iter().nth(at).map(Reply::bulk)));
    }
    // Each key is the last one chosen with the same probability.
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

/// Number of keys that a random key is chosen from. A single one would not do: the next key after a
/// random place is more often one with a wide gap before it.
const SAMPLE: usize = 64;
/// Number of entries in which these keys are looked for. Most of them may be fields of hashes.
const LOOKED_AT_MAX: usize = 64 * SAMPLE;

/// Returns keys that follow a place in the order of a scan, the first ones after the last ones:
/// about as many as a sample has, but fewer if there are fewer, or if they lie far apart. At least
/// one, unless there is none.
fn sample(store: &Bitcask, start: u64) -> Answer<Vec<Vec<u8>>> {
    let (mut sample, mut looked_at, mut has_wrapped) = (Vec::new(), 0, false);
    let mut next = start;
    loop {
        let (found, after) = store.scan_from(next, SAMPLE)?;
        looked_at += SAMPLE;
        // The last stretch may go on behind the place where the first one began.
        let is_round = has_wrapped && after.is_none_or(|after| after >= start);
        for key in found.iter().filter_map(|key| decode_key(key)) {
            if !is_round || !sample.iter().any(|other| other == key) {
                sample.push(key.to_vec());
            }
        }
        let limit = if looked_at < LOOKED_AT_MAX { SAMPLE } else { 1 };
        if is_round || sample.len() >= limit {
            return Ok(sample);
        }
        has_wrapped |= after.is_none();
        next = after.unwrap_or(0);
    }
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
        b"encoding" => Reply::maybe(encoding(space, key, &holding)?.map(Reply::Text)),
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
fn encoding(
    space: &mut Keyspace<'_>,
    key: &[u8],
    holding: &Holding,
) -> Answer<Option<&'static str>> {
    if let Holding::String(string) = holding {
        return Ok(Some(string_encoding(string)));
    }
    // The hash may be replaced at this moment, and its fields have to be those of its header.
    space.atomically(|space| {
        let header = match space.get(key)? {
            None => return Ok(None),
            Some(Holding::String(string)) => return Ok(Some(string_encoding(&string))),
            Some(Holding::Hash(header)) => header,
        };
        let mut is_packed = header.count <= PACKED_MAX;
        let mut fields = space.fields(header);
        while is_packed && let Some(field) = fields.next().transpose()? {
            let (key, value) = field;
            is_packed =
                key.len() <= FIELD_PREFIX_SIZE + PACKED_SIZE_MAX && value.len() <= PACKED_SIZE_MAX;
        }
        Ok(Some(if is_packed { "listpack" } else { "hashtable" }))
    })
}

fn string_encoding(string: &[u8]) -> &'static str {
    if crate::wire::parse_integer(string).is_some() {
        "int"
    } else if string.len() <= EMBEDDED_MAX {
        "embstr"
    } else {
        "raw"
    }
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
    space.atomically_on(&[key], |space| {
        let Some(holding) = space.get(key)? else { return Ok(Reply::Null) };
        // The keydir has about 24 bytes for each key in the store.
        let size = match holding {
            Holding::String(string) => key_size + string.len() + 24,
            Holding::Hash(header) => {
                let sizes = space.fields(header).map(|field| {
                    let (key, value) = field?;
                    Ok(key.len() + value.len() + 24)
                });
                key_size + 24 + sizes.sum::<Answer<usize>>()?
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::options::WriteOptions;
    use crate::resp::session_tests::{args, session, state};

    #[test]
    fn a_sample_has_each_key_once_and_nothing_else() {
        let (_dir, state) = state();
        let database = state.databases.get(0).unwrap();
        let store = &database.store;
        assert!(sample(store, 1).unwrap().is_empty());
        let past = WriteOptions::new().expires_at(UNIX_EPOCH + Duration::from_secs(1));
        for number in 0..200 {
            store.put_opt(format!("expired{number}"), "x", past.durable(false)).unwrap();
        }
        let unsynced = WriteOptions::new().durable(false);
        for count in [10, 63, 64, 300] {
            for number in 0..count {
                store.put_opt(format!("k{number}"), "x", unsynced).unwrap();
            }
            let mut drawn = BTreeSet::new();
            for step in 0..64 {
                let keys = sample(store, (step << 58) + 1).unwrap();
                let different: BTreeSet<_> = keys.iter().cloned().collect();
                assert_eq!(different.len(), keys.len());
                assert!(keys.len() >= count.min(SAMPLE) && keys.len() < 2 * SAMPLE);
                assert!(keys.iter().all(|key| key.starts_with(b"k")));
                drawn.extend(different);
            }
            assert_eq!(drawn.len(), count);
        }
    }

    #[test]
    fn a_sample_is_found_among_many_fields() {
        let (_dir, state) = state();
        let mut session = session(&state);
        let fields: Vec<_> = (0..3000).map(|field| format!("f{field} x")).collect();
        let fields = fields.join(" ");
        for number in 0..4 {
            session.run(&args(&format!("HSET h{number} {fields}")));
        }
        for step in 0..16 {
            let keys = sample(&session.database.store, (step << 60) + 1).unwrap();
            assert!((1..=4).contains(&keys.len()));
        }
    }

    #[test]
    fn the_encoding_of_a_hash_that_was_replaced_is_that_of_the_new_one() {
        let (_dir, state) = state();
        let mut session = session(&state);
        let large = "x".repeat(100);
        session.run(&args(&format!("HSET h f {large}")));
        let database = state.databases.get(0).unwrap();
        let old = Keyspace::new(&database).get(b"h").unwrap().unwrap();
        for (lines, expected) in [
            (&["DEL h", &format!("HSET h f {large}")][..], Some("hashtable")),
            (&["SET h 1"], Some("int")),
            (&["DEL h"], None),
        ] {
            for line in lines {
                session.run(&args(line));
            }
            let found = encoding(&mut Keyspace::new(&database), b"h", &old).unwrap();
            assert_eq!(found, expected);
        }
    }
}
