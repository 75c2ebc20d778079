//! Stores that share the threads of a `Background`.
//!
//! Tests that count threads play in a child process, which runs no threads of other tests.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use bitcask::{AutoMerge, Background, Bitcask, MergePolicy, Options, SyncPolicy};

use crate::support::{
    Actor, Random, SAYS, actor, files_of, open_when_released, pairs, remove_hints, small,
};

/// Prefix of the names of the parts that child processes play here.
pub(crate) const PART: &str = "background: ";

/// Number of stores of a program with many.
const STORES: u64 = 300;

const TICK: Duration = Duration::from_millis(1);

/// Plays a child process's part.
pub(crate) fn play(part: &str, dir: &Path) {
    match part.trim_start_matches(PART) {
        "many" => many(dir),
        "threads" => own_and_shared(dir),
        other => unreachable!("there is no part {other}"),
    }
    println!("{SAYS}done");
}

/// Plays a part to its end.
fn played(part: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Actor::start(actor(&format!("{PART}{part}"), dir.path())).unwrap();
    let said: Vec<String> = std::iter::from_fn(|| child.hear()).collect();
    let status = child.wait();
    assert!(status.success(), "{part}: {status}");
    assert_eq!(said, ["done"], "{part}");
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "looks into /proc")]
fn three_hundred_stores_work_with_two_threads() {
    played("many");
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "looks into /proc")]
fn shared_threads_replace_those_of_each_store_and_end_with_the_last_user() {
    played("threads");
}

/// Returns the number of threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Waits for a condition that only background work can bring about.
fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::sleep(TICK);
    }
}

/// A policy that merges everything with dead entries as soon as possible.
fn eager() -> AutoMerge {
    AutoMerge::new()
        .trigger_dead_percent(1)
        .dead_percent(1)
        .idle_dead_percent(1)
        .check_interval(TICK)
        .bytes_per_second(None)
}

/// Options with small segments, short intervals and shared threads.
fn with(background: &Background, auto: AutoMerge) -> Options {
    small()
        .sync_policy(SyncPolicy::Interval(TICK))
        .merge_policy(MergePolicy::Auto(auto))
        .background(background)
}

/// Writes more entries than fill a segment, some keys twice.
fn overwrite(db: &Bitcask, round: u8) {
    for number in (0..40_u8).chain(0..30) {
        db.put([number], [round; 100]).unwrap();
    }
}

fn expected(round: u8) -> BTreeMap<Vec<u8>, Vec<u8>> {
    (0..40).map(|number| (vec![number], vec![round; 100])).collect()
}

/// Waits until everything that was written is synced, sealed where it can be, and merged.
fn await_work(db: &Bitcask, syncs: u64) {
    until(|| db.stats().syncs > syncs);
    until(|| db.segments().iter().any(|segment| segment.merged));
    until(|| db.stats().sealed_segments + 1 == db.stats().segments && db.needs_merge().is_empty());
}

/// Two threads do all background work of many stores, one of them only merges.
fn many(dir: &Path) {
    let before = threads();
    let background = Background::new(1).unwrap();
    let options = with(&background, eager());
    let path = |number: u64| dir.join(number.to_string());
    let open = |number| options.clone().open(path(number)).unwrap();
    let mut random = Random(7);
    for round in 1..=2 {
        let mut stores: Vec<Bitcask> = (0..STORES).map(open).collect();
        assert_eq!(threads(), before + 2);
        if round == 2 {
            for db in &stores {
                until(|| db.stats().unfilled_shards == 0);
            }
            (0..STORES).for_each(|number| until(|| !files_of(&path(number), "hint").is_empty()));
        }
        let syncs: Vec<u64> = stores.iter().map(|db| db.stats().syncs).collect();
        for db in &stores {
            overwrite(db, round);
        }
        for (db, syncs) in stores.iter().zip(syncs) {
            await_work(db, syncs);
        }
        assert_eq!(threads(), before + 2);
        while !stores.is_empty() {
            let at = usize::try_from(random.below(stores.len() as u64)).unwrap();
            let db = stores.swap_remove(at);
            assert_eq!(pairs(&db), expected(round));
            if at % 2 == 0 { drop(db) } else { db.close().unwrap() }
        }
        if round == 1 {
            (0..STORES).for_each(|number| remove_hints(&path(number)));
        }
    }
    drop((background, options));
    assert_eq!(threads(), before);
}

/// Shared threads exist as long as a handle or an open store needs them.
fn own_and_shared(dir: &Path) {
    let before = threads();
    let own = Bitcask::open(dir.join("own"), small()).unwrap();
    assert_eq!(threads(), before + 4);
    drop(own);
    assert_eq!(threads(), before);
    let background = Background::with_merges(3, 2).unwrap();
    assert_eq!(threads(), before + 5);
    let options = small().background(&background);
    let first = options.clone().open(dir.join("first")).unwrap();
    let second = options.open(dir.join("second")).unwrap();
    drop(background);
    first.put("key", "value").unwrap();
    let snapshot = first.snapshot();
    first.close().unwrap();
    assert_eq!(threads(), before + 5, "a store still needs them");
    second.close().unwrap();
    assert_eq!(threads(), before, "a snapshot needs none");
    assert_eq!(snapshot.get("key").unwrap().unwrap(), *b"value");
}

#[test]
fn a_merge_that_blocks_keeps_no_other_store_from_syncing_and_sealing() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let background = Background::new(1).unwrap();
    let (blocked, is_blocked) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let ends = Mutex::new((blocked, released));
    let auto = eager().on_finish(move |_| {
        let (blocked, released) = &*ends.lock().unwrap();
        let _ = blocked.send(());
        let _ = released.recv();
    });
    let blocking = with(&background, auto).open(here.path()).unwrap();
    overwrite(&blocking, 1);
    is_blocked.recv().unwrap();
    let db = with(&background, eager()).open(there.path()).unwrap();
    overwrite(&db, 1);
    until(|| db.stats().syncs > 0 && db.stats().sealed_segments > 0);
    assert!(!db.segments().iter().any(|segment| segment.merged), "the merge thread is busy");
    // The blocked store's other work continues too, and the other store can be closed.
    let syncs = blocking.stats().syncs;
    blocking.put("more", "").unwrap();
    until(|| blocking.stats().syncs > syncs);
    db.close().unwrap();
    drop(release);
    let db = with(&background, eager()).open(there.path()).unwrap();
    until(|| db.segments().iter().any(|segment| segment.merged));
    assert_eq!(pairs(&db), expected(1));
}

#[test]
fn closing_stops_a_merge_on_a_shared_thread_which_is_then_free_for_others() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let background = Background::new(1).unwrap();
    let db = with(&background, eager().bytes_per_second(Some(1))).open(here.path()).unwrap();
    let other = with(&background, eager()).open(there.path()).unwrap();
    // Most of the log is live, so the rate limit applies as long as a thread writes.
    for number in 0..400_u32 {
        db.put(number.to_be_bytes(), [1; 100]).unwrap();
    }
    let pause = (0..200_u32).cycle().find_map(|number| {
        db.put(number.to_be_bytes(), [2; 100]).unwrap();
        // A merge that is paused waits for the end of the pause, so it cannot end before that.
        let pause = db.is_merging().then(|| db.pause_merges().unwrap());
        pause.filter(|_| db.is_merging())
    });
    let before = pairs(&db);
    db.close().unwrap();
    drop(pause);
    overwrite(&other, 1);
    await_work(&other, 0);
    assert!(pairs(&small().open(here.path()).unwrap()) == before);
}

/// The shared thread that runs the callback closes the store, and ends the threads.
#[test]
fn a_callback_may_drop_the_store_and_the_last_handle_of_its_threads() {
    let dir = tempfile::tempdir().unwrap();
    let slot = Arc::new(Mutex::new(None));
    let (taken, was_taken) = mpsc::channel();
    let (alone, is_alone) = mpsc::channel();
    let (held, ends) = (Arc::clone(&slot), Mutex::new((taken, is_alone)));
    let auto = eager().on_finish(move |_| {
        let last: Option<(Arc<Bitcask>, Background)> = held.lock().unwrap().take();
        if let Some(last) = last {
            let (taken, is_alone) = &*ends.lock().unwrap();
            taken.send(()).unwrap();
            is_alone.recv().unwrap();
            drop(last);
        }
    });
    let background = Background::with_merges(2, 2).unwrap();
    let db = Arc::new(with(&background, auto).open(dir.path()).unwrap());
    *slot.lock().unwrap() = Some((Arc::clone(&db), background));
    overwrite(&db, 1);
    was_taken.recv().unwrap();
    drop(db);
    alone.send(()).unwrap();
    // The thread releases the lock, and ends after the callback has returned.
    let db = open_when_released(dir.path());
    assert!(db.recovery().is_clean(), "{:?}", db.recovery());
    assert_eq!(pairs(&db), expected(1));
}

#[test]
fn a_callback_may_drop_another_store_of_the_same_threads() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let background = Background::new(1).unwrap();
    let other = with(&background, eager()).open(there.path()).unwrap();
    overwrite(&other, 1);
    let (slot, (dropped, was_dropped)) = (Mutex::new(Some(other)), mpsc::channel());
    let auto = eager().on_finish(move |_| {
        if let Some(other) = slot.lock().unwrap().take() {
            other.close().unwrap();
            dropped.send(()).unwrap();
        }
    });
    let db = with(&background, auto).open(here.path()).unwrap();
    overwrite(&db, 1);
    was_dropped.recv().unwrap();
    db.close().unwrap();
    for dir in [here, there] {
        assert_eq!(pairs(&small().open(dir.path()).unwrap()), expected(1));
    }
}

#[test]
fn callbacks_that_panic_harm_no_other_store() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let background = Background::new(1).unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let auto = eager().on_finish(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        panic!("on purpose")
    });
    let panicking = with(&background, auto).open(here.path()).unwrap();
    overwrite(&panicking, 1);
    until(|| calls.load(Ordering::Relaxed) > 0);
    let db = with(&background, eager()).open(there.path()).unwrap();
    overwrite(&db, 1);
    await_work(&db, 0);
    let called = calls.load(Ordering::Relaxed);
    overwrite(&panicking, 2);
    until(|| calls.load(Ordering::Relaxed) > called);
    panicking.close().unwrap();
}

#[test]
fn options_return_the_threads_that_they_were_given() {
    let background = Background::new(1).unwrap();
    let options = Options::new();
    assert!(options.get_background().is_none());
    let options = options.background(&background);
    assert_eq!(format!("{:?}", options.get_background()), format!("Some({background:?})"));
    assert!(format!("{options:?}").contains("Background { threads: 1, merges: 1 }"));
}
