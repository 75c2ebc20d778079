//! Other operations while a writer is between appending to the log and updating the keydir.

use crate::options::MergeOptions;
use crate::segment::write::draft::Draft;
use crate::store::point::write::{addresses, publish};
use crate::store::tests::merge::basics::{entries_of, lab, merge, remains, seal, sealed};
use crate::store::tests::*;

/// Gives a thread that should be blocked ample time to show that it is not.
fn yield_until(is_done: impl Fn() -> bool) {
    for _ in 0..20 {
        if is_done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Appends a change of one key, lets another thread act while no slot names the change, and
/// publishes it. Returns the other thread's result, and whether it had finished before the change
/// was published.
fn while_in_flight<T: Send>(
    db: &Bitcask,
    key: &str,
    value: Option<&str>,
    act: impl FnOnce() -> T + Send,
) -> (T, bool) {
    let inner = &db.inner;
    let writer = inner.writer().unwrap();
    // Filling takes the locks of the shards, too, and no thread should wait for that.
    inner.filler.fill_all(&inner.keydir).unwrap();
    let guard = inner.pin();
    let hash = inner.keydir.hash(key.as_bytes());
    let mut shard = inner.shard(hash.shard()).unwrap();
    let own = inner.find(&shard, hash, key.as_bytes(), &guard).unwrap().own;
    let mut draft = match value {
        Some(value) => Draft::put(key.as_bytes(), value.as_bytes(), None),
        None => Draft::tombstone(key.as_bytes()),
    };
    let drafts = std::slice::from_mut(&mut draft);
    let appended = writer.log.append(&mut writer.log.lock(), drafts, &guard).unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(act);
        yield_until(|| other.is_finished());
        let is_early = other.is_finished();
        let new = addresses(&appended, drafts).next().filter(|_| value.is_some());
        let (segment, time) = (appended.segment, appended.timestamp);
        publish(&mut shard, hash, own.as_ref(), new, segment, time);
        let written = appended.published();
        drop((shard, own));
        inner.finish_write(&written, WriteOptions::new()).unwrap();
        (other.join().unwrap(), is_early)
    })
}

/// The delete's segment is sealed and merged while the keydir still names the put. It is merged
/// together with the put, which the merge would take for live, or alone, so that the tombstone
/// still has to shadow the put.
#[test]
fn a_delete_in_flight_stays_deleted_during_a_merge() {
    for is_whole in [true, false] {
        let lab = lab();
        let db = lab.open();
        db.put("k", "old").unwrap();
        db.put("other", "value").unwrap();
        let old = seal(&db);
        let act = || {
            let new = seal(&db);
            let inputs = if is_whole { vec![old, new] } else { vec![new] };
            merge(&db, &inputs);
        };
        let ((), is_early) = while_in_flight(&db, "k", None, act);
        assert!(!is_early, "a segment was merged with an append in flight");
        remains(&lab, db, &[("other", "value")]);
    }
}

/// No slot names a put in flight, as if it were dead. Regression: merges took it for dead and
/// failed, and kept failing until the store was reopened.
#[test]
fn a_put_in_flight_is_merged_as_live() {
    let lab = lab();
    let db = lab.open();
    db.put("k", "old").unwrap();
    let force = || db.merge_opt(MergeOptions::new().force(true));
    let (report, is_early) = while_in_flight(&db, "k", Some("new"), force);
    assert_eq!(report.unwrap().live_entries, 1);
    assert!(!is_early);
    force().unwrap();
    assert_eq!(entries_of(&lab, *sealed(&db).last().unwrap()), [("k".to_owned(), false, false)]);
    remains(&lab, db, &[("k", "new")]);
}

#[test]
fn a_position_is_not_ahead_of_reads() {
    let lab = lab();
    let db = lab.open();
    db.put("k", "old").unwrap();
    let position_and_value = || (db.position(), db.get("k").unwrap().unwrap().to_vec());
    let ((position, value), is_early) = while_in_flight(&db, "k", Some("new"), position_and_value);
    assert!(
        !is_early,
        "a follower from this position would miss the change, which cannot be read yet"
    );
    assert_eq!(value, b"new");
    assert_eq!(db.changes(position).unwrap().try_recv().unwrap(), None);
}

#[test]
fn a_follower_receives_no_change_before_it_can_be_read() {
    let lab = lab();
    let db = lab.open();
    db.put("k", "old").unwrap();
    for value in [Some("new"), None] {
        let mut changes = db.changes(db.position()).unwrap();
        let follow = || (changes.try_recv().unwrap(), db.get("k").unwrap().map(Vec::from));
        let ((change, found), is_early) = while_in_flight(&db, "k", value, follow);
        assert!(!is_early, "the follower would read the old value, and never learn of the new one");
        assert_eq!(change.unwrap().key, "k");
        assert_eq!(found.as_deref(), value.map(str::as_bytes));
    }
}

#[test]
fn a_backup_is_not_ahead_of_reads() {
    let lab = lab();
    let db = lab.open();
    db.put("k", "old").unwrap();
    let backup = || {
        db.backup("/backup").unwrap();
        db.get("k").unwrap().unwrap().to_vec()
    };
    let (value, is_early) = while_in_flight(&db, "k", Some("new"), backup);
    assert!(!is_early);
    let copy = Bitcask::open_on(&lab.env(), Path::new("/backup"), lab.options.clone()).unwrap();
    assert_eq!(copy.get("k").unwrap().unwrap(), *value);
}

/// Verification compares the entries that slots name with the log.
#[test]
fn a_verification_during_an_append_finds_no_damage() {
    let lab = lab();
    let db = lab.open();
    db.put("k", "old").unwrap();
    for value in [Some("new"), None] {
        let (report, _) = while_in_flight(&db, "k", value, || db.verify().unwrap());
        assert_eq!(report.damage, []);
    }
}

/// The change depends on a value that was present when the change was appended, so from then on the
/// key is continuously present. Regression: a read between log and keydir found the old entry,
/// which had expired.
#[test]
fn a_key_is_not_seen_expired_while_its_persist_is_in_flight() {
    type Look = fn(&Bitcask) -> bool;
    let looks: [(&str, Look); 8] = [
        ("get", |db| db.get("k").unwrap().is_some()),
        ("get_with", |db| db.get_with("k", |_| ()).unwrap().is_some()),
        ("get_into", |db| db.get_into("k", &mut Vec::new()).unwrap()),
        ("get_many", |db| db.get_many(&["k"]).unwrap()[0].is_some()),
        ("contains_key", |db| db.contains_key("k").unwrap()),
        ("value_len", |db| db.value_len("k").unwrap().is_some()),
        ("ttl", |db| db.ttl("k").unwrap() == Some(Ttl::Never)),
        ("persist", |db| db.persist("k").unwrap()),
    ];
    for (name, look) in looks {
        let lab = lab();
        let db = lab.open();
        let hour = Duration::from_secs(3600);
        db.put_opt("k", "value", WriteOptions::new().ttl(hour)).unwrap();
        let look_later = || {
            lab.hands.advance(hour);
            look(&db)
        };
        let (exists, is_early) = while_in_flight(&db, "k", Some("value"), look_later);
        assert!(exists && !is_early, "{name}");
        assert!(db.contains_key("k").unwrap(), "{name}");
    }
}
