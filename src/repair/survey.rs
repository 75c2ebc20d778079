//! Which parts of a segment are valid, and which are not.
//!
//! - Bytes after the last entry of an unsealed segment are not damage, since the log may end there.
//!   They are *torn*. If they hold the end of a batch, that batch was never acknowledged and is
//!   torn too.
//! - Memory is needed for the lists of lost bytes and of the runs between them, and for a hint if
//!   one is built.

use std::ops::{ControlFlow, Range};

use super::plan::RepairSubject;
use crate::entry::Invalid;
use crate::error::Result;
use crate::fs::{File, is_failed_read};
use crate::key_hash::KeyHash;
use crate::segment::hint::HintBuilder;
use crate::segment::read::resync::{LostBytes, ResyncItem, ResyncWalk};
use crate::segment::read::scan::{Scanned, end_of_content, too_short};
use crate::segment::{FIRST_OFFSET, SegmentId};

/// Bytes between two reports of the progress, roughly.
pub(super) const PROGRESS_STEP: u64 = if cfg!(test) { 128 } else { 1 << 20 };

/// The hash of keys with which hints are built.
pub(super) type Hash<'a> = &'a dyn Fn(&[u8]) -> KeyHash;

/// What a segment holds.
#[derive(Debug, Default)]
pub(super) struct SegmentSurvey {
    /// Ranges in which entries follow each other without a gap.
    pub(super) runs: Vec<Range<u64>>,
    /// Puts and deletes in these ranges.
    pub(super) entries: u64,
    pub(super) tombstones: u64,
    /// The highest timestamp of all entries, including end entries and entries that only carry a
    /// mark. Zero without entries.
    pub(super) last_timestamp: u64,
    /// Bytes that were valid once and are not any more.
    pub(super) lost: Vec<LostBytes>,
    /// Set if an unsealed segment ends in anything but zeros or an end entry.
    pub(super) torn: Option<LostBytes>,
    /// The starts of batches that have lost a part.
    pub(super) torn_batches: Vec<u64>,
    /// The offset of the first entry that this build does not support, what it does not support,
    /// and the number of such entries.
    pub(super) strange: Option<(u64, Invalid, u64)>,
    /// The segment that the end entry names.
    pub(super) next: Option<SegmentId>,
    pub(super) hint: Option<HintBuilder>,
    pub(super) cancelled: bool,
}

/// Reads a segment. If `hash` is given, builds its hint.
pub(super) fn survey(
    file: &File,
    subject: &RepairSubject,
    latest: u64,
    hash: Option<Hash<'_>>,
    mut progress: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<SegmentSurvey> {
    let mut survey =
        SegmentSurvey { hint: hash.map(|_| HintBuilder::default()), ..SegmentSurvey::default() };
    let (size, sealed) = (file.size()?, subject.sealed);
    let end = match sealed {
        Some(length) => length,
        None => readable_end(file, size)?,
    };
    let mut walk =
        ResyncWalk::new(file, subject.id, FIRST_OFFSET..end, sealed.unwrap_or(size), latest)?;
    let (mut batch, mut reported) = (None, 0);
    loop {
        let offset = walk.offset();
        match walk.next()? {
            None => break,
            Some(ResyncItem::Entry(entry)) => survey.add(&entry, &mut batch, hash),
            Some(ResyncItem::Strange(entry, invalid)) => {
                survey.note_time(entry.header.timestamp);
                survey.strange.get_or_insert((offset, invalid, 0)).2 += 1;
                // The key can be read unless an unknown flag says something about it.
                if matches!(invalid, Invalid::UnknownCodec(_)) {
                    survey.add(&entry, &mut batch, hash);
                }
            }
            Some(ResyncItem::End { next, timestamp }) => {
                survey.next = Some(next);
                survey.note_time(timestamp);
                survey.hint.iter_mut().for_each(|hint| hint.end(timestamp));
            }
            Some(ResyncItem::Lost(lost)) if sealed.is_none() && lost.bytes.end >= end => {
                survey.tear(lost.bytes, lost.reason, batch.take().as_ref());
            }
            Some(ResyncItem::Lost(lost)) => {
                survey.torn_batches.extend(batch.take().map(|batch: OpenBatch| batch.start));
                survey.lost.push(lost);
            }
        }
        if walk.offset() - reported >= PROGRESS_STEP {
            reported = walk.offset();
            if progress(reported).is_break() {
                survey.cancelled = true;
                return Ok(survey);
            }
        }
    }
    survey.end(batch.as_ref(), sealed, end, size);
    Ok(survey)
}

/// A batch that is being read: its start, and the counts before it.
struct OpenBatch {
    start: u64,
    entries: u64,
    tombstones: u64,
}

impl SegmentSurvey {
    fn note_time(&mut self, timestamp: u64) {
        self.last_timestamp = self.last_timestamp.max(timestamp);
    }

    fn add(&mut self, entry: &Scanned<'_>, batch: &mut Option<OpenBatch>, hash: Option<Hash<'_>>) {
        let (start, header) = (entry.offset, &entry.header);
        let before = OpenBatch { start, entries: self.entries, tombstones: self.tombstones };
        *batch = entry.continues().then(|| batch.take().unwrap_or(before));
        self.note_time(header.timestamp);
        self.entries += u64::from(header.is_put_or_delete());
        self.tombstones += u64::from(header.is_tombstone());
        if let (Some(hint), Some(hash)) = (&mut self.hint, hash) {
            hint.add(entry, hash);
        }
        let end = start + header.entry_size();
        match self.runs.last_mut() {
            Some(run) if run.end == start => run.end = end,
            _ => self.runs.push(start..end),
        }
    }

    /// Ends an unsealed segment before bytes that are not an entry, and before the batch to which
    /// they belong.
    fn tear(&mut self, bytes: Range<u64>, reason: String, batch: Option<&OpenBatch>) {
        let Some(&OpenBatch { start, entries, tombstones }) = batch else {
            self.torn = Some(LostBytes { bytes, reason });
            return;
        };
        (self.entries, self.tombstones) = (entries, tombstones);
        self.runs.retain(|run| run.start < start);
        self.runs.iter_mut().for_each(|run| run.end = run.end.min(start));
        let reason = "the batch that starts here has no end".to_owned();
        self.torn = Some(LostBytes { bytes: start..bytes.end, reason });
    }

    fn end(&mut self, batch: Option<&OpenBatch>, sealed: Option<u64>, end: u64, size: u64) {
        if sealed.is_none() {
            if batch.is_some() {
                self.tear(end..end, String::new(), batch);
            }
            return;
        }
        let is_lost = self.lost.last().is_some_and(|lost| lost.bytes.end == end);
        let mut add_lost = |bytes, reason: String| self.lost.push(LostBytes { bytes, reason });
        if size < end && !is_lost {
            // Only padding is missing, but a mapping of the file needs it.
            add_lost(size..end, too_short(end));
        }
        if let Some(OpenBatch { start, .. }) = batch {
            add_lost(end..end, "the segment ends within a batch".to_owned());
            self.torn_batches.push(*start);
        }
    }
}

/// Returns where the content of an unsealed file ends, as far as that can be read.
fn readable_end(file: &File, size: u64) -> Result<u64> {
    match end_of_content(file, FIRST_OFFSET) {
        Err(error) if is_failed_read(&error) => Ok(size),
        other => other,
    }
}
