//! Following a writer in another process: refreshing a read-only store.
//!
//! - As long as the log has only grown, the new part is read from where the last refresh ended, and
//!   applied in log order, batch by batch, as the writer does it.
//! - After a merge or a clear, or if anything has changed unexpectedly, everything that the
//!   manifest now lists is reloaded, alongside the old state. Each shard is replaced as a whole,
//!   and the old segments are removed last. Held values stay readable.
//! - The log ends where entries stop being valid: a writer may be about to write there. The end is
//!   read again before it is reported as damage.
//! - A refresh changes nothing on disk, and takes no file lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::open::{READ_ATTEMPTS, read_manifest};
use super::{Inner, Role};
use crate::error::{Error, Result};
use crate::fs::File;
use crate::keydir::{Address, SHARD_COUNT};
use crate::manifest::Manifest;
use crate::recovery::{Filler, OpenedSegments, Recovery};
use crate::segment::header::{Kind, SegmentHeader};
use crate::segment::hint::{HintSource, SegmentHint};
use crate::segment::read::map::Bytes;
use crate::segment::read::scan::{self, Scan, Stop};
use crate::segment::{FIRST_OFFSET, Place, Segment, SegmentId, open_listed};
use crate::store::point::write::publish;
use crate::sync::{Mutex, MutexGuard};

/// State that only a read-only store has.
#[derive(Debug)]
pub(super) struct Follower {
    /// Lock 1 of a read-only store: held during a refresh.
    pub(super) refreshing: Mutex<RefreshState>,
}

impl Follower {
    pub(super) fn new(last_timestamp: u64) -> Self {
        Self { refreshing: Mutex::new(RefreshState::new(last_timestamp)) }
    }
}

/// State kept between refreshes.
#[derive(Debug)]
pub(super) struct RefreshState {
    /// Number of refreshes begun.
    pub(super) count: u64,
    /// Whether the last refresh failed, and may have left the state incomplete.
    is_stale: bool,
    /// Highest timestamp read by the last complete refresh.
    pub(super) last_timestamp: u64,
    /// End of the log at that refresh; `None` before the first refresh.
    pub(super) end: Option<Place>,
    /// Numbers of segments from failed loads.
    half: BTreeSet<u32>,
}

impl RefreshState {
    /// Returns the state after opening, which is complete.
    fn new(last_timestamp: u64) -> Self {
        Self { count: 0, is_stale: false, last_timestamp, end: None, half: BTreeSet::new() }
    }
}

/// A put or a delete that is not published yet.
struct Pending {
    offset: u64,
    size: u64,
    is_tombstone: bool,
    timestamp: u64,
    key: Vec<u8>,
}

impl Inner {
    /// Waits for a refresh in progress, and prevents another from starting. Returns `None` for a
    /// writable store, which is always up to date.
    pub(super) fn hold_refresh(&self) -> Option<MutexGuard<'_, RefreshState>> {
        match &self.role {
            Role::Writer(_) => None,
            Role::Follower(follower) => Some(follower.refreshing.lock()),
        }
    }

    pub(super) fn refresh(&self, refreshing: &mut RefreshState) -> Result<bool> {
        self.fs.check()?;
        let (mut attempt, mut is_new, mut held) = (0, false, OpenedSegments::default());
        refreshing.count += 1;
        refreshing.end.get_or_insert_with(|| self.found_end());
        loop {
            attempt += 1;
            let manifest = read_manifest(&self.fs, &self.dir)?;
            if manifest.identity != self.identity {
                let reason = "the manifest belongs to another store; open that one";
                return Err(Error::corrupt(&self.dir.manifest(), 0, reason));
            }
            let before = refreshing.last_timestamp;
            let follows = !refreshing.is_stale && self.has_only_grown(&manifest);
            let result = if follows {
                self.follow(&manifest, before)
            } else {
                // The writer may have lost its last writes, including deletes.
                *self.gaps.lock() = Arc::default();
                self.reload(&manifest, refreshing, &mut held)
            };
            refreshing.is_stale = result.is_err();
            self.segments.free_retired();
            if let Ok(last) = result {
                is_new |= !follows || last > before;
                // A writer that lost its last writes may have continued from an earlier time.
                refreshing.last_timestamp = last;
                self.clock.reach(last);
                refreshing.end = Some(self.found_end());
            }
            let changed = || Ok(read_manifest(&self.fs, &self.dir)? != manifest);
            match result {
                Ok(_) => return Ok(is_new),
                // The same error twice, without a change by a writer, is final.
                Err(error) if attempt == READ_ATTEMPTS || attempt > 2 && !changed()? => {
                    return Err(error);
                }
                _ => {}
            }
        }
    }

    /// Returns whether everything known is still part of the log, and nothing was merged.
    fn has_only_grown(&self, manifest: &Manifest) -> bool {
        let old = self.manifest.get(Clone::clone);
        let listed: BTreeMap<SegmentId, _> =
            manifest.sealed.iter().map(|sealed| (sealed.id, *sealed)).collect();
        let merged = |manifest: &Manifest| {
            manifest.sealed.iter().filter(|sealed| sealed.kind == Kind::Merged).count()
        };
        let is_left = |segment: &Segment| match listed.get(&segment.id()) {
            Some(sealed) => sealed.length >= segment.size(),
            None => segment.id() >= manifest.log,
        };
        // Segments that were written and merged away unseen have left no trace of what they had
        // changed.
        merged(manifest) == merged(&old)
            && old.sealed.iter().all(|sealed| listed.get(&sealed.id) == Some(sealed))
            && self.segments.all().iter().all(|(_, segment)| is_left(segment))
    }

    /// Reads what was appended since the last refresh. Returns the highest timestamp so far.
    fn follow(&self, manifest: &Manifest, mut last: u64) -> Result<u64> {
        let mut log = self.segments.all();
        log.retain(|(_, segment)| segment.kind() == Kind::Log);
        log.sort_by_key(|(_, segment)| segment.id());
        let mut read_on = |number, segment: &Arc<Segment>| {
            let listed = manifest.sealed.iter().find(|sealed| sealed.id == segment.id());
            let length = listed.map(|sealed| sealed.length);
            let next = self.read_on(number, segment, length, &mut last)?;
            Ok(if length.is_some() { first_behind(manifest, segment.id()) } else { next })
        };
        let mut current = log.pop();
        // These segments were read to their ends, and may have been sealed since.
        log.iter().try_for_each(|(number, segment)| read_on(*number, segment).map(drop))?;
        loop {
            let next = match &current {
                None => first_behind(manifest, SegmentId(0)),
                Some((number, segment)) => read_on(*number, segment)?,
            };
            let Some(next) = next else { break };
            let path = self.dir.log(next);
            let file = open_listed(&self.fs, &path)?;
            let kind = SegmentHeader::read(&file, next, self.identity)?.kind;
            let bytes = Bytes::unmapped(&self.fs, &file, FIRST_OFFSET);
            bytes.keep_open(&file);
            let segment = Arc::new(Segment::new(next, &path, kind, bytes));
            current = Some((self.segments.add(Arc::clone(&segment))?, segment));
        }
        self.manifest.set(manifest.clone());
        Ok(last)
    }

    /// Continues reading a segment, up to its length if it is sealed by now. Returns the segment
    /// that its end entry names.
    fn read_on(
        &self,
        number: u32,
        segment: &Arc<Segment>,
        sealed: Option<u64>,
        last: &mut u64,
    ) -> Result<Option<SegmentId>> {
        if segment.summary().is_some() {
            return Ok(None);
        }
        let id = segment.id();
        let file = open_listed(&self.fs, segment.path())?;
        let mut bad_before = None;
        let next = loop {
            let stop = self.apply(number, segment, &file, sealed.unwrap_or(u64::MAX), last)?;
            match stop {
                Stop::End { next, .. } if next > id => break Some(next),
                Stop::End { .. } => {
                    let reason = scan::END_LEADS_BACK;
                    return Err(Error::corrupt(segment.path(), segment.size(), reason));
                }
                Stop::Nothing { .. } => break None,
                Stop::Bad { offset, invalid } if sealed.is_some() => {
                    return Err(scan::refusal(segment.path(), offset, invalid));
                }
                // A writer may be writing there right now.
                Stop::Bad { offset, .. } if bad_before != Some(offset) => bad_before = Some(offset),
                Stop::Bad { offset, invalid } => {
                    let refusal = scan::refusal(segment.path(), offset, invalid);
                    let bad = Place::new(id, segment.size());
                    let mark = scan::find_mark_above(&file, id, bad.offset, bad, 0)?;
                    if refusal.is_unsupported() || mark.is_some() {
                        return Err(refusal);
                    }
                    break None;
                }
            }
        };
        if let Some(length) = sealed {
            if segment.size() != length {
                let reason = "the entries end here, but the manifest lists more";
                return Err(Error::corrupt(segment.path(), segment.size(), reason));
            }
            self.map_sealed(number, segment)?;
        }
        Ok(next)
    }

    /// Publishes the entries after the known end of a segment, batch by batch.
    fn apply(
        &self,
        number: u32,
        segment: &Arc<Segment>,
        file: &File,
        end: u64,
        last: &mut u64,
    ) -> Result<Stop> {
        let known = Place::new(segment.id(), segment.size());
        let mut scan = Scan::behind(known, file, end.min(file.size()?));
        let mut batch = Vec::new();
        loop {
            let entry = match scan.next()? {
                Ok(entry) => entry,
                // A batch without its end is not readable yet.
                Err(Stop::End { .. }) if !batch.is_empty() => {
                    return Ok(Stop::Nothing { offset: segment.size() });
                }
                Err(stop) => {
                    if let Stop::End { offset, .. } = stop {
                        segment.advance(offset);
                    }
                    return Ok(stop);
                }
            };
            let (header, offset) = (&entry.header, entry.offset);
            let (size, is_tombstone) = (header.entry_size(), header.is_tombstone());
            if header.is_put_or_delete() {
                let (timestamp, key) = (header.timestamp, entry.key.to_vec());
                batch.push(Pending { offset, size, is_tombstone, timestamp, key });
            }
            if !entry.continues() {
                // Slots refer to it from now on.
                segment.advance(offset + size);
                *last = batch.iter().map(|change| change.timestamp).fold(*last, u64::max);
                batch
                    .drain(..)
                    .try_for_each(|change| self.publish_read(number, segment, &change))?;
            }
        }
    }

    fn publish_read(&self, number: u32, segment: &Segment, change: &Pending) -> Result<()> {
        let Pending { offset, size, is_tombstone, timestamp, key } = change;
        let guard = self.pin();
        let hash = self.keydir.hash(key);
        let mut shard = self.shard(hash.shard())?;
        let old = self.find(&shard, hash, key, &guard)?.own;
        let address = Address { segment: number, offset: *offset };
        let new = (!is_tombstone).then_some((address, *size));
        publish(&mut shard, hash, old.as_ref(), new, segment, *timestamp);
        Ok(())
    }

    /// Switches a segment to a mapping: it is sealed, so it is never cut.
    fn map_sealed(&self, number: u32, segment: &Arc<Segment>) -> Result<()> {
        let (id, length, identity) = (segment.id(), segment.size(), self.identity);
        let source = HintSource { id, identity, length };
        let hint = SegmentHint::open(&self.fs, &self.dir, source, |key| self.keydir.hash(key))?;
        let sealed = Segment::sealed(&self.fs, &self.dir, id, length, identity, true)?;
        sealed.keep_readable();
        sealed.summarize(hint.summary().clone());
        sealed.gained(segment.live_size());
        self.segments.replace(number, Arc::new(sealed));
        Ok(())
    }

    /// Reloads everything, alongside the existing state. Returns the highest timestamp that is or
    /// was in it.
    ///
    /// If that fails, some shards may already name new segments. Those segments stay; new segments
    /// that no shard names are removed.
    fn reload(
        &self,
        manifest: &Manifest,
        refreshing: &mut RefreshState,
        held: &mut OpenedSegments,
    ) -> Result<u64> {
        let old = self.segments.all();
        let loaded = self.load_alongside(manifest, refreshing.last_timestamp, held);
        if loaded.is_ok() {
            for (number, _) in old {
                self.segments.remove(number);
            }
            refreshing.half.clear();
        } else {
            let is_new = |number: &u32| old.iter().all(|(other, _)| other != number);
            let numbers = self.segments.all().into_iter().map(|(number, _)| number);
            refreshing.half.extend(numbers.filter(is_new));
            self.drop_unnamed(&mut refreshing.half);
        }
        loaded
    }

    /// Removes the segments of failed loads that no slot names any more.
    fn drop_unnamed(&self, half: &mut BTreeSet<u32>) {
        let mut named = BTreeSet::new();
        for number in 0..SHARD_COUNT {
            let shard = self.keydir.shard(number);
            named.extend(shard.addresses().map(|address| address.segment));
        }
        for number in half.difference(&named) {
            self.segments.remove(*number);
        }
        half.retain(|number| named.contains(number));
    }

    fn load_alongside(
        &self,
        manifest: &Manifest,
        before: u64,
        held: &mut OpenedSegments,
    ) -> Result<u64> {
        let recovery = Recovery { fs: &self.fs, dir: &self.dir, keydir: &self.keydir };
        let recovered = recovery.for_reading(held, manifest.clone())?;
        // Otherwise, these segments would be counted twice.
        *held = OpenedSegments::default();
        // Before the segments: a follower that finds one of them must know which history is gone.
        self.manifest.set(manifest.clone());
        let mut filler = Filler::new(&recovery, &recovered, &self.segments)?;
        filler.refill(&self.keydir, before + 1)?;
        Ok(recovered.last_timestamp())
    }
}

/// Returns the first segment of the log after `id`.
fn first_behind(manifest: &Manifest, id: SegmentId) -> Option<SegmentId> {
    let log = manifest.sealed.iter().filter(|sealed| sealed.kind == Kind::Log);
    let sealed = log.map(|sealed| sealed.id).filter(|other| *other > id).min();
    sealed.or_else(|| (manifest.log_exists && manifest.log > id).then_some(manifest.log))
}
