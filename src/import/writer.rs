//! Writes the newest records of another store in batches.
//!
//! - A pair that the store already has, with the same value and the same expiry, is not written
//!   again.
//! - An error of the store ends the import. A pair that is too large for it is skipped.

use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use super::driver::{Reporter, SourceStore};
use super::format::{Reach, Reject};
use super::report::{ImportReport, Skipped};
use super::source::SourceFile;
use crate::error::{Error, Result};
use crate::options::WriteOptions;
use crate::store::{Batch, Bitcask, Ttl};

/// Size of a batch in bytes at which it is written. A larger pair is written by itself.
const BATCH_SIZE: u64 = 1 << 20;

/// Number of pairs in a batch at which it is written.
const BATCH_LEN: usize = 1000;

/// How much two equal expiries may seem to differ. Those of other systems are whole seconds.
const SLACK: Duration = Duration::from_millis(400);

const CHANGED: &str = "the record was there at first and is not any more: something writes to the \
    other store; stop it and run the import again";

/// Pairs on their way into the store.
pub(super) struct Importing<'a, 'b> {
    source: &'a SourceStore<'a>,
    to: &'a Bitcask,
    overwrite: bool,
    progress: &'a mut Reporter<'b>,
    report: &'a mut ImportReport,
    batch: Batch,
    /// The places of the batch's pairs in the source.
    places: Vec<u64>,
    /// Total size of the batch's keys and values.
    size: u64,
    /// The file that was read last, and where it begins.
    file: Option<(u64, SourceFile)>,
}

/// A pair of the source.
struct ImportedPair {
    key: Vec<u8>,
    value: Vec<u8>,
    expires: Option<SystemTime>,
}

impl ImportedPair {
    fn size(&self) -> u64 {
        (self.key.len() + self.value.len()) as u64
    }

    /// Returns options that set exactly this expiry. The store's default must not take its place.
    fn options(&self) -> WriteOptions {
        match self.expires {
            Some(time) => WriteOptions::new().expires_at(time),
            None => WriteOptions::new().ttl(Duration::MAX),
        }
    }
}

/// How the store compares with a pair of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Absent,
    Same,
    Other,
}

impl<'a, 'b> Importing<'a, 'b> {
    pub(super) fn new(
        source: &'a SourceStore<'a>,
        to: &'a Bitcask,
        overwrite: bool,
        progress: &'a mut Reporter<'b>,
        report: &'a mut ImportReport,
    ) -> Self {
        let (batch, places, file) = (Batch::new(), Vec::new(), None);
        Self { source, to, overwrite, progress, report, batch, places, size: 0, file }
    }

    /// Writes the pairs at these places, which rise.
    pub(super) fn write(mut self, places: &[u64]) -> Result<ControlFlow<()>> {
        for place in places {
            let flow = self.progress.reach(*place, self.report);
            if flow.is_break() {
                let _ = self.flush()?;
                return Ok(flow);
            }
            if let Some(pair) = self.read(*place)? {
                self.add(*place, &pair)?;
            }
            if (self.batch.size() >= BATCH_SIZE || self.batch.len() >= BATCH_LEN)
                && self.flush()?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.flush()
    }

    /// Reads the pair at a place. Returns `None` if it is skipped.
    fn read(&mut self, place: u64) -> Result<Option<ImportedPair>> {
        let Some(entry) = self.source.entry_at(place) else { return Ok(None) };
        if self.file.as_ref().is_none_or(|(start, _)| *start != entry.start) {
            self.file = Some((entry.start, SourceFile::open(self.source.fs, entry)?));
        }
        let Some((_, file)) = &mut self.file else { return Ok(None) };
        let record = match self.source.format.record(file, place - entry.start, Reach::Next) {
            Ok(record) => record,
            Err(Reject::Failed(error)) => return Err(error),
            Err(_) => {
                self.skip(place, 0, CHANGED);
                return Ok(None);
            }
        };
        let expires = record.expires.map(Duration::from_secs);
        let expires = expires.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
        if expires.is_some_and(|time| time <= SystemTime::now()) {
            self.report.expired += 1;
            return Ok(None);
        }
        let value = match record.value {
            Some(range) => self.source.format.value(file, range)?,
            None => None,
        };
        let Some(value) = value else {
            self.skip(place, 0, CHANGED);
            return Ok(None);
        };
        Ok(Some(ImportedPair { key: record.key, value, expires }))
    }

    /// Writes a pair, or adds it to the batch, unless the store has it already.
    fn add(&mut self, place: u64, pair: &ImportedPair) -> Result<()> {
        match self.compare(pair)? {
            Comparison::Same => self.report.unchanged += 1,
            Comparison::Other if !self.overwrite => self.report.kept += 1,
            _ if pair.size() >= BATCH_SIZE => self.put(place, pair)?,
            _ => {
                self.batch.put_opt(&pair.key, &pair.value, pair.options());
                self.places.push(place);
                self.size += pair.size();
            }
        }
        Ok(())
    }

    fn compare(&self, pair: &ImportedPair) -> Result<Comparison> {
        let before = SystemTime::now();
        let same = self.to.get_with(&pair.key, |value| value == pair.value)?;
        let Some(same) = same else { return Ok(Comparison::Absent) };
        let same_expiry = match (self.to.ttl(&pair.key)?, pair.expires) {
            (None, _) => return Ok(Comparison::Absent),
            (Some(Ttl::Never), None) => true,
            (Some(Ttl::In(left)), Some(expires)) => {
                // The moment of the look-up lies between two readings of the clock.
                let earliest = before.checked_sub(SLACK).and_then(|time| time.checked_add(left));
                let latest = SystemTime::now().checked_add(left + SLACK);
                earliest.is_some_and(|earliest| earliest <= expires)
                    && latest.is_some_and(|latest| expires <= latest)
            }
            _ => false,
        };
        Ok(if same && same_expiry { Comparison::Same } else { Comparison::Other })
    }

    /// Writes one pair by itself.
    fn put(&mut self, place: u64, pair: &ImportedPair) -> Result<()> {
        match self.to.put_opt(&pair.key, &pair.value, pair.options()) {
            Ok(()) => {
                self.report.written += 1;
                self.report.written_size += pair.size();
                Ok(())
            }
            Err(error @ (Error::KeyTooLarge { .. } | Error::ValueTooLarge { .. })) => {
                self.skip(place, pair.size(), &format!("the store does not accept it: {error}"));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the batch, and reports the progress.
    fn flush(&mut self) -> Result<ControlFlow<()>> {
        if self.batch.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        match self.to.write(&self.batch) {
            Ok(()) => {
                self.report.written += self.batch.len() as u64;
                self.report.written_size += self.size;
            }
            Err(Error::KeyTooLarge { .. } | Error::ValueTooLarge { .. }) => self.put_each()?,
            Err(error) => return Err(error),
        }
        self.batch.clear();
        self.places.clear();
        self.size = 0;
        Ok(self.progress.call(self.report))
    }

    /// Writes the pairs of a batch one by one, because the store does not accept all of them.
    fn put_each(&mut self) -> Result<()> {
        for place in std::mem::take(&mut self.places) {
            if let Some(pair) = self.read(place)? {
                self.put(place, &pair)?;
            }
        }
        Ok(())
    }

    fn skip(&mut self, place: u64, size: u64, reason: &str) {
        if let Some(entry) = self.source.entry_at(place) {
            let (path, offset) = (entry.path.clone(), place - entry.start);
            self.report.skip(Skipped { path, offset, size, reason: reason.into() });
        }
    }
}
