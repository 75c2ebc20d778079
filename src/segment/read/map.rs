//! The readable bytes of a segment: a shared mapping of its file, or the file itself.
//!
//! - Bytes below `end` are readable. They were written before `end` was moved past them. They are
//!   never written again, and never cut off while a reader can reach them.
//! - The mapping may be longer than the file, which grows under it. Nothing beyond `end` is
//!   touched.
//! - If no mapping is available, since `budget` limits their number, the file is read instead
//!   (`on_demand`). The same applies to the unsealed part of a store that is opened read-only.
//! - A store that is closed after a failed sync leaves its unsealed segments to recovery, which may
//!   cut them. If such a segment is still held, its mapping is first replaced by a copy.
//!
//! Reading a bad sector through a mapping raises a signal (SIGBUS), which ends the process. Data
//! that is read in order to be checked is therefore read from the file, in `scan`.

#![expect(unsafe_code, reason = "a mapping's bytes have to be made a slice")]

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::{Mmap, MmapMut, MmapRaw, UncheckedAdvice};

use super::mapping::Mapping;
use super::on_demand::OnDemand;
use crate::fs::{Backing, File, Fs};
use crate::segment::budget::Wanted;
#[cfg(any(test, bitcask_fuzzing))]
use crate::segment::budget::{Unit, take_mapping};
use crate::sync::{AtomicU64, Ordering};

/// The readable bytes of a segment.
#[derive(Debug)]
pub(crate) struct Bytes {
    end: AtomicU64,
    memory: Memory,
    /// Owns the memory.
    source: ByteSource,
    /// Lock 8: whether the mapping below `end` has been replaced by a copy. Held while that
    /// changes.
    is_copied: Mutex<bool>,
}

/// The memory of a mapping of a file on disk; empty if there is none. Found without following the
/// pointers that own it.
#[derive(Debug)]
struct Memory {
    first: *const u8,
    len: usize,
}

impl Memory {
    const NONE: Self = Self { first: std::ptr::null(), len: 0 };
}

// SAFETY: it only holds an address. `Bytes::lend_from` and `Bytes::lend` say why the bytes there
// can be read by any thread.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

#[derive(Debug)]
enum ByteSource {
    Map(Arc<Mapping>),
    #[cfg(any(test, bitcask_fuzzing))]
    Twin {
        map: crate::testing::twin::TwinMap,
        _unit: Unit,
    },
    /// Boxed, so that the mapping is found as fast as if this variant did not exist.
    OnDemand(Box<OnDemand>),
}

impl Bytes {
    /// Maps a file whose first `end` bytes are written, up to the size to which it may grow. If no
    /// mapping is left, the file is opened for each read.
    pub(crate) fn mapped(fs: &Fs, file: &File, end: u64, capacity: u64, wanted: Wanted) -> Self {
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
        let map = match file.backing() {
            Backing::Disk(disk) => {
                Mapping::to_read(disk, capacity, wanted).map(|map| ByteSource::Map(Arc::new(map)))
            }
            #[cfg(any(test, bitcask_fuzzing))]
            Backing::Twin(twin) => take_mapping(wanted).and_then(|unit| {
                Some(ByteSource::Twin { map: twin.map(capacity).ok()?, _unit: unit })
            }),
        };
        map.map_or_else(|| Self::unmapped(fs, file, end), |source| Self::new(source, end))
    }

    /// Reads through a mapping that its owner writes to beyond `end`.
    pub(crate) fn shared(map: Arc<Mapping>, end: u64) -> Self {
        Self::new(ByteSource::Map(map), end)
    }

    /// Reads a file whose first `end` bytes are written, without a mapping.
    pub(crate) fn unmapped(fs: &Fs, file: &File, end: u64) -> Self {
        Self::new(ByteSource::OnDemand(Box::new(OnDemand::new(fs, file.path()))), end)
    }

    /// Keeps an open file open, if it is needed for reading and the budget allows it.
    pub(crate) fn keep_open(&self, file: &File) {
        if let ByteSource::OnDemand(on_demand) = &self.source {
            on_demand.keep_open(Some(file));
        }
    }

    /// Returns the handle that opens the file, or `None` if the file is mapped.
    pub(crate) fn on_demand(&self) -> Option<&OnDemand> {
        match &self.source {
            ByteSource::OnDemand(on_demand) => Some(on_demand),
            ByteSource::Map(_) => None,
            #[cfg(any(test, bitcask_fuzzing))]
            ByteSource::Twin { .. } => None,
        }
    }

    fn new(source: ByteSource, end: u64) -> Self {
        let memory = match &source {
            ByteSource::Map(map) => Memory { first: map.as_ptr(), len: map.len() },
            ByteSource::OnDemand(_) => Memory::NONE,
            #[cfg(any(test, bitcask_fuzzing))]
            ByteSource::Twin { .. } => Memory::NONE,
        };
        Self { end: AtomicU64::new(end), memory, source, is_copied: Mutex::new(false) }
    }

    /// Returns the offset below which bytes can be read.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Makes the bytes written below `end` readable. They are never written again.
    pub(crate) fn advance(&self, end: u64) {
        // Only one thread writes at a time, so the end does not move between the load and the
        // store.
        if end > self.end.load(Ordering::Relaxed) {
            self.end.store(end, Ordering::Release);
        }
    }

    /// Returns whether bytes are lent from a mapping rather than copied.
    pub(crate) fn is_mapped(&self) -> bool {
        !matches!(self.source, ByteSource::OnDemand(_))
    }

    /// Releases the pages of a mapping. Later reads take them from the file again.
    ///
    /// Nothing that was stored is lost. When the kernel drops a dirty entry of the page table, it
    /// marks the page itself as dirty (`zap_present_folio_ptes` in Linux's `mm/memory.c`), and a
    /// sync of the file writes the page. Such a sync is cheaper: otherwise the kernel protects each
    /// dirty entry separately, and flushes it from the processors' caches of addresses.
    ///
    /// After a failed sync the kernel may hold pages that are not on the disk. As long as a mapping
    /// uses such pages, recovery can't make the kernel drop and reread them.
    pub(crate) fn release_pages(&self) {
        let is_copied = self.is_copied.lock().unwrap_or_else(PoisonError::into_inner);
        if let ByteSource::Map(map) = &self.source
            && !*is_copied
        {
            release(map);
        }
    }

    /// Replaces the mapped bytes below the end by a copy at the same addresses. Every lent slice
    /// then keeps its bytes, whatever happens to the file. If no copy can be made, returns `false`
    /// and leaves the mapping unchanged.
    ///
    /// The copy is read from the file, since reading a bad page through the mapping would raise a
    /// signal. The file must be the mapped one, and no one may store to it any more.
    pub(crate) fn detach(&self, file: &File) -> bool {
        let mut is_copied = self.is_copied.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.source {
            ByteSource::Map(map) if !*is_copied => {
                let copy = copy(file, self.end());
                *is_copied = copy.is_some_and(|copy| {
                    // Recovery has to reread the pages after the end, too.
                    release(map);
                    put_in_place(map, copy)
                });
                *is_copied
            }
            // A later read would see the file as recovery has left it.
            ByteSource::OnDemand(_) => false,
            // Lent bytes are a copy, or stay unchanged.
            ByteSource::Map(_) => true,
            #[cfg(any(test, bitcask_fuzzing))]
            ByteSource::Twin { .. } => true,
        }
    }

    /// Lends mapped bytes. Returns `None` if they are not readable or not mapped.
    pub(crate) fn lend(&self, range: Range<usize>) -> Option<&[u8]> {
        let start = u64::try_from(range.start).ok()?;
        self.lend_from(start)?.get(..range.end.checked_sub(range.start)?)
    }

    /// Lends mapped bytes from an offset up to the end. Returns `None` if they are not mapped.
    #[expect(clippy::inline_always, reason = "every get calls this, from a few places")]
    #[inline(always)]
    pub(crate) fn lend_from(&self, offset: u64) -> Option<&[u8]> {
        let (start, end) = (usize::try_from(offset).ok()?, usize::try_from(self.end()).ok()?);
        let end_in_memory = end.min(self.memory.len);
        // Also if there is no memory: no entry is at the start of a file.
        if start >= end_in_memory {
            return self.lend_from_other(start, end);
        }
        let len = end_in_memory - start;
        let first = self.memory.first.wrapping_add(start);
        // SAFETY: the range lies within the mapping, which `source` keeps for as long as `self`. It
        // lies below `end` too, so the bytes were written before the Acquire load in `end`, no one
        // writes them again, and the file is not cut below them: the only writers are
        // `write::active::Active`, whose `Sink` stores only at or above `end`, and recovery, and
        // both keep to that; the LOCK file keeps writers in other processes away. Before a recovery
        // that may cut the file, `detach` puts the same bytes in their place, or the lock is kept
        // for as long as `self`.
        Some(unsafe { std::slice::from_raw_parts(first, len) })
    }

    /// Lends no bytes if the range begins at the end of a mapping, or bytes of a file that is
    /// replaced by memory in tests.
    #[cold]
    fn lend_from_other(&self, start: usize, end: usize) -> Option<&[u8]> {
        match &self.source {
            ByteSource::Map(map) if start == end.min(map.len()) => Some(&[]),
            #[cfg(any(test, bitcask_fuzzing))]
            ByteSource::Twin { map, .. } if start <= end => map.bytes(start..end),
            _ => None,
        }
    }

    /// Asks the system to read mapped bytes that are needed soon. A refusal changes nothing.
    pub(crate) fn read_ahead(&self, range: Range<u64>) {
        if let ByteSource::Map(map) = &self.source {
            map.read_ahead(range.start..range.end.min(self.end()));
        }
    }
}

/// Drops entries of the page table. No content is lost, because the caller has checked that the
/// mapping still shows the file.
fn release(map: &MmapRaw) {
    // SAFETY: in a shared mapping of a file, bytes that are read afterwards come from the file
    // again, even through a slice that was lent before. This would turn a copy into zeros, so
    // `Bytes` checks under its lock that no part of the mapping has been replaced by a copy.
    let _ = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
}

/// Reads a file up to an end into separate memory.
fn copy(file: &File, end: u64) -> Option<Mmap> {
    let mut copy = MmapMut::map_anon(usize::try_from(end).ok()?).ok()?;
    let is_whole = file.read_at(&mut copy, 0).ok()? == copy.len();
    copy.make_read_only().ok().filter(|_| is_whole)
}

/// Moves a copy to the addresses at the front of a mapping, which then owns the copy. Returns
/// whether it did.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn put_in_place(map: &Arc<Mapping>, copy: Mmap) -> bool {
    // If the mapping is shared, its other owner may store through it.
    if Arc::strong_count(map) > 1 || copy.len() > map.len() {
        return false;
    }
    let (from, to, size) = (copy.as_ptr().cast_mut().cast(), map.as_mut_ptr().cast(), copy.len());
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: both ranges begin on a page and are owned: `from` by `copy`, which has no other user
    // and is forgotten once it has moved; `to` by `map`, which is at least as long, and on drop
    // unmaps whatever lies there. Slices lent from `to` stay valid and unchanged: the kernel
    // replaces the pages while it blocks page faults, and the copy holds the bytes of the same file
    // below the segment's end, where no one writes. No one stores to `to` through this mapping
    // either, since it has no other owner; the new pages are read-only anyway.
    let moved = unsafe { libc::mremap(from, size, size, flags, to) };
    if moved != libc::MAP_FAILED {
        std::mem::forget(copy);
        return true;
    }
    // If the kernel refuses, it does so before it removes the old pages. Only if it then runs out
    // of memory for its own tables, nothing is mapped there any more, and no holder of a slice
    // could continue.
    // SAFETY: the call only checks whether the range is mapped, and has nothing to write.
    if unsafe { libc::msync(to, size, libc::MS_ASYNC) } != 0 {
        std::process::abort();
    }
    false
}

/// Other systems can't move mappings.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn put_in_place(_map: &Arc<Mapping>, _copy: Mmap) -> bool {
    false
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;
    use crate::fs::Access;

    /// Recovery may cut a segment, and the next store writes to it again: bytes lent before do not
    /// change.
    #[test]
    fn lent_bytes_stay_when_the_file_is_cut_and_rewritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = Fs::DISK.open(&dir.path().join("file"), Access::Create).unwrap();
        let written: Vec<u8> = (0..20_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        file.write_at(&written, 0).unwrap();
        let bytes = Bytes::mapped(&Fs::DISK, &file, 19_999, 1 << 20, Wanted::New);
        let lent = bytes.lend(9_000..19_999).unwrap();
        assert!(bytes.detach(&file) && bytes.detach(&file));
        // Neither does releasing the pages.
        bytes.release_pages();
        file.write_at(&vec![0xff; 20_000], 0).unwrap();
        assert!(lent == &written[9_000..19_999], "the lent bytes have changed along with the file");
        file.set_size(64).unwrap();
        assert!(lent == &written[9_000..19_999]);
        assert_eq!(bytes.lend(0..8_192).unwrap(), &written[..8_192]);
        assert_eq!(bytes.lend(0..20_000), None);
    }

    #[test]
    fn a_file_without_a_mapping_lends_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = Fs::DISK.open(&dir.path().join("file"), Access::Create).unwrap();
        file.write_at(&[7; 1000], 0).unwrap();
        let bytes = Bytes::unmapped(&Fs::DISK, &file, 1000);
        assert!([0, 8, 1000].into_iter().all(|offset| bytes.lend_from(offset).is_none()));
    }

    #[test]
    fn a_mapping_that_is_stored_to_or_whose_file_was_cut_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = Fs::DISK.open(&dir.path().join("file"), Access::Create).unwrap();
        file.write_at(&[7; 10_000], 0).unwrap();
        let Backing::Disk(disk) = file.backing() else { panic!("the file is on a disk") };
        let map = Arc::new(Mapping::to_store(disk, 20_000).unwrap());
        let bytes = Bytes::shared(Arc::clone(&map), 10_000);
        assert!(!bytes.detach(&file));
        file.write_at(&[8; 10_000], 0).unwrap();
        assert_eq!(bytes.lend(0..10_000).unwrap(), [8; 10_000]);
        drop(map);
        file.set_size(9_999).unwrap();
        assert!(!bytes.detach(&file));
        file.set_size(10_000).unwrap();
        assert!(bytes.detach(&file));
    }
    #[test]
    fn a_thread_that_reads_meanwhile_sees_the_same_bytes_throughout() {
        const SIZE: usize = 1 << 20;
        let dir = tempfile::tempdir().unwrap();
        for round in 0..50 {
            let file = Fs::DISK.open(&dir.path().join("file"), Access::Create).unwrap();
            file.write_at(&vec![7; SIZE], 0).unwrap();
            let bytes = Bytes::mapped(&Fs::DISK, &file, SIZE as u64, 2 * SIZE as u64, Wanted::New);
            let (reads, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
            let is_detached = thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let lent = bytes.lend(0..SIZE).unwrap();
                        assert!(lent.iter().all(|byte| *byte == 7), "round {round}");
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                });
                let read_on = |until: u64| {
                    while reads.load(Ordering::Relaxed) < until && !reader.is_finished() {
                        thread::yield_now();
                    }
                };
                read_on(1);
                let is_detached = bytes.detach(&file);
                if is_detached {
                    file.set_size(0).unwrap();
                    read_on(reads.load(Ordering::Relaxed) + 2);
                }
                is_over.store(true, Ordering::Relaxed);
                is_detached
            });
            assert!(is_detached);
        }
    }
}
