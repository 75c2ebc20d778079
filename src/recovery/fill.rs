//! Fills the keydir from hints, newest segment first: a shard when it is first touched, the rest in
//! the background.
//!
//! - A shard is filled once, under its lock, from everything that was in the log when the store was
//!   opened. Later appends find it filled. If a shard can't be filled, nothing of it is published,
//!   and every call that touches it gets the error.
//! - A hint that turns out to be damaged is rebuilt from its segment, once.
//! - When all shards are filled, the hints are released, except those still to be written.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::{Recovered, Recovery};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::keydir::{Address, Filling, Keydir, SHARD_COUNT, Shard};
use crate::mistake::{Mistake, made};
use crate::segment::header::Identity;
use crate::segment::hint::{Hint, HintSlot, HintSource, SegmentHint};
use crate::segment::read::scan;
use crate::segment::{Dir, Segment, SegmentId, Segments, ignore_unknown_codec};
use crate::sync::unmodeled::{AtomicUsize, Mutex};
use crate::sync::{Ordering, available_parallelism};

/// Approximate number of slots read at a time, which bounds the memory that filling needs.
const RANGE_LEN: u64 = if cfg!(any(test, bitcask_fuzzing)) { 64 } else { 1 << 18 };
/// Number of slots that can be filled within milliseconds.
const QUICK_LEN: u64 = 1 << 16;
/// Maximum number of threads that fill. More would not help, even on a large machine: memory is the
/// bottleneck.
const THREADS_MAX: usize = 4;

/// A segment that existed when the store was opened.
#[derive(Debug)]
struct Origin {
    segment: Arc<Segment>,
    /// The number by which slots name it.
    number: u32,
    /// Lock 8.
    hint: Mutex<SegmentHint>,
    /// Lock 7: held while the hint is rebuilt. If that finds the segment damaged too, the damage is
    /// kept here, so that the segment is not read again for every shard.
    damage: Mutex<Option<SegmentDamage>>,
}

/// The contents of an `Error::Corrupt` about a segment.
#[derive(Debug)]
struct SegmentDamage {
    offset: u64,
    reason: String,
}

/// Fills the keydir.
#[derive(Debug)]
pub(crate) struct Filler {
    fs: Fs,
    dir: Dir,
    identity: Identity,
    /// Lock 8: newest first. Empty when all shards are filled.
    origins: Mutex<Arc<[Origin]>>,
    /// Whether a writer in another process may remove files meanwhile.
    has_writer: bool,
    /// The removal time of the shards' earlier content, if they are refilled from other
    /// segments.
    refill_time: Option<u64>,
    /// Number of slots in all hints.
    slots_len: u64,
    /// The first shard that no thread has claimed.
    next: AtomicUsize,
    unfilled: AtomicUsize,
    /// Lock 8: hints that are not on disk.
    unwritten: Mutex<VecDeque<(HintSource, Arc<Hint>)>>,
}

impl Filler {
    /// Adds the segments to the set, and takes over their hints.
    pub(crate) fn new(
        recovery: &Recovery<'_>,
        recovered: &Recovered,
        segments: &Segments,
    ) -> Result<Self> {
        let identity = recovered.manifest.identity;
        let (mut origins, mut unwritten) = (Vec::new(), VecDeque::new());
        for (segment, hint) in recovered.segments.iter().rev() {
            let number = segments.add(Arc::clone(segment))?;
            if recovered.manifest.lists(segment.id()) {
                segment.summarize(hint.summary().clone());
            }
            let source = HintSource { id: segment.id(), identity, length: segment.size() };
            if let SegmentHint::InMemory(hint) = hint {
                unwritten.push_front((source, Arc::clone(hint)));
            }
            let (segment, hint) = (Arc::clone(segment), Mutex::new(hint.clone()));
            origins.push(Origin { segment, number, hint, damage: Mutex::default() });
        }
        let summaries = recovered.segments.iter().map(|(_, hint)| hint.summary().entries);
        Ok(Self {
            fs: recovery.fs.clone(),
            dir: recovery.dir.clone(),
            identity,
            has_writer: recovered.has_writer,
            refill_time: None,
            slots_len: summaries.sum(),
            origins: Mutex::new(origins.into()),
            next: AtomicUsize::new(0),
            unfilled: AtomicUsize::new(SHARD_COUNT),
            unwritten: Mutex::new(unwritten),
        })
    }

    /// Returns whether all shards are filled.
    pub(crate) fn is_done(&self) -> bool {
        self.unfilled() == 0
    }

    /// Returns how many shards are not filled yet.
    pub(crate) fn unfilled(&self) -> usize {
        self.unfilled.load(Ordering::Acquire)
    }

    /// Returns whether filling the remaining shards takes only milliseconds.
    pub(crate) fn is_nearly_done(&self) -> bool {
        self.is_done() || self.slots_len <= QUICK_LEN
    }

    /// Returns how many threads should fill the keydir in the background.
    pub(crate) fn threads(&self) -> usize {
        let processors = available_parallelism();
        let worthwhile = usize::try_from(self.slots_len.div_ceil(RANGE_LEN)).unwrap_or(usize::MAX);
        worthwhile.min(processors).min(THREADS_MAX)
    }

    /// Fills the shards in a range that are not filled yet.
    ///
    /// If that fails, fills every shard that can be filled, and returns the first error.
    pub(crate) fn fill(&self, keydir: &Keydir, shards: Range<usize>) -> Result<()> {
        let origins = Arc::clone(&self.origins.lock());
        let result = self.fill_from(&origins, keydir, &shards);
        if result.is_err() && shards.len() > 1 {
            // A block of a hint, or a segment, is damaged: most shards don't need it.
            let each = shards.map(|shard| self.fill_from(&origins, keydir, &(shard..shard + 1)));
            return each.fold(Ok(()), Result::and);
        }
        result
    }

    /// Refills all shards. In each shard, readers find either the old or the new content. The
    /// caller is the only thread that changes the shards. The old content counts as removed at
    /// `time`.
    pub(crate) fn refill(&mut self, keydir: &Keydir, time: u64) -> Result<()> {
        self.refill_time = Some(time);
        while let Some(shards) = self.next_shards() {
            self.fill(keydir, shards)?;
        }
        Ok(())
    }

    /// Fills the next shards that no thread has claimed. Returns `false` if none were left.
    pub(crate) fn fill_next(&self, keydir: &Keydir) -> bool {
        let Some(shards) = self.next_shards() else { return false };
        // A later call that needs a shard that can't be filled gets the error.
        let _ = self.fill(keydir, shards);
        true
    }

    /// Claims the next shards that no thread has claimed.
    fn next_shards(&self) -> Option<Range<usize>> {
        // Each range is a small part of the whole, so that several threads share the work.
        let share = (SHARD_COUNT as u64 * RANGE_LEN).checked_div(self.slots_len);
        let share = share.and_then(|share| usize::try_from(share).ok()).unwrap_or(SHARD_COUNT);
        let len = share.clamp(1, SHARD_COUNT / 16);
        let start = self.next.fetch_add(len, Ordering::Relaxed).min(SHARD_COUNT);
        let shards = start..SHARD_COUNT.min(start + len);
        (!shards.is_empty()).then_some(shards)
    }

    /// Fills all shards, on several processors if that is worthwhile.
    pub(crate) fn fill_in_parallel(&self, keydir: &Keydir) -> Result<()> {
        std::thread::scope(|scope| {
            let work = || while self.fill_next(keydir) {};
            for _ in 1..self.threads() {
                // If a thread can't be started, the others do its work.
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        self.fill_all(keydir)
    }

    /// Fills all shards, possibly concurrently with other threads that do the same.
    pub(crate) fn fill_all(&self, keydir: &Keydir) -> Result<()> {
        while !self.is_done() && self.fill_next(keydir) {}
        if self.is_done() {
            return Ok(());
        }
        // These shards were claimed by other threads, or could not be filled.
        let is_unfilled = |number: &usize| !keydir.shard(*number).is_filled();
        let each = (0..SHARD_COUNT).filter(is_unfilled);
        each.map(|shard| self.fill(keydir, shard..shard + 1)).fold(Ok(()), Result::and)
    }

    /// Discards everything: all shards are filled, or emptied, and no hint is to be written.
    pub(crate) fn forget(&self) {
        self.unfilled.store(0, Ordering::Release);
        *self.origins.lock() = Arc::default();
        self.unwritten.lock().clear();
    }

    /// Writes one of the hints that are not on disk, unless its segment has been removed. Returns
    /// `false` if no hint was left. The caller prevents the removal of segments meanwhile.
    pub(crate) fn write_hint(&self, is_listed: impl Fn(SegmentId) -> bool) -> Result<bool> {
        let Some((source, hint)) = self.unwritten.lock().pop_front() else { return Ok(false) };
        if is_listed(source.id) {
            hint.write(&self.fs, &self.dir, source)?;
        }
        Ok(true)
    }

    fn fill_from(&self, origins: &[Origin], keydir: &Keydir, shards: &Range<usize>) -> Result<()> {
        let mut parts = Vec::with_capacity(origins.len());
        for origin in origins {
            parts.push(self.part(origin, keydir, shards)?);
        }
        let mut rests: Vec<&[HintSlot]> = parts.iter().map(Vec::as_slice).collect();
        let mut result = Ok(());
        for number in shards.clone() {
            let runs: Vec<&[HintSlot]> =
                rests.iter_mut().map(|rest| split_run(rest, number)).collect();
            let mut shard = keydir.shard(number);
            if self.refill_time.is_some() || !shard.is_filled() || made(Mistake::FilledAgain) {
                let filled = self.fill_shard(origins, &mut shard, &runs);
                if filled.is_ok() && self.unfilled.fetch_sub(1, Ordering::AcqRel) == 1 {
                    *self.origins.lock() = Arc::default();
                }
                result = result.and(filled);
            }
        }
        result
    }

    /// Fills a shard from the runs of slots that the segments have for it.
    fn fill_shard(
        &self,
        origins: &[Origin],
        shard: &mut Shard<'_>,
        runs: &[&[HintSlot]],
    ) -> Result<()> {
        let key_at = |address: Address| {
            let origin = origins.iter().find(|origin| origin.number == address.segment);
            let Some(Origin { segment, .. }) = origin else {
                unreachable!("a shard is filled only from these segments")
            };
            self.key_at(segment, address.offset)
        };
        let same_key = |held, older| Ok(key_at(held)? == key_at(older)?);
        let mut fill = shard.start_filling(runs.iter().map(|run| run.len()).sum());
        let mut gains = Vec::with_capacity(origins.len());
        for (Origin { segment, number, .. }, run) in origins.iter().zip(runs) {
            let mut gained = 0;
            for slot in *run {
                let (hash, tombstone) = (slot.hash(), slot.is_tombstone());
                let address = Address { segment: *number, offset: slot.offset() };
                let filling = Filling { hash, address, tombstone, collides: slot.collides() };
                if fill.add(filling, same_key)? && !tombstone {
                    gained += match slot.size() {
                        Some(size) => size,
                        None => self.size_at(segment, slot.offset())?,
                    };
                }
            }
            gains.push((segment, gained));
        }
        shard.filled(fill, self.refill_time.unwrap_or(0));
        // The shard is still locked: no entry that it names can be counted as lost before it is
        // counted as gained.
        for (segment, gained) in gains {
            segment.gained(gained);
        }
        Ok(())
    }

    /// Returns a segment whose file no longer exists, if that is allowed: when a writer in another
    /// process has removed the file, the held segment is read. Otherwise everything is read from
    /// the file, so that a bad sector is an error.
    fn held<'a>(&self, segment: &'a Arc<Segment>) -> Result<&'a Arc<Segment>> {
        let is_held = self.has_writer.then_some(segment);
        is_held.ok_or_else(|| Error::MissingSegment { path: segment.path().to_path_buf() })
    }

    fn key_at(&self, segment: &Arc<Segment>, offset: u64) -> Result<Vec<u8>> {
        let Some(file) = self.fs.open_if_exists(segment.path())? else {
            let stored = self.held(segment)?.entry(offset)?;
            ignore_unknown_codec(stored.check())?;
            return Ok(stored.entry().key().to_vec());
        };
        scan::key_at(&file, segment.id(), offset, segment.size())
    }

    fn size_at(&self, segment: &Arc<Segment>, offset: u64) -> Result<u64> {
        let Some(file) = self.fs.open_if_exists(segment.path())? else {
            return Ok(self.held(segment)?.entry(offset)?.layout.entry_size());
        };
        scan::size_at(&file, offset, segment.size())
    }

    /// Reads a segment's slots for some shards, from its hint or from a rebuilt one.
    fn part(
        &self,
        origin: &Origin,
        keydir: &Keydir,
        shards: &Range<usize>,
    ) -> Result<Vec<HintSlot>> {
        let known = origin.hint.lock().clone();
        if let Some(slots) = known.slots(&self.fs, shards) {
            return Ok(slots);
        }
        let path = origin.segment.path();
        let mut damage = origin.damage.lock();
        if let Some(SegmentDamage { offset, reason }) = &*damage {
            return Err(Error::corrupt(path, *offset, reason.clone()));
        }
        let known = origin.hint.lock().clone();
        if let SegmentHint::InMemory(hint) = known {
            return Ok(hint.slots_of(shards).to_vec());
        }
        let (id, length) = (origin.segment.id(), origin.segment.size());
        let source = HintSource { id, identity: self.identity, length };
        let hash = |key: &[u8]| keydir.hash(key);
        let rebuilt = match self.fs.open_if_exists(path)? {
            Some(file) => Hint::build(&file, source, hash),
            None => {
                self.held(&origin.segment).and_then(|held| Hint::build_from_segment(held, hash))
            }
        };
        let hint = Arc::new(rebuilt.inspect_err(|error| {
            if let Error::Corrupt { offset, reason, .. } = error {
                *damage = Some(SegmentDamage { offset: *offset, reason: reason.clone() });
            }
        })?);
        *origin.hint.lock() = SegmentHint::InMemory(Arc::clone(&hint));
        let slots = hint.slots_of(shards).to_vec();
        self.unwritten.lock().push_back((source, hint));
        Ok(slots)
    }
}

/// Splits off the slots of a shard, which must be the lowest one present.
fn split_run<'a>(slots: &mut &'a [HintSlot], shard: usize) -> &'a [HintSlot] {
    let (run, rest) = slots.split_at(slots.partition_point(|slot| slot.shard() <= shard));
    *slots = rest;
    run
}
