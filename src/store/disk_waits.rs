//! Reads of several entries from the disk at the same time, in stores that are larger than memory.
//!
//! - A look-up of an entry that is not in memory waits for the disk. Where many keys are looked up,
//!   the system is therefore asked for all of their entries first.
//! - Asking is a system call for each key, which takes longer than a look-up in memory. So the
//!   system is asked only for a while after look-ups that took long. That is a guess: a wrong one
//!   costs time, and changes nothing else.

use std::time::Duration;

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
        let lookups = u32::try_from(lookups).unwrap_or(u32::MAX);
        let in_memory = WAIT_MIN
            .max(WAIT_PER_LOOKUP.saturating_mul(lookups))
            .saturating_add(TIME_PER_BYTE.saturating_mul(checked_size));
        if took >= in_memory {
            self.groups.store(GROUPS_AFTER_WAIT, Ordering::Relaxed);
        } else {
            let groups = self.groups.load(Ordering::Relaxed);
            if groups > 0 {
                self.groups.store(groups - 1, Ordering::Relaxed);
            }
        }
    }
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
    fn the_system_is_asked_for_a_while_after_look_ups_that_took_long() {
        let waits = DiskWaits::default();
        waits.note(WAIT_MIN / 2, 1, 0);
        assert!(!waits.are_recent());
        waits.note(WAIT_MIN, 1, 0);
        for _ in 0..GROUPS_AFTER_WAIT {
            assert!(waits.are_recent());
            waits.note(WAIT_MIN / 2, 1, 0);
        }
        assert!(!waits.are_recent());
    }

    #[test]
    fn many_look_ups_and_large_values_may_take_longer_in_memory() {
        let waits = DiskWaits::default();
        waits.note(Duration::from_millis(1), 1000, 0);
        waits.note(Duration::from_millis(1), 1, 1 << 20);
        assert!(!waits.are_recent());
        waits.note(Duration::from_millis(3), 1000, 0);
        assert!(waits.are_recent());
    }

    /// Writes and reads many keys while the system is asked for their entries.
    fn write_and_read(db: &Bitcask) {
        let key = |number: u64| number.to_be_bytes();
        let numbers = |range: Range<u64>, value: u64| range.map(move |it| (it, value + it));
        for value in [0, 1_000_000] {
            db.inner.disk_waits.note(Duration::from_secs(1), 1, 0);
            let pairs = numbers(0..3000, value).map(|(number, value)| (key(number), key(value)));
            db.write(&pairs.collect::<Batch>()).unwrap();
        }
        db.inner.disk_waits.note(Duration::from_secs(1), 1, 0);
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
        db.inner.disk_waits.note(Duration::from_secs(1), 1, 0);
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
