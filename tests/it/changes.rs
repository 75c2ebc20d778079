//! The change feed across threads: writes, syncs and closing wake up waiting followers.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bitcask::{Batch, Bitcask, Change, Operation, Options, Position, SyncPolicy, Value};

use crate::support::{open, small};

/// Timeout far longer than any wait in these tests. No test waits for it to expire.
const LONG: Duration = Duration::from_secs(600);

fn value(change: &Change) -> Option<&Value> {
    match &change.operation {
        Operation::Put { value, .. } => Some(value),
        _ => None,
    }
}

#[test]
fn a_put_in_another_thread_wakes_a_waiting_follower_that_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let mut changes = db.changes(Position::START).unwrap();
    thread::scope(|scope| {
        let (told, heard) = mpsc::channel();
        scope.spawn({
            let db = &db;
            move || {
                while let Some(change) = changes.recv_timeout(LONG).unwrap() {
                    assert_eq!(db.get(&change.key).unwrap().as_ref(), value(&change));
                    if change.key == "last" {
                        return;
                    }
                    told.send(change.key.to_vec()).unwrap();
                }
                unreachable!("the store is open");
            }
        });
        for number in 0..500_u32 {
            db.put(number.to_be_bytes(), number.to_string()).unwrap();
            // Each time, the follower has reached the end of the feed or is about to.
            assert_eq!(heard.recv().unwrap(), number.to_be_bytes());
        }
        db.put("last", "").unwrap();
    });
    let mut changes = db.changes(db.position()).unwrap();
    assert_eq!(changes.recv_timeout(Duration::ZERO).unwrap(), None);
    assert_eq!(changes.recv_timeout(Duration::from_millis(5)).unwrap(), None);
}

#[test]
fn a_sync_wakes_a_follower_of_durable_changes() {
    for policy in [SyncPolicy::Never, SyncPolicy::Always] {
        let dir = tempfile::tempdir().unwrap();
        let db = Bitcask::open(dir.path(), small().sync_policy(policy)).unwrap();
        let mut changes = db.changes(Position::START).unwrap().durable();
        thread::scope(|scope| {
            let follower = scope.spawn(move || changes.recv().unwrap().unwrap().position);
            db.put("a", "1").unwrap();
            if policy == SyncPolicy::Never {
                db.sync().unwrap();
            }
            assert_eq!(follower.join().unwrap(), db.position());
        });
    }
}

#[test]
fn closing_ends_all_waits_and_releases_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let followers: Vec<_> = [false, true]
        .into_iter()
        .map(|durable| {
            let changes = db.changes(Position::START).unwrap();
            let mut changes = if durable { changes.durable() } else { changes };
            thread::spawn(move || (changes.by_ref().map(Result::unwrap).count(), changes))
        })
        .collect();
    for number in 0..300_u32 {
        db.put(number.to_be_bytes(), "x").unwrap();
    }
    db.close().unwrap();
    let ended: Vec<_> = followers.into_iter().map(|each| each.join().unwrap()).collect();
    assert!(ended.iter().all(|(count, _)| *count == 300));
    // Followers that are still held do not keep the store from being opened.
    let db = open(dir.path());
    db.put("more", "").unwrap();
    let reached = ended[0].1.resume_position();
    assert_eq!(db.changes(reached).unwrap().try_recv().unwrap().unwrap().key, "more");
}

#[test]
fn a_watch_reports_only_later_changes_of_its_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.put("user/0", "before").unwrap();
    let watch = db.watch_prefix("user/").unwrap();
    let watcher = thread::spawn(move || {
        let short = |change: Change| {
            (change.key.to_vec(), value(&change).is_some(), change.batch_continues)
        };
        watch.map(|change| short(change.unwrap())).collect::<Vec<_>>()
    });
    db.put("order/1", "a pencil").unwrap();
    db.write(Batch::new().put("user/1", "Ada").delete("user/0").put("order/2", "")).unwrap();
    db.delete("user/1").unwrap();
    db.close().unwrap();
    let told = |key: &[u8], put, more| (key.to_vec(), put, more);
    let expected =
        [told(b"user/1", true, true), told(b"user/0", false, false), told(b"user/1", false, false)];
    assert_eq!(watcher.join().unwrap(), expected);
}

/// Many writers, with rotations, seals and merges in the background, while followers come and go.
#[test]
fn followers_see_the_changes_of_each_of_many_writers_in_order() {
    const WRITERS: u32 = 4;
    const EACH: u32 = 2000;
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().segment_size(8 << 10).sync_policy(SyncPolicy::Never);
    let db = Bitcask::open(dir.path(), options).unwrap();
    thread::scope(|scope| {
        let mut changes = db.changes(Position::START).unwrap();
        let follower = scope.spawn({
            let db = &db;
            move || {
                let mut next = [0; WRITERS as usize];
                for round in 0..WRITERS * EACH {
                    if round % 100 == 99 {
                        changes = db.changes(changes.resume_position()).unwrap();
                    }
                    let change = changes.recv().unwrap().unwrap();
                    let number = u32::from_be_bytes(change.key[1..].try_into().unwrap());
                    let next = &mut next[usize::from(change.key[0])];
                    assert_eq!(number, *next);
                    *next += 1;
                }
                assert_eq!(changes.try_recv().unwrap(), None);
            }
        });
        for writer in 0..WRITERS {
            let db = &db;
            scope.spawn(move || {
                for number in 0..EACH {
                    let mut key = vec![u8::try_from(writer).unwrap()];
                    key.extend(number.to_be_bytes());
                    db.put(key, [7; 20]).unwrap();
                }
            });
        }
        follower.join().unwrap();
    });
}
