//! The keys of a part of a cluster, and commands that all its nodes run alike.
//!
//! - Commands that write run in a transaction that the log of the cluster begins and commits. They
//!   have the time and the chance that the log gives them, so that all nodes end up with the same.
//! - What a client watches is compared by its contents: versions differ between nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::admission::find;
use super::chance::SharedChance;
use super::commands_table::{CommandFlags, Handler, OnKeys};
use super::database::Database;
use super::encoding::encode_key;
use super::holding::Holding;
use super::keyspace::Keyspace;
use super::refusal::{Answer, Refusal, TOO_LARGE};
use super::reply::Reply;
use super::reply_memory::ReplyMemory;
use crate::error::Error;
use crate::store::{Bitcask, Transaction, Ttl};

/// Maximum size of a string that a write replies and that is kept in any case, in bytes.
const SMALL_MAX: usize = 4 << 10;
/// What a client is told of a command whose reply cannot be kept.
const DONE_TOO_LARGE: &str =
    "ERR the command was done, but its reply is too large to be sent with others";

/// Commands of one client, for the log of a cluster.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "cluster", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct CommandsRequest {
    /// The arguments of each.
    pub(super) commands: Vec<Vec<Bytes>>,
    /// Keys that must be as they were: the digests of what they held.
    pub(super) watched: Vec<(Bytes, Option<u128>)>,
}

impl CommandsRequest {
    /// Takes commands, with their arguments, and the digests of what keys must hold.
    pub(crate) fn new(commands: Vec<Vec<Bytes>>, watched: Vec<(Bytes, Option<u128>)>) -> Self {
        Self { commands, watched }
    }

    /// Returns about how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        let watched = self.watched.iter().map(|(key, _)| key.len() + 32).sum::<usize>();
        self.commands.iter().map(|args| Self::size_of_command(args)).sum::<usize>() + watched
    }

    /// Returns how many of these bytes are those of a command. It takes memory even if it has no
    /// arguments.
    pub(crate) fn size_of_command(args: &[Bytes]) -> usize {
        Self::size_of(args) + size_of::<Vec<Bytes>>()
    }

    /// Returns how many of these bytes are those of some arguments.
    pub(crate) fn size_of(args: &[Bytes]) -> usize {
        args.iter().map(|arg| arg.len() + 8).sum()
    }

    /// Says why it must not get into the log, if a command is none that this program can apply.
    /// Every node that comes to such a command stops, whenever it is started.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Some(args) = self.commands.iter().find(|args| handler(args).is_none()) else {
            return Ok(());
        };
        let name = args.first().map_or(&b""[..], |name| name);
        let name = String::from_utf8_lossy(name.get(..32).unwrap_or(name)).into_owned();
        Err(format!(
            "the leader's version of the program cannot run the command {name:?} like this"
        ))
    }
}

/// The reply to a command that was replicated.
#[derive(Debug)]
pub(crate) struct ReplicatedReply(pub(super) Reply);

impl ReplicatedReply {
    /// Returns the number that the command replies, if it is one, or the text of its error.
    pub(crate) fn into_number(self) -> Result<Option<i64>, String> {
        match self.0 {
            Reply::Integer(number) => Ok(Some(number)),
            Reply::Error(text) => Err(text),
            _ => Ok(None),
        }
    }

    /// Returns what a scan has found, or the text of its error.
    pub(crate) fn into_scanned(self) -> Result<Vec<Bytes>, String> {
        let is_text = |item| if let Reply::Bulk(text) = item { Some(text) } else { None };
        match self.0 {
            Reply::Error(text) => Err(text),
            Reply::Array(mut parts) => match parts.pop() {
                Some(Reply::Array(items)) => Ok(items.into_iter().filter_map(is_text).collect()),
                _ => Ok(Vec::new()),
            },
            _ => Ok(Vec::new()),
        }
    }
}

/// What the requests of one entry of the log share.
#[derive(Debug)]
pub(crate) struct SharedEntry {
    chance: SharedChance,
    /// Size of the values that they have put.
    put_size: usize,
    memory: ReplyMemory,
}

impl SharedEntry {
    /// Begins with what chance has given the leader.
    pub(crate) fn new(seed: u64) -> Self {
        Self { chance: SharedChance::new(seed), put_size: 0, memory: ReplyMemory::default() }
    }
}

/// What a key holds, for those that know strings alone.
#[derive(Debug)]
pub(crate) enum StringEntry {
    Absent,
    OtherType,
    Value { value: Vec<u8>, digest: u128, left: Option<Duration> },
}

/// The keys of one store of a cluster.
#[derive(Debug)]
pub(crate) struct ReplicatedKeys {
    // The order matters: the store is closed before its owner lets go of the files.
    pub(super) database: Arc<Database>,
    _owner: Arc<dyn std::any::Any + Send + Sync>,
}

impl ReplicatedKeys {
    /// Takes a store, and what has to stay as long as it is used.
    pub(crate) fn new<T: Send + Sync + 'static>(
        store: Arc<Bitcask>,
        owner: Arc<T>,
    ) -> Result<Self, Error> {
        Ok(Self { database: Arc::new(Database::replicated(store)?), _owner: owner })
    }

    /// Returns what a key holds, or the text of an error.
    pub(crate) fn string(&self, key: &[u8]) -> Result<StringEntry, String> {
        let read = Keyspace::new(&self.database).atomically(|space| {
            let Some(digest) = digest(space, key)? else { return Ok(StringEntry::Absent) };
            let left = match space.ttl(key)? {
                Some(Ttl::In(left)) => Some(left),
                _ => None,
            };
            Ok(match space.get(key)? {
                None => StringEntry::Absent,
                Some(Holding::Hash(_)) => StringEntry::OtherType,
                Some(Holding::String(value)) => {
                    StringEntry::Value { value: value.to_vec(), digest, left }
                }
            })
        });
        read.map_err(|refusal| error_of(refusal).to_string())
    }

    /// Runs commands in a transaction of the log. Returns `None` if a watched key has changed.
    ///
    /// # Errors
    ///
    /// Those of the store, and [`Error::BatchTooLarge`] if the entry puts too much. In the middle
    /// of a command, nothing but the whole entry can be undone. A command that is refused for
    /// another reason is no error: its reply says so.
    pub(crate) fn apply(
        &self,
        tx: &mut Transaction,
        request: &CommandsRequest,
        entry: &mut SharedEntry,
    ) -> Result<Option<Vec<ReplicatedReply>>, Error> {
        let mut space = Keyspace::within(&self.database, tx);
        space.chance = Some(entry.chance.clone());
        space.put_size = entry.put_size;
        for (key, expected) in &request.watched {
            if digest(&space, key).map_err(error_of)? != *expected {
                return Ok(None);
            }
        }
        let mut replies = Vec::with_capacity(request.commands.len());
        for args in &request.commands {
            let is_write = find(args).is_ok_and(|(_, spec)| spec.flags.has(CommandFlags::WRITE));
            // What only reads changes nothing, so it need not run if its reply cannot be kept.
            if !is_write && entry.memory.is_full() {
                replies.push(ReplicatedReply(Reply::Error(TOO_LARGE.to_owned())));
                continue;
            }
            let reply = match run(&mut space, args) {
                Ok(reply) => reply,
                Err(Refusal::Store(error)) => return Err(error),
                Err(refusal) => refusal.into_reply(),
            };
            let is_kept = entry.memory.add(&reply).is_ok() || (is_write && is_small(&reply));
            replies.push(ReplicatedReply(match is_kept {
                true => reply,
                false if is_write => Reply::Error(DONE_TOO_LARGE.to_owned()),
                false => Reply::Error(TOO_LARGE.to_owned()),
            }));
        }
        if let Some(drawn) = space.chance.take() {
            entry.chance = drawn;
        }
        entry.put_size = space.put_size;
        Ok(Some(replies))
    }
}

/// Returns whether a reply takes so little memory that it is kept in any case.
fn is_small(reply: &Reply) -> bool {
    match reply {
        Reply::Bulk(text) => text.len() <= SMALL_MAX,
        Reply::Stored(value) => value.len() <= SMALL_MAX,
        Reply::Array(_) | Reply::Map(_) | Reply::Set(_) | Reply::Pairs(_) => false,
        _ => true,
    }
}

/// Returns what runs a command, if that is one on keys with a right number of arguments.
fn handler(args: &[Bytes]) -> Option<OnKeys> {
    let (_, spec) = find(args).ok()?;
    match spec.run {
        Handler::Keys(run) if spec.accepts(args.len()) => Some(run),
        _ => None,
    }
}

/// Runs one command. One that this version does not know was written by a newer one, and this node
/// must not go on without it.
fn run(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let run = handler(args).ok_or_else(|| Refusal::Store(unknown(args)))?;
    run(space, args)
}

fn unknown(args: &[Bytes]) -> Error {
    let name = args.first().map(|name| name.to_vec()).unwrap_or_default();
    let reason = "this version of the program cannot run the command".to_owned();
    Error::Undecodable { key: name, reason }
}

fn error_of(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Store(error) => error,
        Refusal::Text(text) => Error::Undecodable { key: Vec::new(), reason: text.into_owned() },
    }
}

/// Returns a digest of all that a key holds: its value or its fields, and when it expires. `None`
/// if it does not exist.
pub(super) fn digest(space: &Keyspace<'_>, key: &[u8]) -> Answer<Option<u128>> {
    let stored_key = encode_key(key);
    let Some(value) = space.stored(&stored_key)? else { return Ok(None) };
    let mut hash = Xxh3::new();
    let mut add = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    add(&value);
    let expiry = super::commands::expiry::expiry_ms(space, key)?;
    add(&expiry.unwrap_or(-1).to_be_bytes());
    if let Holding::Hash(header) = Holding::new(value) {
        for found in space.fields(header) {
            let (field, value) = found?;
            add(&field);
            add(&value);
        }
    }
    Ok(Some(hash.digest128()))
}
