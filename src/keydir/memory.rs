//! Memory for tables: zeroed, dense, in huge pages if there is enough of it, and published to
//! readers by one word.
//!
//! - Large tables are carved one after another from mappings. A table lives until its shard grows,
//!   and all shards grow at about the same time, so tables that were carved together are freed
//!   together. Pages are returned as tables are freed, and a mapping with its last table. Nothing
//!   is reused in between, so there is no fragmentation, and live tables stay dense.
//! - Small tables come from the allocator.
//! - The low bits of the word that publishes a table hold its length. A lookup thus finds a bucket
//!   with one load, from a place that is likely to be in the cache.

#![expect(unsafe_code, reason = "tables are carved from mappings, and read while being replaced")]

use std::alloc::Layout;
use std::fmt;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};

use super::crowded::Crowded;
#[cfg(not(all(test, any(loom, shuttle))))]
use super::slot::NO_SLOTS;
use super::slot::Pair;
use crate::epoch::{Atomic, Guard, GuardOwner, Loaded};
use crate::sync::{Mutex, Ordering};

/// Size in bytes from which tables are carved from mappings. Smaller ones come from the allocator,
/// which keeps some of the memory that is returned to it.
const CUT_FROM: usize = 512;
/// Size in bytes of the first mapping, for stores that hardly need one. Each further one is twice
/// as large.
const CHUNK_MIN: usize = 1 << 20;
const CHUNK_MAX: usize = 64 << 20;
/// Size in bytes from which a mapping is advised to use huge pages: up to half of a lookup's cost
/// can be the page-table walk.
const HUGE_FROM: usize = 4 << 20;
/// Size in bytes of a huge page. Where they are larger, less is prepared.
const HUGE_SIZE: usize = 2 << 20;
/// The part of a mapping that is prepared ahead of the tables.
const AHEAD_PART: usize = 32;

/// A length that fits in seven bits: 4, 5, 6 or 7 quarters of a power of two, rounded down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length {
    tag: usize,
}

impl Length {
    const TAGS: usize = 1 << 7;
    /// One pair.
    #[cfg(not(all(test, any(loom, shuttle))))]
    const LEAST: Self = Self { tag: 0 };

    /// Returns the shortest length of a row that is at least `wanted`.
    ///
    /// There are two rows, each with every other length. Within a row, each length is a third or a
    /// half longer than the one before.
    pub(super) fn at_least(wanted: usize, row: usize) -> Self {
        let row = (row % 2..Self::TAGS).step_by(2).map(|tag| Self { tag });
        let mut long_enough = row.skip_while(|length| length.get() < wanted);
        // The last length needs more memory than can exist.
        long_enough.next().unwrap_or(Self { tag: Self::TAGS - 1 })
    }

    #[inline]
    pub(super) const fn get(self) -> usize {
        (4 + self.tag % 4) << (self.tag / 4) >> 2
    }
}

/// The source of large tables.
#[derive(Debug, Default)]
pub(super) struct Arena {
    /// Lock 8.
    chunks: Mutex<Chunks>,
    pub(super) crowded: Crowded,
}

/// The mapping that tables are carved from, and the one that comes next, if it is prepared.
#[derive(Debug, Default)]
struct Chunks {
    current: Option<Arc<MappedChunk>>,
    next: Option<Arc<MappedChunk>>,
}

/// A mapping of zeroed memory. It is unmapped when no table lies in it any more.
#[derive(Debug)]
struct MappedChunk {
    map: MmapRaw,
    /// Lock 9.
    pages: Mutex<Pages>,
}

#[derive(Debug)]
struct Pages {
    /// Number of bytes carved off the chunk so far.
    used: usize,
    /// The end of the bytes that are prepared.
    ready: usize,
    /// Number of tables in each page. A page of a megabyte has room for 2,048.
    tables: Box<[u16]>,
    size: usize,
}

impl Pages {
    /// Returns the numbers of the pages in which a table lies.
    fn of(&self, start: usize, size: usize) -> Range<usize> {
        start / self.size..(start + size).div_ceil(self.size)
    }

    /// Records a table if there is room for it, and returns its start.
    fn cut(&mut self, size: usize, chunk_size: usize) -> Option<usize> {
        let start = self.used;
        self.used = start.checked_add(size).filter(|end| *end <= chunk_size)?;
        let pages = self.of(start, size);
        self.tables.get_mut(pages)?.iter_mut().for_each(|tables| *tables += 1);
        Some(start)
    }

    /// Records that a table was dropped, and returns the pages that are empty now.
    fn leave(&mut self, start: usize, size: usize) -> Range<usize> {
        let pages = self.of(start, size);
        let tables = self.tables.get_mut(pages.clone()).unwrap_or_default();
        for tables in tables.iter_mut() {
            *tables -= 1;
        }
        // Only the first and the last page can be shared, and the last may still be carved from.
        let is_shared = |tables: Option<&u16>| usize::from(tables.is_none_or(|tables| *tables > 0));
        let first = pages.start + is_shared(tables.first());
        let last = pages.end - is_shared(tables.last());
        first..last.min(self.used / self.size).max(first)
    }
}

impl MappedChunk {
    fn new(size: usize) -> Option<Self> {
        let map = MmapOptions::new().len(size).map_anon().ok()?;
        #[cfg(target_os = "linux")]
        if size >= HUGE_FROM {
            // Only advice: a refusal changes nothing.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        let page_size = page_size();
        let tables = vec![0; size.div_ceil(page_size)].into();
        let pages = Mutex::new(Pages { used: 0, ready: 0, tables, size: page_size });
        Some(Self { map: MmapRaw::from(map), pages })
    }

    /// Has the kernel provide huge pages for the next tables, which may take milliseconds. Returns
    /// whether the chunk has no room for all that should be ready.
    fn prepare(&self) -> bool {
        let size = self.map.len();
        let (from, until, is_last) = {
            let mut pages = self.pages.lock();
            // Pages below `used` were touched, or are being returned.
            let from = pages.ready.max(pages.used.next_multiple_of(HUGE_SIZE));
            let until = (pages.used + size / AHEAD_PART).next_multiple_of(HUGE_SIZE);
            pages.ready = pages.ready.max(until.min(size));
            (from, until.min(size), until >= size)
        };
        #[cfg(target_os = "linux")]
        if size >= HUGE_FROM && from < until {
            // If that fails, the pages come when they are touched.
            let _ = self.map.advise_range(memmap2::Advice::PopulateWrite, from, until - from);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (from, until);
        is_last
    }

    /// Carves a table off, or returns `None` if there is no room.
    fn cut(&self, size: usize) -> Option<NonNull<Pair>> {
        let start = self.pages.lock().cut(size, self.map.len())?;
        // A mapping starts at a page boundary, and the sizes of tables are multiples of their
        // alignment.
        Some(NonNull::new(self.map.as_mut_ptr().wrapping_add(start))?.cast())
    }

    /// Returns exactly the pages that held only the table which is being dropped.
    fn free_pages(&self, first: NonNull<Pair>, size: usize) {
        let start = first.addr().get() - self.map.as_ptr().addr();
        // The system call may take long, so others that carve or free tables don't wait for it.
        let (freed, page_size) = {
            let mut pages = self.pages.lock();
            (pages.leave(start, size), pages.size)
        };
        #[cfg(target_os = "linux")]
        if !freed.is_empty() {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            let (start, size) = (freed.start * page_size, freed.len() * page_size);
            // SAFETY: no table lies in these whole pages. The last one that did is being dropped,
            // so no reader uses it. No table will be carved there again: when `pages` was locked,
            // they lay below `used`, which only rises. The mapping starts at a page boundary, so
            // the range is not widened.
            let _ = unsafe { self.map.unchecked_advise_range(advice, start, size) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (freed, page_size);
    }
}

fn page_size() -> usize {
    // SAFETY: the call takes a number and returns one.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).ok().filter(|size| *size > 0).unwrap_or(CHUNK_MIN)
}

impl Arena {
    /// Makes an empty table.
    pub(super) fn table(&self, length: Length) -> Pairs {
        let layout = Pairs::layout(length);
        let is_cut = !cfg!(any(miri, all(test, loom))) && layout.size() >= CUT_FROM;
        let cut = if is_cut { self.cut(layout) } else { None };
        let (first, chunk) = match cut {
            Some((first, chunk)) => (first, Some(chunk)),
            None => (allocate(layout), None),
        };
        Pairs { first, length, chunk }
    }

    /// Carves a table off a mapping, or returns `None` if no mapping can be had.
    fn cut(&self, layout: Layout) -> Option<(NonNull<Pair>, Arc<MappedChunk>)> {
        let size = layout.size();
        let mut chunks = self.chunks.lock();
        if let Some(current) = &chunks.current
            && let Some(first) = current.cut(size)
        {
            return Some((first, Arc::clone(current)));
        }
        let prepared = chunks.next.take().filter(|next| next.map.len() >= size);
        let next = match prepared {
            Some(next) => next,
            None => Arc::new(MappedChunk::new(chunks.next_size().max(size))?),
        };
        let first = next.cut(size)?;
        chunks.current = Some(Arc::clone(&next));
        Some((first, next))
    }

    /// Prepares memory for the tables that are needed next, in stores that have many.
    pub(super) fn prepare(&self) {
        let Some(current) = self.chunks.lock().current.clone() else { return };
        let is_last = current.map.len() >= HUGE_FROM && current.prepare();
        if !is_last || self.chunks.lock().next.is_some() {
            return;
        }
        let size = self.chunks.lock().next_size();
        let Some(next) = MappedChunk::new(size) else { return };
        next.prepare();
        let mut chunks = self.chunks.lock();
        // Tables may have been carved from another one meanwhile.
        if chunks.current.as_ref().is_some_and(|now| Arc::ptr_eq(now, &current)) {
            chunks.next = Some(Arc::new(next));
        }
    }
}

impl Chunks {
    /// Returns the size of the mapping after the current one, in bytes.
    fn next_size(&self) -> usize {
        let last = self.current.as_ref().map_or(CHUNK_MIN / 2, |chunk| chunk.map.len());
        (last * 2).clamp(CHUNK_MIN, CHUNK_MAX)
    }
}

fn allocate(layout: Layout) -> NonNull<Pair> {
    // SAFETY: the size of the layout is not zero, since no length is.
    let first = unsafe { std::alloc::alloc_zeroed(layout) };
    let first =
        NonNull::new(first.cast()).unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
    #[cfg(all(test, loom))]
    for at in 0..layout.size() / size_of::<Pair>() {
        // SAFETY: the allocation has room for that many. Zeroed memory is not a valid atomic of the
        // model checker.
        unsafe { first.add(at).write(Pair::default()) };
    }
    first
}

/// The memory of a table, owned.
pub(super) struct Pairs {
    first: NonNull<Pair>,
    length: Length,
    /// The chunk that the memory was carved from, if it was.
    chunk: Option<Arc<MappedChunk>>,
}

// SAFETY: it owns its memory as a box would, and a `Pair` is `Send` and `Sync`.
unsafe impl Send for Pairs {}
// SAFETY: as above; a shared reference gives out only shared references to pairs.
unsafe impl Sync for Pairs {}

impl Pairs {
    pub(super) fn length(&self) -> Length {
        self.length
    }

    fn layout(length: Length) -> Layout {
        match Layout::array::<Pair>(length.get()) {
            Ok(layout) => layout,
            Err(_) => unreachable!("a table of {} pairs is larger than all memory", length.get()),
        }
    }
}

impl Deref for Pairs {
    type Target = [Pair];

    fn deref(&self) -> &[Pair] {
        // SAFETY: `first` is the start of `length` pairs, aligned, and zeroed when they were made.
        // Zeros are a valid `Pair`, which consists of atomics. Only `drop` frees them, and there is
        // no `&mut` to them.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.length.get()) }
    }
}

impl Drop for Pairs {
    fn drop(&mut self) {
        let layout = Self::layout(self.length);
        match &self.chunk {
            Some(chunk) => chunk.free_pages(self.first, layout.size()),
            // SAFETY: without a chunk the memory came from `allocate`, with this layout, and is
            // freed once. A `Pair` needs no drop.
            None => unsafe { std::alloc::dealloc(self.first.as_ptr().cast(), layout) },
        }
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pairs").field("length", &self.length.get()).finish_non_exhaustive()
    }
}

/// A table's memory that can be read while it is being replaced. Initially there is none.
#[derive(Default)]
pub(super) struct PublishedPairs {
    /// The first pair's address, tagged with the length.
    word: Atomic<Pair>,
    reader: GuardOwner,
    /// Lock 8: the owner of the memory at `word`.
    owner: Mutex<Option<Pairs>>,
}

const _: () = assert!(align_of::<Pair>() >= Length::TAGS);

impl PublishedPairs {
    /// Borrows the memory that is published now.
    #[inline]
    pub(super) fn get<'a>(&'a self, guard: &'a Guard<'_>) -> Option<&'a [Pair]> {
        self.reader.check(guard);
        let word = self.word.load(Ordering::Acquire, guard);
        if word.is_null() {
            return None;
        }
        let length = Length { tag: word.tag() };
        // SAFETY: a word that is not null was made in `replace_with_none`, from a static, or in
        // `replace`, from the start and the length of `Pairs`, whose `deref` says why they can be
        // borrowed. It was published by a store that this Acquire load synchronizes with, so all of
        // it is seen. The owner is dropped in two places: by `replace`, after all guards that
        // existed when it was unlinked are dropped, this one among them; and with `self`, which the
        // result borrows.
        Some(unsafe { std::slice::from_raw_parts(word.as_raw(), length.get()) })
    }

    /// Publishes other memory. The previous memory is freed in a flush, when no reader is left.
    pub(super) fn replace(&self, new: Pairs, guard: &Guard<'_>) {
        self.reader.check(guard);
        let word = Loaded::from(new.first.as_ptr().cast_const()).with_tag(new.length.tag);
        self.publish(word, Some(new), guard);
    }

    /// Publishes the table that all shards without a slot share.
    #[cfg(not(all(test, any(loom, shuttle))))]
    pub(super) fn replace_with_none(&self, guard: &Guard<'_>) {
        self.reader.check(guard);
        let word = Loaded::from(NO_SLOTS.as_ptr()).with_tag(Length::LEAST.tag);
        self.publish(word, None, guard);
    }

    fn publish(&self, word: Loaded<'_, Pair>, new: Option<Pairs>, guard: &Guard<'_>) {
        let mut owner = self.owner.lock();
        self.word.store(word, Ordering::Release);
        let Some(old) = std::mem::replace(&mut *owner, new) else { return };
        drop(owner);
        guard.retire(move || drop(old));
    }
}

impl fmt::Debug for PublishedPairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublishedPairs").field(&self.owner).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::epoch::Collector;
    use crate::key_hash::KeyHash;
    use crate::keydir::Address;
    use crate::keydir::slot::SlotFlags;
    use crate::keydir::table::Table;

    #[test]
    fn lengths_rise_by_a_third_or_a_half_and_the_rows_alternate() {
        for row in 0..2 {
            let mut length = Length::at_least(0, row);
            assert_eq!(length.get(), 1);
            while length.get() < 1 << 24 {
                let longer = Length::at_least(length.get() + 1, row);
                assert!(longer.get() > length.get());
                assert!(longer.get() <= (length.get() * 3).div_ceil(2), "{length:?}");
                length = longer;
            }
        }
        assert_eq!(Length::at_least(4, 0).get(), 4);
        assert_eq!(Length::at_least(4, 1).get(), 5);
        assert_eq!(Length::at_least(9, 1).get(), 10);
        assert!(Length::at_least(usize::MAX, 0).get() > 1 << 31);
    }

    /// Adds a slot whose address encodes the table's length.
    fn stamp(pairs: &Pairs) {
        let hash = KeyHash { fingerprint: 5, extra: 0 };
        let address = Address { segment: 0, offset: pairs.len() as u64 * 8 };
        Table::from(&**pairs).insert(hash, address, SlotFlags::default());
    }

    fn stamped(pairs: &[Pair]) -> Option<usize> {
        let addresses: Vec<_> = Table::from(pairs).addresses().collect();
        let [address] = *addresses else { return None };
        Some(usize::try_from(address.offset / 8).unwrap())
    }

    #[test]
    fn tables_of_all_sizes_start_empty_do_not_overlap_and_are_freed() {
        let arena = Arena::default();
        let lengths = [1, 2, 31, 32, 40, 448, 5000, 300_000];
        let lengths = if cfg!(miri) { &lengths[..3] } else { &lengths[..] };
        for _ in 0..3 {
            let made: Vec<Pairs> = lengths
                .iter()
                .flat_map(|wanted| [0, 1].map(|row| arena.table(Length::at_least(*wanted, row))))
                .collect();
            for pairs in &made {
                assert_eq!(Table::from(&**pairs).addresses().count(), 0);
                stamp(pairs);
            }
            for (at, pairs) in made.iter().enumerate() {
                assert_eq!(stamped(pairs), Some(pairs.len()), "table {at}");
                assert_eq!(pairs.as_ptr().addr() % 128, 0);
            }
            // Drop every other table first, so that the remaining ones share pages with dropped
            // tables.
            let (first, second): (Vec<_>, Vec<_>) =
                made.into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
            drop(first);
            assert!(second.iter().all(|(_, pairs)| stamped(pairs) == Some(pairs.len())));
        }
    }

    #[test]
    fn a_page_is_freed_with_the_last_table_in_it() {
        let mut pages = Pages { used: 0, ready: 0, tables: vec![0; 4].into(), size: 1000 };
        let starts = [700, 700, 700, 1500].map(|size| pages.cut(size, 4000).unwrap());
        assert_eq!(starts, [0, 700, 1400, 2100]);
        assert_eq!(pages.cut(401, 4000), None);
        assert_eq!(pages.leave(700, 700), 1..1);
        assert_eq!(pages.leave(0, 700), 0..1);
        assert_eq!(pages.leave(1400, 700), 1..2);
        // The last page may still be carved from.
        assert_eq!(pages.leave(2100, 1500), 2..3);
        assert_eq!(pages.cut(400, 4000), Some(3600));
        assert_eq!(pages.leave(3600, 400), 3..4);
    }

    /// Memory is made ready ahead of the tables, up to the next mapping, which comes into use when
    /// the current one is full.
    #[test]
    #[cfg(not(miri))]
    fn memory_is_prepared_ahead_of_the_tables() {
        let (arena, length) = (Arena::default(), Length::at_least(1000, 0));
        let mut tables = Vec::new();
        let current = || arena.chunks.lock().current.clone().unwrap();
        let mut prepared = 0;
        while current_size(&arena) < 3 * HUGE_FROM {
            tables.push(arena.table(length));
            arena.prepare();
            let (chunk, next) = (current(), arena.chunks.lock().next.clone());
            let (used, ready) = {
                let pages = chunk.pages.lock();
                (pages.used, pages.ready)
            };
            let is_large = chunk.map.len() >= HUGE_FROM;
            assert!(ready >= used * usize::from(is_large) && ready <= chunk.map.len());
            prepared += usize::from(next.is_some());
            // The prepared mapping is the one that the next table comes from.
            if let Some(next) = next {
                while Arc::ptr_eq(&current(), &chunk) {
                    tables.push(arena.table(length));
                }
                assert!(Arc::ptr_eq(&current(), &next) && next.pages.lock().ready > 0);
            }
        }
        assert!(prepared >= 1);
        assert!(tables.iter().all(|pairs| Table::from(&**pairs).addresses().count() == 0));
    }

    fn current_size(arena: &Arena) -> usize {
        arena.chunks.lock().current.as_ref().map_or(0, |chunk| chunk.map.len())
    }

    #[test]
    fn readers_see_whole_tables_while_they_are_replaced() {
        const ROUNDS: usize = if cfg!(miri) { 12 } else { 300 };
        let (arena, published) = (Arena::default(), PublishedPairs::default());
        let collector = Collector::new();
        assert!(published.get(&collector.pin()).is_none());
        let publish = |wanted: usize| {
            let pairs = arena.table(Length::at_least(wanted, wanted));
            stamp(&pairs);
            published.replace(pairs, &collector.pin());
        };
        publish(1);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    while last < ROUNDS {
                        let guard = collector.pin();
                        let seen = published.get(&guard).unwrap();
                        assert_eq!(stamped(seen), Some(seen.len()));
                        last = seen.len();
                        thread::yield_now();
                    }
                });
            }
            (2..=ROUNDS).for_each(publish);
        });
    }
}
