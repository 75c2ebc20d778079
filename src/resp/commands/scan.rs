//! `KEYS` and `SCAN`.
//!
//! - The cursor of `SCAN` is that of the store: the server keeps nothing for a client that scans,
//!   and a cursor outlives a restart.
//! - Keys are copied for the reply only if they match, and count in the memory of replies while
//!   they are gathered.

use bytes::Bytes;

use super::keys::each_key;
use super::{arg, integer, is, rest};
use crate::resp::encoding::decode_key;
use crate::resp::glob;
use crate::resp::holding::Holding;
use crate::resp::keyspace::Keyspace;
use crate::resp::refusal::{Answer, refused, syntax};
use crate::resp::reply::Reply;
use crate::resp::reply_memory::ReplyMemory;

/// Default number of keys for one call.
const COUNT: i64 = 10;
/// Maximum number of keys that are asked of the store at a time.
const KEYS_AT_ONCE: usize = 1000;
/// Size of the keys of a reply at which `SCAN` returns, whatever number was asked for.
const SCAN_SIZE_MAX: usize = 64 << 20;

/// Keys for a reply.
#[derive(Debug, Default)]
struct FoundKeys {
    items: Vec<Reply>,
    memory: ReplyMemory,
}

impl FoundKeys {
    fn add(&mut self, key: &[u8]) -> Answer<()> {
        let item = Reply::bulk(key);
        self.memory.add(&item)?;
        self.items.push(item);
        Ok(())
    }
}

pub(in crate::resp) fn keys(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    matching(space, arg(args, 1), FoundKeys::default())
}

/// Returns the keys that match a pattern.
fn matching(space: &Keyspace<'_>, pattern: &[u8], mut found: FoundKeys) -> Answer {
    each_key(space, glob::literal_prefix(pattern), |key| {
        if glob::matches(pattern, key) { found.add(key) } else { Ok(()) }
    })?;
    Ok(Reply::Array(found.items))
}

/// The options of `SCAN` and `HSCAN`.
#[derive(Debug)]
pub(super) struct ScanOptions<'a> {
    pub(super) cursor: u64,
    pub(super) count: usize,
    pattern: Option<&'a [u8]>,
    type_name: Option<&'a [u8]>,
    pub(super) without_values: bool,
}

impl<'a> ScanOptions<'a> {
    pub(super) fn parse(cursor: &[u8], mut args: &'a [Bytes], is_hash: bool) -> Answer<Self> {
        let cursor = std::str::from_utf8(cursor).ok().and_then(|text| text.parse().ok());
        let Some(cursor) = cursor else { return refused("ERR invalid cursor") };
        let mut count = COUNT;
        let mut options =
            Self { cursor, count: 0, pattern: None, type_name: None, without_values: false };
        while let [option, after @ ..] = args {
            args = after;
            if is_hash && is(option, "NOVALUES") {
                options.without_values = true;
                continue;
            }
            let [value, after @ ..] = args else { return syntax() };
            args = after;
            if is(option, "COUNT") {
                count = integer(value)?;
                if count < 1 {
                    return syntax();
                }
            } else if is(option, "MATCH") {
                options.pattern = Some(value);
            } else if is(option, "TYPE") && !is_hash {
                options.type_name = Some(value);
            } else {
                return syntax();
            }
        }
        options.count = usize::try_from(count).unwrap_or(usize::MAX);
        Ok(options)
    }

    pub(super) fn is_match(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name))
    }

    /// Adds a key, if it is wanted.
    fn add(&self, space: &Keyspace<'_>, key: &[u8], found: &mut FoundKeys) -> Answer<()> {
        if self.is_match(key) && self.is_type(space, key)? { found.add(key) } else { Ok(()) }
    }

    fn is_type(&self, space: &Keyspace<'_>, key: &[u8]) -> Answer<bool> {
        let Some(wanted) = self.type_name else { return Ok(true) };
        let holding: Option<Holding> = space.get(key)?;
        Ok(holding.is_some_and(|holding| is(wanted, holding.type_name())))
    }
}

/// Returns the reply of a scan.
pub(in crate::resp) fn page(cursor: u64, items: Vec<Reply>) -> Reply {
    Reply::Array(vec![Reply::bulk(cursor.to_string()), Reply::Array(items)])
}

pub(in crate::resp) fn scan(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let options = ScanOptions::parse(arg(args, 1), rest(args, 2), false)?;
    if space.tx.is_none() {
        return scan_part(space, &options, SCAN_SIZE_MAX);
    }
    // A transaction sees all keys at one moment, and all at once.
    let mut found = FoundKeys::default();
    if options.cursor == 0 {
        each_key(space, b"", |key| options.add(space, key, &mut found))?;
    }
    Ok(page(0, found.items))
}

/// Scans until there are enough keys, or they are large.
fn scan_part(space: &Keyspace<'_>, options: &ScanOptions<'_>, size: usize) -> Answer {
    let (mut found, mut next, mut left) = (FoundKeys::default(), options.cursor, options.count);
    while left > 0 && found.memory.size() < size {
        let count = left.min(KEYS_AT_ONCE);
        let (keys, after) = space.database.store.scan_from(next, count)?;
        for key in keys.iter().filter_map(|key| decode_key(key)) {
            options.add(space, key, &mut found)?;
        }
        left -= count;
        next = after.unwrap_or(0);
        if next == 0 {
            break;
        }
    }
    Ok(page(next, found.items))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::session_tests::state;
    use crate::store::Batch;

    #[test]
    fn keys_are_refused_while_they_are_gathered() {
        let (_dir, state) = state();
        let database = state.databases.get(0).unwrap();
        let keys: Batch = (0..100).map(|number| (format!("{number:0>1000}"), "")).collect();
        database.store.write(&keys).unwrap();
        let space = Keyspace::new(&database);
        let within = |limit: usize| {
            let memory = ReplyMemory::within(limit);
            matching(&space, b"*9", FoundKeys { items: Vec::new(), memory })
        };
        let Reply::Array(found) = within(20_000).unwrap() else { panic!("an array") };
        // Those that do not match take nothing.
        assert_eq!(found.len(), 10);
        let refused = within(5000).unwrap_err().into_reply();
        assert!(refused.is_error(), "{refused:?}");
    }

    #[test]
    fn a_scan_returns_before_its_reply_is_large() {
        let (_dir, state) = state();
        let database = state.databases.get(0).unwrap();
        let len = 5 * KEYS_AT_ONCE;
        let keys: Batch = (0..len).map(|number| (format!("{number:0>100}"), "")).collect();
        database.store.write(&keys).unwrap();
        let (space, count) = (Keyspace::new(&database), Bytes::from(i64::MAX.to_string()));
        let (mut cursor, mut sizes) = (Bytes::from_static(b"0"), Vec::new());
        loop {
            let args = [Bytes::from_static(b"COUNT"), count.clone()];
            let options = ScanOptions::parse(&cursor, &args, false).unwrap();
            let Reply::Array(parts) = scan_part(&space, &options, 100_000).unwrap() else {
                panic!("an array")
            };
            let [Reply::Bulk(next), Reply::Array(items)] = &*parts else { panic!("{parts:?}") };
            sizes.push(items.len());
            cursor = next.clone();
            if &*cursor == b"0" {
                break;
            }
        }
        assert_eq!(sizes.iter().sum::<usize>(), len);
        assert!(sizes.iter().all(|size| *size <= KEYS_AT_ONCE), "{sizes:?}");
    }
}
