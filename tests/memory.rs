//! What a store keeps in memory while somebody reads it, counted by an allocator: a binary of its own,
//! since an allocator is the whole process's.

#![expect(unsafe_code, reason = "an allocator that counts has to be one")]
#![expect(clippy::unwrap_used, reason = "a test that can't be prepared has failed")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use bitcask::{Bitcask, MergePolicy, Options, SyncPolicy};

/// Bytes that are allocated and not freed, by all threads.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: all is the system's allocator's doing; this only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time: the allocator counts for all.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns by how many bytes the heap has grown through a closure.
fn growth(act: impl FnOnce()) -> usize {
    let before = ALLOCATED.load(Ordering::Relaxed);
    act();
    ALLOCATED.load(Ordering::Relaxed).saturating_sub(before)
}

fn open(path: &Path) -> Bitcask {
    let options = Options::new()
        .segment_size(16 << 10)
        .sync_policy(SyncPolicy::Never)
        .merge_policy(MergePolicy::Manual);
    Bitcask::open(path, options).unwrap()
}

/// Overwrites a few keys until some segments are full, and merges all of them away.
fn turn_over(db: &Bitcask) {
    for number in 0..300_u32 {
        db.put((number % 7).to_be_bytes(), [0; 200]).unwrap();
    }
    db.merge().unwrap();
}

/// Returns how many removed files in a directory this process still has mapped or open.
fn held_files(dir: &Path) -> usize {
    let dir = dir.to_str().unwrap();
    let is_held = |text: &str| text.contains(dir) && text.ends_with("(deleted)");
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    maps.lines().filter(|line| is_held(line)).count()
        + links.filter(|link| is_held(&link.to_string_lossy())).count()
}

/// Has a store let go of all that it has removed: whoever merges goes on with it, unless a thread of the
/// store is just reading.
fn await_nothing_retired(db: &Bitcask, dir: &Path) {
    let is_settled = || {
        let stats = db.stats();
        (stats.retired_segments, stats.oldest_retired, held_files(dir)) == (0, None, 0)
    };
    for _ in 0..1000 {
        if is_settled() {
            return;
        }
        db.merge().unwrap();
        thread::yield_now();
    }
    panic!("{:?}, {} files", db.stats(), held_files(dir));
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "looks into /proc")]
fn who_reads_one_store_for_long_keeps_nothing_of_another_one() {
    let _alone = alone();
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (read, other) = (open(here.path()), open(there.path()));
    read.put("key", "value").unwrap();
    turn_over(&other);
    let grown = read.get_with("key", |_| {
        growth(|| {
            for _ in 0..30 {
                turn_over(&other);
                other.clear().unwrap();
                await_nothing_retired(&other, there.path());
            }
        })
    });
    let grown = grown.unwrap().unwrap();
    assert!(grown < 512 << 10, "{grown} bytes more");
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "looks into /proc")]
fn who_reads_a_store_for_long_keeps_what_was_removed_since_and_no_more() {
    const ROUNDS: usize = 30;
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.put("key", "value").unwrap();
    turn_over(&db);
    let files = |db: &Bitcask| db.stats().segments;
    db.get_with("key", |value| {
        let mut removed = 0;
        let grown = growth(|| {
            for _ in 0..ROUNDS {
                turn_over(&db);
                let before = files(&db);
                db.clear().unwrap();
                removed += before;
                db.put("key", "other").unwrap();
            }
        });
        let stats = db.stats();
        assert!(stats.retired_segments >= removed, "{stats:?}, {removed} removed");
        assert!(stats.oldest_retired.is_some());
        let retired = usize::try_from(stats.retired_segments).unwrap();
        assert!(grown < retired * 2048 + (512 << 10), "{grown} bytes for {retired} segments");
        // Nothing is left to be done, however often it is tried.
        db.merge().unwrap();
        let grown = growth(|| {
            for _ in 0..1000 {
                db.merge().unwrap();
            }
        });
        assert!(grown < 16 << 10, "{grown} bytes more");
        assert_eq!(value, b"value");
    })
    .unwrap()
    .unwrap();
    await_nothing_retired(&db, dir.path());
}

/// Returns how much memory of the process is resident that is no file's, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "looks into /proc")]
fn a_keydir_gives_its_memory_back_when_most_keys_are_deleted() {
    const KEYS: u32 = 400_000;
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().sync_policy(SyncPolicy::Never).merge_policy(MergePolicy::Manual);
    let db = Bitcask::open(dir.path(), options).unwrap();
    let empty = db.stats().keydir_size;
    let put_all = || (0..KEYS).for_each(|key| db.put(key.to_be_bytes(), "").unwrap());
    let delete = |keys: Range<u32>| {
        keys.for_each(|key| assert!(db.delete(key.to_be_bytes()).unwrap()));
    };
    put_all();
    let (full, full_resident) = (db.stats().keydir_size, resident());
    assert!(full > u64::from(KEYS) * 16);
    delete(KEYS / 10..KEYS);
    let tenth = db.stats().keydir_size;
    // Small tables come in few lengths.
    assert!(tenth < full * 2 / 5, "{tenth} bytes of {full} for a tenth of the keys");
    delete(0..KEYS / 10);
    await_nothing_retired(&db, dir.path());
    let least = db.stats().keydir_size;
    assert!(least <= 2 * empty, "{least} bytes, {empty} when it was empty");
    let given_back = full_resident.saturating_sub(resident());
    let gone = usize::try_from(full - least).unwrap();
    assert!(given_back > gone / 2, "{given_back} bytes of {gone} given back");
    put_all();
    assert_eq!(db.len().unwrap(), u64::from(KEYS));
}
