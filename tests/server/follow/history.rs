//! The history that a leader keeps for its followers while it merges.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use bitcask::server::ServerOptions;
use bitcask::{MergeOptions, Position};

use super::support::{Node, Proxy, following, until};

/// Overwrites a key until it fills a few segments, and merges everything that no one needs.
fn overwrite_and_merge(leader: &Node) {
    for number in 0..4 {
        leader.db.put("hot", vec![number; 700_000]).unwrap();
    }
    leader.db.merge_opt(MergeOptions::new().force(true)).unwrap();
}

fn has_history(leader: &Node, since: Position) -> bool {
    leader.db.changes(since).is_ok()
}

/// The leader merges after it has sent the snapshot, and before the follower has stored it. Each
/// merge removed the changes in between, so the follower read one snapshot after the other.
#[test]
fn a_follower_of_a_leader_that_merges_all_the_time_needs_one_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    leader.db.put("cold", "1").unwrap();
    let proxy = Proxy::new(leader.address);
    let options = ServerOptions::new().follow(following(proxy.url()));
    let follower = Node::on(&dir.path().join("follower"), 0, options);
    let snapshot = proxy.next();
    assert_eq!(snapshot.target, "/v1/snapshot");
    snapshot.pass_all();
    // By now the follower has stored it. The leader does not know the request yet.
    let feed = proxy.next();
    let since: Position = feed.target.split("since=").nth(1).unwrap().parse().unwrap();
    for _ in 0..5 {
        overwrite_and_merge(&leader);
    }
    assert!(has_history(&leader, since));
    feed.pass_all();
    for _ in 0..5 {
        overwrite_and_merge(&leader);
    }
    follower.has_all_of(&leader);
    assert_eq!(follower.replica().resyncs(), 1);
    assert_eq!(follower.replica().resync_reason(), Some("new"));
    // Nobody needs the history any more.
    follower.stopped();
    until("the history goes", || {
        overwrite_and_merge(&leader);
        !has_history(&leader, since)
    });
}

#[test]
fn a_snapshot_that_is_read_slowly_keeps_the_history_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    // More than connections hold in their buffers.
    for number in 0..30 {
        leader.db.put(format!("cold {number}"), vec![number; 700_000]).unwrap();
    }
    let since = leader.db.position();
    let mut client = TcpStream::connect(leader.address).unwrap();
    client.write_all(b"GET /v1/snapshot HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut begin = [0; 1000];
    client.read_exact(&mut begin).unwrap();
    assert!(begin.starts_with(b"HTTP/1.1 200"));
    for _ in 0..3 {
        overwrite_and_merge(&leader);
        assert!(has_history(&leader, since));
    }
    // A follower that gives up needs nothing.
    drop(client);
    until("the history goes", || {
        overwrite_and_merge(&leader);
        !has_history(&leader, since)
    });
}

#[test]
fn a_resynchronization_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Node::leader(&dir.path().join("leader"));
    leader.db.put("k", "1").unwrap();
    let follower = Node::follower(&dir.path().join("follower"), &leader);
    follower.has_all_of(&leader);
    let reason = || follower.health()["replication"]["resync_reason"].clone();
    assert_eq!(reason(), "new");
    // A clear ends the history.
    leader.db.clear().unwrap();
    leader.db.put("k", "2").unwrap();
    follower.has_all_of(&leader);
    assert_eq!(reason(), "history_gone");
    assert_eq!(follower.health()["replication"]["resyncs"], 2);
    let metrics = follower.send("GET", "/metrics", b"").has(200).text();
    for line in [
        "bitcask_replica_resyncs_total 2\n",
        "bitcask_replica_resync_reason{reason=\"history_gone\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}
