//! What a follower of the change feed reports, and what it does not.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::options::{MergeOptions, WriteOptions};
use crate::resp::commands::keys::flushdb;
use crate::resp::keyspace::{Keyspace, Lifespan};
use crate::resp::keyspace_transaction::in_transaction;
use crate::resp::ledger::NOTES_MAX;
use crate::resp::refusal::text;
use crate::resp::session::Session;
use crate::resp::session_tests::{args, sent, session, state};

fn unsynced() -> WriteOptions {
    WriteOptions::new().durable(false)
}

/// Takes the names of the events that a listener was told of.
fn events(listener: &mut Session) -> Vec<String> {
    let sent = sent(listener).replace("__keyevent@0__:*", "");
    let names = sent.lines().filter_map(|line| line.strip_prefix("__keyevent@0__:"));
    names.map(str::to_owned).collect()
}

#[test]
fn a_change_that_was_taken_for_an_attempt_is_told_when_that_fails() {
    let (_dir, state) = state();
    let database = state.databases.get(0).unwrap();
    state.parameters.set(b"notify-keyspace-events", b"EA");
    database.ledger.set_followed(true);
    let mut listener = session(&state);
    listener.run(&args("PSUBSCRIBE __keyevent@0__:*"));
    sent(&mut listener);
    let mut follower = FeedFollower::new(Arc::clone(&state), Arc::clone(&database));
    let mut changes = changes_from_now(&database.store).unwrap();
    let attempt = |follower: &mut FeedFollower, changes: &mut Changes, is_made: bool| {
        let change = |_: &mut Keyspace<'_>| {
            database.store.put("k", "abc").unwrap();
            let change = changes.try_recv().unwrap().unwrap();
            follower.changed(&change);
            Ok(is_made)
        };
        Keyspace::new(&database).noted(b"k", change).unwrap();
        follower.report_owed();
    };
    attempt(&mut follower, &mut changes, true);
    assert_eq!(sent(&mut listener), "");
    attempt(&mut follower, &mut changes, false);
    assert!(sent(&mut listener).contains("__keyevent@0__:set\r\n$1\r\nk\r\n"));
    // An attempt whose note was dropped with all others owes nothing.
    let drop_all = |_: &mut Keyspace<'_>| {
        database.clear().unwrap();
        Ok(false)
    };
    Keyspace::new(&database).noted(b"k", drop_all).unwrap();
    follower.report_owed();
    assert_eq!(sent(&mut listener), "");
}

#[test]
fn what_an_own_clear_has_removed_is_not_told_though_it_was_received() {
    let (_dir, state) = state();
    let database = state.databases.get(0).unwrap();
    database.ledger.set_followed(true);
    let mut changes = changes_from_now(&database.store).unwrap();
    database.ledger.note(b"k");
    database.store.put("k", "1").unwrap();
    let received = changes.try_recv().unwrap().unwrap();
    database.clear().unwrap();
    assert!(database.ledger.meet(&received));
    let error = changes.try_recv().unwrap_err();
    let (mut changes, is_gap) = database.ledger.resume(&database.store, &error).unwrap();
    assert!(!is_gap);
    database.store.put("k", "2").unwrap();
    let received = changes.try_recv().unwrap().unwrap();
    assert!(!database.ledger.meet(&received));
}

#[test]
fn what_is_written_while_the_files_of_a_clear_are_removed_is_told() {
    let (_dir, state) = state();
    let database = state.databases.get(0).unwrap();
    let (ledger, store) = (&database.ledger, &database.store);
    ledger.set_followed(true);
    let before = store.position();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0_u32.. {
                store.put_opt(number.to_be_bytes(), "x", unsynced()).unwrap();
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        while store.is_empty().unwrap() {
            std::thread::yield_now();
        }
        for _ in 0..20 {
            // Otherwise there may be nothing to clear.
            store.put_opt("own", "x", unsynced()).unwrap();
            ledger.clear(store).unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let error = store.changes(before).unwrap_err();
    let (mut changes, is_gap) = ledger.resume(store, &error).unwrap();
    assert!(!is_gap);
    let mut told = BTreeSet::new();
    while let Some(change) = changes.try_recv().unwrap() {
        assert!(!ledger.meet(&change));
        told.insert(change.key.to_vec());
    }
    let held: BTreeSet<_> = store.keys().map(|key| key.unwrap().to_vec()).collect();
    assert!(told == held, "{} of {} changes are told", told.len(), held.len());
}

#[test]
fn a_flush_of_more_keys_than_there_are_notes_tells_of_none() {
    let (_dir, state) = state();
    let database = state.databases.get(0).unwrap();
    let ledger = &database.ledger;
    for key in ["a", "b", "c"] {
        database.store.put_opt(key, "1", unsynced()).unwrap();
    }
    ledger.set_followed(true);
    for number in 0..NOTES_MAX {
        ledger.note(&number.to_be_bytes());
    }
    let mut changes = changes_from_now(&database.store).unwrap();
    let flush = |is_refused: bool| {
        let mut has_refused = false;
        in_transaction(&database, |space| {
            flushdb(space, &args("FLUSHDB"))?;
            space.put(b"b", b"2", Lifespan::Endless)?;
            if is_refused && !std::mem::replace(&mut has_refused, true) {
                return Err(text("ERR the first attempt"));
            }
            Ok(())
        })
    };
    assert!(flush(true).unwrap().0.is_err());
    flush(false).unwrap().0.unwrap();
    database.store.delete("b").unwrap();
    let mut told = Vec::new();
    while let Some(change) = changes.try_recv().unwrap() {
        if !ledger.meet(&change) {
            told.push(change.operation.clone());
        }
    }
    // The put has no note any more. What others delete is told.
    assert_eq!(told.len(), 2);
    assert!(matches!(told[0], Operation::Put { .. }) && told[1] == Operation::Delete);
    let owed = ledger.take_owed();
    assert!(owed.keys.is_empty() && !owed.all);
}

#[test]
fn what_a_clear_has_removed_does_not_expire() {
    let (_dir, state) = state();
    let database = state.databases.get(0).unwrap();
    let options = WriteOptions::new().ttl(Duration::from_secs(3600));
    let clears: [&dyn Fn(); 2] =
        [&|| database.clear().unwrap(), &|| database.store.clear().unwrap()];
    for clear in clears {
        let mut follower = FeedFollower::new(Arc::clone(&state), Arc::clone(&database));
        let mut changes = changes_from_now(&database.store).unwrap();
        database.store.put_opt("k", "v", options).unwrap();
        while let Some(change) = changes.try_recv().unwrap() {
            follower.changed(&change);
        }
        assert_eq!(follower.expiring.len(), 1);
        clear();
        let error = changes.try_recv().unwrap_err();
        let mut changes = follower.resume(&error).unwrap();
        assert_eq!(follower.expiring.len(), 0);
        assert!(changes.try_recv().unwrap().is_none());
    }
}

#[test]
fn a_key_that_was_deleted_in_time_does_not_expire_though_the_follower_is_behind() {
    let (_dir, state) = state();
    let database = state.databases.get(0).unwrap();
    let mut follower = FeedFollower::new(Arc::clone(&state), Arc::clone(&database));
    let mut changes = changes_from_now(&database.store).unwrap();
    for (is_deleted, expired) in [(true, 0), (false, 1)] {
        let options = WriteOptions::new().ttl(Duration::from_secs(3600));
        database.store.put_opt("k", "v", options).unwrap();
        let put = changes.try_recv().unwrap().unwrap();
        follower.changed(&put);
        database.store.delete("k").unwrap();
        let delete = changes.try_recv().unwrap().unwrap();
        // The hour is over at once, but not before the delete.
        let time = delete.timestamp + Duration::from_micros(1);
        follower.expiring.clear();
        follower.expiring.remember(b"k", time);
        while SystemTime::now() <= time {}
        follower.expire();
        assert_eq!(state.counts.expired.load(Ordering::Relaxed), 0);
        if is_deleted {
            follower.changed(&delete);
        } else {
            // As if the key had expired: nothing else comes.
            follower.reached = time;
        }
        follower.expire();
        assert_eq!(state.counts.expired.load(Ordering::Relaxed), expired);
        assert_eq!(follower.expiring.len(), 0);
    }
}

/// As when a lock is taken that has just expired, before the follower has looked.
#[test]
fn a_key_that_is_written_again_has_expired_before() {
    let (_dir, state) = state();
    let database = state.databases.get(0).unwrap();
    let store = &database.store;
    state.parameters.set(b"notify-keyspace-events", b"EA");
    let mut listener = session(&state);
    listener.run(&args("PSUBSCRIBE __keyevent@0__:*"));
    sent(&mut listener);
    let mut follower = FeedFollower::new(Arc::clone(&state), Arc::clone(&database));
    let mut changes = changes_from_now(store).unwrap();
    let end = || SystemTime::now() + Duration::from_millis(20);
    let brief = |end| WriteOptions::new().expires_at(end);
    let mut told = |writes: &[&dyn Fn()]| {
        for write in writes {
            write();
            follower.changed(&changes.try_recv().unwrap().unwrap());
            while store.contains_key("k").unwrap() {
                std::thread::yield_now();
            }
        }
        events(&mut listener)
    };
    let put = || store.put_opt("k", "1", brief(end())).unwrap();
    assert_eq!(told(&[&put, &put]), ["set", "expired", "set"]);
    assert_eq!(told(&[&|| assert!(!store.delete("k").unwrap())]), ["expired"]);
    assert_eq!(state.counts.expired.load(Ordering::Relaxed), 2);
    // A write that keeps the time has found the key, whenever it was logged.
    let past = SystemTime::now() - Duration::from_secs(1);
    let again = || store.put_opt("k", "1", brief(past)).unwrap();
    assert_eq!(told(&[&again, &again]), ["set", "set"]);
    follower.expire();
    assert_eq!(state.counts.expired.load(Ordering::Relaxed), 3);
}

/// The delete removes an entry from the store, but no key.
#[test]
fn a_delete_of_a_key_that_has_expired_tells_of_nothing_but_that() {
    let (_dir, state) = state();
    let database = state.databases.get(0).unwrap();
    let store = &database.store;
    state.parameters.set(b"notify-keyspace-events", b"EA");
    database.ledger.set_followed(true);
    let mut listener = session(&state);
    listener.run(&args("PSUBSCRIBE __keyevent@0__:*"));
    sent(&mut listener);
    let mut follower = FeedFollower::new(Arc::clone(&state), Arc::clone(&database));
    let mut changes = changes_from_now(store).unwrap();
    let mut follow = |follower: &mut FeedFollower| {
        while let Some(change) = changes.try_recv().unwrap() {
            follower.changed(&change);
        }
        follower.report_owed();
    };
    let mut client = session(&state);
    for (lines, own) in
        [(&["DEL k"][..], &[][..]), (&["MULTI", "SET k 1", "DEL k", "EXEC"], &["set", "del"])]
    {
        for is_told_before in [false, true] {
            client.run(&args("SET k 1 PX 20"));
            follow(&mut follower);
            while store.contains_key("k").unwrap() {
                std::thread::yield_now();
            }
            follower.reached = SystemTime::now();
            if is_told_before {
                follower.expire();
            }
            for line in lines {
                client.run(&args(line));
            }
            follow(&mut follower);
            follower.expire();
            let mut names = events(&mut listener);
            let expired = names.iter().position(|name| name == "expired").unwrap();
            names.remove(expired);
            assert_eq!(names[..2], ["set", "expire"], "{lines:?}");
            assert_eq!(names[2..], *own, "{lines:?}");
        }
    }
    let replies = sent(&mut client);
    assert!(replies.contains("+OK\r\n:0\r\n+OK\r\n:0\r\n+OK\r\n"), "{replies}");
}

#[test]
fn the_feed_does_not_go_back_to_a_clear_that_it_has_passed() {
    let (_dir, state) = state();
    let database = state.databases.get(0).unwrap();
    let (ledger, store) = (&database.ledger, &database.store);
    let damage = crate::Error::Conflict { attempts: 1 };
    let gap = |ledger: &crate::resp::ledger::Ledger| {
        let before = store.position();
        store.put("k", "1").unwrap();
        ledger.clear(store).unwrap();
        let error = store.changes(before).unwrap_err();
        store.put("k", "2").unwrap();
        error
    };
    // Nobody followed when it was, or it was for listeners who have gone.
    for was_followed in [false, true] {
        ledger.set_followed(was_followed);
        let error = gap(ledger);
        ledger.set_followed(false);
        ledger.set_followed(true);
        let (mut changes, is_gap) = ledger.resume(store, &error).unwrap();
        assert!(is_gap && changes.try_recv().unwrap().is_none());
    }
    // The feed has ended for another reason.
    let error = gap(ledger);
    let (mut changes, is_gap) = ledger.resume(store, &damage).unwrap();
    assert!(is_gap && changes.try_recv().unwrap().is_none());
    let (_, is_gap) = ledger.resume(store, &error).unwrap();
    assert!(is_gap);
}

#[test]
fn a_merge_leaves_what_a_follower_has_not_read() {
    let (_dir, state) = state();
    let database = state.databases.get(0).unwrap();
    let store = &database.store;
    let merge = || store.merge_opt(MergeOptions::new().force(true)).unwrap();
    for number in 0..3 {
        store.put("k", number.to_string()).unwrap();
        merge();
    }
    let follower = FeedFollower::new(Arc::clone(&state), Arc::clone(&database));
    let mut changes = changes_from_now(store).unwrap();
    for number in 0..3 {
        store.put("k", number.to_string()).unwrap();
        merge();
    }
    while changes.try_recv().unwrap().is_some() {}
    let before = store.position();
    store.put("k", "3").unwrap();
    store.delete("k").unwrap();
    follower.lease.move_to(store.position());
    merge();
    assert!(store.changes(before).is_err(), "what was read is not kept");
}

/// A cache that is told twenty times a second, and reads nothing, would be disconnected.
#[test]
fn caches_are_told_once_that_the_store_cannot_be_read() {
    let (_dir, state) = state();
    let database = state.databases.get(0).unwrap();
    let mut follower = FeedFollower::new(Arc::clone(&state), database);
    let steps = [None, None, None, Some(true), Some(true), None, Some(false), None];
    let told = steps.map(|step| follower.has_to_tell(step));
    assert_eq!(told, [true, false, false, true, true, true, false, true]);
}
