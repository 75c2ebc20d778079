//! Verification: reads and checks everything in the store, concurrently with writers.
//!
//! - Reads with `pread`, so a bad sector is a finding and not a signal. Changes nothing, holds
//!   locks only briefly, and none while the caller's closure runs.
//! - The keydir is compared by sizes. Between two writes, a segment's live size is the total size
//!   of its entries that slots name; while nothing is appended, it can only fall. So the size of
//!   the named entries that a scan finds lies between the live sizes before and after, unless a
//!   slot names a wrong place.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fs;
use crate::keydir::Address;
use crate::manifest::Manifest;
use crate::segment::header::{Kind, SegmentHeader};
use crate::segment::read::scan::{self, Scanned};
use crate::segment::{FIRST_OFFSET, Segment, SegmentId, open_listed};
use crate::store::{Inner, Reader, Role};

/// Number of bytes read between two progress reports, approximately.
const PROGRESS_STEP: u64 = if cfg!(any(test, bitcask_fuzzing)) { 128 } else { 1 << 20 };

/// The result of a verification, from [`Reader::verify`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "the report may contain damage"]
pub struct VerifyReport {
    /// Number of segments that were read to their ends, or to the first damage in them.
    pub segments: u64,
    /// Number of valid puts and deletes in them.
    pub entries: u64,
    /// Number of deletes among them.
    pub tombstones: u64,
    /// Number of entries among them that are the newest of their keys.
    pub live_entries: u64,
    /// Size in bytes of what is valid: headers and entries.
    pub size: u64,
    /// The damage, segment by segment.
    pub damage: Vec<Damage>,
    /// Whether the progress callback has stopped the verification early. The report then covers
    /// only what was read.
    pub cancelled: bool,
}

impl VerifyReport {
    /// Returns whether everything was read and is valid.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty() && !self.cancelled
    }
}

/// Damage: something in a store differs from what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The damaged file.
    pub path: PathBuf,
    /// Offset of the damage in bytes from the start of the file; 0 if it concerns the whole file.
    pub offset: u64,
    /// What is wrong.
    pub reason: String,
}

impl Damage {
    pub(crate) fn new(path: PathBuf, offset: u64, reason: impl Into<String>) -> Self {
        Self { path, offset, reason: reason.into() }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}: {}", self.path.display(), self.offset, self.reason)
    }
}

/// Progress of a verification.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Number of segments verified.
    pub segments_done: u64,
    /// Number of segments at the start.
    pub segments_total: u64,
    /// Number of bytes verified.
    pub size_done: u64,
    /// Number of bytes at the start.
    pub size_total: u64,
}

impl Reader {
    /// Reads and verifies every entry of every segment, and compares the entries with the keydir.
    ///
    /// This reads the whole log as it was at the call, concurrently with readers and writers. Data
    /// in the kernel's cache is read from there. Damage does not stop the verification: it
    /// continues with the next segment. Data after the first damage in a segment is not verified,
    /// because only the preceding entries show where an entry begins. Padding after entries holds
    /// no data and is not checked.
    ///
    /// Segments that [`clear`](crate::Bitcask::clear) or a [`merge`](crate::Bitcask::merge) removes
    /// meanwhile are skipped, and so are the copies that a merge makes meanwhile. In a read-only
    /// store, `verify` waits for a [`refresh`](crate::ReadOnly::refresh) in progress. Once another
    /// refresh has begun, the remaining segments are verified but no longer compared with the
    /// keydir.
    ///
    /// # Errors
    ///
    /// Anything that prevents the verification, such as a shortage of file descriptors. Damage is
    /// not an error: it goes into the report.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("key", "value")?;
    /// db.put("key", "other")?;
    /// let report = db.verify()?;
    /// assert!(report.is_clean());
    /// assert_eq!((report.entries, report.live_entries), (2, 1));
    /// # db.close()
    /// # }
    /// ```
    pub fn verify(&self) -> Result<VerifyReport> {
        self.verify_with(|_| ControlFlow::Continue(()))
    }

    /// Like [`verify`](Self::verify), and reports progress about every MiB and after each segment.
    /// The closure can stop the verification with [`ControlFlow::Break`], and may use the store.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("key", "value")?;
    /// let report = db.verify_with(|progress| {
    ///     println!("{} of {} bytes", progress.size_done, progress.size_total);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert!(report.is_clean());
    /// # db.close()
    /// # }
    /// ```
    pub fn verify_with(
        &self,
        progress: impl FnMut(&VerifyProgress) -> ControlFlow<()>,
    ) -> Result<VerifyReport> {
        self.inner.verify(progress)
    }
}

/// A segment as of the start of the verification.
struct VerifySubject {
    number: u32,
    segment: Arc<Segment>,
    end: u64,
}

impl Inner {
    fn verify(
        &self,
        progress: impl FnMut(&VerifyProgress) -> ControlFlow<()>,
    ) -> Result<VerifyReport> {
        self.here()?;
        let filled = self.filler.fill_all(&self.keydir);
        // A clear may have removed the files, and then nothing is left to fill.
        let unfilled = filled.err().filter(|_| !self.filler.is_done());
        let (subjects, refreshes) = {
            // A refresh makes a batch readable before slots name it.
            let refreshing = self.hold_refresh();
            (self.subjects(), refreshing.map(|state| state.count))
        };
        self.keydir.wait_for_writers();
        let mut verification = Verification {
            inner: self,
            refreshes,
            is_filled: unfilled.is_none(),
            report: VerifyReport::default(),
            reported: VerifyProgress {
                segments_total: subjects.len() as u64,
                size_total: subjects.iter().map(|subject| subject.end).sum(),
                ..VerifyProgress::default()
            },
            progress,
        };
        for subject in &subjects {
            if verification.verify(subject)?.is_break() {
                verification.report.cancelled = true;
                break;
            }
        }
        let mut report = verification.report;
        if let Some(error) = unfilled {
            // The scan has most likely found the same damage.
            let damage = damage(error, 0)?;
            let same =
                |known: &Damage| (&known.path, known.offset) == (&damage.path, damage.offset);
            if !report.damage.iter().any(same) {
                report.damage.push(damage);
            }
        }
        Ok(report)
    }

    /// Returns the segments that belong to the log, oldest id first. The output of a merge does not
    /// belong until it is listed.
    fn subjects(&self) -> Vec<VerifySubject> {
        // In this order: a segment that is sealed in between is in both lists.
        let unsealed = match &self.role {
            Role::Writer(writer) => Some(writer.log.lock().ids()),
            Role::Follower(_) => None,
        };
        let sealed: BTreeSet<SegmentId> =
            self.manifest.get(|manifest| manifest.sealed.iter().map(|sealed| sealed.id).collect());
        let belongs = |id: SegmentId| {
            sealed.contains(&id) || unsealed.as_ref().is_none_or(|unsealed| unsealed.contains(&id))
        };
        let all = self.segments.all().into_iter();
        let subject = |(number, segment): (u32, Arc<Segment>)| {
            let end = segment.size();
            belongs(segment.id()).then_some(VerifySubject { number, segment, end })
        };
        let mut subjects: Vec<VerifySubject> = all.filter_map(subject).collect();
        subjects.sort_by_key(|subject| subject.segment.id());
        subjects
    }

    /// Returns whether a segment has been removed from the log.
    fn is_gone(&self, subject: &VerifySubject) -> Result<bool> {
        let id = subject.segment.id();
        if matches!(self.role, Role::Writer(_)) {
            let same = |other: &VerifySubject| Arc::ptr_eq(&other.segment, &subject.segment);
            return Ok(!self.subjects().iter().any(same));
        }
        // The manifest of the writing process shows it.
        let manifest = Manifest::read(&self.fs, &self.dir)?;
        // The log itself has no merged segments, whatever their ids.
        let is_log = subject.segment.kind() == Kind::Log;
        Ok(manifest.is_some_and(|manifest| {
            !(manifest.lists(id) || is_log && manifest.log_exists && manifest.log <= id)
        }))
    }

    /// Returns whether a slot names the entry.
    fn names(&self, number: u32, entry: &Scanned<'_>) -> bool {
        let here = Address { segment: number, offset: entry.offset };
        self.keydir.names(self.keydir.hash(entry.key), here, &self.pin())
    }
}

/// A verification in progress.
struct Verification<'a, P> {
    inner: &'a Inner,
    /// Number of refreshes of the read-only store that had begun before.
    refreshes: Option<u64>,
    /// Whether the keydir is complete enough to be compared.
    is_filled: bool,
    report: VerifyReport,
    reported: VerifyProgress,
    progress: P,
}

/// Figures of one segment.
#[derive(Default)]
struct Tally {
    entries: u64,
    tombstones: u64,
    live_entries: u64,
    /// Total size of the live entries in bytes.
    live_size: u64,
    /// End of the last valid entry.
    end: u64,
    cancelled: bool,
}

impl<P: FnMut(&VerifyProgress) -> ControlFlow<()>> Verification<'_, P> {
    /// Reads one segment.
    fn verify(&mut self, subject: &VerifySubject) -> Result<ControlFlow<()>> {
        let live_before = subject.segment.live_size();
        let mut tally = Tally::default();
        let scanned = self.scan(subject, &mut tally);
        self.inner.here()?;
        let damage = match scanned {
            Ok(()) if tally.cancelled => None,
            Ok(()) => self.misnamed(subject, live_before, tally.live_size)?,
            Err(error) => Some(damage(error, tally.end)?),
        };
        if damage.is_none() || !self.inner.is_gone(subject)? {
            let report = &mut self.report;
            report.entries += tally.entries;
            report.tombstones += tally.tombstones;
            report.live_entries += tally.live_entries;
            report.size += tally.end;
            report.damage.extend(damage);
            report.segments += u64::from(!tally.cancelled);
        }
        if tally.cancelled {
            return Ok(ControlFlow::Break(()));
        }
        self.reported.segments_done += 1;
        self.reported.size_done += subject.end;
        let flow = (self.progress)(&self.reported);
        self.inner.here()?;
        Ok(flow)
    }

    fn scan(&mut self, subject: &VerifySubject, tally: &mut Tally) -> Result<()> {
        let VerifySubject { number, segment, end } = subject;
        let file = open_listed(&self.inner.fs, segment.path())?;
        SegmentHeader::read(&file, segment.id(), self.inner.identity)?;
        tally.end = FIRST_OFFSET;
        let mut reported = 0;
        scan::try_for_each_sealed(&file, segment.id(), *end, |entry| {
            let header = &entry.header;
            let is_put = header.is_put_or_delete() && !header.is_tombstone();
            tally.entries += u64::from(header.is_put_or_delete());
            tally.tombstones += u64::from(header.is_tombstone());
            if is_put && self.inner.names(*number, &entry) {
                tally.live_entries += 1;
                tally.live_size += header.entry_size();
            }
            tally.end = entry.offset + header.entry_size();
            if tally.end - reported < PROGRESS_STEP {
                return ControlFlow::Continue(());
            }
            reported = tally.end;
            let size_done = self.reported.size_done + reported;
            let flow = (self.progress)(&VerifyProgress { size_done, ..self.reported });
            tally.cancelled = flow.is_break();
            flow
        })?;
        if tally.cancelled {
            return Ok(());
        }
        // Reads do not need the padding of the last entry, but a mapping of the file does.
        let size = file.size()?;
        if size < *end {
            return Err(Error::corrupt(file.path(), size, scan::too_short(*end)));
        }
        // Includes the end entry, which the closure does not see.
        tally.end = *end;
        Ok(())
    }

    /// Compares the total size of the named entries found with the keydir's live size.
    fn misnamed(&self, subject: &VerifySubject, before: u64, found: u64) -> Result<Option<Damage>> {
        let VerifySubject { segment, end, .. } = subject;
        if found < segment.live_size() {
            // Then everything published before the lookups is accounted for too.
            self.inner.keydir.wait_for_writers();
        }
        let after = segment.live_size();
        if !self.is_filled || after <= found && found <= before {
            return Ok(None);
        }
        // This waits for a write that is just appending, so that the size covers all entries that
        // were counted.
        if self.inner.is_gone(subject)? || segment.size() != *end {
            return Ok(None);
        }
        // A refresh that has begun since may have replaced all segments.
        if self.inner.hold_refresh().map(|state| state.count) != self.refreshes {
            return Ok(None);
        }
        let reason = format!(
            "the keydir accounts for {after} live bytes in this segment, but the scan found \
             {found}"
        );
        Ok(Some(Damage { path: segment.path().into(), offset: 0, reason }))
    }
}

/// Turns an error into a finding if it is damage; any other error ends the verification. A failed
/// read is reported at `offset`; the failure lies there or after it.
pub(crate) fn damage(error: Error, offset: u64) -> Result<Damage> {
    let (reason, is_unread) = (error.to_string(), fs::is_failed_read(&error));
    match error {
        Error::Corrupt { path, offset, reason } => Ok(Damage { path, offset, reason }),
        Error::UnsupportedCodec { path, offset, .. }
        | Error::UnsupportedFlags { path, offset, .. } => Ok(Damage { path, offset, reason }),
        Error::MissingSegment { path } => {
            Ok(Damage { path, offset: 0, reason: "the segment is missing".to_owned() })
        }
        Error::UnsupportedVersion { path, .. } | Error::Unfinished { path } => {
            Ok(Damage { path, offset: 0, reason })
        }
        Error::Io { path, .. } if is_unread => Ok(Damage { path, offset, reason }),
        error => Err(error),
    }
}
