//! Reads of several entries from the disk at the same time, in stores that are larger than memory.
//!
//! - A look-up of an entry that is not in memory waits for the disk. Where many keys are looked up,
//!   the system is therefore asked for all of their entries first.
//! - Asking is a system call for each key, which takes longer than a look-up in memory. So the
//!   system is asked only for a while after look-ups that took long and in which a page fault read
//!   from the disk. Where the system does not count such faults, the time alone decides. A wrong
//!   guess costs time, and changes nothing else.

use std::cell::Cell;
use std::time::Duration;

use crate::fs::disk_faults;
use crate::segment::Segment;
use crate::sync::Ordering;
use crate::sync::unmodeled::AtomicUsize;

/// Shortest time of look-ups that waited for the disk. Hardly any disk is faster, and a look-up in
/// memory takes a tenth of it.
const WAIT_MIN: Duration = Duration::from_micros(5);
/// The same for each of many look-ups.
const WAIT_PER_LOOKUP: Duration = Duration::from_micros(2);
/// Time to check a byte of a value in memory: several times as long as it takes.
const TIME_PER_BYTE: Duration = Duration::from_nanos(1);

/// Number of groups of look-ups for which the system is asked after one that waited. It is large
/// because a group that does not wait proves little: perhaps it did not because the system was
/// asked.
const GROUPS_AFTER_WAIT: usize = 64;

/// Number of bytes of an entry for which the system is asked. It reads whole pages, so most small
/// entries are read with one request, and no more than what is needed of them.
const ASKED_SIZE: u64 = 512;

thread_local! {
    /// Number of this thread's page faults that had read from the disk when it was last looked at.
    static FAULTS: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Whether look-ups have recently waited for the disk.
#[derive(Debug, Default)]
pub(crate) struct DiskWaits {
    /// Number of groups for which the system is still to be asked. Updates may get lost.
    groups: AtomicUsize,
}

impl DiskWaits {
    /// Returns whether look-ups have recently waited.
    #[inline]
    pub(crate) fn are_recent(&self) -> bool {
        self.groups.load(Ordering::Relaxed) > 0
    }

    /// Notes how long look-ups took, all of a group or the first one, in which so many bytes of
    /// values were checked.
    #[inline]
    pub(crate) fn note(&self, took: Duration, lookups: usize, checked_size: u32) {
        self.note_if(has_faulted, took, lookups, checked_size);
    }

    #[inline]
    fn note_if(
        &self,
        has_faulted: impl FnOnce() -> bool,
        took: Duration,
        lookups: usize,
        checked_size: u32,
    ) {
        let lookups = u32::try_from(lookups).unwrap_or(u32::MAX);
        let in_memory = WAIT_MIN
            .max(WAIT_PER_LOOKUP.saturating_mul(lookups))
            .saturating_add(TIME_PER_BYTE.saturating_mul(checked_size));
        if took >= in_memory && has_faulted() {
            self.ask_for_a_while();
        } else {
            let groups = self.groups.load(Ordering::Relaxed);
            if groups > 0 {
                self.groups.store(groups - 1, Ordering::Relaxed);
            }
        }
    }

    fn ask_for_a_while(&self) {
        self.groups.store(GROUPS_AFTER_WAIT, Ordering::Relaxed);
    }
}

/// Returns whether a page fault of this thread has read from the disk since this was last called.
/// Returns `true` if the system does not tell. The first call of a thread returns `false`: the
/// faults before it may have had any cause.
#[cold]
fn has_faulted() -> bool {
    let Some(faults) = disk_faults() else { return true };
    FAULTS.replace(Some(faults)).is_some_and(|before| before != faults)
}

impl Segment {
    /// Asks the system to read an entry that is needed soon.
    pub(crate) fn read_entry_ahead(&self, offset: u64) {
        self.read_ahead(offset..offset.saturating_add(ASKED_SIZE));
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::segment::budget::allowed;
    use crate::{Batch, Bitcask, Options};

    #[test]
    fn the_system_is_asked_for_a_while() {
        let waits = DiskWaits::default();
        waits.ask_for_a_while();
        for _ in 0..GROUPS_AFTER_WAIT {
            assert!(waits.are_recent());
            waits.note(WAIT_MIN / 2, 1, 0);
        }
        assert!(!waits.are_recent());
    }

    #[test]
    fn only_faults_in_look_ups_that_took_long_count() {
        let waits = DiskWaits::default();
        let millis = Duration::from_millis;
        // What a look-up of so many keys or bytes takes in memory is not long.
        for (took, lookups, size) in
            [(WAIT_MIN / 2, 1, 0), (millis(1), 1000, 0), (millis(1), 1, 1 << 20)]
        {
            waits.note_if(|| unreachable!("{took:?} is short"), took, lookups, size);
        }
        // A thread that was interrupted has not waited for the disk.
        for (took, lookups, size) in
            [(WAIT_MIN, 1, 0), (millis(3), 1000, 0), (millis(3), 1, 1 << 20)]
        {
            waits.note_if(|| false, took, lookups, size);
            assert!(!waits.are_recent());
            waits.note_if(|| true, took, lookups, size);
            assert!(waits.are_recent());
            waits.groups.store(0, Ordering::Relaxed);
        }
    }

    /// Writes and reads many keys while the system is asked for their entries.
    fn write_and_read(db: &Bitcask) {
        let key = |number: u64| number.to_be_bytes();
        let numbers = |range: Range<u64>, value: u64| range.map(move |it| (it, value + it));
        for value in [0, 1_000_000] {
            db.inner.disk_waits.ask_for_a_while();
            let pairs = numbers(0..3000, value).map(|(number, value)| (key(number), key(value)));
            db.write(&pairs.collect::<Batch>()).unwrap();
        }
        db.inner.disk_waits.ask_for_a_while();
        let keys: Vec<_> = (2900..3100).map(key).collect();
        let found = db.get_many(&keys).unwrap();
        db.get_many_with(&keys, |at, value| assert_eq!(value, found[at].as_deref())).unwrap();
        let expected = numbers(2900..3000, 1_000_000).map(|(_, value)| key(value));
        let expected: Vec<_> = expected.map(Some).chain((0..100).map(|_| None)).collect();
        assert!(
            found
                .iter()
                .map(Option::as_deref)
                .eq(expected.iter().map(|it| it.as_ref().map(|it| &it[..])))
        );
        db.inner.disk_waits.ask_for_a_while();
        let scanned = db.range(key(10)..key(500)).map(|pair| pair.unwrap().1);
        let expected = numbers(10..500, 1_000_000).map(|(_, value)| key(value));
        assert!(scanned.eq(expected));
        assert!(db.inner.disk_waits.are_recent());
    }

    #[test]
    fn nothing_but_time_depends_on_what_the_system_is_asked() {
        for mappings in [usize::MAX, 0] {
            let dir = tempfile::tempdir().unwrap();
            allowed::mappings(mappings);
            let db = Bitcask::open(dir.path(), Options::new().segment_size(64 << 10)).unwrap();
            write_and_read(&db);
            db.close().unwrap();
        }
        allowed::mappings(usize::MAX);
    }
}
