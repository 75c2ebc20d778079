//! The keys of a store, as commands that put them elsewhere.

use bytes::Bytes;

use super::encoding::{FIELD_PREFIX_SIZE, StoredContent, decode_key, decode_value};
use super::numbers::to_ms;
use crate::error::Error;
use crate::store::{Expiry, Reader};

/// Size of a piece of a string, or of several fields of a hash, in one command, in bytes.
const PIECE_SIZE: usize = 4 << 20;

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
    let key = Bytes::copy_from_slice(key);
    let name = Bytes::from_static;
    match decode_value(&value) {
        StoredContent::String(string, _) => {
            run(vec![name(b"SET"), key.clone(), name(b"")])?;
            for (number, piece) in string.chunks(PIECE_SIZE).enumerate() {
                let offset = Bytes::from((number * PIECE_SIZE).to_string());
                let piece = Bytes::copy_from_slice(piece);
                run(vec![name(b"SETRANGE"), key.clone(), offset, piece])?;
            }
        }
        StoredContent::Hash(header) => {
            run(vec![name(b"DEL"), key.clone()])?;
            let begin = || vec![name(b"HSET"), key.clone()];
            let (mut command, mut size) = (begin(), 0);
            for pair in store.prefix(header.prefix()) {
                let (field, value) = pair?;
                let field = field.get(FIELD_PREFIX_SIZE..).unwrap_or_default();
                size += field.len() + value.len();
                command.extend([Bytes::copy_from_slice(field), Bytes::copy_from_slice(&value)]);
                if size >= PIECE_SIZE {
                    run(std::mem::replace(&mut command, begin()))?;
                    size = 0;
                }
            }
            if command.len() > begin().len() {
                run(command)?;
            }
        }
    }
    if let Expiry::At(time) = expiry {
        run(vec![name(b"PEXPIREAT"), key, Bytes::from(to_ms(time).to_string())])?;
    }
    Ok(true)
}
