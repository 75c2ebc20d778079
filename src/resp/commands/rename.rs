//! Giving a key another name, and copying it.
//!
//! A hash keeps its fields where they are when it is renamed: only its header moves.

use std::sync::Arc;

use bytes::Bytes;

use super::expiry::{has_option, life_of};
use super::hashes::{begin_hash, put_fields};
use super::keys::database_number;
use super::{arg, encoded, integer, is, rest};
use crate::resp::events::EventClass;
use crate::resp::holding::Holding;
use crate::resp::keyspace::{EntryShare, Keyspace, Lifespan, check_key};
use crate::resp::keyspace_transaction::in_transaction;
use crate::resp::refusal::{Answer, NO_SUCH_KEY, refused, syntax};
use crate::resp::reply::{OK, Reply};
use crate::resp::reply_memory::ReplyMemory;
use crate::value::Value;

/// Reply to a `COPY` of more than one entry of the log of a cluster can put.
const TOO_LARGE_TO_COPY: &str = "ERR the hash is too large to be copied in a cluster";

/// Renames a key. Returns whether it did.
fn rename_key(space: &mut Keyspace<'_>, args: &[Bytes], only_new: bool) -> Answer<bool> {
    let (from, to) = (arg(args, 1), arg(args, 2));
    check_key(to)?;
    space.atomically_on(&[to], |space| {
        let Some(value) = space.stored(&encoded(from))? else { return refused(NO_SUCH_KEY) };
        if only_new && space.exists(to)? {
            return Ok(false);
        }
        if from == to {
            return Ok(true);
        }
        let life = life_of(space, from)?;
        space.remove(to)?;
        space.put(to, &value, life)?;
        space.remove_within(from)?;
        space.event(EventClass::Generic, "rename_from", from);
        space.event(EventClass::Generic, "rename_to", to);
        Ok(true)
    })
}

pub(in crate::resp) fn rename(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    rename_key(space, args, false)?;
    Ok(OK)
}

pub(in crate::resp) fn renamenx(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    Ok(Reply::bool(rename_key(space, args, true)?))
}

/// A copy of what a key holds.
pub(super) enum KeyCopy {
    /// A string, as it is stored.
    String(Value),
    /// The names and values of fields.
    Hash(Vec<(Vec<u8>, Value)>),
}

impl KeyCopy {
    /// Copies what a key holds for a reply, within a transaction.
    pub(super) fn read(space: &Keyspace<'_>, key: &[u8]) -> Answer<Option<Self>> {
        let mut memory = ReplyMemory::default();
        Self::read_admitted(space, key, |_, value| memory.add(&Reply::Stored(value.clone())))
    }

    /// Copies what a key holds for a [`write`](Self::write), within a transaction. Nothing is
    /// written yet, so what no entry of the log has room for is refused without the commands around
    /// it.
    fn read_to_write(space: &Keyspace<'_>, key: &[u8]) -> Answer<Option<Self>> {
        if space.chance.is_none() {
            return Self::read(space, key);
        }
        // How much memory the values take is different on each node of a cluster, but all of them
        // have to come to the same result.
        let mut share = EntryShare::default();
        Self::read_admitted(space, key, |stored_key, value| {
            if share.add(stored_key, value) { Ok(()) } else { refused(TOO_LARGE_TO_COPY) }
        })
    }

    /// Copies what a key holds, if a closure admits the stored key and the value of each field.
    fn read_admitted(
        space: &Keyspace<'_>,
        key: &[u8],
        mut admit: impl FnMut(&[u8], &Value) -> Answer<()>,
    ) -> Answer<Option<Self>> {
        let Some(value) = space.stored(&encoded(key))? else { return Ok(None) };
        let Holding::Hash(header) = Holding::new(value.clone()) else {
            return Ok(Some(Self::String(value)));
        };
        let name = |key: &[u8]| {
            key.get(crate::resp::encoding::FIELD_PREFIX_SIZE..).unwrap_or_default().to_vec()
        };
        let mut fields = Vec::new();
        for field in space.fields(header) {
            let (key, value) = field?;
            admit(&key, &value)?;
            fields.push((name(&key), value));
        }
        Ok(Some(Self::Hash(fields)))
    }

    /// Writes the copy under a key that holds nothing, within a transaction.
    pub(super) fn write(&self, space: &mut Keyspace<'_>, key: &[u8], life: Lifespan) -> Answer<()> {
        match self {
            Self::String(value) => space.put(key, value, life),
            Self::Hash(fields) => {
                let mut header = begin_hash(space)?;
                let fields = fields.iter().map(|(name, value)| (&**name, &**value));
                put_fields(space, &mut header, fields, life)?;
                space.put(key, &header.encode(), life)
            }
        }
    }
}

/// Returns the number of the database that a `COPY` names, if it is a valid one.
pub(in crate::resp) fn target_of(args: &[Bytes]) -> Option<usize> {
    let at = rest(args, 3).iter().rposition(|option| is(option, "DB"))?;
    database_number(rest(args, 3).get(at + 1)?).ok()
}

pub(in crate::resp) fn copy(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let (from, to) = (arg(args, 1), arg(args, 2));
    let (mut number, mut options) = (space.database.number, rest(args, 3));
    let replace = has_option(options, "REPLACE");
    while let [option, after @ ..] = options {
        options = match after {
            _ if is(option, "REPLACE") => after,
            [value, after @ ..] if is(option, "DB") => {
                integer(value)?;
                number = database_number(value)?;
                after
            }
            _ => return syntax(),
        };
    }
    check_key(to)?;
    let is_here = number == space.database.number;
    if is_here && from == to {
        return refused("ERR source and destination objects are the same");
    }
    let target = if is_here { None } else { Some(space.database.sibling(number)?) };
    let write = |space: &mut Keyspace<'_>, copy: &KeyCopy, life: Lifespan| -> Answer {
        if space.exists(to)? {
            if !replace {
                return Ok(Reply::Integer(0));
            }
            space.remove(to)?;
        }
        copy.write(space, to, life)?;
        space.event(EventClass::Generic, "copy_to", to);
        Ok(Reply::Integer(1))
    };
    space.atomically_on(&[from, to], |space| {
        // A copy that is not put need not be read, and may be more than can be put.
        if is_here && !replace && space.exists(to)? {
            return Ok(Reply::Integer(0));
        }
        let Some(copy) = KeyCopy::read_to_write(space, from)? else { return Ok(Reply::Integer(0)) };
        let life = life_of(space, from)?;
        let Some(target) = &target else { return write(space, &copy, life) };
        // Another database is another store, with a transaction of its own.
        let (reply, deeds) = in_transaction(target, |space| write(space, &copy, life))?;
        space.deeds.elsewhere.push((Arc::clone(target), deeds));
        reply
    })
}
