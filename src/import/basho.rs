//! The format of Basho's bitcask, which Riak uses: `ID.bitcask.data`, records back to back.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | CRC-32 of the rest of the record |
//! | 4 | 4 | timestamp: seconds since the epoch |
//! | 8 | 2 | size of the key |
//! | 10 | 4 | size of the value |
//! | 14 | | key, then value |
//!
//! - A value that begins with `bitcask_tombstone` is a delete, whatever follows: nothing (version
//!   0), or a digit and a file id (versions 1 and 2). Bitcask itself takes any such value for one.
//! - The record of a key with the latest timestamp is the newest. Of several within a second, it is
//!   the one in the file with the highest id, and the last one in it.
//! - Hint files hold nothing that the data files do not, and are not read.

use std::time::Duration;

use super::format::{CUT_OFF, Decoded, Reach, Record, Reject, SourceFormat, end_of, number_in};
use super::source::SourceFile;
use crate::error::Result;

const HEADER_SIZE: usize = 14;

const TOMBSTONE: &[u8] = b"bitcask_tombstone";

/// Bits of a file's mode that mark it as merged and about to be deleted: executable by others, and
/// in older versions setuid.
const PENDING_DELETE: u32 = 0o4001;

#[derive(Debug)]
pub(super) struct Basho {
    /// The cask's `expiry_secs`.
    pub(super) expire_after: Option<Duration>,
}

/// The fields of a header.
#[derive(Debug)]
struct RecordHeader {
    crc: u32,
    timestamp: u32,
    key_size: u16,
    value_size: u32,
}

impl SourceFormat for Basho {
    fn file_name(&self) -> &'static str {
        "N.bitcask.data"
    }

    fn file_number(&self, name: &str) -> Option<u64> {
        number_in(name, "", ".bitcask.data")
    }

    fn is_leftover(&self, mode: u32) -> bool {
        mode & PENDING_DELETE != 0
    }

    fn record(&self, file: &mut SourceFile, offset: u64, reach: Reach) -> Decoded<Record> {
        let Some(header) = header(file, offset)? else { return Err(Reject::Invalid(CUT_OFF)) };
        let size = u64::from(header.key_size) + u64::from(header.value_size);
        let key_start = offset + HEADER_SIZE as u64;
        let end = end_of(file, key_start, size)?;
        reach.check_size(size)?;
        if file.crc(offset + 4..end)? != Some(header.crc) {
            return Err(Reject::Invalid("the checksum does not match"));
        }
        let key = file.bytes(key_start, usize::from(header.key_size))?.to_vec();
        let value_start = key_start + u64::from(header.key_size);
        let prefix_size = TOMBSTONE.len().min(usize::try_from(end - value_start).unwrap_or(0));
        let is_delete = file.bytes(value_start, prefix_size)? == TOMBSTONE;
        let time = u64::from(header.timestamp);
        let expires = self.expire_after.map(|after| time.saturating_add(after.as_secs()));
        let value = (!is_delete).then_some(value_start..end);
        Ok(Record { end, key, value, time, expires })
    }

    fn claimed_end(&self, file: &mut SourceFile, offset: u64) -> Result<Option<u64>> {
        let end = |it: RecordHeader| {
            offset + HEADER_SIZE as u64 + u64::from(it.key_size) + u64::from(it.value_size)
        };
        Ok(header(file, offset)?.map(end))
    }

    fn ends_at(&self, file: &mut SourceFile, offset: u64, end: u64) -> Result<bool> {
        let Some(header) = header(file, offset)? else { return Ok(false) };
        let Some(size) = end.checked_sub(offset + HEADER_SIZE as u64) else { return Ok(false) };
        // Either size may be the wrong one. The checksum covers both.
        let value_size = size.checked_sub(header.key_size.into());
        let value_size = value_size.and_then(|size| u32::try_from(size).ok());
        let key_size = size.checked_sub(header.value_size.into());
        let key_size = key_size.and_then(|size| u16::try_from(size).ok());
        let with_value_size = value_size.map(|size| (header.key_size, size));
        let with_key_size = key_size.map(|size| (size, header.value_size));
        for (key_size, value_size) in [with_value_size, with_key_size].into_iter().flatten() {
            let mut fields = header.timestamp.to_be_bytes().to_vec();
            fields.extend(key_size.to_be_bytes());
            fields.extend(value_size.to_be_bytes());
            let body = offset + HEADER_SIZE as u64..end;
            if file.crc_after(&fields, body)? == Some(header.crc) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn header(file: &mut SourceFile, offset: u64) -> Result<Option<RecordHeader>> {
    let bytes = file.array::<HEADER_SIZE>(offset)?;
    Ok(bytes.map(|[c0, c1, c2, c3, t0, t1, t2, t3, k0, k1, v0, v1, v2, v3]| RecordHeader {
        crc: u32::from_be_bytes([c0, c1, c2, c3]),
        timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
        key_size: u16::from_be_bytes([k0, k1]),
        value_size: u32::from_be_bytes([v0, v1, v2, v3]),
    }))
}
