//! Followers that wait: who is woken by what, and where they go on. Wake-ups are counted, and nothing depends
//! on how long anything takes.

use std::thread::ScopedJoinHandle;

use crate::options::MergeOptions;
use crate::store::tests::*;

const WAITING: usize = 12;

fn lab() -> Lab {
    Lab::new().with(
        Options::new().merge_policy(crate::MergePolicy::Manual).sync_policy(SyncPolicy::Never),
    )
}

/// Ends the followers of a test that fails, which would wait for ever.
struct Ends<'a>(&'a Bitcask);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.inner.release_lock();
        }
    }
}

/// How many wait, and how many were ever woken.
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

/// Starts a follower of a prefix for each, and waits until all wait; each returns what it gets first.
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

/// Each put woke all of them, and each took the lock of the log.
#[test]
fn a_change_wakes_those_alone_who_follow_its_key() {
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

/// Prefixes of prefixes, the empty one, and keys that are prefixes.
#[test]
fn all_whose_prefix_a_key_begins_with_are_woken() {
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

/// Who was not woken is not behind: neither its position, nor what merges leave of the log.
#[test]
fn what_is_passed_over_may_be_merged_away() {
    let lab = lab();
    let db = lab.open();
    db.put("before", "x").unwrap();
    std::thread::scope(|scope| {
        let _ends = Ends(&db);
        let threads = watch(scope, &db, |number| db.watch_prefix(prefix(number)).unwrap());
        for round in 0..20 {
            db.put("other", format!("{round}")).unwrap();
            db.inner.log().unwrap().rotate_active().unwrap();
            // A segment's end wakes all, so that none holds it for long.
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
fn a_follower_that_waited_in_vain_has_reached_the_end() {
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

/// What it had not read is gone, be it its own or not.
#[test]
fn a_clear_tells_all_who_wait_that_what_they_follow_is_gone() {
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
fn who_follows_what_is_durable_is_woken_by_a_sync_of_what_it_follows() {
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
        assert_eq!(woken(&db), 0, "it is not durable yet");
        db.sync().unwrap();
        assert_eq!(woken(&db), 1);
        assert_eq!(threads.remove(0).join().unwrap().unwrap().unwrap().key, prefix(0).as_bytes());
        // A lone mark, and a seal, are news for nobody who has read all.
        db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
        assert_eq!(woken(&db), 1);
        for (number, thread) in threads.into_iter().enumerate() {
            db.put_opt(prefix(number + 1), "x", WriteOptions::new().durable(true)).unwrap();
            assert!(thread.join().unwrap().unwrap().is_some());
        }
    });
}

/// When a segment ends all have a look, and find what is not durable yet. If it is none of theirs, the next
/// sync is no news: with writers that never rest each sync would wake all for ever.
#[test]
fn what_others_have_not_made_durable_yet_is_no_news_for_who_had_a_look_at_it() {
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
        // What is theirs is found there.
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
fn closing_wakes_all_and_tells_the_rest() {
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
