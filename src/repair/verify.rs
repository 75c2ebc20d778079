//! Verifies a store from outside.
//!
//! A concurrent write is not damage: invalid bytes are read again, and a segment that the manifest
//! has dropped meanwhile is left out.

use std::ops::ControlFlow;
use std::path::Path;

use super::plan::{RepairPlan, RepairSubject};
use super::report::Diagnosis;
use super::survey::{Hash, SegmentSurvey, survey};
use crate::error::{Error, Result};
use crate::keydir::{Keydir, SHARD_COUNT};
use crate::manifest::Manifest;
use crate::recovery::OpenedSegments;
use crate::segment::hint::{Hint, HintFile, HintSource};
use crate::segment::index::{compare_index, has_index};
use crate::segment::read::resync::LostBytes;
use crate::segment::read::scan::refusal;
use crate::segment::{Dir, SegmentId};
use crate::store::{Damage, Env, VerifyProgress, damage, dry_run};

/// Maximum number of attempts to read something that a writer keeps changing.
const ATTEMPTS: usize = 100;

/// Receives the progress of a verification, and can end it.
type DiagnosisCallback<'a> = &'a mut dyn FnMut(&VerifyProgress) -> ControlFlow<()>;

#[cfg(test)]
pub(crate) fn verify_on(env: &Env, path: &Path) -> Result<Diagnosis> {
    verify_with_on(env, path, &mut |_| ControlFlow::Continue(()))
}

pub(crate) fn verify_with_on(
    env: &Env,
    path: &Path,
    on_progress: DiagnosisCallback<'_>,
) -> Result<Diagnosis> {
    let (env, dir) = env.enter(path)?;
    let progress = VerifyProgress::default();
    Verifier { env: &env, dir: &dir }.verify(&mut DiagnosisProgress { progress, on_progress })
}

/// How far a verification has come, and the closure that is told.
struct DiagnosisProgress<'a> {
    progress: VerifyProgress,
    on_progress: DiagnosisCallback<'a>,
}

impl DiagnosisProgress<'_> {
    /// Reports that a part of a segment was read, which begins at `start` of all bytes.
    fn reach(&mut self, start: u64, done: u64) -> ControlFlow<()> {
        self.progress.size_done = start + done;
        (self.on_progress)(&self.progress)
    }

    /// Reports that a segment was read.
    fn finish(&mut self, start: u64, size: u64) -> ControlFlow<()> {
        self.progress.segments_done += 1;
        self.reach(start, size)
    }
}

/// The store to verify, and how to reach it.
struct Verifier<'a> {
    env: &'a Env,
    dir: &'a Dir,
}

impl Verifier<'_> {
    fn verify(&self, progress: &mut DiagnosisProgress<'_>) -> Result<Diagnosis> {
        let fine =
            |plan: &Result<RepairPlan>| plan.as_ref().is_ok_and(|plan| plan.damage.is_empty());
        let plan = self.observe(|| RepairPlan::new(self.env, self.dir), fine)?;
        let mut held = OpenedSegments::default();
        let opening = self.observe(|| dry_run(self.env, self.dir, &mut held), Result::is_ok);
        // It may hold as many open files as the store has segments.
        drop(held);
        let mut diagnosis = Diagnosis {
            opening,
            segments: 0,
            entries: 0,
            tombstones: 0,
            size: 0,
            damage: plan.damage.clone(),
            torn: Vec::new(),
            derived: Vec::new(),
            leftovers: plan.leftovers.clone(),
            quarantine: plan.quarantine.clone(),
            cancelled: false,
        };
        progress.progress.segments_total = plan.subjects.len() as u64;
        progress.progress.size_total =
            plan.subjects.iter().map(|subject| self.size_of(subject)).sum();
        let seed = plan.manifest.as_ref().map(|manifest| manifest.identity.hash_seed);
        let keydir = seed.map(|seed| Keydir::new((self.env.hasher)(seed)));
        for subject in &plan.subjects {
            let start = progress.progress.size_done;
            let mut reach = |done| progress.reach(start, done);
            match self.examine(&plan, subject, keydir.as_ref(), &mut reach) {
                Ok(found) if found.cancelled => {
                    diagnosis.cancelled = true;
                    break;
                }
                // A writer has sealed, merged and removed it meanwhile.
                Err(Error::MissingSegment { .. })
                    if self.is_gone(&plan, subject.id) || is_ahead(&plan, subject) => {}
                Err(error @ Error::MissingSegment { .. }) => {
                    diagnosis.damage.push(damage(error, 0)?);
                }
                found => self.note(&plan, subject, found?, &mut diagnosis)?,
            }
            if progress.finish(start, self.size_of(subject)).is_break() {
                diagnosis.cancelled = true;
                break;
            }
        }
        Ok(diagnosis)
    }

    /// Returns the size of a segment's file, for the progress alone.
    fn size_of(&self, subject: &RepairSubject) -> u64 {
        subject.open(self.env).and_then(|file| file.size()).unwrap_or(0)
    }

    /// Repeats an observation until its result is fine, or until the manifest was the same before
    /// and after it.
    fn observe<T>(&self, mut read: impl FnMut() -> T, is_fine: impl Fn(&T) -> bool) -> T {
        let listed = || Manifest::read(&self.env.fs, self.dir).ok().flatten();
        let mut attempt = 1;
        loop {
            let before = listed();
            let found = read();
            if is_fine(&found) || attempt == ATTEMPTS || listed() == before {
                return found;
            }
            attempt += 1;
        }
    }

    /// Returns whether a writer has removed a segment meanwhile.
    ///
    /// A sealed segment is no longer needed once the manifest no longer lists it. Its id proves
    /// nothing: a merged segment may have a higher id than the log's segments.
    fn is_gone(&self, plan: &RepairPlan, id: SegmentId) -> bool {
        let Some(then) = &plan.manifest else { return false };
        let Ok(Some(now)) = Manifest::read(&self.env.fs, self.dir) else { return false };
        let may_be_unsealed = !then.lists(id) && now.log_exists && now.log <= id;
        !(now.lists(id) || may_be_unsealed)
    }

    /// Reads a segment. If an unsealed segment has anything invalid, reads it again until two reads
    /// give the same result.
    fn examine(
        &self,
        plan: &RepairPlan,
        subject: &RepairSubject,
        keydir: Option<&Keydir>,
        reach: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<SegmentSurvey> {
        let file = subject.open(self.env)?;
        let hash = |key: &[u8]| keydir.map(|keydir| keydir.hash(key)).unwrap_or_default();
        let hash: Option<Hash<'_>> = match (keydir, subject.sealed) {
            (Some(_), Some(_)) => Some(&hash),
            _ => None,
        };
        let mut read = || survey(&file, subject, plan.latest, hash, &mut *reach);
        let mut found = read()?;
        for _ in 0..ATTEMPTS {
            let is_whole = found.lost.is_empty() && found.torn.is_none();
            if subject.sealed.is_some() || is_whole || found.cancelled {
                break;
            }
            let again = read()?;
            let same = (&again.lost, &again.torn) == (&found.lost, &found.torn);
            found = again;
            if same {
                break;
            }
        }
        Ok(found)
    }

    /// Records what was found in a segment.
    fn note(
        &self,
        plan: &RepairPlan,
        subject: &RepairSubject,
        mut found: SegmentSurvey,
        diagnosis: &mut Diagnosis,
    ) -> Result<()> {
        let mut damage: Vec<Damage> =
            found.lost.iter().map(|lost| damage_of(subject, lost)).collect();
        damage.extend(strange(subject, &found)?);
        damage.extend(self.missing(plan, subject, &found)?);
        let mut derived = Vec::new();
        if let (Some(manifest), Some(length), Some(hint)) =
            (&plan.manifest, subject.sealed, found.hint.take())
            && found.lost.is_empty()
        {
            let source = HintSource { id: subject.id, identity: manifest.identity, length };
            derived.extend(self.compare(source, &hint.finish())?);
            derived.extend(self.compare_index(source)?);
        }
        if !(damage.is_empty() && derived.is_empty()) && self.is_gone(plan, subject.id) {
            return Ok(());
        }
        diagnosis.segments += 1;
        diagnosis.entries += found.entries;
        diagnosis.tombstones += found.tombstones;
        diagnosis.size += found.runs.iter().map(|run| run.end - run.start).sum::<u64>();
        if subject.sealed.is_none() && found.entries > 0 {
            // Entries follow the torn bytes, so those are damage.
            diagnosis.damage.append(&mut diagnosis.torn);
        }
        diagnosis.damage.append(&mut damage);
        diagnosis.derived.extend(derived);
        diagnosis.torn.extend(found.torn.iter().map(|lost| damage_of(subject, lost)));
        Ok(())
    }

    /// Returns the damage if the end entry of an unsealed segment names a segment that is missing.
    fn missing(
        &self,
        plan: &RepairPlan,
        subject: &RepairSubject,
        found: &SegmentSurvey,
    ) -> Result<Option<Damage>> {
        let Some(next) = found.next.filter(|_| subject.sealed.is_none() && plan.manifest.is_some())
        else {
            return Ok(None);
        };
        let path = self.dir.log(next);
        let is_known = plan.subjects.iter().any(|subject| subject.id == next);
        if is_known || self.env.fs.open_if_exists(&path)?.is_some() || self.is_gone(plan, next) {
            return Ok(None);
        }
        let id = subject.id;
        let reason = format!("the segment is missing, and the end entry of segment {id} names it");
        Ok(Some(Damage::new(path, 0, reason)))
    }

    /// Compares a hint with its segment.
    fn compare(&self, source: HintSource, built: &Hint) -> Result<Option<Damage>> {
        let path = self.dir.hint(source.id);
        let reason = if self.env.fs.open_if_exists(&path)?.is_none() {
            "the hint is missing; it is rebuilt when the store is opened"
        } else {
            let hint = HintFile::open(&self.env.fs, self.dir, source);
            let slots = hint.as_ref().and_then(|hint| hint.slots(&self.env.fs, &(0..SHARD_COUNT)));
            match (hint, slots) {
                (Some(hint), Some(slots))
                    if *hint.summary() == built.summary && slots == built.slots =>
                {
                    return Ok(None);
                }
                (Some(_), Some(_)) => {
                    "the hint is intact but does not match its segment; delete it"
                }
                _ => "the hint is damaged; it is rebuilt when the store is opened",
            }
        };
        Ok(Some(Damage::new(path, 0, reason)))
    }

    /// Compares an index, if there is one, with its segment.
    fn compare_index(&self, source: HintSource) -> Result<Option<Damage>> {
        let fs = &self.env.fs;
        if compare_index(fs, self.dir, source)? != Some(false) {
            return Ok(None);
        }
        let reason = if has_index(fs, self.dir, source) {
            "the index does not match its segment; delete it"
        } else {
            "the index is damaged; it is rebuilt when keys are read in order"
        };
        Ok(Some(Damage::new(self.dir.index(source.id), 0, reason)))
    }
}

/// Returns whether only an end entry names the segment. A writer prepares such a segment ahead and
/// may give it up without changing the manifest.
fn is_ahead(plan: &RepairPlan, subject: &RepairSubject) -> bool {
    let first = plan.manifest.as_ref().map(|manifest| manifest.log);
    subject.sealed.is_none() && first.is_some_and(|first| first != subject.id)
}

fn damage_of(subject: &RepairSubject, lost: &LostBytes) -> Damage {
    let (bytes, reason) = (&lost.bytes, &lost.reason);
    let size = bytes.end - bytes.start;
    Damage::new(subject.path.clone(), bytes.start, format!("{reason}; {size} bytes can't be read"))
}

/// Returns the entries that this build does not support, for which opening may be refused.
fn strange(subject: &RepairSubject, found: &SegmentSurvey) -> Result<Option<Damage>> {
    let Some((offset, invalid, count)) = found.strange else { return Ok(None) };
    let mut damage = damage(refusal(&subject.path, offset, invalid), offset)?;
    damage.reason = format!("{}; there are {count} such entries in this segment", damage.reason);
    Ok(Some(damage))
}
