//! Sealing: from rotated to sealed.
//!
//! - Segments are sealed strictly in the order of their ids, once everything in them is published:
//!   truncate, sync, hint, directory sync, manifest. A crash in between leaves an unsealed segment,
//!   which the next open seals.

use super::in_flight::{Publisher, await_published};
use super::state::Rotated;
use super::{LogContext, LogWriter};
use crate::error::Result;
use crate::manifest::{Manifest, Sealed};
use crate::mistake::{Mistake, made};
use crate::segment::header::Kind;
use crate::segment::hint::{Hint, HintSource};
use crate::segment::{FIRST_OFFSET, SegmentId};
use crate::trace::{Event, Stage};

impl LogWriter {
    /// Seals the segments rotated by now, oldest first. Segments that writers rotate meanwhile are
    /// left, since writers may be faster.
    pub(crate) fn seal_rotated(&self, publisher: &impl Publisher) -> Result<()> {
        let mut left = self.lock().rotated.len();
        while left > 0 && self.seal_oldest(publisher)? {
            left -= 1;
        }
        Ok(())
    }

    /// Seals the oldest rotated segment. Returns whether there was one.
    pub(crate) fn seal_oldest(&self, publisher: &impl Publisher) -> Result<bool> {
        let trace = &self.context.trace;
        let span = trace.enter_if(Stage::Seal, || !self.lock().rotated.is_empty());
        let sealed = self.seal_oldest_unreported(publisher);
        match &sealed {
            // One without entries is removed instead.
            Ok(Some((segment, size, entries))) if *entries > 0 => {
                let (segment, took) = (segment.0, span.took());
                trace.report(Event::Sealed { segment, size: *size, entries: *entries, took });
            }
            Err(error) if !error.is_poisoned() => trace.report(Event::SealFailed { error }),
            _ => {}
        }
        Ok(sealed?.is_some())
    }

    /// Seals the oldest rotated segment. Returns its id, its size and its number of entries.
    fn seal_oldest_unreported(
        &self,
        publisher: &impl Publisher,
    ) -> Result<Option<(SegmentId, u64, u64)>> {
        let _maintenance = self.lock_maintenance();
        let (oldest, next) = {
            let mut log = self.lock();
            (log.begin_seal(), log.after_oldest())
        };
        let Some(oldest) = oldest else { return Ok(None) };
        let sealed = (oldest.segment.id(), oldest.segment.size(), oldest.entries);
        self.check()?;
        await_published(&oldest.segment, publisher);
        self.seal(oldest, next).map_err(|error| {
            // Any other obstacle, such as a full disk, may be temporary: the segment stays
            // unsealed.
            if error.is_corruption() {
                self.poison(error)
            } else {
                self.poison_if_sync_failed(error)
            }
        })?;
        let mut log = self.lock();
        log.sealed_oldest();
        log.waiters.synced();
        Ok(Some(sealed))
    }

    /// Gives up the hint of the active segment if nothing was appended since the last call.
    pub(crate) fn give_up_idle_hint(&self) {
        self.lock().give_up_idle_hint();
    }

    /// Seals everything, including the active segment. Nothing can be appended afterwards.
    pub(crate) fn seal_all(&self, publisher: &impl Publisher) -> Result<()> {
        self.sync()?;
        let (unused, last_timestamp) = {
            let mut log = self.lock();
            log.stop();
            (log.prepared.take(), log.last_timestamp())
        };
        // A seal that follows also syncs the directory.
        let given_up = unused.map_or(Ok(()), |unused| self.give_up(&unused));
        let sealed = self.seal_rotated(publisher).and(given_up);
        let clock = &self.context.clock;
        if sealed.is_ok() && clock.is_behind(last_timestamp) {
            // The next open continues from this time. Best effort: otherwise it continues from that
            // of the last entry.
            let _ = self.context.manifest.update(|manifest| manifest.note_time(clock.now()));
        }
        sealed
    }

    fn seal(&self, rotated: Rotated, next: Option<SegmentId>) -> Result<()> {
        let Rotated { segment, number, file, room, entries, hint } = rotated;
        let LogContext { fs, dir, clock, identity, hasher, manifest, .. } = &self.context;
        let (id, length) = (segment.id(), segment.size());
        let go_on = |manifest: &mut Manifest| {
            manifest.log = next.unwrap_or(manifest.bound);
            manifest.log_exists = next.is_some();
        };
        if entries == 0 {
            // It may hold marks, which have timestamps too.
            let time = self.lock().last_timestamp();
            manifest.update(|manifest| {
                if length > FIRST_OFFSET {
                    manifest.note_time(time);
                }
                go_on(manifest);
            })?;
            self.discard(number, id);
            return Ok(());
        }
        room.cut(length)?;
        if room.is_stored_to() {
            // The sync would have to write-protect each page on its own. No one stores any more.
            segment.release_pages();
        }
        if !made(Mistake::SealNotSynced) {
            file.sync()?;
        }
        let source = HintSource { id, identity: *identity, length };
        let hint = match hint {
            Some(gathered) => gathered.finish(),
            None => Hint::build(&file, source, |key| hasher.hash(key))?,
        };
        hint.write(fs, dir, source)?;
        // A thread that sees the segment as sealed also sees when it was sealed.
        segment.note_sealed(clock.running());
        segment.summarize(hint.summary);
        fs.sync_dir(dir.path())?;
        manifest.update(|manifest| {
            manifest.sealed.push(Sealed { id, kind: Kind::Log, length });
            go_on(manifest);
        })
    }
}
