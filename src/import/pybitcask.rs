//! The format of pybitcask: `data_N.db`, in either of two encodings, which may be mixed.
//!
//! The first byte of a file names the encoding with which it was created. A store that is opened in
//! the other mode goes on in the other encoding, so each record is recognized by itself.
//!
//! - *Protocol Buffers*: a size of 4 bytes, and a message with the fields key (1), value (2),
//!   timestamp in milliseconds (3) and deleted (4). The value is JSON text.
//! - *JSON*: a line with the members `key`, `value`, `timestamp` and, for a delete, `deleted`.
//!
//! - There are no checksums. A message has to consist of these fields and nothing else, and a line
//!   of these members, so a change of a size is noticed. Values are JSON text, which can't contain
//!   a message or a line, so a search after damage finds none within a value.
//! - The record of a key with the latest timestamp is the newest, and of equal ones the last in the
//!   numeric order of the files. pybitcask itself sorts file names as text, so it reads `data_10`
//!   before `data_9` and brings deleted keys back.

use std::ops::Range;

use super::format::{
    CUT_OFF, Decoded, KEY_SIZE_MAX, KEY_TOO_LARGE, Reach, Record, Reject, SourceFormat, end_of,
    number_in,
};
use super::json::{JsonCursor, Text};
use super::source::{SourceFile, WINDOW};
use crate::error::Result;

/// Size in bytes of the size before a message.
const PREFIX_SIZE: u64 = 4;

/// Latest timestamp, in milliseconds: far beyond any clock, and exact in every number type.
const TIME_MAX: u64 = 1 << 53;

/// How a line begins, as pybitcask writes it.
const LINE_START: &[u8] = b"{\"key\"";

/// Largest key of a line that is decoded.
const KEY_LEN_MAX: usize = 65_535;

#[derive(Debug)]
pub(super) struct Pybitcask {
    /// Whether JSON strings are imported as their text.
    pub(super) plain_strings: bool,
}

impl SourceFormat for Pybitcask {
    fn file_name(&self) -> &'static str {
        "data_N.db"
    }

    fn file_number(&self, name: &str) -> Option<u64> {
        number_in(name, "data_", ".db")
    }

    fn first_offset(&self) -> u64 {
        1
    }

    fn record(&self, file: &mut SourceFile, offset: u64, reach: Reach) -> Decoded<Record> {
        if file.byte(offset)? != Some(b'{') {
            return message(file, offset, reach);
        }
        // A message would begin with this byte only if it had 1.9 GiB.
        match line(file, offset, reach) {
            Err(Reject::Invalid(reason)) => match message(file, offset, reach) {
                Err(Reject::Invalid(_)) => Err(Reject::Invalid(reason)),
                decoded => decoded,
            },
            decoded => decoded,
        }
    }

    fn value(&self, file: &mut SourceFile, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        if self.plain_strings && file.byte(range.start)? == Some(b'"') {
            let size_max = usize::try_from(range.end - range.start).unwrap_or(0);
            match JsonCursor::new(file, range.start, range.end).string(size_max) {
                Ok(Text::Whole(text)) => return Ok(Some(text)),
                Err(Reject::Failed(error)) => return Err(error),
                _ => {}
            }
        }
        file.read(range)
    }
}

/// Returns the record of a key, a value and a time.
fn record(end: u64, key: Vec<u8>, value: Option<Range<u64>>, time: u64) -> Decoded<Record> {
    if time == 0 || time > TIME_MAX {
        return Err(Reject::Invalid("the timestamp is not a time"));
    }
    Ok(Record { end, key, value, time, expires: None })
}

/// Reads a message of Protocol Buffers.
fn message(file: &mut SourceFile, offset: u64, reach: Reach) -> Decoded<Record> {
    let Some(size) = file.array(offset)?.map(u32::from_be_bytes) else {
        return Err(Reject::Invalid(CUT_OFF));
    };
    let start = offset + PREFIX_SIZE;
    let end = end_of(file, start, size.into())?;
    reach.check_size(size.into())?;
    let fields = MessageFields::read(file, start, end)?;
    let key_size = fields.key.end - fields.key.start;
    let is_delete = match (&fields.value, fields.deleted) {
        (Some(value), 0) => {
            let mut cursor = JsonCursor::new(file, value.start, value.end);
            cursor.skip_value()?;
            if cursor.offset != value.end {
                return Err(Reject::Invalid("the value is not valid JSON"));
            }
            false
        }
        (None, 1) => true,
        _ => return Err(Reject::Invalid("neither a put nor a delete")),
    };
    if key_size > KEY_SIZE_MAX {
        return Err(Reject::Unusable { end, reason: KEY_TOO_LARGE });
    }
    let key = file.bytes(fields.key.start, usize::try_from(key_size).unwrap_or(WINDOW))?;
    if std::str::from_utf8(key).is_err() {
        return Err(Reject::Invalid("the key is not UTF-8"));
    }
    let key = key.to_vec();
    record(end, key, fields.value.filter(|_| !is_delete), fields.timestamp)
}

/// The fields of a message. Fields with their default value are left out of it.
#[derive(Debug)]
struct MessageFields {
    key: Range<u64>,
    value: Option<Range<u64>>,
    timestamp: u64,
    deleted: u64,
}

impl MessageFields {
    fn read(file: &mut SourceFile, start: u64, end: u64) -> Decoded<Self> {
        let mut fields = Self { key: start..start, value: None, timestamp: 0, deleted: 0 };
        let (mut offset, mut last) = (start, 0);
        while offset < end {
            let tag = file.byte(offset)?.unwrap_or(0);
            // MessageFields come in the order of their numbers, each at most once.
            if tag <= last {
                return Err(Reject::Invalid("not a message of pybitcask"));
            }
            last = tag;
            let number = varint(file, offset + 1, end)?;
            offset = number.end;
            match tag {
                0x0a | 0x12 => {
                    let range = offset..offset.saturating_add(number.value);
                    if range.end > end {
                        return Err(Reject::Invalid("a field is larger than its message"));
                    }
                    offset = range.end;
                    if tag == 0x0a {
                        fields.key = range;
                    } else {
                        fields.value = Some(range);
                    }
                }
                0x18 => fields.timestamp = number.value,
                0x20 => fields.deleted = number.value,
                _ => return Err(Reject::Invalid("not a message of pybitcask")),
            }
        }
        Ok(fields)
    }
}

/// A number of a message.
#[derive(Debug)]
struct Varint {
    value: u64,
    end: u64,
}

fn varint(file: &mut SourceFile, start: u64, limit: u64) -> Decoded<Varint> {
    let mut value = 0;
    for at in 0..10 {
        let offset = start + at;
        let byte = if offset < limit { file.byte(offset)? } else { None };
        let Some(byte) = byte else { break };
        let bits = u64::from(byte & 0x7f);
        if at == 9 && bits > 1 {
            break;
        }
        value |= bits << (7 * at);
        if byte == 0 && at > 0 {
            // No program writes a number with needless bytes.
            break;
        }
        if byte < 0x80 {
            return Ok(Varint { value, end: offset + 1 });
        }
    }
    Err(Reject::Invalid("a number of the message is not valid"))
}

/// Reads a line of JSON.
fn line(file: &mut SourceFile, offset: u64, reach: Reach) -> Decoded<Record> {
    if reach == Reach::Search && file.bytes(offset, LINE_START.len())? != LINE_START {
        return Err(Reject::Invalid("not the beginning of a line"));
    }
    let size = file.size();
    let members = LineMembers::read(&mut JsonCursor::new(file, offset, size))?;
    let end = match file.byte(members.end)? {
        Some(b'\n') => members.end + 1,
        // Something that was cut off may look like a record, if a value has members of these names.
        None if reach == Reach::Next => members.end,
        None => return Err(Reject::Invalid(CUT_OFF)),
        // The line end is missing, and another line follows at once.
        Some(b'{') if file.bytes(members.end, LINE_START.len())? == LINE_START => members.end,
        Some(_) => return Err(Reject::Invalid("the line does not end with the record")),
    };
    reach.check_size(end - offset)?;
    let (Some(key), Some(value), Some(time)) = (members.key, members.value, members.timestamp)
    else {
        return Err(Reject::Invalid("a member of the record is missing"));
    };
    let key = match key {
        Text::Whole(key) => key,
        Text::TooLong => return Err(Reject::Unusable { end, reason: KEY_TOO_LARGE }),
        Text::Surrogate => {
            let reason = "the key has half of a surrogate pair, so it can't be UTF-8";
            return Err(Reject::Unusable { end, reason });
        }
    };
    record(end, key, Some(value).filter(|_| !members.deleted), time)
}

/// The members of a line.
#[derive(Debug, Default)]
struct LineMembers {
    key: Option<Text>,
    value: Option<Range<u64>>,
    timestamp: Option<u64>,
    deleted: bool,
    end: u64,
}

impl LineMembers {
    fn read(cursor: &mut JsonCursor<'_>) -> Decoded<Self> {
        let mut members = Self::default();
        cursor.expect(b'{')?;
        loop {
            cursor.skip_spaces()?;
            let name = cursor.string(LINE_START.len() + 8)?;
            cursor.skip_spaces()?;
            cursor.expect(b':')?;
            cursor.skip_spaces()?;
            let Text::Whole(name) = name else {
                return Err(Reject::Invalid("not a record of pybitcask"));
            };
            match name.as_slice() {
                b"key" if members.key.is_none() => members.key = Some(cursor.string(KEY_LEN_MAX)?),
                b"value" if members.value.is_none() => {
                    let start = cursor.offset;
                    cursor.skip_value()?;
                    members.value = Some(start..cursor.offset);
                }
                b"timestamp" if members.timestamp.is_none() => {
                    members.timestamp = Some(cursor.integer()?);
                }
                b"deleted" => members.deleted = cursor.boolean()?,
                _ => return Err(Reject::Invalid("not a record of pybitcask")),
            }
            cursor.skip_spaces()?;
            if !cursor.skip(b',')? {
                break;
            }
        }
        cursor.expect(b'}')?;
        members.end = cursor.offset;
        Ok(members)
    }
}
