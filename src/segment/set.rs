//! The open segments of a store.
//!
//! - A segment has a number in memory, 18 bits, which keydir slots name it by; its id, 32 bits,
//!   names it on disk.
//! - Looking a segment up by its number takes no lock. It is there before a slot names it, and
//!   stays until nobody can have seen such a slot: it leaves the set, and its number is used again,
//!   when all guards from before its removal are gone.
//! - Values hold the segment itself, never its number.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::Segment;
use super::header::Kind;
use crate::epoch::{Collector, Guard, Published};
use crate::error::{Error, Result};
use crate::mistake::{Mistake, made};
use crate::sync::{Instant, Mutex};

/// As many segments as a slot's number can tell apart.
pub(crate) const SEGMENTS_LIMIT: u64 = 1 << 18;

/// Segments are kept in chunks, each made when the first of its numbers is used.
const CHUNK_LEN: usize = if cfg!(all(test, loom)) { 1 << 3 } else { 1 << 10 };
const CHUNKS: usize = (1 << 18) / CHUNK_LEN;

const _: () = assert!(CHUNK_LEN * CHUNKS == 1 << 18 && SEGMENTS_LIMIT == 1 << 18);

type SegmentChunk = Box<[Published<Arc<Segment>>]>;

/// All open segments of a store, by number. A clone is another handle of the same set.
#[derive(Debug, Clone)]
pub(crate) struct Segments {
    numbered: Arc<SegmentSlots>,
    /// The keydir's: its slots lead to numbers.
    collector: Collector,
    /// Lock 7: the segments that have not been removed.
    listed: Arc<Mutex<Listed>>,
}

#[derive(Debug, Default)]
struct Listed {
    by_number: BTreeMap<u32, Arc<Segment>>,
    /// Those that together hold everything, as long as none is added or removed.
    whole: Option<Arc<[Arc<Segment>]>>,
}

#[derive(Debug)]
struct SegmentSlots {
    chunks: Box<[OnceLock<SegmentChunk>]>,
    /// Lock 8: which numbers are in use.
    numbers: Mutex<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    /// The lowest that was never used.
    next: u32,
    /// Numbers that have been let go.
    free: Vec<u32>,
    /// Of segments that were removed, and that no guard can lead to any more.
    unseen: Vec<u32>,
    /// The numbers of segments that were removed and are still held here, and since when; oldest first.
    retired: VecDeque<(u32, Instant)>,
}

impl Default for SegmentSlots {
    fn default() -> Self {
        let chunks = (0..CHUNKS).map(|_| OnceLock::new()).collect();
        Self { chunks, numbers: Mutex::default() }
    }
}

impl SegmentSlots {
    fn slot(&self, number: u32) -> Option<&Published<Arc<Segment>>> {
        let number = number as usize;
        self.chunks.get(number / CHUNK_LEN)?.get()?.get(number % CHUNK_LEN)
    }

    /// Makes a segment known by a number of its own.
    fn add(&self, segment: Arc<Segment>, guard: &Guard<'_>) -> Result<u32> {
        let mut numbers = self.numbers.lock();
        let number = match numbers.free.pop() {
            Some(number) => number,
            None if u64::from(numbers.next) < SEGMENTS_LIMIT => {
                numbers.next += 1;
                numbers.next - 1
            }
            None => return Err(Error::TooManySegments { limit: SEGMENTS_LIMIT }),
        };
        if let Some(chunk) = self.chunks.get(number as usize / CHUNK_LEN) {
            chunk.get_or_init(|| (0..CHUNK_LEN).map(|_| Published::default()).collect());
        }
        if let Some(slot) = self.slot(number) {
            slot.replace(Some(segment), guard);
        }
        Ok(number)
    }

    /// Frees the numbers that no guard can lead to any more; says whether there are any.
    fn free_unseen(self: &Arc<Self>, guard: &Guard<'_>) -> bool {
        let unseen = std::mem::take(&mut self.numbers.lock().unseen);
        if unseen.is_empty() {
            return false;
        }
        for slot in unseen.iter().filter_map(|number| self.slot(*number)) {
            slot.replace(None, guard);
        }
        // Behind what `replace` has retired.
        let (all, len) = (Arc::downgrade(self), unseen.len());
        guard.retire(move || {
            all.upgrade().into_iter().for_each(|all| drop(all.numbers.lock().retired.drain(..len)));
        });
        self.numbers.lock().free.extend(unseen);
        true
    }
}

impl Segments {
    /// An empty set, which is read with the guards of a collector.
    pub(crate) fn new(collector: &Collector) -> Self {
        let (numbered, listed) = (Arc::default(), Arc::default());
        Self { numbered, collector: collector.clone(), listed }
    }

    /// Adds a segment; returns the number that slots name it by.
    pub(crate) fn add(&self, segment: Arc<Segment>) -> Result<u32> {
        // Before all locks: whoever pins may be the one to note what is unseen, which takes one.
        let guard = self.collector.pin();
        let number = self.numbered.add(Arc::clone(&segment), &guard)?;
        let mut listed = self.listed.lock();
        listed.by_number.insert(number, segment);
        listed.whole = None;
        Ok(number)
    }

    /// Puts the same segment, opened in another way, in the place of one. Who holds that can still
    /// read it.
    pub(crate) fn replace(&self, number: u32, segment: Arc<Segment>) {
        if let Some(slot) = self.numbered.slot(number) {
            slot.replace(Some(Arc::clone(&segment)), &self.collector.pin());
            let mut listed = self.listed.lock();
            listed.by_number.insert(number, segment);
            listed.whole = None;
        }
    }

    /// Returns the segment that a slot named while the guard was held.
    pub(crate) fn get<'a>(&'a self, number: u32, guard: &'a Guard<'_>) -> &'a Arc<Segment> {
        match self.numbered.slot(number).and_then(|slot| slot.get(guard)) {
            Some(segment) => segment,
            None => unreachable!("segment number {number} is named by a slot and not in the set"),
        }
    }

    /// Lets go of a segment that no slot names any more. Who holds it can still read it.
    pub(crate) fn remove(&self, number: u32) -> Option<Arc<Segment>> {
        let segment = {
            let mut listed = self.listed.lock();
            listed.whole = None;
            listed.by_number.remove(&number)?
        };
        self.numbered.numbers.lock().retired.push_back((number, Instant::now()));
        let all = Arc::downgrade(&self.numbered);
        let guard = self.collector.pin();
        guard.retire(move || {
            all.upgrade().into_iter().for_each(|all| all.numbers.lock().unseen.push(number));
        });
        guard.flush();
        if made(Mistake::NumberFreedEarly) {
            self.numbered.numbers.lock().free.push(number);
        }
        Some(segment)
    }

    /// Lets go of what was removed or replaced, in the keydir too, as far as nobody can be reading it:
    /// what is retired goes only when somebody pins, and the disk space of a removed file only with its
    /// mapping. Where somebody reads, the caller itself if it has a guard, the rest is left to the next
    /// call, and this one queues nothing.
    pub(crate) fn free_retired(&self) {
        self.collector.free_retired();
        if self.numbered.free_unseen(&self.collector.pin()) {
            self.collector.free_retired();
        }
    }

    /// Returns how many segments were removed and are still held here, and for how long the oldest of
    /// them, or of the keydir's tables that were replaced.
    pub(crate) fn retired(&self) -> (u64, Option<Duration>) {
        let retired = &self.numbered.numbers.lock().retired;
        let oldest = retired.front().map(|(_, since)| since.elapsed());
        (retired.len() as u64, oldest.max(self.collector.oldest()))
    }

    /// Returns how many numbers can't be used now: of those that wait for guards to be gone nobody knows
    /// when they can be.
    pub(super) fn numbers_in_use(&self) -> u64 {
        let numbers = self.numbered.numbers.lock();
        u64::from(numbers.next).saturating_sub(numbers.free.len() as u64)
    }

    /// Returns whether nobody can be reading what was removed through this any more.
    pub(crate) fn is_settled(&self) -> bool {
        self.numbered.numbers.lock().retired.is_empty()
    }

    /// Returns whether anybody but this and the caller has a segment. Nobody may come to have it through
    /// this meanwhile.
    pub(crate) fn is_held(&self, segment: &Arc<Segment>) -> bool {
        let mut listed = self.listed.lock();
        listed.whole = None;
        let is_it = |other: &&Arc<Segment>| Arc::ptr_eq(other, segment);
        // By its number and in the list; one more is the caller's.
        let own = 2 * listed.by_number.values().filter(is_it).count() + 1;
        Arc::strong_count(segment) > own
    }

    /// Returns all segments with their numbers.
    pub(crate) fn all(&self) -> Vec<(u32, Arc<Segment>)> {
        let listed = &self.listed.lock().by_number;
        listed.iter().map(|(number, segment)| (*number, Arc::clone(segment))).collect()
    }

    /// Returns the segments that hold everything between them: all but what a merge has not finished
    /// writing, whose inputs are all still here.
    pub(crate) fn whole(&self) -> Arc<[Arc<Segment>]> {
        let Listed { by_number, whole } = &mut *self.listed.lock();
        let is_finished =
            |segment: &&Arc<Segment>| segment.kind() == Kind::Log || segment.summary().is_some();
        let gather = || by_number.values().filter(is_finished).map(Arc::clone).collect();
        Arc::clone(whole.get_or_insert_with(gather))
    }
}
