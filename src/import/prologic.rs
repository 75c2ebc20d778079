//! The format of prologic's bitcask for Go: `NNNNNNNNN.data`, records back to back.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | size of the key |
//! | 4 | 8 | size of the value |
//! | 12 | | key, then value |
//! | .. | 4 | CRC-32 of the value |
//! | .. | 8 | expiry in seconds since the epoch, or 0; version 0 lacks it |
//!
//! - An empty value is a delete.
//! - The last record of a key is the newest.
//! - The checksum covers neither the key nor the expiry, and nothing at all of a delete. So it is
//!   also checked that no other record begins within the end of a record.
//! - `index`, `ttl_index`, `config.json` and `meta.json` hold nothing about the pairs that the data
//!   files do not, and are not read.
//! - The fork `octu0/bitcaskdb` stores checksum and expiry before the key, and names its later
//!   files by two hexadecimal numbers. It is recognized and rejected.

use std::ops::{ControlFlow, Range};

use super::format::{
    CUT_OFF, Decoded, KEY_SIZE_MAX, KEY_TOO_LARGE, Reach, Record, Reject, SourceFormat, end_of,
    found, number_in,
};
use super::source::{SourceEntry, SourceFile, WINDOW};
use crate::error::{Error, Result};

const HEADER_SIZE: usize = 12;
const CRC_SIZE: u64 = 4;
const EXPIRY_SIZE: u64 = 8;

/// Lowest number that is not an expiry, in 2106. In a file of version 0 the next record lies where
/// the expiry would be, and its key size, which is not zero, makes the number at least this large.
const EXPIRY_LIMIT: u64 = 1 << 32;

/// The same once the version is known, in 2514. A later record, or the end of the file, then has to
/// follow.
const FAR_EXPIRY_LIMIT: u64 = 1 << 34;

/// The reason for a record whose expiry is too large.
const NO_TIME: &str = "the expiry is not a time";

const FORK: &str = "it is a file of octu0/bitcaskdb, a fork whose records have checksum and expiry \
    before the key; read the pairs with that program, and put them into the store";

#[derive(Debug)]
pub(super) struct Prologic {
    /// Whether records have an expiry: version 1.
    has_expiry: bool,
    /// What a file has suggested in which that was not certain.
    guess: Option<bool>,
    /// Lowest number that is not the expiry of a record that follows another one.
    expiry_limit: u64,
}

impl Default for Prologic {
    fn default() -> Self {
        Self { has_expiry: true, guess: None, expiry_limit: EXPIRY_LIMIT }
    }
}

impl SourceFormat for Prologic {
    fn file_name(&self) -> &'static str {
        "NNNNNNNNN.data"
    }

    fn file_number(&self, name: &str) -> Option<u64> {
        // The names of the fork count too, so that `examine` can say what they are.
        number_in(name, "", ".data").or_else(|| is_name_of_fork(name).then_some(u64::MAX))
    }

    fn examine(&mut self, entry: &SourceEntry, file: &mut SourceFile) -> Result<ControlFlow<()>> {
        self.expiry_limit = EXPIRY_LIMIT;
        let flow = self.find_version(entry, file)?;
        self.expiry_limit = if self.has_expiry { FAR_EXPIRY_LIMIT } else { EXPIRY_LIMIT };
        Ok(flow)
    }

    fn record(&self, file: &mut SourceFile, offset: u64, reach: Reach) -> Decoded<Record> {
        let framed = self.frame(file, offset, reach)?;
        let is_followed = self.is_followed(file, framed.end)?;
        if !is_followed && framed.expires.is_some_and(|expires| expires >= EXPIRY_LIMIT) {
            return Err(Reject::Invalid(NO_TIME));
        }
        if !is_followed {
            let is_delete = framed.value.is_empty();
            if reach == Reach::Search && is_delete {
                return Err(Reject::Invalid("a delete that no record follows"));
            }
            // The checksum of a value confirms everything before it.
            let unconfirmed = if is_delete { offset + 1 } else { framed.value.end };
            if self.begins_within(file, unconfirmed..framed.end)? {
                return Err(Reject::Invalid("another record begins within it"));
            }
        }
        let (key_start, key_end) = (offset + HEADER_SIZE as u64, framed.value.start);
        if key_end - key_start > KEY_SIZE_MAX {
            return Err(Reject::Unusable { end: framed.end, reason: KEY_TOO_LARGE });
        }
        let key_size = usize::try_from(key_end - key_start).unwrap_or(WINDOW);
        let key = file.bytes(key_start, key_size)?.to_vec();
        let value = Some(framed.value).filter(|value| !value.is_empty());
        Ok(Record { end: framed.end, key, value, time: 0, expires: framed.expires })
    }

    fn claimed_end(&self, file: &mut SourceFile, offset: u64) -> Result<Option<u64>> {
        let Some([key, value]) = found(sizes(file, offset))? else { return Ok(None) };
        let size = key.checked_add(value).and_then(|size| size.checked_add(HEADER_SIZE as u64));
        let size = size.and_then(|size| size.checked_add(self.trailer_size()));
        Ok(size.and_then(|size| offset.checked_add(size)))
    }

    fn ends_at(&self, file: &mut SourceFile, offset: u64, end: u64) -> Result<bool> {
        let Some([key_size, value_size]) = found(sizes(file, offset))? else { return Ok(false) };
        let key_start = offset + HEADER_SIZE as u64;
        let Some(value_end) = end.checked_sub(self.trailer_size()) else { return Ok(false) };
        let crc = file.array(value_end)?.map(u32::from_be_bytes);
        // Either size may be the wrong one.
        let starts = [key_start.checked_add(key_size), value_end.checked_sub(value_size)];
        for start in starts.into_iter().flatten() {
            let is_within = (key_start + 1..=value_end).contains(&start);
            if is_within && crc.is_some() && file.crc(start..value_end)? == crc {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The parts of a record whose sizes, checksum and expiry are plausible.
#[derive(Debug)]
struct Parts {
    value: Range<u64>,
    expires: Option<u64>,
    end: u64,
}

impl Prologic {
    /// Finds out which version the records have, from the beginning of a file.
    fn find_version(
        &mut self,
        entry: &SourceEntry,
        file: &mut SourceFile,
    ) -> Result<ControlFlow<()>> {
        let name = entry.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if is_name_of_fork(name) {
            return Err(Error::InvalidSource { path: entry.path.clone(), reason: FORK.into() });
        }
        let mut guess = None;
        for has_expiry in [true, false] {
            self.has_expiry = has_expiry;
            let Some(first) = found(self.frame(file, 0, Reach::Next))? else { continue };
            // Two records and what follows: if the first one has lost its expiry, then the second
            // one looks like version 0 too, but nothing follows it.
            if let Some(second) = found(self.frame(file, first.end, Reach::Next))?
                && (has_expiry || self.is_followed(file, second.end)?)
            {
                return Ok(ControlFlow::Break(()));
            }
            // A record of version 1 without its expiry looks like one of version 0 at the end of
            // the file. If no other file is more certain, that is what it is taken for.
            if has_expiry || first.end == file.size() {
                guess = guess.or(Some(has_expiry));
            }
        }
        self.guess = self.guess.or(guess);
        self.has_expiry = self.guess.unwrap_or(true);
        if self.guess.is_some() {
            return Ok(ControlFlow::Continue(()));
        }
        if found(record_of_fork(file))?.is_some() {
            return Err(Error::InvalidSource { path: entry.path.clone(), reason: FORK.into() });
        }
        Ok(ControlFlow::Continue(()))
    }

    fn trailer_size(&self) -> u64 {
        if self.has_expiry { CRC_SIZE + EXPIRY_SIZE } else { CRC_SIZE }
    }

    fn frame(&self, file: &mut SourceFile, offset: u64, reach: Reach) -> Decoded<Parts> {
        let [key_size, value_size] = sizes(file, offset)?;
        let value_start = end_of(file, offset + HEADER_SIZE as u64, key_size)?;
        let value_end = end_of(file, value_start, value_size)?;
        let end = end_of(file, value_end, self.trailer_size())?;
        reach.check_size(value_end - offset)?;
        let crc = file.array(value_end)?.map(u32::from_be_bytes);
        if crc.is_none() || file.crc(value_start..value_end)? != crc {
            return Err(Reject::Invalid("the checksum does not match"));
        }
        let expiry = if self.has_expiry { file.array(value_end + CRC_SIZE)? } else { Some([0; 8]) };
        let limit = if reach == Reach::Search { EXPIRY_LIMIT } else { self.expiry_limit };
        match expiry.map(u64::from_be_bytes) {
            Some(expiry) if expiry < limit => {
                let expires = (expiry > 0).then_some(expiry);
                Ok(Parts { value: value_start..value_end, expires, end })
            }
            _ => Err(Reject::Invalid(NO_TIME)),
        }
    }

    /// Returns whether a record ends where another one begins, or where the file ends.
    fn is_followed(&self, file: &mut SourceFile, end: u64) -> Result<bool> {
        Ok(end == file.size() || found(self.frame(file, end, Reach::Next))?.is_some())
    }

    /// Returns whether a record begins in a range. The record before it is then cut off, or its
    /// sizes are wrong.
    fn begins_within(&self, file: &mut SourceFile, range: Range<u64>) -> Result<bool> {
        file.begin_search();
        for offset in range {
            if file.is_exhausted() || found(self.frame(file, offset, Reach::Search))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Returns the sizes of the key and the value of the record at an offset.
fn sizes(file: &mut SourceFile, offset: u64) -> Decoded<[u64; 2]> {
    let Some(header) = file.array::<HEADER_SIZE>(offset)? else {
        return Err(Reject::Invalid(CUT_OFF));
    };
    let [k0, k1, k2, k3, value @ ..] = header;
    let key_size = u64::from(u32::from_be_bytes([k0, k1, k2, k3]));
    if key_size == 0 {
        return Err(Reject::Invalid("the key is empty"));
    }
    Ok([key_size, u64::from_be_bytes(value)])
}

/// Returns whether a file's name is `TIME-RANDOM.data`, 16 hexadecimal digits each.
fn is_name_of_fork(name: &str) -> bool {
    let numbers = name.strip_suffix(".data").and_then(|stem| stem.split_once('-'));
    let is_number =
        |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    numbers.is_some_and(|(time, random)| is_number(time) && is_number(random))
}

/// Reads the first record of a file as one of the fork.
fn record_of_fork(file: &mut SourceFile) -> Decoded<()> {
    let [key_size, value_size] = sizes(file, 0)?;
    let key_start = HEADER_SIZE as u64 + CRC_SIZE + EXPIRY_SIZE;
    let value_start = end_of(file, key_start, key_size)?;
    let end = end_of(file, value_start, value_size)?;
    let crc = file.array(HEADER_SIZE as u64)?.map(u32::from_be_bytes);
    if value_size == 0 || file.crc(value_start..end)? != crc {
        return Err(Reject::Invalid("the checksum does not match"));
    }
    Ok(())
}
