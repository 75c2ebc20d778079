//! How many mappings and descriptors the segments of all stores in this process may take.
//!
//! - The kernel limits the mappings of a process: to 65,530, unless the limit was changed. When
//!   they run out, the allocator gets no more memory and the process aborts. Segments take at most
//!   a quarter of them. The rest is for threads, which need two each, for other libraries, and for
//!   the keydir's tables, whose mappings are so large, 64 MiB each, that memory bounds their
//!   number.
//! - Sealed segments leave a part of that quarter to new segments.
//! - No store needs a descriptor for each of its segments. A descriptor is kept where a file's name
//!   may be removed before its readers are gone. Indexes are kept open to save the calls that open
//!   them. Kept descriptors take at most a quarter of those that the process may have, and indexes
//!   leave half of that quarter to segments.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::fs::{self, File};

/// Number of mappings that sealed segments leave to new segments.
const NEW_MAX: usize = 256;

/// The mappings of segments.
static MAPPINGS: Budget = Budget { taken: AtomicUsize::new(0), limit: mappings_limit };

/// The descriptors that are kept.
static DESCRIPTORS: Budget = Budget { taken: AtomicUsize::new(0), limit: descriptors_limit };

/// The kind of segment that a mapping is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A segment that is being written.
    New,
    /// A sealed segment, of which there may be many.
    Sealed,
}

/// The number of units taken, and its limit.
#[derive(Debug)]
struct Budget {
    taken: AtomicUsize,
    limit: fn() -> usize,
}

/// A unit that was taken. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Unit(&'static Budget);

impl Budget {
    /// Takes a unit if that leaves at least this many.
    fn take(&'static self, left: usize) -> Option<Unit> {
        let limit = (self.limit)().saturating_sub(left);
        let next = |taken: usize| (taken < limit).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.is_ok().then(|| Unit(self))
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes a mapping, or returns `None` if none is left for this kind of segment.
pub(super) fn take_mapping(wanted: Wanted) -> Option<Unit> {
    #[cfg(test)]
    if !allowed::take_mapping() {
        return None;
    }
    MAPPINGS.take(left_to_new(wanted))
}

/// A file that is kept open.
#[derive(Debug)]
pub(super) struct KeptFile {
    pub(super) file: File,
    _unit: Unit,
}

impl KeptFile {
    pub(super) fn new(file: File, unit: Unit) -> Self {
        Self { file, _unit: unit }
    }
}

/// Takes a descriptor that will be kept for a segment, or returns `None` if none is left.
pub(super) fn take_descriptor() -> Option<Unit> {
    take_descriptor_and_leave(0)
}

/// Takes a descriptor that will be kept for an index, or returns `None` if none is left.
pub(super) fn take_index_descriptor() -> Option<Unit> {
    take_descriptor_and_leave(descriptors_limit() / 2)
}

fn take_descriptor_and_leave(left: usize) -> Option<Unit> {
    #[cfg(test)]
    if !allowed::take_descriptor() {
        return None;
    }
    DESCRIPTORS.take(left)
}

/// Returns how many mappings the segments of this process have.
pub(crate) fn mappings() -> usize {
    MAPPINGS.taken.load(Ordering::Relaxed)
}

/// Returns how many mappings the segments of this process may have.
pub(crate) fn mappings_limit() -> usize {
    #[cfg(test)]
    if let Some(limit) = allowed::limit() {
        return limit;
    }
    fs::mappings_limit() / 4
}

/// Returns how many mappings are left for sealed segments.
pub(crate) fn mappings_left() -> usize {
    mappings_limit().saturating_sub(left_to_new(Wanted::Sealed)).saturating_sub(mappings())
}

/// Returns which sealed segments should get the remaining mappings: the largest, and among equally
/// large ones the youngest. `lengths` is oldest first.
pub(crate) fn worth_mapping(lengths: &[u64]) -> Vec<bool> {
    worth(lengths, mappings_left())
}

fn worth(lengths: &[u64], left: usize) -> Vec<bool> {
    let mut worth = vec![lengths.len() <= left; lengths.len()];
    if lengths.len() > left {
        let mut order: Vec<(u64, usize)> = lengths.iter().copied().zip(0..).collect();
        order.sort_unstable_by_key(|place| std::cmp::Reverse(*place));
        for (_, at) in order.into_iter().take(left) {
            worth.iter_mut().skip(at).take(1).for_each(|worth| *worth = true);
        }
    }
    worth
}

fn left_to_new(wanted: Wanted) -> usize {
    match wanted {
        Wanted::New => 0,
        Wanted::Sealed => NEW_MAX.min(mappings_limit() / 8),
    }
}

fn descriptors_limit() -> usize {
    fs::files_limit() / 4
}

/// Limits that tests set.
#[cfg(test)]
pub(crate) mod allowed {
    use std::cell::Cell;
    use std::sync::OnceLock;

    thread_local! {
        static MAPPINGS: Cell<usize> = const { Cell::new(usize::MAX) };
        static DESCRIPTORS: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    /// Limits the mappings that this thread can still take.
    pub(crate) fn mappings(left: usize) {
        MAPPINGS.set(left);
    }

    /// Limits the descriptors that this thread can still keep.
    pub(crate) fn descriptors(left: usize) {
        DESCRIPTORS.set(left);
    }

    pub(super) fn take_mapping() -> bool {
        MAPPINGS.with(take)
    }

    pub(super) fn take_descriptor() -> bool {
        DESCRIPTORS.with(take)
    }

    fn take(left: &Cell<usize>) -> bool {
        let before = left.get();
        left.set(before.saturating_sub(usize::from(before < usize::MAX)));
        before > 0
    }

    /// The limit for the whole test run.
    pub(super) fn limit() -> Option<usize> {
        static LIMIT: OnceLock<Option<usize>> = OnceLock::new();
        let from_env = || std::env::var("BITCASK_MAPPINGS").ok()?.parse().ok();
        *LIMIT.get_or_init(from_env)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_segments_and_then_the_youngest_are_worth_a_mapping() {
        let lengths = [100, 300, 100, 200, 100];
        let chosen = |left| {
            let worth = worth(&lengths, left).into_iter().zip(0..);
            worth.filter_map(|(worth, at)| worth.then_some(at)).collect::<Vec<usize>>()
        };
        assert!(chosen(0).is_empty());
        assert_eq!(chosen(1), [1]);
        assert_eq!(chosen(3), [1, 3, 4]);
        assert_eq!(chosen(4), [1, 2, 3, 4]);
        assert_eq!(chosen(5), [0, 1, 2, 3, 4]);
        assert_eq!(chosen(9), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn no_more_units_are_taken_than_allowed_and_dropped_ones_can_be_retaken() {
        static THREE: Budget = Budget { taken: AtomicUsize::new(0), limit: || 3 };
        let units: Vec<Unit> = (0..5).filter_map(|_| THREE.take(1)).collect();
        assert_eq!(units.len(), 2, "one is left");
        let last = THREE.take(0);
        assert!(last.is_some() && THREE.take(0).is_none());
        drop(units);
        assert!(
            THREE.take(1).is_some() && THREE.take(1).is_some(),
            "each is given back immediately"
        );
        drop(last);
        assert_eq!(THREE.taken.load(Ordering::Relaxed), 0);
    }
}
