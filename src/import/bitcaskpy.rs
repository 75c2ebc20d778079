//! The format of bitcaskpy: `segment_N.log`, records back to back.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | timestamp: seconds since the epoch, a float |
//! | 8 | 4 | code points in the key |
//! | 12 | 4 | code points in the value |
//! | 16 | 1 | 1 for a delete, else 0 |
//! | 17 | | key, then value: UTF-8 |
//!
//! - The sizes count code points, although bitcaskpy itself reads as many bytes. So it can't read
//!   a record that is not ASCII, nor what follows it. Here both are read.
//! - There is no checksum. A record counts only if another one follows it, or the end of the file.
//! - The last record of a key is the newest. `.hint` and `.index` may be wrong and are not read.

use super::format::{
    CUT_OFF, Decoded, KEY_SIZE_MAX, KEY_TOO_LARGE, Reach, Record, Reject, SourceFormat, end_of,
    found, number_in,
};
use super::source::{SourceFile, WINDOW};
use crate::error::Result;

const HEADER_SIZE: usize = 17;

/// Largest number of bytes of one code point.
const CHAR_SIZE_MAX: usize = 4;

/// The range of timestamps that a search after damage looks for: from 2001 to 2106.
const SEARCHED_TIMES: std::ops::Range<f64> = 1e9..4.3e9;

/// The earliest time that confirms anything, in seconds: a microsecond after the epoch.
const TIME_MIN: f64 = 1e-6;

/// Two records that follow one another are at most this many seconds apart, unless the clock was
/// set in between: ten years.
const APART_MAX: f64 = 315_576_000.0;

#[derive(Debug)]
pub(super) struct Bitcaskpy;

/// The parts of a record.
#[derive(Debug)]
struct Framed {
    timestamp: f64,
    is_delete: bool,
    key_end: u64,
    end: u64,
}

impl SourceFormat for Bitcaskpy {
    fn file_name(&self) -> &'static str {
        "segment_N.log"
    }

    fn file_number(&self, name: &str) -> Option<u64> {
        number_in(name, "segment_", ".log")
    }

    fn record(&self, file: &mut SourceFile, offset: u64, reach: Reach) -> Decoded<Record> {
        let framed = frame(file, offset, reach)?;
        // A crash may have left zeros. They would be the put of an empty value under an empty key.
        let is_zeros = framed.timestamp == 0.0 && framed.end == offset + HEADER_SIZE as u64;
        let is_time = match reach {
            // What comes before it has vouched for the place. A clock may show anything.
            Reach::Next => (0.0..SEARCHED_TIMES.end).contains(&framed.timestamp),
            Reach::Search => SEARCHED_TIMES.contains(&framed.timestamp),
        };
        if !is_time || is_zeros {
            return Err(Reject::Invalid("the timestamp is not a time"));
        }
        if !is_followed(file, framed.end, framed.timestamp)? {
            return Err(Reject::Invalid("no record follows, so its sizes may be wrong"));
        }
        let key_start = offset + HEADER_SIZE as u64;
        let key_size = framed.key_end - key_start;
        if key_size > KEY_SIZE_MAX {
            return Err(Reject::Unusable { end: framed.end, reason: KEY_TOO_LARGE });
        }
        let key = file.bytes(key_start, usize::try_from(key_size).unwrap_or(WINDOW))?.to_vec();
        let value = (!framed.is_delete).then_some(framed.key_end..framed.end);
        Ok(Record { end: framed.end, key, value, time: 0, expires: None })
    }
}

/// Reads the header and finds the ends of key and value.
fn frame(file: &mut SourceFile, offset: u64, reach: Reach) -> Decoded<Framed> {
    let header = file.array::<HEADER_SIZE>(offset)?;
    let Some([t0, t1, t2, t3, t4, t5, t6, t7, k0, k1, k2, k3, v0, v1, v2, v3, tombstone]) = header
    else {
        return Err(Reject::Invalid(CUT_OFF));
    };
    let key_len = u64::from(u32::from_be_bytes([k0, k1, k2, k3]));
    let value_len = u64::from(u32::from_be_bytes([v0, v1, v2, v3]));
    if tombstone > 1 || (tombstone == 1 && value_len > 0) {
        return Err(Reject::Invalid("the delete flag is neither 0 nor 1, or a delete has a value"));
    }
    // A code point takes at least one byte.
    let start = offset + HEADER_SIZE as u64;
    end_of(file, start, key_len + value_len)?;
    reach.check_size(key_len + value_len)?;
    let key_end = skip_chars(file, start, key_len)?;
    let end = skip_chars(file, key_end, value_len)?;
    let timestamp = f64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
    Ok(Framed { timestamp, is_delete: tombstone == 1, key_end, end })
}

/// Returns the offset after a number of code points.
fn skip_chars(file: &mut SourceFile, start: u64, count: u64) -> Decoded<u64> {
    let (mut offset, mut left) = (start, count);
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(WINDOW).saturating_mul(CHAR_SIZE_MAX);
        let bytes = file.bytes(offset, wanted)?;
        let valid = bytes.utf8_chunks().next().map(|chunk| chunk.valid()).unwrap_or_default();
        if valid.is_empty() {
            let is_cut = bytes.len() < CHAR_SIZE_MAX;
            let reason = if is_cut { CUT_OFF } else { "the key or the value is not UTF-8" };
            return Err(Reject::Invalid(reason));
        }
        let len = valid.chars().count() as u64;
        if len >= left {
            let skipped = valid.char_indices().nth(usize::try_from(left).unwrap_or(usize::MAX));
            let size = skipped.map_or(valid.len(), |(at, _)| at);
            return Ok(offset + size as u64);
        }
        left -= len;
        offset += valid.len() as u64;
    }
    Ok(offset)
}

/// Returns whether a number is a time that a clock may have shown. Sizes and text that are read as
/// a float are often tiny numbers.
fn is_time(timestamp: f64) -> bool {
    (TIME_MIN..SEARCHED_TIMES.end).contains(&timestamp)
}

/// Returns whether the end of a record is confirmed by what lies there: the end of the file, the
/// time of another record, zeros, a whole record whose time alone is damaged, or a whole record
/// from which on the clock shows another time.
fn is_followed(file: &mut SourceFile, end: u64, timestamp: f64) -> Result<bool> {
    if is_end_or_time(file, end, timestamp)? {
        return Ok(true);
    }
    // A crash may have left zeros, which would be a valid frame.
    if file.bytes(end, HEADER_SIZE)?.iter().all(|byte| *byte == 0) {
        return Ok(true);
    }
    if let Some(next) = found(frame(file, end, Reach::Search))? {
        return Ok(is_end_or_time(file, next.end, timestamp)?
            || is_time(next.timestamp) && is_end_or_time(file, next.end, next.timestamp)?);
    }
    // A crash may have cut the next record after its first byte. A later record then follows that
    // byte.
    let first = timestamp.to_be_bytes().first().copied();
    let is_cut = file.byte(end)? == first && is_near(time_at(file, end + 1)?, timestamp);
    Ok(is_cut && found(frame(file, end + 1, Reach::Search))?.is_some())
}

/// Returns whether a file ends at an offset, or a header begins there.
fn is_end_or_time(file: &mut SourceFile, offset: u64, timestamp: f64) -> Result<bool> {
    let own = timestamp.to_be_bytes();
    let bytes = file.bytes(offset, 8)?;
    if bytes.len() == 8 {
        return Ok(is_near(time_at(file, offset)?, timestamp));
    }
    // The file ends within the header. The upper half of the second byte belongs to the exponent.
    let is_same = |(at, (a, b)): (usize, (&u8, &u8))| match at {
        0 => a == b,
        1 => a >> 4 == b >> 4,
        _ => true,
    };
    Ok(bytes.iter().zip(&own).enumerate().all(is_same))
}

fn time_at(file: &mut SourceFile, offset: u64) -> Result<Option<f64>> {
    Ok(file.array::<8>(offset)?.map(f64::from_be_bytes))
}

fn is_near(time: Option<f64>, other: f64) -> bool {
    time.is_some_and(|time| is_time(time) && (time - other).abs() <= APART_MAX)
}
