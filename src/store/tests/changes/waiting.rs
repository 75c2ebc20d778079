//! Waiting followers: which of them an event wakes, and where they continue. The tests count
//! wake-ups and do not depend on timing.

use std::thread::ScopedJoinHandle;

use crate::options::MergeOptions;
use crate::store::tests::*;

const WAITING: usize = 12;

fn lab() -> Lab {
    Lab::new().with(
        Options::new().merge_policy(crate::MergePolicy::Manual).sync_policy(SyncPolicy::Never),
    )
}

/// Ends the followers when a test fails; otherwise they would wait forever.
struct Ends<'a>(&'a Bitcask);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.inner.release_lock();
        }
    }
}

/// Returns the number of waiting followers, and of wake-ups so far.
fn figures(db: &Bitcask) -> (usize, u64) {
    db.inner.writer().unwrap().log.lock().waiters.figures()
}

fn woken(db: &Bitcask) -> u64 {
    figures(db).1
}

fn await_waiting(db: &Bitcask, count: usize) {
    while figures(db).0 < count {
        std::thread::yield_now();
    }
}

/// Starts `WAITING` followers, and waits until all of them wait. Each returns its first result.
fn watch<'s>(
    scope: &'s std::thread::Scope<'s, '_>,
    db: &'s Bitcask,
    changes: impl Fn(usize) -> Changes,
) -> Vec<ScopedJoinHandle<'s, Result<Option<Change>>>> {
    let threads = (0..WAITING).map(|number| {
        let mut changes = changes(number);
        scope.spawn(move || changes.recv())
    });
    let threads = threads.collect();
    await_waiting(db, WAITING);
    threads
}

fn prefix(number: usize) -> String {
    format!("watched/{number:02}/")
}

/// Regression: each put woke all followers, and each of them locked the log.
#[test]
fn a_change_wakes_only_followers_of_its_key() {
    let lab = lab();
    let db = lab.open();
    db.put("before", "x").unwrap();
    std::thread::scope(|scope| {
        let _ends = Ends(&db);
        let threads = watch(scope, &db, |number| db.watch_prefix(prefix(number)).unwrap());
        for number in 0..500 {
            db.put(format!("other/{number}"), "x").unwrap();
            db.put(format!("watched/{}", number % 10), "x").unwrap();
            db.delete(format!("other/{}", number / 2)).unwrap();
            db.write(Batch::new().put("watched/0", "x").put("watched/05", "x")).unwrap();
        }
        db.sync().unwrap();
        assert_eq!(figures(&db), (WAITING, 0));
        for (number, thread) in threads.into_iter().enumerate() {
            let key = prefix(number) + "key";
            db.write(Batch::new().put("other", "x").put(&key, "x").put("last", "x")).unwrap();
            let change = thread.join().unwrap().unwrap().unwrap();
            assert_eq!(change.key, key.as_str());
            assert!(!change.batch_continues);
            assert_eq!(woken(&db), number as u64 + 1);
        }
    });
}

/// Prefixes of prefixes, the empty prefix, and keys that are prefixes.
#[test]
fn every_follower_of_a_prefix_of_the_key_is_woken() {
    let prefixes = ["", "a", "a/", "a/b", "a/b/", "a/bc", "a/b/c", "b", "\u{7f}"];
    for key in ["", "a", "a/", "a/b", "a/b/c", "a/b/c/d", "a/a", "a/z", "b/a", "zz", "\u{7f}\u{7f}"]
    {
        let lab = lab();
        let db = lab.open();
        std::thread::scope(|scope| {
            let _ends = Ends(&db);
            for prefix in prefixes {
                let mut changes = db.watch_prefix(prefix).unwrap();
                scope.spawn(move || while changes.recv().unwrap().is_some() {});
            }
            await_waiting(&db, prefixes.len());
            db.put(key, "x").unwrap();
            let concerned = prefixes.iter().filter(|prefix| key.starts_with(**prefix)).count();
            assert_eq!(woken(&db), concerned as u64, "{key}");
            await_waiting(&db, prefixes.len());
            db.inner.writer().unwrap().merging.close();
            db.inner.release_lock();
        });
        kill(db);
    }
}

/// A follower that was not woken is not behind: neither its position nor a merge shows a gap.
#[test]
fn skipped_changes_may_be_merged_away() {
    let lab = lab();
    let db = lab.open();
    db.put("before", "x").unwrap();
    std::thread::scope(|scope| {
        let _ends = Ends(&db);
        let threads = watch(scope, &db, |number| db.watch_prefix(prefix(number)).unwrap());
        for round in 0..20 {
            db.put("other", format!("{round}")).unwrap();
            db.inner.log().unwrap().rotate_active().unwrap();
            // The end of a segment wakes all followers, so that none of them holds the segment for
            // long.
            assert_eq!(woken(&db), (round + 1) * WAITING as u64);
            await_waiting(&db, WAITING);
            db.inner.work();
            db.merge_opt(MergeOptions::new().force(true)).unwrap();
        }
        for (number, thread) in threads.into_iter().enumerate() {
            db.put(prefix(number), "x").unwrap();
            assert_eq!(thread.join().unwrap().unwrap().unwrap().key, prefix(number).as_bytes());
        }
    });
}

#[test]
fn a_follower_whose_wait_timed_out_has_reached_the_end() {
    let lab = lab();
    let db = Arc::new(lab.open());
    db.put("before", "x").unwrap();
    let mut changes = db.watch_prefix("watched/").unwrap();
    for durable in [false, true] {
        if durable {
            changes = changes.durable();
        }
        let waiting = std::thread::spawn(move || {
            let change = changes.recv().unwrap().unwrap();
            let none = changes.recv_timeout(Duration::from_millis(1)).unwrap();
            (changes, change, none)
        });
        await_waiting(&db, 1);
        for number in 0..20 {
            db.put(format!("other/{number}"), "x").unwrap();
        }
        db.sync().unwrap();
        db.put("watched/1", "x").unwrap();
        db.put("other", "x").unwrap();
        db.sync().unwrap();
        let (reached, change, none) = waiting.join().unwrap();
        assert_eq!(change.key, "watched/1");
        assert_eq!(none, None);
        changes = reached;
        assert!(changes.try_recv().unwrap().is_none());
        assert_eq!(changes.resume_position(), db.position(), "durable: {durable}");
    }
}

/// Changes that a follower had not read are gone, whether they match its prefix or not.
#[test]
fn a_clear_wakes_all_followers_with_a_resync_error() {
    let lab = lab();
    let db = lab.open();
    db.put("before", "x").unwrap();
    std::thread::scope(|scope| {
        let _ends = Ends(&db);
        let threads = watch(scope, &db, |number| db.watch_prefix(prefix(number)).unwrap());
        db.put("other", "x").unwrap();
        db.clear().unwrap();
        for thread in threads {
            assert!(matches!(thread.join().unwrap(), Err(Error::HistoryGone { .. })));
        }
    });
}

#[test]
fn a_durable_follower_is_woken_by_a_sync_of_its_keys() {
    let lab = lab();
    let db = lab.open();
    db.put("before", "x").unwrap();
    db.sync().unwrap();
    std::thread::scope(|scope| {
        let _ends = Ends(&db);
        let durable = |number| db.watch_prefix(prefix(number)).unwrap().durable();
        let mut threads = watch(scope, &db, durable);
        for number in 0..50 {
            db.put(format!("other/{number}"), "x").unwrap();
            db.sync().unwrap();
        }
        assert_eq!(woken(&db), 0);
        db.put(prefix(0), "x").unwrap();
        db.put("other", "x").unwrap();
        assert_eq!(woken(&db), 0, "the change is not durable yet");
        db.sync().unwrap();
        assert_eq!(woken(&db), 1);
        assert_eq!(threads.remove(0).join().unwrap().unwrap().unwrap().key, prefix(0).as_bytes());
        // A lone mark and a seal do not wake followers that have read everything.
        db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
        assert_eq!(woken(&db), 1);
        for (number, thread) in threads.into_iter().enumerate() {
            db.put_opt(prefix(number + 1), "x", WriteOptions::new().durable(true)).unwrap();
            assert!(thread.join().unwrap().unwrap().is_some());
        }
    });
}

/// The end of a segment wakes all followers, and they see changes that are not durable yet. If none
/// of these match its prefix, the next sync must not wake a follower. Otherwise, with busy writers,
/// every sync would wake all followers.
#[test]
fn a_sync_of_changes_already_skipped_wakes_no_follower() {
    let lab = lab();
    let db = lab.open();
    db.put("before", "x").unwrap();
    db.sync().unwrap();
    std::thread::scope(|scope| {
        let _ends = Ends(&db);
        let durable = |number| db.watch_prefix(prefix(number)).unwrap().durable();
        let threads = watch(scope, &db, durable);
        for round in 1..20 {
            for number in 0..10 {
                db.put(format!("other/{number}"), "x").unwrap();
            }
            db.inner.log().unwrap().rotate_active().unwrap();
            db.put("watched", "x").unwrap();
            await_waiting(&db, WAITING);
            assert_eq!(woken(&db), round * WAITING as u64);
            db.sync().unwrap();
            assert_eq!(woken(&db), round * WAITING as u64);
        }
        // Followers do receive the changes of their prefixes.
        db.put("other", "x").unwrap();
        db.inner.log().unwrap().rotate_active().unwrap();
        for number in 0..WAITING {
            db.put(prefix(number), "x").unwrap();
        }
        await_waiting(&db, WAITING);
        db.sync().unwrap();
        for (number, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().unwrap().unwrap().unwrap().key, prefix(number).as_bytes());
        }
    });
}

#[test]
fn closing_wakes_all_followers_and_delivers_the_rest() {
    let lab = lab();
    let mut db = lab.open();
    db.put("before", "x").unwrap();
    let told = std::thread::scope(|scope| {
        let (inner, changes) = (Arc::clone(&db.inner), db.watch_prefix("a/").unwrap());
        let waiting =
            scope.spawn(move || changes.map(|change| change.unwrap().key).collect::<Vec<_>>());
        await_waiting(&db, 1);
        db.put("other", "x").unwrap();
        db.put("a/1", "x").unwrap();
        db.put("other", "y").unwrap();
        db.put("a/2", "x").unwrap();
        db.shut().unwrap();
        drop(inner);
        waiting.join().unwrap()
    });
    assert_eq!(told, ["a/1", "a/2"]);
}
