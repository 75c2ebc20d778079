//! Merge: live entries are copied out of sealed segments, and the segments go.
//!
//! - `plan` says which segments, and `fold` which small ones when a store is opened or closed; `shadow`
//!   which tombstones still matter; `copy` copies; this file conducts, and publishes what was copied.
//! - Inputs are copied one after the other, oldest first, by bounded steps. Whenever an output is
//!   full, and at the end, it is published: listed in the manifest in the place just above the
//!   youngest segment that it has entries of, and the inputs that were copied whole are listed no
//!   more. A merge that stops early is a merge of what it has got through.
//! - Until a copy is published the disk says what it said before. Then its slots in the keydir name
//!   copies that are not listed, and the inputs stay: a crash leaves the old set. What could not be
//!   published for want of space is kept, and published before anything else is merged.
//! - No lock is held but a shard's, for one slot, and those that `Host::exclusively` takes while
//!   the manifest is replaced.

mod copy;
mod fold;
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
use crate::segment::write::active::Active;
use crate::segment::{Dir, Place, Segment, SegmentId, Segments};

use crate::stats::{MergeProgress, MergeReport};
pub(crate) use fold::{FoldLimits, SMALL_MAX, plan_fold};
pub(crate) use plan::{PlanContext, Pool, gives_back, plan_all, plan_auto, plan_chosen, plan_now};

use copy::{Output, Reading};
use shadow::Shadows;

/// A merge leaves at least so much of the disk to others.
const LEFT_MIN: u64 = 32 << 20;

/// What a merge works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MergeContext<'a> {
    pub(crate) fs: &'a Fs,
    pub(crate) dir: &'a Dir,
    pub(crate) clock: &'a Clock,
    pub(crate) identity: Identity,
    pub(crate) keydir: &'a Keydir,
    pub(crate) segments: &'a Segments,
    pub(crate) manifest: &'a ManifestFile,
    /// The size and the entries at which an output is full.
    pub(crate) segment_size: u64,
    pub(crate) segment_entries: u64,
}

/// What a merge asks of the store.
pub(crate) trait Host {
    fn merge_context(&self) -> MergeContext<'_>;

    /// Creates an empty merged segment that entries of this size fit in, and gives it a number.
    fn create_output(&self, size: u64) -> Result<(Active, u32)>;

    /// Makes everything durable that has been appended so far.
    fn sync_log(&self) -> Result<()>;

    /// Runs a change of the set of segments while nobody else changes it or copies files of it.
    fn exclusively(&self, change: &mut dyn FnMut() -> Result<()>) -> Result<()>;

    /// Returns a time that no entry before the next one will have reached.
    fn next_timestamp(&self) -> u64;

    /// Removes the files of a segment that nothing names any more, as far as that can be done now.
    fn unlink(&self, segment: &Arc<Segment>);

    /// Ends writing if it was a sync that failed.
    fn poison_if_sync_failed(&self, error: Error) -> Error;
}

/// A sealed segment.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    segment: Arc<Segment>,
    number: u32,
    /// Its age: where the manifest lists it.
    position: usize,
}

impl Input {
    fn id(&self) -> SegmentId {
        self.segment.id()
    }

    fn hint_size(&self) -> u64 {
        self.segment.summary().map_or(0, Summary::hint_size)
    }

    /// Returns whether the segment is one entry, live, and as large as a segment: a copy would give
    /// nothing back.
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

/// A merge on its way.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    /// What is still to be begun, oldest first.
    inputs: VecDeque<Input>,
    reading: Option<Reading>,
    /// Copied whole, and listed in the manifest all the same.
    copied: Vec<Input>,
    output: Option<Output>,
    /// Outputs that are written, durable, and not listed yet.
    written: Vec<Sealed>,
    /// The youngest segment that was begun: outputs are listed above it.
    youngest: Option<SegmentId>,
    /// The latest time in the inputs.
    last_timestamp: u64,
    shadows: Shadows,
    kept: copy::CopiedTombstones,
    report: MergeReport,
    progress: MergeProgress,
    /// Whether it may take the last room of the disk: it will give back more.
    is_to_the_last_byte: bool,
}

impl MergeContext<'_> {
    /// Shows the slots of a segment's hint to a closure, until it says to stop.
    fn for_each_slot(&self, input: &Input, visit: impl FnMut(HintSlot) -> bool) -> Result<()> {
        let (source, hash) = (input.source(self.identity), |key: &[u8]| self.keydir.hash(key));
        let hint = SegmentHint::open(self.fs, self.dir, source, hash)?;
        hint.for_each(self.fs, self.dir, source, hash, visit)
    }

    /// Refuses if a file of this size would take the last room of the disk, which writers and the
    /// manifest need.
    pub(crate) fn leave_room(&self, size: u64) -> Result<()> {
        let left = self.fs.available_space(self.dir.path())?;
        if left.saturating_sub(size) < LEFT_MIN.min(self.segment_size / 4) {
            return Err(Error::NoSpace { path: self.dir.path().into() });
        }
        Ok(())
    }

    /// Returns whether a slot of the keydir names the entry that a hint's slot is of.
    fn names(&self, slot: HintSlot, input: &Input, guard: &Guard<'_>) -> bool {
        let address = Address { segment: input.number, offset: slot.offset() };
        self.keydir.names(slot.hash(), address, guard)
    }

    /// Returns whether a key has a slot, which the closure tells, and whether other keys with its
    /// hash bits have.
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

/// What the keydir has of a key.
struct KeyState {
    own: bool,
    others: bool,
}

impl Merge {
    /// Begins to merge sealed segments. All shards are filled.
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

    /// Has it take all the room that there is, where one has seen to it that this will do.
    pub(crate) fn taking_the_last_byte(self) -> Self {
        Self { is_to_the_last_byte: true, ..self }
    }

    fn leave_room(&self, context: &MergeContext<'_>, size: u64) -> Result<()> {
        if self.is_to_the_last_byte { Ok(()) } else { context.leave_room(size) }
    }

    /// Returns how far it has come.
    pub(crate) fn progress(&self) -> MergeProgress {
        let begun = self.reading.as_ref().map_or(0, Reading::read_size);
        MergeProgress { read_size: self.progress.read_size + begun, ..self.progress }
    }

    /// Returns what it did.
    pub(crate) fn report(&self, cancelled: bool) -> MergeReport {
        MergeReport { cancelled, ..self.report.clone() }
    }

    /// Does a bounded piece of the work; returns how many bytes it copied, nothing at the end.
    ///
    /// After an error nothing more can be copied, but what was can be [published](Self::publish).
    pub(crate) fn step(&mut self, host: &impl Host) -> Result<Option<u64>> {
        if let Some(mut reading) = self.reading.take() {
            if let Some(copied_size) = self.copy_run(host, &mut reading)? {
                self.progress.copied_size += copied_size;
                self.reading = Some(reading);
                return Ok(Some(copied_size));
            }
            self.progress.segments_done += 1;
            self.progress.read_size += reading.input.segment.size();
            self.copied.push(reading.input);
            return Ok(Some(0));
        }
        let Some(input) = self.inputs.pop_front() else {
            self.publish(host)?;
            return Ok(None);
        };
        let live_size = input.segment.live_size();
        if live_size > 0 {
            // Half of an input gives nothing back.
            self.leave_room(&host.merge_context(), live_size)?;
        }
        self.youngest = Some(input.id());
        self.reading = Some(Reading::begin(self, &host.merge_context(), input)?);
        Ok(Some(0))
    }

    /// Returns the input that was being read last.
    pub(crate) fn last_read(&self) -> Option<SegmentId> {
        self.youngest
    }

    /// Returns whether there is something that has been copied and is not listed.
    pub(crate) fn is_pending(&self) -> bool {
        self.output.is_some() || !self.written.is_empty() || !self.copied.is_empty()
    }

    /// Publishes what has been copied: the outputs are listed, and the inputs that were copied
    /// whole go. If it fails it can be tried again, unless it was a sync that failed.
    pub(crate) fn publish(&mut self, host: &impl Host) -> Result<()> {
        let context = host.merge_context();
        self.close_output(host)?;
        if !self.is_pending() {
            return Ok(());
        }
        // Hints and outputs have their names, whatever becomes of the power.
        context
            .fs
            .sync_dir(context.dir.path())
            .map_err(|error| host.poison_if_sync_failed(error))?;
        // What overwrote or deleted the entries that were not copied has to be as durable as they.
        if !made(Mistake::SwapBeforeLog) {
            host.sync_log()?;
        }
        if let Some(unfinished) = self.unfinished(&context) {
            // Nothing is listed: on disk all is as it was.
            return Err(unfinished);
        }
        host.exclusively(&mut || self.swap(host, &context))?;
        // Numbers of segments, mappings and descriptors may be wanted by what is merged next.
        context.segments.free_retired();
        Ok(())
    }

    /// Replaces the manifest, and removes the inputs that it lists no more.
    fn swap(&mut self, host: &impl Host, context: &MergeContext<'_>) -> Result<()> {
        let dropped: BTreeSet<SegmentId> = self.copied.iter().map(Input::id).collect();
        if made(Mistake::RemovedFirst) {
            self.remove_copied(host, context);
        }
        let above = self.youngest.or(self.copied.last().map(Input::id));
        if let Some(above) = above {
            // Looked at before the files go.
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
                // Hints can be built anew, and what they take may be all that is missing.
                for sealed in &self.written {
                    context.fs.remove(&context.dir.hint(sealed.id))?;
                }
                context.manifest.update(swap)
            });
            swapped.map_err(|error| host.poison_if_sync_failed(error))?;
        }
        // They have their place now, and something else may lie between it and the next one's.
        self.kept = copy::CopiedTombstones::default();
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
            // From the set first: who takes a snapshot from then on does not need it.
            context.segments.remove(input.number);
            host.unlink(&input.segment);
        }
    }

    /// Returns an error if slots name entries of an input that was thought to be copied whole.
    fn unfinished(&self, context: &MergeContext<'_>) -> Option<Error> {
        context.keydir.wait_for_writers();
        // The account is off where an entry was overwritten whose size was damaged; slots are not.
        let is_named = |input: &Input| {
            let mut shards = (0..SHARD_COUNT).map(|number| context.keydir.shard(number));
            shards.any(|shard| shard.addresses().any(|address| address.segment == input.number))
        };
        let mut unaccounted = self.copied.iter().filter(|input| input.segment.live_size() > 0);
        let left = unaccounted.find(|input| is_named(input))?;
        let reason = format!(
            "{} bytes of entries are live that its hint does not tell of",
            left.segment.live_size()
        );
        Some(Error::corrupt(left.segment.path(), 0, reason))
    }
}
