//! The entries of a segment sorted by key, for ordered scans: the `.index` file of a sealed
//! segment, and its counterpart in memory.
//!
//! - An index is derived and checksummed, can be deleted, and is never authoritative. It is rebuilt
//!   from its segment if it is missing, damaged, of another store, or for another length than its
//!   segment's.
//! - Every entry of a key has a row, including dead copies and tombstones. End entries and entries
//!   that only carry a mark have none. Rows contain timestamps, so the version of a key that counts
//!   at a moment is found without the log.
//! - Runs are made when they are first needed, and then kept by their segment. A sealed segment has
//!   one run. An unsealed one has several, since it grows. A segment that is never scanned in order
//!   has none.
//! - [`Merged`] returns the keys that many runs had at a moment, and [`find`] looks one of them up.

mod block;
mod bounds;
mod build;
mod cursor;
mod directory;
mod file;
mod gaps;
mod merged;
mod run;
#[cfg(test)]
mod tests;
mod version;

use std::sync::Arc;

use super::{FIRST_OFFSET, Segment};
use crate::error::Result;
use crate::sync::Mutex;

pub(crate) use bounds::{Bounds, Direction};
pub(crate) use build::RunBuilder;
#[cfg(test)]
pub(crate) use cursor::WALKED;
pub(crate) use file::has_index;
pub(crate) use gaps::Gaps;
pub(crate) use merged::Merged;
pub(crate) use run::{IndexContext, Run, compare_index};
#[cfg(any(test, bitcask_fuzzing))]
pub(crate) use version::find;
pub(crate) use version::{Hit, Moment, Part, newest};

/// Minimum ratio between the rows of a part and the rows of all parts after it, in a segment that
/// grows. If a part does not reach it, the parts are merged. With four, each row is sorted again as
/// often as with two, about three times for a natural logarithm of the number of rows, and a scan
/// has half as many parts to read.
const RATIO: u64 = 4;

/// What a segment knows about its index. Lock 7: held while entries are sorted.
#[derive(Debug, Default)]
pub(super) struct SegmentIndex(Mutex<IndexState>);

#[derive(Debug, Default)]
struct IndexState {
    /// The run of a sealed segment.
    whole: Option<Arc<Run>>,
    /// The parts of an unsealed segment, oldest first. Each has at least [`RATIO`] times the rows
    /// of the next.
    parts: Vec<Arc<Run>>,
    /// The offset up to which the parts reach.
    end: u64,
    /// Whether the index is known to be on disk.
    is_written: bool,
}

impl Segment {
    /// Returns the index file that is kept open, if one is.
    #[cfg(test)]
    pub(crate) fn kept_index(&self) -> Option<std::sync::Weak<dyn std::fmt::Debug>> {
        self.index.0.lock().whole.as_ref().and_then(|run| run.kept())
    }

    /// Returns the segment's entries up to its end, sorted, in a few runs.
    ///
    /// Sorts the entries that were not sorted before. If two threads need that, one waits for the
    /// other.
    pub(crate) fn runs(self: &Arc<Self>, context: &Arc<IndexContext>) -> Result<Vec<Arc<Run>>> {
        let mut state = self.index.0.lock();
        if self.summary().is_some() {
            return Ok(vec![state.whole(self, context)?]);
        }
        state.sort_rest(self, context)?;
        Ok(state.parts.clone())
    }

    /// Returns whether the segment is sealed and not known to have an index on disk.
    pub(crate) fn needs_index(&self) -> bool {
        self.summary().is_some() && !self.index.0.lock().is_written
    }

    /// Writes the index of a sealed segment, unless it has a usable one, and frees the memory of
    /// the run. Returns whether it wrote the index, which it does not if there is no space. Only a
    /// failed sync and damage to the segment are errors. Only one thread at a time may call this.
    pub(crate) fn write_index(self: &Arc<Self>, context: &Arc<IndexContext>) -> Result<bool> {
        if self.summary().is_none() {
            return Ok(false);
        }
        let (run, is_kept) = {
            let mut state = self.index.0.lock();
            let is_kept = state.whole.is_some() || !state.parts.is_empty();
            if !is_kept {
                let on_disk =
                    state.is_written || has_index(&context.fs, &context.dir, context.source(self));
                state.is_written = on_disk;
                if on_disk {
                    return Ok(false);
                }
            }
            (state.whole(self, context)?, is_kept)
        };
        // The state is not locked here, so that other threads that need it don't wait for the disk.
        let is_written = run.write(self)?;
        let mut state = self.index.0.lock();
        state.is_written |= is_written;
        if !is_kept && Arc::strong_count(&run) == 2 {
            state.whole = None;
        }
        Ok(is_written)
    }
}

impl IndexState {
    /// Returns the one run of a sealed segment.
    fn whole(&mut self, segment: &Arc<Segment>, context: &Arc<IndexContext>) -> Result<Arc<Run>> {
        let known = self.whole.take();
        let is_wrong = known.as_ref().is_some_and(|run| run.is_wrong());
        let run = match known.filter(|_| !is_wrong) {
            Some(run) => run,
            None => self.make_whole(segment, context, is_wrong)?,
        };
        self.is_written = run.is_on_disk();
        (self.parts, self.end) = (Vec::new(), 0);
        self.whole = Some(Arc::clone(&run));
        Ok(run)
    }

    fn make_whole(
        &mut self,
        segment: &Arc<Segment>,
        context: &Arc<IndexContext>,
        is_wrong: bool,
    ) -> Result<Arc<Run>> {
        if !is_wrong && let Some(run) = Run::open(context, segment)? {
            return Ok(Arc::new(run));
        }
        if !self.parts.is_empty() {
            self.sort_rest(segment, context)?;
            self.merge_parts(segment, context, 0)?;
        }
        match self.parts.pop() {
            Some(run) => Ok(run),
            None => Run::build(context, segment).map(Arc::new),
        }
    }

    /// Sorts the entries appended since the last time.
    fn sort_rest(&mut self, segment: &Arc<Segment>, context: &Arc<IndexContext>) -> Result<()> {
        let (start, end) = (self.end.max(FIRST_OFFSET), segment.size());
        if start < end {
            let mut builder = RunBuilder::default();
            run::add_walked(&mut builder, segment, start, end)?;
            if !builder.is_empty() {
                let run = Run::in_memory(context, segment.id(), builder);
                self.parts.push(Arc::new(run));
            }
            self.end = end;
        }
        let rows = |run: Option<&Arc<Run>>| run.map_or(0, |run| run.rows());
        // Parts are merged starting with the first one that is too small for the parts after it.
        let mut from = self.parts.len();
        let mut behind = 0;
        while from > 0 && (behind == 0 || rows(self.parts.get(from - 1)) < RATIO * behind) {
            from -= 1;
            behind += rows(self.parts.get(from));
        }
        self.merge_parts(segment, context, from)
    }

    /// Merges all parts from this one on, if there are several.
    fn merge_parts(
        &mut self,
        segment: &Arc<Segment>,
        context: &Arc<IndexContext>,
        from: usize,
    ) -> Result<()> {
        if from + 1 >= self.parts.len() {
            return Ok(());
        }
        let mut builder = RunBuilder::default();
        for run in self.parts.iter().skip(from) {
            let mut number = 0;
            while let Some(block) = run.block(number, segment)? {
                block.rows().for_each(|row| builder.push(&row));
                number += 1;
            }
        }
        let run = Run::in_memory(context, segment.id(), builder);
        self.parts.truncate(from);
        self.parts.push(Arc::new(run));
        Ok(())
    }
}
