//! Copies everything that is still intact into a new store.
//!
//! 1. Survey: read every segment, and note which parts are valid.
//! 2. Replay: all puts, then all deletes, so that slots name what is live.
//! 3. Copy what slots name, segment by segment, and write the manifest.
//!
//! An entry that was intact in the survey but can't be read later is lost too. But if its key has
//! to be compared, the salvage ends with an error, and the next attempt will find the entry lost.

use std::ops::{ControlFlow, Range};
use std::path::Path;

use super::new_store::NewStore;
use super::plan::{RepairPlan, RepairSubject};
use super::replay::Replay;
use super::report::{Lost, SalvageProgress, SalvageReport};
use super::survey::{PROGRESS_STEP, SegmentSurvey, survey};
use crate::entry::Invalid;
use crate::error::{Error, Result};
use crate::fs::{Fs, Lock};
use crate::options::Options;
use crate::segment::read::pick::LiveEntries;
use crate::segment::read::resync::{self, ResyncItem, ResyncWalk};
use crate::segment::read::scan::{Scanned, refusal};
use crate::segment::{Dir, SEGMENTS_LIMIT};
use crate::store::{Damage, Env, NewDir, damage, new_identity};

/// Number of passes over each segment; one fewer for a segment without deletes.
const PASSES: u64 = 4;

/// Maximum number of listed keys whose values this build can't read.
const LOST_KEYS_MAX: usize = 1000;

type SalvageCallback<'a> = &'a mut dyn FnMut(&SalvageProgress) -> ControlFlow<()>;

pub(crate) fn salvage_on(
    env: &Env,
    from: &Path,
    to: &Path,
    options: &Options,
    on_progress: SalvageCallback<'_>,
) -> Result<SalvageReport> {
    let (env, from) = &env.enter(from)?;
    let fs = &env.fs;
    // Only a writer creates a lock file, so without one there is no writer.
    let _lock = keep_writers_out(fs, from)?;
    let plan = RepairPlan::new(env, from)?;
    if plan.subjects.len() as u64 > SEGMENTS_LIMIT {
        return Err(Error::TooManySegments { limit: SEGMENTS_LIMIT });
    }
    let fresh = NewDir::prepare(fs, to, from)?;
    let identity = new_identity();
    let mut store = NewStore::new(fresh.fs(), fresh.dir(), options, identity, env.clock.now());
    let replay = Replay::new(env, &plan.subjects, identity.hash_seed);
    let mut salvage = Salvage {
        env,
        plan: &plan,
        replay,
        report: SalvageReport {
            had_manifest: plan.manifest.is_some(),
            damage: plan.damage.clone(),
            leftovers: plan.leftovers.clone(),
            quarantine: plan.quarantine.clone(),
            ..SalvageReport::default()
        },
        progress: SalvageProgress::default(),
        on_progress,
    };
    let flow = salvage.run(&mut store);
    if !matches!(flow, Ok(ControlFlow::Continue(()))) {
        fresh.undo(store.ids());
    }
    let mut report = salvage.report;
    report.cancelled = flow?.is_break();
    report.size = store.size();
    Ok(report)
}

/// Locks a store without creating a lock file.
fn keep_writers_out(fs: &Fs, dir: &Dir) -> Result<Option<Lock>> {
    let Ok(Some(file)) = fs.open_if_exists(&dir.lock()) else { return Ok(None) };
    match file.try_lock() {
        Ok(None) => Err(Error::Locked { path: dir.path().into(), pid: None, ended: false }),
        Ok(locked) => Ok(locked),
        // If the file system does not support locks, or is read-only, the salvage reads all the
        // same.
        Err(_) => Ok(None),
    }
}

/// A salvage in progress.
struct Salvage<'a> {
    env: &'a Env,
    plan: &'a RepairPlan,
    replay: Replay<'a>,
    report: SalvageReport,
    progress: SalvageProgress,
    on_progress: SalvageCallback<'a>,
}

/// A segment that has been surveyed.
struct SurveyedSegment<'a> {
    number: u32,
    subject: &'a RepairSubject,
    survey: SegmentSurvey,
}

impl<'a> Salvage<'a> {
    fn run(&mut self, store: &mut NewStore<'_>) -> Result<ControlFlow<()>> {
        for subject in &self.plan.subjects {
            self.progress.size_total += PASSES * subject.open(self.env)?.size()?;
        }
        let mut reads = Vec::new();
        for (number, subject) in (0..).zip(&self.plan.subjects) {
            let Some(survey) = self.survey(subject)? else { return Ok(ControlFlow::Break(())) };
            reads.push(SurveyedSegment { number, subject, survey });
        }
        for pass in [Self::put, Self::delete, Self::copy] {
            for read in &reads {
                if pass(self, read, store)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        // Deletes are not copied, and later writes need later timestamps than those.
        let surveyed = reads.iter().map(|read| read.survey.last_timestamp).max();
        let lost = self.plan.manifest.as_ref().and_then(|manifest| manifest.time);
        store.finish(surveyed.max(lost).unwrap_or(0))?;
        Ok(ControlFlow::Continue(()))
    }

    /// Reads a segment and records what is lost. Returns `None` if the salvage was cancelled.
    fn survey(&mut self, subject: &RepairSubject) -> Result<Option<SegmentSurvey>> {
        let file = subject.open(self.env)?;
        let (start, size) = (self.progress.size_done, file.size()?);
        let found = survey(&file, subject, self.plan.latest, None, |done| {
            self.progress.size_done = start + done.min(size);
            (self.on_progress)(&self.progress)
        })?;
        if found.cancelled {
            return Ok(None);
        }
        self.progress.size_done = start + size;
        if (self.on_progress)(&self.progress).is_break() {
            return Ok(None);
        }
        let report = &mut self.report;
        report.segments += 1;
        report.entries += found.entries;
        let path = &subject.path;
        let torn = |start: &u64| {
            Damage::new(path.clone(), *start, "a part of the batch that starts here is lost")
        };
        report.torn_batches.extend(found.torn_batches.iter().map(torn));
        if let Some((offset, invalid, count)) = found.strange {
            let mut damage = damage(refusal(path, offset, invalid), offset)?;
            damage.reason = format!("{}; there are {count} such entries", damage.reason);
            report.damage.push(damage);
        }
        found.lost.iter().chain(&found.torn).for_each(|lost| self.record_lost(path, lost));
        Ok(Some(found))
    }

    fn record_lost(&mut self, path: &Path, lost: &resync::LostBytes) {
        let (path, reason) = (path.to_path_buf(), lost.reason.clone());
        let (offset, size) = (lost.bytes.start, lost.bytes.end - lost.bytes.start);
        self.report.lost.push(Lost { path, offset, size, reason });
    }

    fn put(&mut self, read: &SurveyedSegment<'a>, _: &mut NewStore<'_>) -> Result<ControlFlow<()>> {
        self.each(read, |this, entry, _| this.replay.put(read.number, &entry))
    }

    fn delete(
        &mut self,
        read: &SurveyedSegment<'a>,
        _: &mut NewStore<'_>,
    ) -> Result<ControlFlow<()>> {
        if read.survey.tombstones == 0 {
            // The skipped pass counts as read.
            self.progress.size_done += read.subject.open(self.env)?.size()?;
            return Ok(ControlFlow::Continue(()));
        }
        self.each_of(read, |this, entry, _| {
            if entry.header.is_tombstone() { this.replay.delete(&entry) } else { Ok(()) }
        })
    }

    /// Copies what is live in a segment.
    fn copy(
        &mut self,
        read: &SurveyedSegment<'a>,
        store: &mut NewStore<'_>,
    ) -> Result<ControlFlow<()>> {
        let file = read.subject.open(self.env)?;
        self.each(read, |this, entry, strange| {
            let Some((hash, collides)) = this.replay.live(read.number, &entry)? else {
                return Ok(());
            };
            if strange.is_some() {
                this.report.lost_key_count += 1;
                if this.report.lost_keys.len() < LOST_KEYS_MAX {
                    this.report.lost_keys.push(entry.key.to_vec());
                }
                return Ok(());
            }
            let mut one = LiveEntries::default();
            one.add(entry.offset, entry.header.entry_size());
            let picked = match one.read(&file, read.subject.id) {
                Ok(picked) => picked,
                Err(error) => {
                    let reason = damage(error, entry.offset)?.reason;
                    let end = entry.offset + entry.header.entry_size();
                    let lost = resync::LostBytes { bytes: entry.offset..end, reason };
                    this.record_lost(&read.subject.path, &lost);
                    return Ok(());
                }
            };
            for picked in picked.into_iter().flatten() {
                store.copy(&picked, hash, collides)?;
            }
            this.progress.keys += 1;
            this.report.keys += 1;
            Ok(())
        })
    }

    /// Calls a closure with all puts of a segment.
    fn each(
        &mut self,
        read: &SurveyedSegment<'a>,
        mut visit: impl FnMut(&mut Self, Scanned<'_>, Option<Invalid>) -> Result<()>,
    ) -> Result<ControlFlow<()>> {
        self.each_of(read, |this, entry, strange| {
            if entry.header.is_tombstone() { Ok(()) } else { visit(this, entry, strange) }
        })
    }

    /// Calls a closure with all puts and deletes of a segment, and reports the progress.
    fn each_of(
        &mut self,
        read: &SurveyedSegment<'a>,
        mut visit: impl FnMut(&mut Self, Scanned<'_>, Option<Invalid>) -> Result<()>,
    ) -> Result<ControlFlow<()>> {
        let file = read.subject.open(self.env)?;
        let (start, size) = (self.progress.size_done, file.size()?);
        let mut reported = 0;
        for Range { start: from, end } in read.survey.runs.iter().cloned() {
            let mut walk =
                ResyncWalk::new(&file, read.subject.id, from..end, end, self.plan.latest)?;
            while let Some(part) = walk.next()? {
                match part {
                    ResyncItem::Entry(entry) if entry.header.is_put_or_delete() => {
                        visit(self, entry, None)?;
                    }
                    ResyncItem::Strange(entry, why) => visit(self, entry, Some(why))?,
                    ResyncItem::Lost(lost) => self.record_lost(&read.subject.path, &lost),
                    ResyncItem::Entry(_) | ResyncItem::End { .. } => {}
                }
                if walk.offset() - reported >= PROGRESS_STEP {
                    reported = walk.offset();
                    self.progress.size_done = start + reported.min(size);
                    if (self.on_progress)(&self.progress).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        self.progress.size_done = start + size;
        Ok((self.on_progress)(&self.progress))
    }
}
