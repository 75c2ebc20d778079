//! Connections that break at every byte.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::path::Path;
use std::sync::Arc;

use bitcask::server::{ServerOptions, StoreFollower};
use bitcask::{Batch, Bitcask};

use super::support::{Content, Node, Proxy, content, following, store, until};

/// Opens a store as a follower behind a proxy, without a server.
fn follower(dir: &Path, proxy: &Proxy) -> (Arc<Bitcask>, StoreFollower) {
    let db = Arc::new(store().open(dir).unwrap());
    let follower = StoreFollower::start(Arc::clone(&db), &following(proxy.url())).unwrap();
    (db, follower)
}

/// Each batch puts the same value under three keys, and deletes the one that the last has added.
fn write(db: &Bitcask, number: u32) {
    let mut batch = Batch::new();
    for key in ["a", "b", "c"] {
        batch.put(key, number.to_string());
    }
    batch.put(format!("only {number}"), "").delete(format!("only {}", number - 1));
    db.write(&batch).unwrap();
    db.sync().unwrap();
}

/// What the store holds after each number of batches.
fn states(db: &Bitcask, batches: u32) -> Vec<Content> {
    let mut states = vec![content(db)];
    for number in 1..=batches {
        write(db, number);
        states.push(content(db));
    }
    states
}

#[test]
fn a_feed_that_breaks_at_any_byte_loses_nothing_and_shows_no_half_of_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    // The leader notices only after a moment that a connection is gone.
    let options = ServerOptions::new().streams_max(10_000);
    let leader = Node::on(&dir.path().join("leader"), 0, options);
    let proxy = Proxy::new(leader.address);
    // One follower gets the empty store, and is copied for each place at which the feed breaks.
    let begun = dir.path().join("begun");
    let (db, follows) = follower(&begun, &proxy);
    assert!(proxy.next_passes("/v1/snapshot"));
    let feed = proxy.next();
    drop(follows);
    drop(feed);
    db.backup(dir.path().join("first")).unwrap();
    let states = states(&leader.db, 2);
    let (mut cut, mut is_whole, mut seen) = (0, false, vec![0; states.len()]);
    while !is_whole {
        let path = dir.path().join(format!("cut {cut}"));
        db.backup(&path).unwrap();
        let (copy, follows) = follower(&path, &proxy);
        proxy.next().pass(cut);
        // The follower asks again: it has handled what has arrived.
        let again = proxy.next();
        let found = content(&copy);
        let at = states.iter().position(|state| *state == found);
        seen[at.unwrap_or_else(|| panic!("half of a batch after {cut} bytes: {found:?}"))] += 1;
        is_whole = at == Some(states.len() - 1);
        again.pass_all();
        until("the follower has everything", || content(&copy) == *states.last().unwrap());
        assert_eq!(follows.replica().resyncs(), 0, "{cut}");
        drop((follows, copy));
        std::fs::remove_dir_all(&path).unwrap();
        cut += 1;
    }
    // The feed really broke before, between and behind the batches.
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[test]
fn a_snapshot_that_breaks_at_any_byte_leaves_the_old_data_alone() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    write(&leader.db, 1);
    let proxy = Proxy::new(leader.address);
    let (db, follows) = follower(&dir.path().join("follower"), &proxy);
    assert!(proxy.next_passes("/v1/snapshot"));
    let feed = proxy.next();
    let old = content(&db);
    assert_eq!(old, content(&leader.db));
    // A clear ends the history.
    leader.db.clear().unwrap();
    write(&leader.db, 2);
    feed.pass_all();
    let mut cut = 0;
    loop {
        let request = proxy.next();
        if request.target != "/v1/snapshot" {
            break request.pass_all();
        }
        assert_eq!(content(&db), old, "after {} bytes", cut - 1);
        assert!(!follows.replica().is_loading());
        request.pass(cut);
        cut += 1;
    }
    assert!(cut > 300, "{cut}");
    assert_eq!(content(&db), content(&leader.db));
    assert_eq!(follows.replica().resyncs(), 2);
    write(&leader.db, 3);
    until("the follower goes on", || content(&db) == content(&leader.db));
}

#[test]
fn a_load_that_was_interrupted_is_completed_without_the_leader() {
    let dir = tempfile::tempdir().unwrap();
    let (leader, path) = (Node::leader(&dir.path().join("leader")), dir.path().join("follower"));
    write(&leader.db, 1);
    let proxy = Proxy::new(leader.address);
    let (db, follows) = follower(&path, &proxy);
    assert!(proxy.next_passes("/v1/snapshot"));
    drop(proxy.next());
    write(&leader.db, 2);
    let received = leader.send("GET", "/v1/snapshot", b"").has(200).body;
    let expected = content(&leader.db);
    drop(follows);
    // As a crash in the middle of filling leaves it.
    db.clear().unwrap();
    db.write(Batch::new().put(super::support::FOLLOW_KEY, "loading").put("a", "2")).unwrap();
    drop(db);
    std::fs::write(path.join("FOLLOW.snapshot"), &received).unwrap();
    let nowhere = ServerOptions::new().follow(following("http://127.0.0.1:1"));
    // It is not served as if it were complete.
    let refused = Node::try_on(&path, 0, ServerOptions::new()).err().unwrap().to_string();
    assert!(refused.contains("follows a leader"), "{refused}");
    let node = Node::on(&path, 0, nowhere.clone());
    until("it is loaded", || !node.replica().is_loading());
    assert_eq!(content(&node.db), expected);
    node.send("GET", "/v1/keys/a", b"").has(200);
    assert!(!path.join("FOLLOW.snapshot").exists());
    node.stopped();
    // A damaged file is not loaded, and the data stays.
    let mut damaged = received;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(path.join("FOLLOW.snapshot"), damaged).unwrap();
    let node = Node::on(&path, 0, nowhere);
    until("it is given up", || !path.join("FOLLOW.snapshot").exists());
    until("readers are let in", || !node.replica().is_loading());
    assert_eq!(content(&node.db), expected);
}

impl Proxy {
    /// Lets the next request pass, and returns whether it has this target.
    fn next_passes(&self, target: &str) -> bool {
        let request = self.next();
        let is_it = request.target == target;
        request.pass_all();
        is_it
    }
}
