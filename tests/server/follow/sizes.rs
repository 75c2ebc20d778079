//! Followers that accept less than their leader.

use bitcask::Options;
use bitcask::server::ServerOptions;

use super::support::{Node, content, following, store, until};

fn limited(size: u64) -> Options {
    store().value_size_limit(size)
}

/// It tried for ever to put a value that it must not have, and looked as if the leader were away.
#[test]
fn a_follower_with_a_smaller_limit_is_stuck_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (path, own) = (dir.path().join("leader"), dir.path().join("follower"));
    let leader = Node::try_with(&path, &limited(1000), 0, ServerOptions::new()).unwrap();
    leader.db.put("k", vec![1; 1000]).unwrap();
    let follow = || ServerOptions::new().follow(following(leader.url()));
    let follower = Node::try_with(&own, &limited(1000), 0, follow()).unwrap();
    follower.has_all_of(&leader);
    let had = content(&follower.db);
    until("it follows", || follower.health()["replication"]["state"] == "following");
    follower.stopped();
    let follower = Node::try_with(&own, &limited(999), 0, follow()).unwrap();
    until("it is stuck", || follower.health()["replication"]["state"] == "stuck");
    let error = follower.health()["replication"]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("value-size-limit is 1000") && error.contains("999"), "{error}");
    let metrics = follower.send("GET", "/metrics", b"").has(200).text();
    assert!(metrics.contains("bitcask_replica_stuck 1\n"), "{metrics}");
    // What it has is still served.
    follower.send("GET", "/v1/keys/k", b"").has(200);
    assert_eq!(content(&follower.db), had);
    follower.stopped();
    leader.db.put("more", "1").unwrap();
    let follower = Node::try_with(&own, &limited(1000), 0, follow()).unwrap();
    follower.has_all_of(&leader);
}

#[test]
fn a_follower_goes_on_once_the_leader_has_a_limit_that_fits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("leader");
    let leader = Node::try_with(&path, &limited(2000), 0, ServerOptions::new()).unwrap();
    leader.db.put("k", "1").unwrap();
    let follow = ServerOptions::new().follow(following(leader.url()));
    let follower = Node::try_with(&dir.path().join("follower"), &limited(1000), 0, follow).unwrap();
    until("it is stuck", || follower.replica().is_stuck());
    assert_eq!(follower.health()["status"], "loading");
    let port = leader.address.port();
    leader.stopped();
    let leader = Node::try_with(&path, &limited(1000), port, ServerOptions::new()).unwrap();
    follower.has_all_of(&leader);
    until("it is no longer stuck", || !follower.replica().is_stuck());
    assert_eq!(follower.replica().last_error(), None);
}

#[test]
fn a_follower_that_lacks_nothing_is_no_longer_stuck_once_it_follows() {
    let dir = tempfile::tempdir().unwrap();
    let (path, own) = (dir.path().join("leader"), dir.path().join("follower"));
    let leader = Node::try_with(&path, &limited(2000), 0, ServerOptions::new()).unwrap();
    leader.db.put("k", "1").unwrap();
    let url = leader.url();
    let follow = || ServerOptions::new().follow(following(url.as_str()));
    let follower = Node::try_with(&own, &limited(2000), 0, follow()).unwrap();
    follower.has_all_of(&leader);
    follower.stopped();
    let follower = Node::try_with(&own, &limited(1000), 0, follow()).unwrap();
    until("it is stuck", || follower.replica().is_stuck());
    let port = leader.address.port();
    leader.stopped();
    // Nothing is written any more.
    let _leader = Node::try_with(&path, &limited(1000), port, ServerOptions::new()).unwrap();
    until("it is no longer stuck", || !follower.replica().is_stuck());
    assert_eq!(follower.replica().last_error(), None);
}
