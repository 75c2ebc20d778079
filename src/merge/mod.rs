//! Merge: copies live entries out of sealed segments, and removes the segments.
//!
//! - `plan` chooses the segments to merge, and `fold` the small ones when a store is opened or
//!   closed. `shadow` decides which tombstones are still needed, and `copy` copies. This file
//!   drives a merge and publishes what was copied.
//! - A merge copies its inputs one after the other, oldest first, in bounded steps. Whenever an
//!   output is full, and at the end, the merge publishes it: the manifest lists the output just
//!   above the youngest segment from which it has entries, and no longer lists the inputs that were
//!   copied whole. A merge that stops early keeps what it has finished.
//! - Until a copy is published, the manifest lists the old segments. Slots in the keydir already
//!   name copies that are not listed, but the inputs still exist, so a crash leaves the old set.
//!   Copies that could not be published for lack of space are kept, and published before anything
//!   else is merged.
//! - A merge holds a shard's lock for one slot at a time, and the locks that `Host::exclusively`
//!   takes while the manifest is replaced. It holds no other locks.

mod copy;
mod fold;
mod ordered;
mod plan;
mod shadow;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::clock::Clock;
use crate::epoch::Guard;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::key_hash::KeyHash;
use crate::keydir::{Address, Keydir, SHARD_COUNT};
use crate::manifest::{Manifest, ManifestFile, Sealed};
use crate::mistake::{Mistake, made};
use crate::segment::header::{Identity, Kind};
use crate::segment::hint::{HintSlot, HintSource, SegmentHint, Summary};
use crate::segment::space::check_space;
use crate::segment::write::output::Output;
use crate::segment::{Dir, Place, Segment, SegmentId, Segments};
use crate::stats::{MergeProgress, MergeReport};
pub(crate) use fold::{FoldLimits, SMALL_MAX, plan_fold};
pub(crate) use plan::{
    PlanContext, Pool, frees_something, plan_all, plan_auto, plan_chosen, plan_now,
};

use copy::{CopiedTombstones, NumberedOutput, Reading};
use ordered::Gathered;
use shadow::{KeyState, Shadows};

/// The parts of a store that a merge works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MergeContext<'a> {
    pub(crate) fs: &'a Fs,
    pub(crate) dir: &'a Dir,
    pub(crate) clock: &'a Clock,
    pub(crate) identity: Identity,
    pub(crate) keydir: &'a Keydir,
    pub(crate) segments: &'a Segments,
    pub(crate) manifest: &'a ManifestFile,
    /// The size in bytes at which an output is full.
    pub(crate) segment_size: u64,
    /// The number of entries at which an output is full.
    pub(crate) segment_entries: u64,
}

/// What a merge needs from the store.
pub(crate) trait Host {
    fn merge_context(&self) -> MergeContext<'_>;

    /// Creates an output with room for an entry of this size, and gives it a number.
    fn create_output(&self, size: u64) -> Result<(Output, u32)>;

    /// Makes everything durable that has been appended so far.
    fn sync_log(&self) -> Result<()>;

    /// Runs a closure while no other thread changes the set of segments or copies its files. It
    /// gets the oldest segment of the log that a lease keeps now.
    fn exclusively(&self, change: &mut dyn FnMut(Option<SegmentId>) -> Result<()>) -> Result<()>;

    /// Returns a timestamp that only the next entry will reach, and no entry before it.
    fn next_timestamp(&self) -> u64;

    /// Removes the files of a segment that nothing names any more. Files that can't be removed now
    /// are removed later.
    fn unlink(&self, segment: &Arc<Segment>);

    /// Poisons the store if the error is that of a failed sync. Returns the error to report.
    fn poison_if_sync_failed(&self, error: Error) -> Error;
}

/// A sealed segment.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    segment: Arc<Segment>,
    number: u32,
    /// Its position in the manifest, which is its age: a lower position is older.
    position: usize,
}

impl Input {
    fn id(&self) -> SegmentId {
        self.segment.id()
    }

    /// Returns whether the segment is kept if the log is kept from another one on.
    fn is_kept(&self, from: Option<SegmentId>) -> bool {
        self.segment.kind() == Kind::Log && from.is_some_and(|from| self.id() >= from)
    }

    fn hint_size(&self) -> u64 {
        self.segment.summary().map_or(0, Summary::hint_size)
    }

    /// Returns whether the segment holds a single live entry that fills it. A copy of it would free
    /// nothing.
    fn is_one_live_entry(&self, segment_size: u64, now: u64) -> bool {
        self.segment.live_size() >= segment_size
            && self
                .segment
                .summary()
                .is_some_and(|summary| summary.entries == 1 && summary.expired_size(now) == 0)
    }

    fn source(&self, identity: Identity) -> HintSource {
        HintSource { id: self.id(), identity, length: self.segment.size() }
    }
}

/// A merge in progress.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    /// The inputs that have not been begun, oldest first.
    inputs: VecDeque<Input>,
    reading: Option<Reading>,
    /// The inputs that were copied whole and that the manifest still lists.
    copied: Vec<Input>,
    output: Option<NumberedOutput>,
    /// The outputs that are written and durable, and that the manifest does not list yet.
    written: Vec<Sealed>,
    /// The youngest input that was begun. Outputs are listed above it.
    youngest: Option<SegmentId>,
    /// The latest timestamp in the inputs.
    last_timestamp: u64,
    shadows: Shadows,
    copied_tombstones: CopiedTombstones,
    report: MergeReport,
    progress: MergeProgress,
    /// Whether copies are written in the order of their keys.
    is_ordered: bool,
    gathered: Gathered,
    /// Whether the merge may take the last space on the disk, because it will free more than it
    /// takes.
    takes_last_space: bool,
}

impl MergeContext<'_> {
    /// Calls a closure with each slot of a segment's hint, until it returns `false`.
    fn for_each_slot(&self, input: &Input, visit: impl FnMut(HintSlot) -> bool) -> Result<()> {
        let (source, hash) = (input.source(self.identity), |key: &[u8]| self.keydir.hash(key));
        let hint = SegmentHint::open(self.fs, self.dir, source, hash)?;
        hint.for_each(self.fs, self.dir, source, hash, visit)
    }

    /// Refuses if a file of this size would take the last space on the disk.
    fn check_space(&self, size: u64) -> Result<()> {
        check_space(self.fs, self.dir, self.segment_size, size)
    }

    /// Returns whether the keydir names the entry that a slot of a hint describes.
    fn names(&self, slot: HintSlot, input: &Input, guard: &Guard<'_>) -> bool {
        let address = Address { segment: input.number, offset: slot.offset() };
        self.keydir.names(slot.hash(), address, guard)
    }

    /// Returns whether a key has a slot, and whether other keys with the same hash bits have one.
    /// The closure returns whether an address is that of the key's own entry.
    fn find(
        &self,
        hash: KeyHash,
        guard: &Guard<'_>,
        own: impl Fn(Address) -> Result<bool>,
    ) -> Result<KeyState> {
        let own = |address| Ok(own(address)?.then_some(()));
        let found = self.keydir.find_all(hash, guard, own)?;
        let Some(found) = found else { unreachable!("all shards are filled before a merge") };
        Ok(KeyState { own: found.own.is_some(), others: found.others })
    }
}

impl Merge {
    /// Begins a merge of sealed segments. The caller has filled all shards.
    pub(crate) fn begin(context: &MergeContext<'_>, ids: &BTreeSet<SegmentId>) -> Self {
        let open: BTreeMap<SegmentId, (u32, Arc<Segment>)> = context
            .segments
            .all()
            .into_iter()
            .map(|(number, segment)| (segment.id(), (number, segment)))
            .collect();
        let listed = context.manifest.get(|manifest| manifest.sealed.clone());
        let found = listed.iter().enumerate().filter_map(|(position, sealed)| {
            let (number, segment) = open.get(&sealed.id)?;
            Some(Input { segment: Arc::clone(segment), number: *number, position })
        });
        let now = context.clock.certain().lowest();
        let is_input = |input: &Input| {
            ids.contains(&input.id()) && !input.is_one_live_entry(context.segment_size, now)
        };
        let (inputs, others): (Vec<_>, Vec<_>) = found.partition(is_input);
        let shadows = Shadows::new(context, &inputs, &others);
        let progress = MergeProgress {
            segments_total: inputs.len() as u64,
            total_size: inputs.iter().map(|input| input.segment.size()).sum(),
            ..MergeProgress::default()
        };
        let times = inputs.iter().filter_map(|input| input.segment.summary());
        let last_timestamp = times.map(|summary| summary.last_timestamp).max().unwrap_or(0);
        Self { inputs: inputs.into(), last_timestamp, shadows, progress, ..Self::default() }
    }

    /// Lets the merge take the last space on the disk. The caller has checked that the space
    /// suffices.
    pub(crate) fn taking_last_space(self) -> Self {
        Self { takes_last_space: true, ..self }
    }

    fn check_space(&self, context: &MergeContext<'_>, size: u64) -> Result<()> {
        if self.takes_last_space { Ok(()) } else { context.check_space(size) }
    }

    /// Returns how far the merge has come.
    pub(crate) fn progress(&self) -> MergeProgress {
        let begun = self.reading.as_ref().map_or(0, Reading::read_size);
        MergeProgress { read_size: self.progress.read_size + begun, ..self.progress }
    }

    /// Returns what the merge has done.
    pub(crate) fn report(&self, cancelled: bool) -> MergeReport {
        MergeReport { cancelled, ..self.report.clone() }
    }

    /// Does a bounded amount of work. Returns how many bytes it copied, or `None` at the end.
    ///
    /// After an error the merge can copy nothing more, but what was copied can be
    /// [published](Self::publish).
    pub(crate) fn step(&mut self, host: &impl Host) -> Result<Option<u64>> {
        if self.gathered.is_sorted() {
            return self.copy_gathered(host).map(Some);
        }
        if let Some(mut reading) = self.reading.take() {
            let copied_size = if self.is_ordered {
                self.gather_run(&mut reading)?
            } else {
                self.copy_run(host, &mut reading)?
            };
            if let Some(copied_size) = copied_size {
                self.progress.copied_size += copied_size;
                self.reading = Some(reading);
                return Ok(Some(copied_size));
            }
            self.progress.segments_done += 1;
            self.progress.read_size += reading.input.segment.size();
            if self.gathered.is_empty() {
                self.copied.push(reading.input);
            } else {
                self.gathered.end(reading.input);
            }
            return Ok(Some(0));
        }
        let Some(input) = self.inputs.pop_front() else {
            if !self.gathered.is_empty() {
                self.gathered.sort(false);
                return Ok(Some(0));
            }
            self.publish(host)?;
            return Ok(None);
        };
        let live_size = input.segment.live_size();
        if live_size > 0 {
            // An input that is copied in part frees nothing.
            let needed = live_size + self.gathered.size();
            let checked = self.check_space(&host.merge_context(), needed);
            if checked.is_err() && !self.gathered.is_empty() {
                // Copying what was gathered makes room.
                self.inputs.push_front(input);
                self.gathered.sort(true);
                return Ok(Some(0));
            }
            checked?;
        }
        self.youngest = Some(input.id());
        self.reading = Some(Reading::begin(self, &host.merge_context(), input)?);
        Ok(Some(0))
    }

    /// Returns the input that was read last.
    pub(crate) fn last_read(&self) -> Option<SegmentId> {
        self.youngest
    }

    /// Returns whether something was copied that has not been published.
    pub(crate) fn is_pending(&self) -> bool {
        self.output.is_some() || !self.written.is_empty() || !self.copied.is_empty()
    }

    /// Publishes what was copied: lists the outputs, and removes the inputs that were copied whole.
    /// After a failure it can be called again, unless a sync failed.
    pub(crate) fn publish(&mut self, host: &impl Host) -> Result<()> {
        let context = host.merge_context();
        self.close_output(host)?;
        if !self.is_pending() {
            return Ok(());
        }
        // The names of hints and outputs survive a power loss from here on.
        context
            .fs
            .sync_dir(context.dir.path())
            .map_err(|error| host.poison_if_sync_failed(error))?;
        // Entries were not copied because later ones overwrite or delete them. Those later ones
        // must be durable before the inputs are removed.
        if !made(Mistake::SwapBeforeLog) {
            host.sync_log()?;
        }
        if let Some(unfinished) = self.unfinished(&context) {
            // Nothing has been listed, so the disk is as it was.
            return Err(unfinished);
        }
        host.exclusively(&mut |leased| {
            // A lease may be younger than the plan. What it keeps stays listed beside its copy.
            self.copied.retain(|input| !input.is_kept(leased));
            self.swap(host, &context)
        })?;
        // The next merge may need the numbers, mappings and descriptors of the removed segments.
        context.segments.free_retired();
        Ok(())
    }

    /// Replaces the manifest, and removes the inputs that it no longer lists.
    fn swap(&mut self, host: &impl Host, context: &MergeContext<'_>) -> Result<()> {
        let dropped: BTreeSet<SegmentId> = self.copied.iter().map(Input::id).collect();
        if made(Mistake::RemovedFirst) {
            self.remove_copied(host, context);
        }
        let above = self.youngest.or(self.copied.last().map(Input::id));
        if let Some(above) = above {
            // The ends are read before the files are removed.
            let copied = self.copied.iter().filter(|input| input.segment.kind() == Kind::Log);
            let places: Vec<Place> = copied.map(|input| input.segment.last_end()).collect();
            let swap = |manifest: &mut Manifest| {
                let places = places.iter().copied();
                manifest.swap(&self.written, above, &dropped, places, self.last_timestamp);
            };
            let swapped = context.manifest.update(swap).or_else(|error| {
                if !error.is_no_space() {
                    return Err(error);
                }
                // Hints can be rebuilt, and their space may be all that the manifest needs.
                for sealed in &self.written {
                    context.fs.remove(&context.dir.hint(sealed.id))?;
                }
                context.manifest.update(swap)
            });
            swapped.map_err(|error| host.poison_if_sync_failed(error))?;
        }
        // Segments outside the merge may lie between these outputs and the next ones, so a
        // tombstone that was copied to these does not stand for later ones.
        self.copied_tombstones = CopiedTombstones::default();
        self.report.segments_out += self.written.len() as u64;
        self.report.size_out += self.written.drain(..).map(|sealed| sealed.length).sum::<u64>();
        self.remove_copied(host, context);
        Ok(())
    }

    /// Removes the inputs that were copied whole.
    fn remove_copied(&mut self, host: &impl Host, context: &MergeContext<'_>) {
        for input in self.copied.drain(..) {
            self.report.segments_in += 1;
            self.report.size_in += input.segment.size();
            // The segment leaves the set first: a snapshot taken after that does not need it.
            context.segments.remove(input.number);
            host.unlink(&input.segment);
        }
    }

    /// Returns an error if slots still name entries of an input that should have been copied whole.
    fn unfinished(&self, context: &MergeContext<'_>) -> Option<Error> {
        context.keydir.wait_for_writers();
        // The count of live bytes is wrong if an entry with a damaged size was overwritten. Slots
        // are always right.
        let is_named = |input: &Input| {
            let mut shards = (0..SHARD_COUNT).map(|number| context.keydir.shard(number));
            shards.any(|shard| shard.addresses().any(|address| address.segment == input.number))
        };
        let mut unaccounted = self.copied.iter().filter(|input| input.segment.live_size() > 0);
        let left = unaccounted.find(|input| is_named(input))?;
        let reason = format!(
            "{} bytes of live entries are missing from the segment's hint; remove the hint file",
            left.segment.live_size()
        );
        Some(Error::corrupt(left.segment.path(), 0, reason))
    }
}
