//! Stores whose process forks: the child's copy of the store is unusable.
//!
//! Each test plays in a child process, which runs no threads of other tests. A forked child that
//! does not reach the end of its part has failed: a panic ends it with status 1, anything else with
//! a signal.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]
#![expect(unsafe_code, reason = "the tests fork on purpose")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bitcask::{
    AutoMerge, Background, Batch, Bitcask, Counters, Error, MergeOptions, MergePolicy, Options,
    Position, ReadOnly, Reader, Result, SyncPolicy, WriteOptions,
};

use crate::support::{Actor, SAYS, actor, contents, logs, open, pairs, small};

/// Prefix of the names of the parts that child processes play here.
pub(crate) const PART: &str = "forks: ";

/// Plays a child process's part.
pub(crate) fn play(part: &str, dir: &Path) {
    match part.trim_start_matches(PART) {
        "drop" => in_children(dir, &[drop]),
        "close" => in_children(dir, &[|db: Bitcask| assert!(is_forked(db.close()))]),
        "everything" => in_children(dir, &[|db| call_everything(&db), |db| drop(db)]),
        "grandchildren" => in_children(dir, &[beget]),
        "bare clone" => bare_clone(dir),
        "no descriptors" => no_descriptors(dir),
        "held" => held(dir),
        "outlived" => outlived(dir),
        "callbacks" => callbacks(dir),
        "last key" => last_key(dir),
        "busy" => busy(dir),
        "daemon" => daemon(dir),
        "read-only" => read_only(dir),
        "poisoned lock" => keep_the_lock(dir),
        "shared threads" => shared_threads(dir),
        "forking callback" => forking_callback(dir),
        other => unreachable!("there is no part {other}"),
    }
    println!("{SAYS}done");
}

fn start(part: &str, dir: &Path) -> Actor {
    Actor::start(actor(&format!("{PART}{part}"), dir)).unwrap()
}

/// Plays a part to its end, and returns its output.
fn played(part: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start(part, dir.path());
    let mut said: Vec<String> = std::iter::from_fn(|| child.hear()).collect();
    let status = child.wait();
    assert!(status.success(), "{part}: {status}");
    assert_eq!(said.pop().as_deref(), Some("done"), "{part}");
    said
}

#[test]
fn dropping_the_store_in_a_forked_child_changes_nothing() {
    played("drop");
}

#[test]
fn closing_the_store_in_a_forked_child_leaves_it_open_in_the_parent() {
    played("close");
}

#[test]
fn every_call_in_a_forked_child_fails_and_changes_nothing() {
    played("everything");
}

#[test]
fn a_grandchild_is_refused_and_may_open_another_store() {
    played("grandchildren");
}

#[test]
fn a_child_of_a_bare_clone_drops_the_store_without_harm() {
    played("bare clone");
}

#[test]
fn a_child_without_free_descriptors_still_releases_the_lock() {
    played("no descriptors");
}

#[test]
fn values_and_views_dropped_in_the_child_stay_valid_in_the_parent() {
    played("held");
}

#[test]
fn a_child_frees_nothing_of_a_closed_store_with_live_followers() {
    played("outlived");
}

#[test]
fn a_call_whose_closure_forks_fails_in_the_child() {
    played("callbacks");
}

#[test]
fn a_call_whose_closure_forks_at_the_last_key_fails_in_the_child() {
    played("last key");
}

#[test]
fn forks_during_writes_and_merges_neither_hang_nor_harm() {
    played("busy");
}

#[test]
fn a_program_that_opens_and_then_daemonizes_drops_the_store_and_opens_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut parent = start("daemon", dir.path());
    assert_eq!(parent.hear().as_deref(), Some("locked while the parent lives"));
    // The parent has released everything only once it has been waited for. A pipe of its may end
    // while it still holds its lock, because the kernel closes the descriptors opened last first.
    let go_on = parent.stdin();
    assert!(parent.wait().success());
    drop(go_on);
    let said: Vec<String> = std::iter::from_fn(|| parent.hear()).collect();
    assert_eq!(said, ["opened again", "done"]);
}

#[test]
fn a_child_of_a_reader_is_refused_and_does_no_harm() {
    played("read-only");
}

#[test]
fn closing_in_the_parent_releases_the_lock_despite_a_child_s_copy() {
    played("poisoned lock");
}

#[test]
fn a_child_can_drop_stores_with_shared_threads_but_not_use_the_threads() {
    played("shared threads");
}

#[test]
fn a_callback_that_forks_on_a_background_thread_leaves_the_child_nothing_to_do() {
    played("forking callback");
}

fn is_forked<T>(result: Result<T>) -> bool {
    result.is_err_and(|error| error.is_forked())
}

/// Forks. The child plays a part, and exits.
fn fork(part: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child has one thread, and does what is under test here: it calls the store.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", std::io::Error::last_os_error());
    if pid == 0 {
        end_after(part);
    }
    pid
}

fn end_after(part: impl FnOnce()) -> ! {
    let code = i32::from(catch_unwind(AssertUnwindSafe(part)).is_err());
    // SAFETY: ends this process immediately; it has nothing to clean up.
    unsafe { libc::_exit(code) }
}

/// Waits for a child, and checks that it reached the end of its part.
fn join(pid: libc::pid_t) {
    let mut status = 0;
    // SAFETY: the status is a local number.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "wait status {status:#x} of a child");
}

fn key(number: u32) -> Vec<u8> {
    format!("key {number:04}").into_bytes()
}

fn value(number: u32) -> Vec<u8> {
    vec![b'a' + u8::try_from(number % 26).unwrap(); 100]
}

/// Creates a store with several segments, some of them partly dead.
fn filled(dir: &Path) -> Bitcask {
    let db = open(dir);
    for number in (0..200).chain(0..100) {
        db.put(key(number), value(number)).unwrap();
    }
    db
}

fn check(db: &Reader) {
    let expected: BTreeMap<_, _> = (0..200).map(|number| (key(number), value(number))).collect();
    assert!(pairs(db) == expected);
    assert!(db.verify().unwrap().is_clean());
}

/// Returns the files of a store that no thread is changing.
fn files(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    contents(dir)
}

/// Forks a child for each part, which plays it with the parent's open store. The parent then
/// continues to use the store.
fn in_children(dir: &Path, parts: &[fn(Bitcask)]) {
    for part in parts {
        let db = filled(dir);
        db.merge_opt(MergeOptions::new().force(true)).unwrap();
        db.sync().unwrap();
        let mut db = Some(db);
        join(fork(|| part(db.take().unwrap())));
        let db = db.unwrap();
        check(&db);
        db.put("late", "1").unwrap();
        db.merge_opt(MergeOptions::new().force(true)).unwrap();
        assert!(db.delete("late").unwrap());
        check(&db);
        db.close().unwrap();
        let db = open(dir);
        assert_eq!(db.recovery().recovered_entries, 0, "the store was closed cleanly");
        check(&db);
        db.close().unwrap();
    }
}

fn call_everything(db: &Bitcask) {
    let (dir, target) = (db.path().to_path_buf(), db.path().join("copy"));
    let before = files(&dir);
    read_everything(db);
    assert!(is_forked(db.put("key 0001", "x")));
    assert!(is_forked(db.put_opt("key 0001", "x", WriteOptions::new().durable(true))));
    assert!(is_forked(db.delete("key 0001")) && is_forked(db.delete("nothing")));
    assert!(is_forked(db.write(Batch::new().put("a", "1").delete("key 0001"))));
    assert!(is_forked(db.put_if_absent("a", "1")));
    assert!(is_forked(db.compare_and_swap("a", None, Some(b"1"))));
    assert!(is_forked(db.update("a", |_| Some("1"))));
    assert!(is_forked(db.expire("key 0001", Duration::ZERO)) && is_forked(db.persist("key 0001")));
    assert!(is_forked(db.delete_range(..)) && is_forked(db.delete_prefix("key")));
    assert!(is_forked(db.retain(|_, _| false)));
    assert!(is_forked(db.transaction(|transaction| transaction.get("key 0001"))));
    assert!(is_forked(db.sync()) && is_forked(db.clear()));
    assert!(is_forked(db.merge()));
    assert!(is_forked(db.merge_opt(MergeOptions::new().force(true))));
    assert!(is_forked(db.backup(target)));
    assert!(is_forked(db.set_sync_policy(bitcask::SyncPolicy::Always)));
    assert!(is_forked(db.set_merge_policy(bitcask::MergePolicy::Manual)));
    assert!(is_forked(db.pause_merges()) && !db.is_merging());
    assert!(db.needs_merge().is_empty());
    assert!(before == files(&dir), "the child has changed something");
}

fn read_everything(db: &Reader) {
    let dir = db.path().to_path_buf();
    let before = files(&dir);
    assert!(is_forked(db.get("key 0001")));
    assert!(is_forked(db.get_with("key 0001", |_| ())));
    assert!(is_forked(db.get_into("key 0001", &mut Vec::new())));
    assert!(is_forked(db.contains_key("nothing")));
    assert!(is_forked(db.get_many(&["key 0001"])));
    assert!(is_forked(db.get_many_with(&["key 0001"], |_, _| {})));
    assert!(is_forked(db.ttl("key 0001")));
    assert!(is_forked(db.value_len("key 0001")));
    assert!(is_forked(db.first()) && is_forked(db.last()));
    assert!(is_forked(db.scan_from(0, 10)));
    for mut steps in [
        Box::new(db.iter_unordered().map(|step| step.map(drop)))
            as Box<dyn Iterator<Item = Result<()>>>,
        Box::new(db.keys_unordered().map(|step| step.map(drop))),
        Box::new(db.range(..).map(|step| step.map(drop))),
        Box::new(db.range(..).rev().map(|step| step.map(drop))),
        Box::new(db.range_keys(..).map(|step| step.map(drop))),
        Box::new(db.prefix("key").map(|step| step.map(drop))),
        Box::new(db.prefix_keys("key").map(|step| step.map(drop))),
    ] {
        assert!(is_forked(steps.next().unwrap()));
        assert!(steps.next().is_none(), "an iterator ends after the error");
    }
    assert!(is_forked(db.verify()));
    assert!(is_forked(db.changes(Position::START)) && is_forked(db.watch_prefix("key")));
    let snapshot = db.snapshot();
    assert!(is_forked(snapshot.get("key 0001")) && is_forked(snapshot.len()));
    assert!(is_forked(snapshot.get_with("key 0001", |_| ())));
    assert!(is_forked(snapshot.get_many(&["key 0001"])));
    assert!(is_forked(snapshot.contains_key("nothing")));
    assert!(is_forked(snapshot.value_len("nothing")) && is_forked(snapshot.is_empty()));
    assert!(is_forked(snapshot.range("a"..).next().unwrap()));
    assert_eq!(snapshot.position(), Position::START);
    assert_eq!(snapshot.age(), Duration::ZERO);
    assert!(is_forked(db.len()) && is_forked(db.is_empty()));
    assert_eq!(db.position(), Position::START);
    assert_eq!((db.stats().keys, db.stats().segments), (0, 0));
    assert_eq!(db.counters(), Counters::default());
    assert!(db.segments().is_empty());
    assert_eq!(db.path(), dir);
    let _ = (db.recovery(), format!("{db:?}"));
    let error = db.get("key 0001").unwrap_err();
    let told = error.to_string();
    assert!(told.contains(&std::process::id().to_string()), "{told}");
    // SAFETY: the call only returns a number.
    let parent = unsafe { libc::getppid() };
    assert!(told.contains(&parent.to_string()), "{told}");
    let Error::Forked { opener, process } = error else { panic!("{error}") };
    assert_eq!((opener.to_string(), process), (parent.to_string(), std::process::id()));
    drop(snapshot);
    assert!(before == files(&dir), "the child has changed something");
}

/// Forks a grandchild that makes the same checks. The child and the grandchild each open other
/// stores.
fn beget(db: Bitcask) {
    let other = tempfile::tempdir().unwrap();
    let own = filled(other.path());
    let mut both = Some((db, own));
    join(fork(|| {
        let (db, own) = both.take().unwrap();
        assert!(is_forked(db.get("key 0001")) && is_forked(own.get("key 0001")));
        drop(db);
        assert!(is_forked(own.close()));
        let third = tempfile::tempdir().unwrap();
        let db = filled(third.path());
        check(&db);
        db.close().unwrap();
    }));
    let (db, own) = both.unwrap();
    assert!(is_forked(db.get("key 0001")));
    check(&own);
    own.merge_opt(MergeOptions::new().force(true)).unwrap();
    check(&own);
    own.close().unwrap();
    check(&open(other.path()));
}

fn bare_clone(dir: &Path) {
    let db = filled(dir);
    let snapshot = db.snapshot();
    let mut both = Some((db, snapshot));
    // SAFETY: as in `fork`, except that the C library does not learn of this child. The child does
    // nothing that depends on it.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if pid == 0 {
        end_after(|| drop(both.take().unwrap()));
    }
    join(i32::try_from(pid).unwrap());
    let (db, snapshot) = both.unwrap();
    db.put("late", "1").unwrap();
    assert_eq!(snapshot.len().unwrap(), 200);
    drop(snapshot);
    assert!(db.delete("late").unwrap());
    db.close().unwrap();
    check(&open(dir));
}

/// A child releases the lock even when it can open no more files.
fn no_descriptors(dir: &Path) {
    let lock = dir.canonicalize().unwrap().join("LOCK");
    let open_locks = || {
        let all = std::fs::read_dir("/proc/self/fd").unwrap();
        let leads = |link: std::io::Result<PathBuf>| link.is_ok_and(|path| path == lock);
        all.filter(|entry| leads(std::fs::read_link(entry.as_ref().unwrap().path()))).count()
    };
    let mut db = Some(filled(dir));
    assert_eq!(open_locks(), 1);
    join(fork(|| {
        let limit = libc::rlimit { rlim_cur: 128, rlim_max: 128 };
        // SAFETY: the call only reads the limit, which applies to this child alone.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        let all: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        drop(db.take());
        drop(all);
        assert_eq!(open_locks(), 0, "the child still holds the lock");
    }));
    assert_eq!(open_locks(), 1);
    check(&db.take().unwrap());
}

/// Drops in the child everything that the parent holds, including pins on segments that were merged
/// away.
fn held(dir: &Path) {
    let db = filled(dir);
    let (snapshot, lent) = (db.snapshot(), db.get(key(7)).unwrap().unwrap());
    let (changes, watch) = (db.changes(db.position()).unwrap(), db.watch_prefix("key").unwrap());
    db.put(key(0), "new").unwrap();
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    let (pinned, there) = (db.stats().pinned_segments, logs(dir));
    assert!(pinned > 0);
    let mut range = snapshot.range(..);
    let mut iter = db.iter_unordered();
    assert!(range.next().unwrap().is_ok() && iter.next().unwrap().is_ok());
    let mut all = Some((changes, watch, range, iter, snapshot, lent));
    join(fork(|| {
        let (mut changes, mut watch, mut range, mut iter, snapshot, lent) = all.take().unwrap();
        assert!(is_forked(snapshot.get(key(1))));
        assert_eq!(snapshot.age(), Duration::ZERO, "a forked child must not take the clock's lock");
        assert!(is_forked(changes.try_recv()) && is_forked(watch.recv()));
        assert!(is_forked(changes.recv_timeout(Duration::MAX)));
        let _ = changes.resume_position();
        assert!(is_forked(watch.next().unwrap()) && watch.next().is_none());
        assert!(is_forked(range.next().unwrap()) && range.next().is_none());
        assert!(is_forked(iter.next().unwrap()) && iter.next().is_none());
        assert_eq!(lent, vec![b'h'; 100], "the child can read its copy of the value");
        drop((range, iter, changes, watch));
        drop(snapshot.clone());
        drop((snapshot, lent));
        assert!(there.iter().all(|path| path.exists()), "pinned segments stay");
    }));
    let (_, _, range, iter, snapshot, lent) = all.unwrap();
    assert_eq!(db.stats().pinned_segments, pinned);
    assert_eq!(snapshot.len().unwrap(), 200);
    assert_eq!((range.count(), iter.count()), (199, 199));
    assert_eq!(lent, vec![b'h'; 100]);
    assert_eq!(snapshot.get(key(0)).unwrap().unwrap(), value(0));
}

/// Returns how many mappings of files in a directory this process has.
fn mapped(dir: &Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(dir.to_str().unwrap())).count()
}

/// In the parent, a follower is the last holder of a closed store. The child drops its copy, and
/// must free nothing: a thread of the parent may have been freeing a part at the time of the fork,
/// and the child's copy of its lock would stay locked forever.
fn outlived(dir: &Path) {
    for waits in [false, true] {
        let db = filled(dir);
        let changes = db.changes(db.position()).unwrap();
        db.close().unwrap();
        let (mut own, before, there) = (Some(changes), files(dir), mapped(dir));
        assert!(there > 0);
        join(fork(|| {
            let mut changes = own.take().unwrap();
            if waits {
                assert!(is_forked(changes.recv()));
            }
            drop(changes);
            assert_eq!(mapped(dir), there, "the child has freed what it does not own");
            assert!(before == files(dir));
            // The child may open the store itself.
            let own = open(dir);
            check(&own);
            own.close().unwrap();
        }));
        let mut changes = own.unwrap();
        assert_eq!(changes.recv().unwrap(), None);
        drop(changes);
        assert_eq!(mapped(dir), 0);
        check(&open(dir));
    }
}

/// Forks in closures that the store calls. In the child, the call returns an error.
fn callbacks(dir: &Path) {
    type Part = fn(&Bitcask, &mut dyn FnMut()) -> bool;
    let parts: [(&str, Part); 7] = [
        ("merge", |db, fork| {
            is_forked(db.merge_opt(MergeOptions::new().force(true).progress(|_| {
                fork();
                ControlFlow::Continue(())
            })))
        }),
        ("verify", |db, fork| {
            is_forked(db.verify_with(|_| {
                fork();
                ControlFlow::Continue(())
            }))
        }),
        ("update", |db, fork| {
            is_forked(db.update(key(1), |_| {
                fork();
                Some(value(1))
            }))
        }),
        ("retain", |db, fork| {
            is_forked(db.retain(|_, _| {
                fork();
                true
            }))
        }),
        ("transaction", |db, fork| {
            is_forked(db.transaction(|transaction| {
                fork();
                transaction.put(key(2), value(2));
                Ok(())
            }))
        }),
        ("get_with", |db, fork| {
            db.get_with(key(3), |_| fork()).unwrap();
            is_forked(db.get(key(3)))
        }),
        ("get_many_with", |db, fork| {
            is_forked(db.get_many_with(&[key(1), key(2)], |at, _| {
                if at == 0 {
                    fork();
                }
            }))
        }),
    ];
    for (name, part) in parts {
        let db = filled(dir);
        let mut children = Vec::new();
        let was_forked = part(&db, &mut || {
            // SAFETY: as in `fork`; the child comes to its end below.
            match unsafe { libc::fork() } {
                0 => children = vec![0],
                // A grandchild ends where the first child does.
                pid if children != [0] => children.push(pid),
                pid => join(pid),
            }
        });
        if children == [0] {
            end_after(|| {
                assert!(was_forked, "{name}");
                drop(db);
            });
        }
        assert!(!was_forked && !children.is_empty(), "{name}");
        children.into_iter().for_each(join);
        check(&db);
        db.close().unwrap();
    }
}

/// Forks in the last call of a closure that is called for every key, after which no further call
/// can notice the fork.
fn last_key(dir: &Path) {
    /// Enough keys that the last of the keydir's 4,096 parts is sure to hold some.
    const KEYS: u32 = 80_000;
    let db = Bitcask::open(dir, Options::new().sync_policy(SyncPolicy::Never)).unwrap();
    for number in 0..KEYS {
        db.put(number.to_be_bytes(), "").unwrap();
    }
    let (mut left, mut child) = (KEYS, None);
    let retained = db.retain(|_, _| {
        left -= 1;
        if left == 0 {
            // SAFETY: as in `fork`; the child comes to its end below.
            child = Some(unsafe { libc::fork() });
        }
        true
    });
    if child == Some(0) {
        end_after(|| assert!(is_forked(retained)));
    }
    assert_eq!(retained.unwrap(), 0);
    join(child.unwrap());
}

/// Forks while threads write, delete, merge and take snapshots.
fn busy(dir: &Path) {
    const FORKS: usize = 200;
    let db = Arc::new(Bitcask::open(dir, small().sync_policy(SyncPolicy::Interval(TICK))).unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let writers = [0_u32, 1].map(|writer| {
        let (db, stop) = (Arc::clone(&db), Arc::clone(&stop));
        thread::spawn(move || {
            let mut round = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                let number = writer * 1000 + round % 300;
                db.put(key(number), round.to_be_bytes()).unwrap();
                if round.is_multiple_of(7) {
                    db.delete(key(number)).unwrap();
                }
                if round.is_multiple_of(97) {
                    assert!(db.snapshot().iter().all(|pair| pair.is_ok()));
                }
                round += 1;
            }
        })
    });
    let merger = {
        let (db, stop) = (Arc::clone(&db), Arc::clone(&stop));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                db.merge_opt(MergeOptions::new().force(true)).unwrap();
            }
        })
    };
    for round in 0..FORKS {
        let mut own = Some(Arc::clone(&db));
        join(fork(|| {
            let db = own.take().unwrap();
            assert!(is_forked(db.get("key 0001")) && is_forked(db.put("key 0001", "x")));
            assert!(is_forked(db.iter_unordered().next().unwrap()) && is_forked(db.sync()));
            assert!(is_forked(db.len()));
            assert_eq!((db.stats().keys, db.position()), (0, Position::START));
            assert_eq!(db.counters(), Counters::default());
            assert!(is_forked(db.snapshot().len()));
            // The child's copies of the other threads' handles are never dropped, so this is the
            // only way to drop the store here.
            let alone = Arc::into_raw(db);
            // SAFETY: no other thread of this process uses it, and it is never dropped again.
            let db = unsafe { std::ptr::read(alone) };
            if round % 2 == 0 { drop(db) } else { assert!(is_forked(db.close())) }
        }));
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    merger.join().unwrap();
    assert!(db.verify().unwrap().is_clean());
    let expected = pairs(&db);
    Arc::try_unwrap(db).unwrap().close().unwrap();
    let db = open(dir);
    assert!(pairs(&db) == expected);
    assert!(db.verify().unwrap().is_clean());
}

/// Forks while shared threads are busy, so that the child may find their locks held forever.
fn shared_threads(dir: &Path) {
    const FORKS: usize = 100;
    let background = Background::with_merges(2, 2).unwrap();
    let options = || small().sync_policy(SyncPolicy::Interval(TICK)).background(&background);
    let stores = ["a", "b"].map(|name| Arc::new(options().open(dir.join(name)).unwrap()));
    let stop = Arc::new(AtomicBool::new(false));
    let writers = stores.clone().map(|db| {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            for round in (0_u32..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                db.put(key(round % 300), round.to_be_bytes()).unwrap();
            }
        })
    });
    let mut idle = Some(Background::new(1).unwrap());
    let mut all = Some((background.clone(), options(), stores));
    for round in 0..FORKS {
        join(fork(|| {
            drop(idle.take());
            let (handle, options, stores) = all.take().unwrap();
            let fresh = dir.join(round.to_string());
            assert!(is_forked(options.clone().open(&fresh)) && !fresh.exists());
            let _ = format!("{options:?} {handle:?}");
            for (at, db) in stores.into_iter().enumerate() {
                // SAFETY: as in `busy`.
                let db = unsafe { std::ptr::read(Arc::into_raw(db)) };
                if (round + at) % 2 == 0 { drop(db) } else { assert!(is_forked(db.close())) }
            }
            drop((handle, options));
            // A child may start its own threads.
            let own = Background::new(1).unwrap();
            let db = small().background(&own).open(&fresh).unwrap();
            db.put("key", "value").unwrap();
            db.close().unwrap();
        }));
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    let (handle, _, stores) = all.unwrap();
    for db in stores {
        assert!(db.verify().unwrap().is_clean());
        Arc::into_inner(db).unwrap().close().unwrap();
    }
    drop((handle, options().open(dir.join("c")).unwrap()));
}

/// If a callback forks, the thread that runs it is the child's only one. The child ends with that
/// thread, and neither the child nor the parent is harmed.
fn forking_callback(dir: &Path) {
    for shared in [None, Some(Background::new(1).unwrap())] {
        let (told, children) = std::sync::mpsc::channel();
        let told = std::sync::Mutex::new(Some(told));
        let auto = AutoMerge::new().dead_percent(1).trigger_dead_percent(1).check_interval(TICK);
        let auto = auto.on_finish(move |_| {
            if let Some(told) = told.lock().unwrap().take() {
                // SAFETY: as in `fork`. The child continues with this thread, its only one.
                let pid = unsafe { libc::fork() };
                if pid != 0 {
                    told.send(pid).unwrap();
                }
            }
        });
        let mut options = small().merge_policy(MergePolicy::Auto(auto));
        if let Some(shared) = &shared {
            options = options.background(shared);
        }
        let store = dir.join(if shared.is_some() { "shared" } else { "own" });
        let db = options.open(&store).unwrap();
        for number in (0..200).chain(0..100) {
            db.put(key(number), value(number)).unwrap();
        }
        join(children.recv().unwrap());
        check(&db);
        db.close().unwrap();
        check(&open(&store));
    }
}

const TICK: Duration = Duration::from_millis(1);

/// Creates a pipe whose reader sees the end once every writing handle is closed.
fn pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    std::io::pipe().unwrap()
}

/// Opens a store, forks, and exits without closing. The child continues alone once a message
/// says that the parent was waited for.
fn daemon(dir: &Path) {
    use std::io::Read as _;
    let db = filled(dir);
    db.sync().unwrap();
    let (mut go_on, say_so) = pipe();
    let mut db = Some(db);
    // SAFETY: as in `fork`. Here the parent is the process that exits.
    let pid = unsafe { libc::fork() };
    if pid != 0 {
        drop(say_so);
        // Until the child has seen that the store is locked.
        assert_eq!(go_on.read(&mut [0]).unwrap(), 0);
        // SAFETY: ends this process immediately, like a program that becomes a daemon.
        unsafe { libc::_exit(0) }
    }
    drop(db.take());
    let locked = Bitcask::open(dir, small()).unwrap_err();
    assert!(locked.is_locked(), "{locked}");
    println!("{SAYS}locked while the parent lives");
    drop(say_so);
    assert_eq!(std::io::stdin().read(&mut [0]).unwrap(), 0);
    let db = open(dir);
    check(&db);
    db.put("late", "1").unwrap();
    assert!(db.delete("late").unwrap());
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    db.close().unwrap();
    check(&open(dir));
    println!("{SAYS}opened again");
}

fn read_only(dir: &Path) {
    filled(dir).close().unwrap();
    let before = files(dir);
    let mut db = Some(ReadOnly::open(dir, small()).unwrap());
    join(fork(|| {
        let db = db.take().unwrap();
        read_everything(&db);
        assert!(is_forked(db.refresh()));
        assert!(is_forked(db.close()));
        // The child may open another view.
        let own = ReadOnly::open(dir, small()).unwrap();
        check(&own);
        own.close().unwrap();
    }));
    let db = db.unwrap();
    check(&db);
    assert!(!db.refresh().unwrap());
    db.close().unwrap();
    assert!(before == files(dir));
}

/// Closing in the parent releases the lock although a child still holds a copy of it. When the
/// child drops its copy later, the parent's new lock stays in place.
fn keep_the_lock(dir: &Path) {
    use std::io::{Read as _, Write as _};
    let db = filled(dir);
    let ((mut hear, say), (mut told, mut tell)) = (pipe(), pipe());
    let mut own = Some(db);
    let child = fork(|| {
        drop(hear.try_clone());
        drop(say);
        // Closing in the parent releases the lock, whatever copies the child has.
        assert_eq!(told.read(&mut [0]).unwrap(), 1);
        drop(own.take());
    });
    own.take().unwrap().close().unwrap();
    let again = open(dir);
    check(&again);
    tell.write_all(b"x").unwrap();
    join(child);
    let refused = Bitcask::open(dir, Options::new()).unwrap_err();
    assert!(refused.is_locked(), "the child must not release the new lock: {refused}");
    drop(again);
    let _ = hear.read(&mut []);
}
