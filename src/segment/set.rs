//! The open segments of a store.
//!
//! - Keydir slots name a segment by an in-memory number of 18 bits. On disk, an id of 32 bits names
//!   it.
//! - Looking up a segment by its number takes no lock. A segment is in the set before a slot names
//!   it, and stays until no reader can have seen such a slot. It leaves the set, and its number can
//!   be reused, when all guards from before its removal are dropped.
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

/// Number of segments that the number in a slot can distinguish.
pub(crate) const SEGMENTS_LIMIT: u64 = 1 << 18;

/// Number of segments whose slots are found without another load. Few stores have more.
const FIRST_LEN: usize = if cfg!(all(test, loom)) { 1 << 1 } else { 1 << 8 };
/// Number of segments per chunk. A chunk is allocated when the first of its numbers is used.
const CHUNK_LEN: usize = if cfg!(all(test, loom)) { 1 << 3 } else { 1 << 10 };
const CHUNKS: usize = (1 << 18) / CHUNK_LEN;

const _: () = assert!(CHUNK_LEN * CHUNKS == 1 << 18 && SEGMENTS_LIMIT == 1 << 18);

type SegmentChunk = Box<[Published<Arc<Segment>>]>;

/// All open segments of a store, by number. A clone is another handle to the same set.
#[derive(Debug, Clone)]
pub(crate) struct Segments {
    numbered: Arc<SegmentSlots>,
    /// The keydir's collector, since slots lead to numbers.
    collector: Collector,
    /// Lock 7: the segments that have not been removed.
    listed: Arc<Mutex<Listed>>,
}

#[derive(Debug, Default)]
struct Listed {
    by_number: BTreeMap<u32, Arc<Segment>>,
    /// The segments that hold everything between them, until one is added or removed.
    whole: Option<Arc<[Arc<Segment>]>>,
}

#[derive(Debug)]
struct SegmentSlots {
    /// The slots of the lowest numbers.
    first: [Published<Arc<Segment>>; FIRST_LEN],
    /// The slots of all other numbers.
    chunks: Box<[OnceLock<SegmentChunk>]>,
    /// Lock 8: which numbers are in use.
    numbers: Mutex<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    /// The lowest number that was never used.
    next: u32,
    /// Numbers that can be reused.
    free: Vec<u32>,
    /// Numbers of removed segments that no guard can reach any more.
    unseen: Vec<u32>,
    /// Numbers of removed segments that the set still holds, each with its removal time, oldest
    /// first.
    retired: VecDeque<(u32, Instant)>,
}

impl Default for SegmentSlots {
    fn default() -> Self {
        let first = std::array::from_fn(|_| Published::default());
        let chunks = (0..CHUNKS).map(|_| OnceLock::new()).collect();
        Self { first, chunks, numbers: Mutex::default() }
    }
}

impl SegmentSlots {
    #[inline]
    fn slot(&self, number: u32) -> Option<&Published<Arc<Segment>>> {
        let slot = self.first.get(number as usize);
        if slot.is_some() { slot } else { self.slot_in_chunk(number) }
    }

    #[inline(never)]
    fn slot_in_chunk(&self, number: u32) -> Option<&Published<Arc<Segment>>> {
        let number = number as usize;
        self.chunks.get(number / CHUNK_LEN)?.get()?.get(number % CHUNK_LEN)
    }

    /// Assigns a number to a segment.
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
        if number as usize >= FIRST_LEN
            && let Some(chunk) = self.chunks.get(number as usize / CHUNK_LEN)
        {
            chunk.get_or_init(|| (0..CHUNK_LEN).map(|_| Published::default()).collect());
        }
        if let Some(slot) = self.slot(number) {
            slot.replace(Some(segment), guard);
        }
        Ok(number)
    }

    /// Frees the numbers that no guard can reach any more. Returns whether there were any.
    fn free_unseen(self: &Arc<Self>, guard: &Guard<'_>) -> bool {
        let unseen = std::mem::take(&mut self.numbers.lock().unseen);
        if unseen.is_empty() {
            return false;
        }
        for slot in unseen.iter().filter_map(|number| self.slot(*number)) {
            slot.replace(None, guard);
        }
        // This runs after the closure that `replace` has retired.
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

    /// Adds a segment. Returns the number by which slots name it.
    pub(crate) fn add(&self, segment: Arc<Segment>) -> Result<u32> {
        // The guard is taken before all locks: pinning may run the closure that records an unseen
        // number, which takes a lock.
        let guard = self.collector.pin();
        let number = self.numbered.add(Arc::clone(&segment), &guard)?;
        let mut listed = self.listed.lock();
        listed.by_number.insert(number, segment);
        listed.whole = None;
        Ok(number)
    }

    /// Replaces a segment by the same one, opened differently. Holders of the old one can still
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
    #[inline]
    pub(crate) fn get<'a>(&'a self, number: u32, guard: &'a Guard<'_>) -> &'a Arc<Segment> {
        match self.numbered.slot(number).and_then(|slot| slot.get(guard)) {
            Some(segment) => segment,
            None => unreachable!("segment number {number} is named by a slot and not in the set"),
        }
    }

    /// Removes a segment that no slot names any more. Holders of it can still read it.
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

    /// Frees whatever was removed or replaced, in the keydir too, as far as no reader can still use
    /// it.
    ///
    /// Retired memory is otherwise freed only when a thread pins, and the disk space of a removed
    /// file only with its mapping. What a reader may still use is left to the next call; the caller
    /// itself counts as a reader if it holds a guard. This call queues nothing.
    pub(crate) fn free_retired(&self) {
        self.collector.free_retired();
        if self.numbered.free_unseen(&self.collector.pin()) {
            self.collector.free_retired();
        }
    }

    /// Returns how many removed segments the set still holds, and how long ago the oldest of them,
    /// or the oldest replaced table of the keydir, was retired.
    pub(crate) fn retired(&self) -> (u64, Option<Duration>) {
        let retired = &self.numbered.numbers.lock().retired;
        let oldest = retired.front().map(|(_, since)| since.elapsed());
        (retired.len() as u64, oldest.max(self.collector.oldest()))
    }

    /// Returns how many numbers can't be used now. This includes the numbers that wait for guards,
    /// whose end is unknown.
    pub(super) fn numbers_in_use(&self) -> u64 {
        let numbers = self.numbered.numbers.lock();
        u64::from(numbers.next).saturating_sub(numbers.free.len() as u64)
    }

    /// Returns whether no reader can still be using a segment that was removed from the set.
    pub(crate) fn is_quiescent(&self) -> bool {
        self.numbered.numbers.lock().retired.is_empty()
    }

    /// Returns whether a segment has holders other than the set and the caller. The answer remains
    /// valid as long as no thread gets the segment from the set meanwhile.
    pub(crate) fn is_held(&self, segment: &Arc<Segment>) -> bool {
        let mut listed = self.listed.lock();
        listed.whole = None;
        let is_it = |other: &&Arc<Segment>| Arc::ptr_eq(other, segment);
        // The set holds the segment by its number and in the list. The caller holds it once more.
        let own = 2 * listed.by_number.values().filter(is_it).count() + 1;
        Arc::strong_count(segment) > own
    }

    /// Returns all segments with their numbers.
    pub(crate) fn all(&self) -> Vec<(u32, Arc<Segment>)> {
        let listed = &self.listed.lock().by_number;
        listed.iter().map(|(number, segment)| (*number, Arc::clone(segment))).collect()
    }

    /// Returns the segments that hold everything between them. These are all segments except the
    /// unfinished outputs of a merge, whose inputs are still in the set.
    pub(crate) fn whole(&self) -> Arc<[Arc<Segment>]> {
        let Listed { by_number, whole } = &mut *self.listed.lock();
        let is_finished =
            |segment: &&Arc<Segment>| segment.kind() == Kind::Log || segment.summary().is_some();
        let gather = || by_number.values().filter(is_finished).map(Arc::clone).collect();
        Arc::clone(whole.get_or_insert_with(gather))
    }
}
