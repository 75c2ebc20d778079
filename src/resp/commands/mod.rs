//! What each command does, by families.
//!
//! - The table has checked the number of arguments before a command runs.
//! - A command that works on keys gets a [`Keyspace`](super::keyspace::Keyspace) and knows nothing
//!   of clients; any other gets the session.

#![expect(clippy::unnecessary_wraps, reason = "all commands have one signature")]

pub(super) mod admin;
pub(super) mod caching;
pub(super) mod clients;
pub(super) mod cluster;
pub(super) mod conditions;
pub(super) mod connection;
pub(super) mod counters;
pub(super) mod describe;
pub(super) mod dump;
pub(super) mod expiry;
pub(super) mod hash_scan;
pub(super) mod hashes;
pub(super) mod info;
pub(super) mod keys;
pub(super) mod publish;
pub(super) mod rename;
pub(super) mod scan;
pub(super) mod set;
pub(super) mod strings;
pub(super) mod transactions;

use bytes::Bytes;

use super::refusal::{Answer, NOT_AN_INTEGER, refused, wrong_arity};
use super::reply::Reply;
use crate::wire::parse_integer;

/// Returns an argument. One that is missing is empty; the table has made sure that there are
/// enough.
fn arg(args: &[Bytes], at: usize) -> &Bytes {
    static EMPTY: Bytes = Bytes::new();
    args.get(at).unwrap_or(&EMPTY)
}

/// Returns the arguments from a place on.
fn rest(args: &[Bytes], from: usize) -> &[Bytes] {
    args.get(from..).unwrap_or_default()
}

fn integer(text: &[u8]) -> Answer<i64> {
    match parse_integer(text) {
        Some(number) => Ok(number),
        None => refused(NOT_AN_INTEGER),
    }
}

/// Returns whether an argument is a keyword, in any case.
fn is(argument: &[u8], keyword: &str) -> bool {
    argument.eq_ignore_ascii_case(keyword.as_bytes())
}

/// Returns keys and values that follow each other, or an error if one is without a partner.
fn pairs<'a>(name: &str, args: &'a [Bytes]) -> Answer<Vec<(&'a Bytes, &'a Bytes)>> {
    let (pairs, rest) = args.as_chunks::<2>();
    if !rest.is_empty() {
        return super::refusal::refused_with(wrong_arity(name));
    }
    Ok(pairs.iter().map(|[key, value]| (key, value)).collect())
}

/// Returns the help text of a command with subcommands.
fn help(name: &str, lines: &[&'static str]) -> Reply {
    let title = format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    let lines = lines.iter().chain(&["HELP", "    Print this help."]);
    let lines = lines.copied().map(Reply::Simple);
    Reply::Array(std::iter::once(Reply::Line(title)).chain(lines).collect())
}

/// Returns the stored key of a key.
fn encoded(key: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    super::encoding::encode_key(key)
}
