//! Memory that a store keeps while a thread reads it, counted by an allocator. The test is a
//! separate binary because an allocator applies to a whole process.

#![expect(unsafe_code, reason = "a counting allocator has to implement an unsafe trait")]
#![expect(clippy::unwrap_used, reason = "a test whose setup fails has failed")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use bitcask::{Bitcask, MergePolicy, Options, SyncPolicy};

/// Number of bytes allocated and not freed, over all threads.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: the system allocator does all the work; this type only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's guarantees are passed on.
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

/// Makes the tests run one at a time, because the allocator counts for all threads.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the number of bytes by which the heap grows during a closure.
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

/// Waits until a store has released everything it removed. Each merge releases more of it, unless a
/// thread is reading the store at that moment.
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
fn a_long_read_of_one_store_keeps_nothing_of_another_alive() {
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
fn a_long_read_keeps_only_what_was_removed_since_it_began() {
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
        // Repeated attempts to release the rest use no further memory.
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

/// Returns the resident anonymous memory of the process, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "looks into /proc")]
fn the_keydir_returns_memory_when_most_keys_are_deleted() {
    const KEYS: u32 = 400_000;
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().sync_policy(SyncPolicy::Never).merge_policy(MergePolicy::Manual);
    let db = Bitcask::open(dir.path(), options).unwrap();
    let put_all = || (0..KEYS).for_each(|key| db.put(key.to_be_bytes(), "").unwrap());
    let delete = |keys: Range<u32>| {
        keys.for_each(|key| assert!(db.delete(key.to_be_bytes()).unwrap()));
    };
    put_all();
    let (full, full_resident) = (db.stats().keydir_size, resident());
    assert!(full > u64::from(KEYS) * 16);
    delete(KEYS / 10..KEYS);
    let tenth = db.stats().keydir_size;
    // Small tables come in few sizes, so the bound is loose.
    assert!(tenth < full * 2 / 5, "{tenth} bytes of {full} for a tenth of the keys");
    delete(0..KEYS / 10);
    await_nothing_retired(&db, dir.path());
    let least = db.stats().keydir_size;
    // The heads of 4,096 shards, and a table of a few slots that each keeps.
    assert!(least <= 4096 * 512, "{least} bytes for no keys");
    let given_back = full_resident.saturating_sub(resident());
    let gone = usize::try_from(full - least).unwrap();
    assert!(given_back > gone / 2, "only {given_back} bytes of {gone} were returned");
    put_all();
    assert_eq!(db.len().unwrap(), u64::from(KEYS));
}
