//! The keys of a store, as commands that put them elsewhere.
//!
//! - No command is larger than a request may be: strings and hashes come in pieces.
//! - A key expires as soon as its first piece is there. Each later piece may find that it has
//!   expired meanwhile, and then begins it anew; so each is followed by the expiry again, which has
//!   no effect otherwise.

use bytes::Bytes;

use super::encoding::{FIELD_PREFIX_SIZE, StoredContent, decode_key, decode_value};
use super::numbers::to_ms;
use super::replicated::CommandsRequest;
use crate::error::Error;
use crate::store::{Expiry, Reader};

/// Maximum size of a piece of a string, and of a command with several fields of a hash, in bytes. A
/// single field may be larger. Tests have no room for as much.
const PIECE_SIZE: usize = if cfg!(test) { 8 << 10 } else { 4 << 20 };

/// A command that takes arguments until it is as large as a piece.
#[derive(Debug)]
pub(crate) struct GrowingCommand {
    args: Vec<Bytes>,
    size: usize,
    /// Number of the arguments that each piece begins with.
    fixed: usize,
}

impl GrowingCommand {
    pub(crate) fn new(name: &'static str, key: &Bytes) -> Self {
        let args = vec![Bytes::from_static(name.as_bytes()), key.clone()];
        Self { size: CommandsRequest::size_of(&args), fixed: args.len(), args }
    }

    /// Adds arguments that belong together. Returns a command with those of before, if these need
    /// another one.
    pub(crate) fn add(&mut self, args: &[Bytes]) -> Option<Vec<Bytes>> {
        let size = CommandsRequest::size_of(args);
        let is_full = self.size.saturating_add(size) > PIECE_SIZE;
        let full = if is_full { self.take() } else { None };
        self.args.extend_from_slice(args);
        self.size += size;
        full
    }

    /// Returns a command with what was added since the last one, if there is anything.
    pub(crate) fn take(&mut self) -> Option<Vec<Bytes>> {
        if self.args.len() == self.fixed {
            return None;
        }
        let next: Vec<_> = self.args.iter().take(self.fixed).cloned().collect();
        self.size = CommandsRequest::size_of(&next);
        Some(std::mem::replace(&mut self.args, next))
    }
}

/// Calls a closure with the commands that put a key as a store has it, in their order. They may be
/// run again. Returns whether there is such a key: it may have expired, or be none of Redis.
pub(crate) fn put_again<E: From<Error>>(
    store: &Reader,
    stored_key: &[u8],
    mut run: impl FnMut(Vec<Bytes>) -> Result<(), E>,
) -> Result<bool, E> {
    let Some(key) = decode_key(stored_key) else { return Ok(false) };
    let (Some(value), Some(expiry)) = (store.get(stored_key)?, store.expiry(stored_key)?) else {
        return Ok(false);
    };
    let (key, name) = (Bytes::copy_from_slice(key), Bytes::from_static);
    let content = decode_value(&value);
    if matches!(content, StoredContent::Hash(_)) {
        run(vec![name(b"DEL"), key.clone()])?;
    }
    let mut is_begun = false;
    let mut put = |command: Vec<Bytes>| {
        run(command)?;
        let Expiry::At(time) = expiry else { return Ok(()) };
        let time = Bytes::from(to_ms(time).to_string());
        let mut limit = vec![name(b"PEXPIREAT"), key.clone(), time];
        // What has no expiry counts as what expires later.
        limit.extend(std::mem::replace(&mut is_begun, true).then(|| name(b"LT")));
        run(limit)
    };
    match content {
        StoredContent::String(string, _) => {
            let (first, rest) = string.split_at(string.len().min(PIECE_SIZE));
            put(vec![name(b"SET"), key.clone(), Bytes::copy_from_slice(first)])?;
            for (number, piece) in rest.chunks(PIECE_SIZE).enumerate() {
                let offset = Bytes::from(((number + 1) * PIECE_SIZE).to_string());
                let piece = Bytes::copy_from_slice(piece);
                put(vec![name(b"SETRANGE"), key.clone(), offset, piece])?;
            }
        }
        StoredContent::Hash(header) => {
            let mut command = GrowingCommand::new("HSET", &key);
            for pair in store.prefix(header.prefix()) {
                let (field, value) = pair?;
                let field = field.get(FIELD_PREFIX_SIZE..).unwrap_or_default();
                let pair = [Bytes::copy_from_slice(field), Bytes::copy_from_slice(&value)];
                command.add(&pair).map_or(Ok(()), &mut put)?;
            }
            command.take().map_or(Ok(()), &mut put)?;
        }
    }
    Ok(true)
}
