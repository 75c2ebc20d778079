//! Leaders that lose history, are restored, or are other ones than before.

use bitcask::MergeOptions;
use bitcask::server::ServerOptions;

use super::support::{Node, Proxy, content, following, until};

#[test]
fn a_follower_that_was_away_longer_than_the_history_reads_everything_again() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    leader.db.put("old", "1").unwrap();
    let path = dir.path().join("follower");
    let follower = Node::follower(&path, &leader);
    follower.has_all_of(&leader);
    follower.stopped();
    leader.db.delete("old").unwrap();
    let position = leader.db.position();
    until("a merge has removed the history", || {
        leader.db.put("large", vec![1; 700_000]).unwrap();
        leader.db.merge_opt(MergeOptions::new().force(true)).unwrap();
        leader.db.changes(position).is_err()
    });
    let proxy = Proxy::new(leader.address);
    let options = ServerOptions::new().follow(following(proxy.url()));
    let follower = Node::on(&path, 0, options);
    let feed = proxy.next();
    assert!(feed.target.starts_with("/v1/changes"), "{}", feed.target);
    feed.pass_all();
    let snapshot = proxy.next();
    assert_eq!(snapshot.target, "/v1/snapshot");
    // The old data is served until the new has arrived.
    follower.send("GET", "/v1/keys/old", b"").has(200);
    snapshot.pass_all();
    proxy.next().pass_all();
    follower.has_all_of(&leader);
    follower.send("GET", "/v1/keys/old", b"").has(404);
    assert_eq!(follower.replica().resyncs(), 1);
}

#[test]
fn a_leader_that_was_restored_from_a_backup_is_followed_back() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    let port = leader.address.port();
    leader.db.put("k", "1").unwrap();
    leader.db.put("kept", "1").unwrap();
    let backup = dir.path().join("backup");
    leader.db.backup(&backup).unwrap();
    let follower = Node::follower(&dir.path().join("follower"), &leader);
    for number in 0..50 {
        leader.db.put(format!("lost {number}"), "2").unwrap();
    }
    leader.db.put("k", "2").unwrap();
    follower.has_all_of(&leader);
    leader.stopped();
    let leader = Node::on(&backup, port, ServerOptions::new());
    for number in 0..50 {
        leader.db.put(format!("other {number}"), "3").unwrap();
    }
    follower.has_all_of(&leader);
    assert_eq!(follower.replica().resyncs(), 2);
    leader.db.put("more", "4").unwrap();
    follower.has_all_of(&leader);
}

#[test]
fn another_leader_at_the_same_address_replaces_everything() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    let port = leader.address.port();
    leader.db.put("k", "1").unwrap();
    let follower = Node::follower(&dir.path().join("follower"), &leader);
    follower.has_all_of(&leader);
    leader.stopped();
    let other = Node::on(&dir.path().join("other"), port, ServerOptions::new());
    other.db.put("another", "2").unwrap();
    follower.has_all_of(&other);
    assert_eq!(content(&follower.db).len(), 1);
}

#[test]
fn a_clear_of_the_leader_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    for number in 0..1000 {
        leader.db.put(format!("k{number}"), "1").unwrap();
    }
    let follower = Node::follower(&dir.path().join("follower"), &leader);
    follower.has_all_of(&leader);
    leader.db.clear().unwrap();
    follower.has_all_of(&leader);
    assert!(content(&follower.db).is_empty());
    leader.db.put("k", "2").unwrap();
    follower.has_all_of(&leader);
}
