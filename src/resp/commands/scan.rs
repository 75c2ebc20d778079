//! `KEYS` and `SCAN`.
//!
//! The cursor of `SCAN` is that of the store: the server keeps nothing for a client that scans, and
//! a cursor outlives a restart.

use bytes::Bytes;

use super::keys::all_keys;
use super::{arg, integer, is, rest};
use crate::resp::encoding::decode_key;
use crate::resp::glob;
use crate::resp::holding::Holding;
use crate::resp::keyspace::Keyspace;
use crate::resp::refusal::{Answer, refused, syntax};
use crate::resp::reply::Reply;

/// Default number of keys for one call.
const COUNT: i64 = 10;

pub(in crate::resp) fn keys(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let pattern = arg(args, 1);
    let found = all_keys(space, glob::literal_prefix(pattern))?;
    let found = found.into_iter().filter(|key| glob::matches(pattern, key));
    Ok(Reply::Array(found.map(Reply::bulk).collect()))
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

    fn is_type(&self, space: &Keyspace<'_>, key: &[u8]) -> Answer<bool> {
        let Some(wanted) = self.type_name else { return Ok(true) };
        let holding: Option<Holding> = space.get(key)?;
        Ok(holding.is_some_and(|holding| is(wanted, holding.type_name())))
    }
}

/// Returns the reply of a scan.
pub(super) fn page(cursor: u64, items: Vec<Reply>) -> Reply {
    Reply::Array(vec![Reply::bulk(cursor.to_string()), Reply::Array(items)])
}

pub(in crate::resp) fn scan(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let options = ScanOptions::parse(arg(args, 1), rest(args, 2), false)?;
    let (found, next) = if space.tx.is_some() {
        // A transaction sees all keys at one moment, and all at once.
        let keys = if options.cursor == 0 { all_keys(space, b"")? } else { Vec::new() };
        (keys, 0)
    } else {
        let (keys, next) = space.database.store.scan_from(options.cursor, options.count)?;
        let keys = keys.iter().filter_map(|key| decode_key(key)).map(<[u8]>::to_vec);
        (keys.collect(), next.unwrap_or(0))
    };
    let mut items = Vec::new();
    for key in found {
        if options.is_match(&key) && options.is_type(space, &key)? {
            items.push(Reply::bulk(key));
        }
    }
    Ok(page(next, items))
}
